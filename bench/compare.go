package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"
)

// Bars of the native benchmark.
var (
	barRate = Bar{Limit: 0.98}
	barRSS  = Bar{Limit: 1.05, AtMost: true}
)

// RoundsMin is the least number of rounds of a run that is not quick.
const (
	RoundsMin = 5
	RoundsMax = 1000

	quickRounds  = 3
	quickPrompt  = 128
	quickGen     = 32
	quickBudget  = 45 * time.Second
	compareReps  = 3
	firstTokens  = 4 // generated after the first byte, so that the peer has one to print
	firstContext = 4096
)

// FirstPrompt is 32 tokens of the vocabularies of SmolLM2 and Gemma 3, before any
// beginning-of-sequence token.
const FirstPrompt = "The old man sat by the window and looked at the sea. " +
	"It was a quiet day in the town, and the light was soft on the water. He"

// Compare runs norion and llama.cpp's own programs in turns.
type Compare struct {
	Norion     Program // this program: Path, and no Args
	Bench      Program // llama-bench of the same build
	Completion Program // llama-completion of the same build; no Path leaves first tokens out
	Rounds     int     // 0 means RoundsMin
	Quick      bool
	Flags      []string // for the report
	// Resolve gives the path of a model and its digest, which may be "". Default: its name is the
	// path.
	Resolve func(ctx context.Context, model string) (path, digest string, err error)
	// Progress is told what happens next. Default: nobody.
	Progress func(string)
}

// Validate refuses what cannot be measured. Errors: ErrFlag.
func (c *Compare) Validate() error {
	if c.Rounds != 0 && (c.Rounds < RoundsMin || c.Rounds > RoundsMax) {
		return badFlag("rounds", "use --quick for a look", "%d is outside %d..%d", c.Rounds,
			RoundsMin, RoundsMax)
	}
	return nil
}

// QuickGrid makes the tests of g small, where g leaves their size open.
func QuickGrid(g Grid) Grid {
	if len(g.Prompt) == 0 && len(g.Gen) == 0 && len(g.PromptGen) == 0 {
		g.Prompt, g.Gen = []int{quickPrompt}, []int{quickGen}
	}
	if g.Reps == 0 {
		g.Reps = 1
	}
	return g
}

// comparison is a run in progress.
type comparison struct {
	Compare
	report Report
	paths  map[string]string // of models
	pairs  []Pair
}

// Run measures every test of the grid, and for each model and number of threads the time to the
// first token from process start. In each round both sides run once, next to each other, and the
// order alternates. It stops at the first failure.
func (c Compare) Run(ctx context.Context, g Grid) (Report, []Pair, error) {
	if err := c.Validate(); err != nil {
		return Report{}, nil, err
	}
	if c.Quick {
		g = QuickGrid(g)
	}
	if g.Reps == 0 {
		g.Reps = compareReps
	}
	if err := g.Validate(); err != nil {
		return Report{}, nil, err
	}
	r, err := c.start(ctx, g)
	if err != nil {
		return Report{}, nil, err
	}
	tests := g.Tests()
	var subjects []subject
	for _, t := range tests {
		subjects = append(subjects, r.rateSubject(t, g.Reps))
	}
	for _, t := range r.starts(tests) {
		subjects = append(subjects, r.firstSubject(t))
	}
	for _, s := range subjects {
		if c.Quick && time.Since(r.report.Started) > quickBudget {
			r.report.LeftOut = append(r.report.LeftOut, s.name)
			continue
		}
		if err := r.rounds(ctx, s, quickBudget/time.Duration(len(subjects))); err != nil {
			return Report{}, nil, err
		}
	}
	r.report.OwnPeak = OwnPeakRSS()
	r.report.DurationS = time.Since(r.report.Started).Seconds()
	return r.report, r.pairs, nil
}

// start checks the peer, reads the models once (so that all runs find them in the page cache) and
// opens the report.
func (c Compare) start(ctx context.Context, g Grid) (*comparison, error) {
	if c.Rounds == 0 {
		c.Rounds = RoundsMin
		if c.Quick {
			c.Rounds = quickRounds
		}
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.Resolve == nil {
		c.Resolve = func(_ context.Context, m string) (string, string, error) { return m, "", nil }
	}
	r := &comparison{Compare: c, paths: map[string]string{}}
	r.report = Report{
		Schema: ReportSchema, Name: "native", Quick: c.Quick, Started: time.Now().UTC(),
		Machine: ThisMachine(), Flags: c.Flags, Rounds: c.Rounds,
	}
	var err error
	if r.report.Build, err = ThisBuild(); err != nil {
		return nil, err
	}
	for _, m := range g.Models {
		if r.paths[m] != "" {
			continue
		}
		path, stated, err := c.Resolve(ctx, m)
		if err != nil {
			return nil, err
		}
		c.Progress("reading " + m)
		digest, size, err := digestFile(ctx, path)
		if err != nil {
			return nil, err
		}
		if stated != "" && stated != digest {
			return nil, &Error{Op: "measure", Kind: ErrFlag, Field: "model",
				Hint: "run norion rm and pull it again",
				Err:  fmt.Errorf("%s: the file is %s, not %s", m, digest, stated)}
		}
		r.paths[m] = path
		r.report.Models = append(r.report.Models, Model{Name: m, Digest: digest, Bytes: size})
	}
	return r, nil
}

// digestFile reads a file whole.
func digestFile(ctx context.Context, path string) (digest string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", 0, context.Cause(ctx)
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		if err == io.EOF {
			return "sha256:" + hex.EncodeToString(h.Sum(nil)), size, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}

// subject is one thing that all sides do, and what is claimed of it.
type subject struct {
	name   string
	turns  []turn
	claims []wanted
}

// turn is one side's part of a round.
type turn struct {
	program Program
	args    []string
	read    func(run *Run, out []byte) error
}

// wanted is one claim: norion against a side.
type wanted struct {
	measure Measure
	against Side
	bar     Bar
}

// rounds measures a subject and adds its claims. Quick runs end early when the budget is spent.
func (r *comparison) rounds(ctx context.Context, s subject, budget time.Duration) error {
	start := time.Now()
	for round := range r.Rounds {
		spent := time.Since(start)
		if r.Quick && round > 0 && spent+spent/time.Duration(round) > budget {
			break
		}
		r.Progress(fmt.Sprintf("%s: round %d of %d", s.name, round+1, r.Rounds))
		for place := range s.turns {
			t := s.turns[(place+round)%len(s.turns)] // the order rotates
			out, use, err := t.program.Run(ctx, t.args...)
			if err != nil {
				return err
			}
			run := Run{Subject: s.name, Side: t.program.Side, Round: round, Turn: place, Use: use}
			if err := t.read(&run, out); err != nil {
				return err
			}
			r.report.Runs = append(r.report.Runs, run)
		}
	}
	for _, w := range s.claims {
		p := r.report.Pair(s.name, w.measure, SideNorion, w.against)
		r.pairs = append(r.pairs, p)
		if claim, ok := p.Claim(w.bar); ok {
			r.report.Claims = append(r.report.Claims, claim)
		}
	}
	return nil
}

// rateSubject is one test: all programs get the same flags and answer in the same form. Where the
// test leaves the load mode open, the peer's best is weights in memory of its own: a mapped file
// costs it speed, since its pages are small.
func (r *comparison) rateSubject(t Test, reps int) subject {
	best, plain := t, t
	if t.Load == LoadAuto {
		best.Load = LoadNone
	}
	plain.Load = LoadAuto
	s := subject{name: t.label()}
	for _, side := range []struct {
		program Program
		side    Side
		test    Test
	}{{r.Norion, SideNorion, t}, {r.Bench, SidePeer, best}, {r.Bench, SidePeerDefault, plain}} {
		p := side.program
		p.Side = side.side
		if p.Side == SideNorion {
			p.Args = append(slices.Clone(p.Args), "bench", "native")
		} else {
			s.claims = append(s.claims, wanted{MeasureRate, p.Side, barRate},
				wanted{MeasureRSS, p.Side, barRSS})
		}
		s.turns = append(s.turns, turn{
			p, side.test.Args(r.paths[t.Model], reps),
			func(run *Run, out []byte) error { return r.readRate(run, out, side.test, reps) },
		})
	}
	return s
}

// label names a test among those of a grid: what differs from llama-bench's defaults is in it.
func (t Test) label() string {
	s := fmt.Sprintf("%s %s t=%d", t, t.Model, t.Threads)
	def := Grid{Models: []string{""}, Threads: []int{1}}.Tests()[0]
	for _, f := range []struct {
		name       string
		value, def any
	}{
		{"b", t.Batch, def.Batch}, {"ub", t.MicroBatch, def.MicroBatch}, {"ctk", t.TypeK, def.TypeK},
		{"ctv", t.TypeV, def.TypeV}, {"ngl", t.GPULayers, def.GPULayers},
		{"nkvo", t.NoKVOffload, def.NoKVOffload}, {"fa", t.Flash, def.Flash},
		{"poll", t.Poll, def.Poll}, {"lm", t.Load, def.Load},
	} {
		if f.value != f.def {
			s += fmt.Sprintf(" %s=%v", f.name, f.value)
		}
	}
	return s
}

// readRate reads the one record of a run and makes sure that it is the work that was asked for, by
// the same build.
func (r *comparison) readRate(run *Run, out []byte, t Test, reps int) error {
	records, err := ParseRecords(out)
	if err != nil {
		return err
	}
	if len(records) != 1 || len(records[0].SamplesNs) != reps || records[0].Prompt != t.Prompt ||
		records[0].Gen != t.Gen || records[0].Depth != t.Depth || records[0].LoadMode != t.Load {
		return &Error{Op: "measure", Kind: ErrOutput, Field: string(run.Side),
			Err: fmt.Errorf("%d records, not one of %s with %d samples", len(records), t, reps)}
	}
	if got, want := records[0].BuildCommit, r.report.Build.LlamaCommit; got != want {
		return &Error{
			Op: "peer", Kind: ErrPeerBuild, Field: string(run.Side), Hint: "run `make peers`",
			Err: fmt.Errorf("commit %s, norion has %s", clip(got), want),
		}
	}
	run.SamplesNs, run.Rate = records[0].SamplesNs, records[0].Rate()
	return nil
}

// starts picks one test per model and number of threads.
func (r *comparison) starts(tests []Test) []Test {
	if r.Completion.Path == "" {
		return nil
	}
	type key struct {
		model   string
		threads int
	}
	seen := map[key]bool{}
	var out []Test
	for _, t := range tests {
		if k := (key{t.Model, t.Threads}); !seen[k] {
			seen[k] = true
			out = append(out, t)
		}
	}
	return out
}

// firstSubject is the time from exec to the first byte of an answer, and the peak memory of a
// program that answers.
func (r *comparison) firstSubject(t Test) subject {
	norion, best, plain := r.Norion, r.Completion, r.Completion
	norion.Side, best.Side, plain.Side = SideNorion, SidePeer, SidePeerDefault
	path, threads := r.paths[t.Model], strconv.Itoa(t.Threads)
	n, tokens := strconv.Itoa(firstTokens), strconv.Itoa(firstContext)
	run := []string{
		"run", path, "--raw", FirstPrompt, "-n", n, "--temp", "0", "--threads", threads,
		"--ctx", tokens,
	}
	peer := []string{
		"-m", path, "-p", FirstPrompt, "-n", n, "--temp", "0", "-t", threads, "-no-cnv",
		"--no-display-prompt",
	}
	read := func(run *Run, _ []byte) error {
		if run.FirstByteNs == 0 {
			return &Error{Op: "measure", Kind: ErrOutput, Field: string(run.Side),
				Err: fmt.Errorf("%s: no answer", t.Model)}
		}
		return nil
	}
	return subject{
		name: fmt.Sprintf("first token %s t=%d", t.Model, t.Threads),
		turns: []turn{
			{norion, run, read},
			{best, append([]string{"--no-warmup", "-fit", "off", "-c", tokens}, peer...), read},
			{plain, peer, read},
		},
		claims: []wanted{
			{MeasureFirst, SidePeer, Bar{}}, {MeasureFirst, SidePeerDefault, Bar{}},
			{MeasureRSS, SidePeer, Bar{}},
		},
	}
}
