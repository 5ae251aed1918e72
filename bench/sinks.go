package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
)

// Bars of the sinks benchmark.
var (
	barSteady     = Bar{Limit: 0.98}
	barGrowth     = Bar{Limit: 1.01, AtMost: true}
	barPerplexity = Bar{Limit: 1.05, AtMost: true}
)

// Sinks is a stream without an end, and what is kept of it.
type Sinks struct {
	Sinks  int // tokens kept from the start
	Window int // latest tokens kept
	Block  int // tokens given up at a time
	Tokens int // to generate
	// Text is long and natural, for the perplexity; "" leaves that out. Its tokens beyond the first
	// Sinks + Window are scored, at most Score of them.
	Text  string
	Score int
}

// DefaultSinks and QuickSinks are what Sinks is when nobody says.
var (
	DefaultSinks = Sinks{Sinks: 4, Window: 1020, Block: 64, Tokens: 8192, Score: 4096}
	QuickSinks   = Sinks{Sinks: 4, Window: 124, Block: 16, Tokens: 512, Score: 256}
)

// The subjects of the sinks benchmark.
const (
	sinkStream     = "stream"
	sinkPerplexity = "perplexity"

	streamPrompt = 32
	streamMarks  = 200 // of time and memory, over a stream
)

// Mark is a moment of a long stream.
type Mark struct {
	Tokens   int   `json:"tokens"` // generated so far
	Ns       int64 `json:"ns"`     // since the start of the run
	RSSBytes int64 `json:"rss_bytes"`
}

// Fill puts defaults in place of zeros; there may be no sinks, said by a negative number.
func (s Sinks) Fill(quick bool) Sinks {
	def := DefaultSinks
	if quick {
		def = QuickSinks
	}
	for _, f := range []struct{ value, def *int }{
		{&s.Sinks, &def.Sinks},
		{&s.Window, &def.Window},
		{&s.Block, &def.Block},
		{&s.Tokens, &def.Tokens},
		{&s.Score, &def.Score},
	} {
		if *f.value == 0 {
			*f.value = *f.def
		}
	}
	s.Sinks = max(0, s.Sinks)
	return s
}

// Validate refuses what contradicts itself. Errors: ErrFlag.
func (s *Sinks) Validate() error {
	for _, f := range []struct {
		name            string
		value, min, max int
	}{
		{"sinks", s.Sinks, 0, SizeTokensMax},
		{"window", s.Window, 2, SizeTokensMax},
		{"block", s.Block, 1, s.Window - 1},
		{"tokens", s.Tokens, 20, infer.TokensMax},
		{"score", s.Score, 1, SizeTokensMax},
	} {
		if f.value < f.min || f.value > f.max {
			return badFlag(f.name, "", "%d is outside %d..%d", f.value, f.min, f.max)
		}
	}
	return nil
}

// args are the flags that give the stream to `norion bench sinks`.
func (s *Sinks) args() []string {
	sinks := s.Sinks
	if sinks == 0 {
		sinks = -1
	}
	return []string{
		"--sinks", strconv.Itoa(sinks), "--window", strconv.Itoa(s.Window),
		"--block", strconv.Itoa(s.Block), "--tokens", strconv.Itoa(s.Tokens),
	}
}

// policy is what the engine is asked to keep.
func (s *Sinks) policy() kv.SinkWindow {
	return kv.SinkWindow{Sinks: s.Sinks, Window: s.Window, Block: s.Block}
}

// Stream measures a stream without an end: whether it stays as fast and as small as it began, and
// how probable it finds a long text against a window that is computed anew. names picks "stream"
// and "perplexity"; none takes both. It stops at the first failure.
func (s Scenario) Stream(ctx context.Context, k Sinks, names []string) (Report, []Pair, error) {
	k = k.Fill(s.Quick)
	if err := k.Validate(); err != nil {
		return Report{}, nil, err
	}
	all := []Pattern{{Name: sinkStream}}
	if k.Text != "" {
		all = append(all, Pattern{Name: sinkPerplexity})
	}
	picked, err := PickPatterns(all, names)
	if err != nil {
		return Report{}, nil, err
	}
	g, err := s.begin(ctx, "sinks")
	if err != nil {
		return Report{}, nil, err
	}
	if k.Text == "" {
		g.report.LeftOut = append(g.report.LeftOut, "perplexity: name a long text with --text")
	}
	var subjects []subject
	for _, p := range picked {
		if p.Name == sinkStream {
			subjects = append(subjects, g.stream(k))
		} else {
			subjects = append(subjects, g.perplexity(k))
		}
	}
	return g.measure(ctx, subjects)
}

// stream is one long generation: its sides, and what is claimed. llama-server's defaults end at
// the context, so that there is no such side.
func (g *game) stream(k Sinks) subject {
	length := room(k.Sinks + k.Window)
	s := scene{
		subject: g.label(fmt.Sprintf("%s sinks=%d window=%d", sinkStream, k.Sinks, k.Window)),
		wish:    EngineWish{Longest: length, Sequences: 1, Cells: length},
		best: []string{
			"-lm", "none", "-fit", "off", "-np", "1", "-c", strconv.Itoa(length), "--context-shift",
			"--keep", strconv.Itoa(k.Sinks),
		},
		args: append(k.args(), "--pattern", sinkStream),
		act: func(ctx context.Context, rt runtimeUnderTest) (Run, error) {
			return endless(ctx, rt, k)
		},
	}
	out := subject{name: s.subject, turns: g.turns(s), alone: []held{
		{MeasureSteady, SideNorion, barSteady},
		{MeasureGrowth, SideNorion, barGrowth},
		{MeasureSlope, SideNorion, Bar{}},
	}}
	if g.Server.Path == "" {
		return out
	}
	out.turns = out.turns[:2]
	out.claims = []wanted{{MeasureRate, SidePeer, Bar{}}, {MeasureRSS, SidePeer, Bar{}}}
	out.alone = append(out.alone, held{MeasureSteady, SidePeer, Bar{}},
		held{MeasureSlope, SidePeer, Bar{}})
	return out
}

// endless generates one long answer, and marks time and memory on the way.
func endless(ctx context.Context, rt runtimeUnderTest, k Sinks) (Run, error) {
	texts := corpus{rt, map[int][]infer.TokenID{}}
	prompt, err := texts.tokens(ctx, seedTurn, streamPrompt)
	if err != nil {
		return Run{}, err
	}
	var run Run
	var mu sync.Mutex // of run.Marks and done
	done, every := 0, max(1, k.Tokens/streamMarks)
	zero := time.Now()
	mark := func() {
		run.Marks = append(run.Marks, Mark{done, time.Since(zero).Nanoseconds(), rt.resident()})
	}
	r, err := rt.Ask(ctx, question{Tokens: prompt, Answer: k.Tokens, Endless: &k}, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		before := done
		if done += n; before == 0 || done/every != before/every {
			mark()
		}
	})
	run.PlayNs = time.Since(zero).Nanoseconds()
	run.Rate = float64(done) / time.Duration(max(1, run.PlayNs)).Seconds()
	if err == nil && done != k.Tokens {
		err = &Error{
			Op: "measure", Kind: ErrOutput, Field: sinkStream,
			Err: fmt.Errorf("it ended after %d of %d tokens", done, k.Tokens),
		}
	}
	run.Samples = []Sample{{
		Name: sinkStream, Prompt: len(prompt), Computed: r.Computed, Answer: done,
		TotalNs: run.PlayNs,
	}}
	if len(run.Marks) > 0 {
		run.Samples[0].FirstNs = run.Marks[0].Ns
	}
	return run, err
}

// rateBetween is tokens per second between two parts of the marks, 0..1.
func (r Run) rateBetween(from, to float64) float64 {
	n := float64(len(r.Marks) - 1)
	if n < 10 {
		return 0
	}
	a, b := r.Marks[int(from*n)], r.Marks[int(to*n)]
	if b.Ns <= a.Ns {
		return 0
	}
	return float64(b.Tokens-a.Tokens) / time.Duration(b.Ns-a.Ns).Seconds()
}

// resident is the median of the resident memory between two parts of the marks.
func (r Run) resident(from, to float64) float64 {
	n := float64(len(r.Marks) - 1)
	if n < 10 {
		return 0
	}
	var v []float64
	for _, m := range r.Marks[int(from*n) : int(to*n)+1] {
		v = append(v, float64(m.RSSBytes))
	}
	return Summarize(v).Median
}

// slope is the least-squares slope of resident memory over tokens, in bytes, without the first
// fifth, in which buffers come into memory.
func (r Run) slope() float64 {
	marks := r.Marks[len(r.Marks)/5:]
	var n, sx, sy, sxx, sxy float64
	for _, m := range marks {
		x, y := float64(m.Tokens), float64(m.RSSBytes)
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if d := n*sxx - sx*sx; d > 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}

// The measures of a stream.
var (
	// MeasureSteady leaves out the first tenth, in which the window fills.
	MeasureSteady = Measure{"tokens/s, last tenth to second", "ratio", func(r Run) float64 {
		return r.rateBetween(0.9, 1) / max(1e-9, r.rateBetween(0.1, 0.2))
	}}
	MeasureGrowth = Measure{"resident memory, last tenth to third", "ratio", func(r Run) float64 {
		return r.resident(0.9, 1) / max(1, r.resident(0.2, 0.3))
	}}
	MeasureSlope = Measure{"resident memory's slope", "bytes per 1000 tokens", func(r Run) float64 {
		return 1000 * r.slope()
	}}
)

// residentBytes is the resident memory of a process, 0 where the system does not say.
func residentBytes(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
