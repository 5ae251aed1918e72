package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Bars of the concurrency benchmark.
var (
	barAggregate = Bar{Limit: 1}
	barAdmission = Bar{Limit: 2, AtMost: true}
)

// Load is what the concurrency benchmark asks.
type Load struct {
	Streams []int // streams at once, one measurement for each number
	Prompt  int   // tokens of a stream's own prompt
	Gen     int   // tokens that a stream generates
	Admit   int   // tokens of the prompt that comes while streams run
}

// DefaultLoad and QuickLoad are what a Load is when nobody says.
var (
	DefaultLoad = Load{Streams: []int{1, 2, 4, 8, 16}, Prompt: 32, Gen: 96, Admit: 4096}
	QuickLoad   = Load{Streams: []int{1, 4}, Prompt: 16, Gen: 24, Admit: 512}
)

// admission is the part of the benchmark in which a long prompt comes while streams run.
const (
	admission        = "admission"
	admissionStreams = 3   // which leaves one of llama-server's four slots
	admissionSteady  = 32  // tokens of each stream before the long prompt comes
	admissionMost    = 512 // tokens of a stream at most
)

// Fill puts defaults in place of zeros.
func (l Load) Fill(quick bool) Load {
	def := DefaultLoad
	if quick {
		def = QuickLoad
	}
	for _, f := range []struct{ value, def *int }{
		{&l.Prompt, &def.Prompt}, {&l.Gen, &def.Gen}, {&l.Admit, &def.Admit},
	} {
		if *f.value == 0 {
			*f.value = *f.def
		}
	}
	if len(l.Streams) == 0 {
		l.Streams = def.Streams
	}
	return l
}

// Validate refuses a load that cannot be measured. Errors: ErrFlag.
func (l *Load) Validate() error {
	for _, f := range []struct {
		name       string
		value, min int
	}{{"prompt", l.Prompt, 1}, {"gen", l.Gen, 2}, {"admit", l.Admit, 1}} {
		if f.value < f.min || f.value > SizeTokensMax {
			return badFlag(f.name, "", "%d is outside %d..%d", f.value, f.min, SizeTokensMax)
		}
	}
	for _, n := range l.Streams {
		if n < 1 || n > UsersMax {
			return badFlag("streams", "", "%d is outside 1..%d", n, UsersMax)
		}
	}
	return nil
}

// Args are the flags that give this load to `norion bench concurrency`.
func (l *Load) Args() []string {
	streams := make([]string, len(l.Streams))
	for i, n := range l.Streams {
		streams[i] = strconv.Itoa(n)
	}
	return []string{
		"--streams", strings.Join(streams, ","), "--prompt", strconv.Itoa(l.Prompt),
		"--gen", strconv.Itoa(l.Gen), "--admit", strconv.Itoa(l.Admit),
	}
}

// streams is n requests at once that have nothing in common.
func (l *Load) streams(n int) Pattern {
	var all Stage
	for i := range n {
		all.Asks = append(all.Asks,
			Ask{fmt.Sprintf("stream %d", i+1), []Span{text(seedTurn+i, l.Prompt)}, l.Gen})
	}
	return Pattern{Name: fmt.Sprintf("streams-%d", n), Stages: []Stage{all}}
}

// Concurrency measures streams that run at once, and what a long prompt does to them. names picks
// measurements, such as "streams-4" and "admission"; none takes all. It stops at the first failure.
func (s Scenario) Concurrency(ctx context.Context, l Load, names []string) (
	Report, []Pair, error,
) {
	l = l.Fill(s.Quick)
	if err := l.Validate(); err != nil {
		return Report{}, nil, err
	}
	all := []Pattern{}
	for _, n := range l.Streams {
		all = append(all, l.streams(n))
	}
	all = append(all, Pattern{Name: admission})
	patterns, err := PickPatterns(all, names)
	if err != nil {
		return Report{}, nil, err
	}
	g, err := s.begin(ctx, "concurrency")
	if err != nil {
		return Report{}, nil, err
	}
	var subjects []subject
	for _, p := range patterns {
		if p.Name == admission {
			subjects = append(subjects, g.admission(l))
		} else {
			subjects = append(subjects, g.streams(p, l))
		}
	}
	return g.measure(ctx, subjects)
}

// streams is one number of streams: its sides, and what is claimed.
func (g *game) streams(p Pattern, l Load) subject {
	n := p.AtOnce()
	cells := room(p.most(n))
	s := scene{
		subject: g.label(p.Name),
		wish:    EngineWish{Longest: room(p.Longest()), Sequences: n, Cells: cells},
		best: []string{
			"-lm", "none", "-fit", "off", "-kvu", "-np", strconv.Itoa(n), "-c", strconv.Itoa(cells),
		},
		args: append(l.Args(), "--pattern", p.Name),
		act: func(ctx context.Context, rt runtimeUnderTest) (Run, error) {
			run, err := play(ctx, rt, p)
			run.Rate = float64(run.sum(func(s Sample) int { return s.Answer })) /
				time.Duration(max(1, run.PlayNs)).Seconds()
			return run, err
		},
	}
	out := subject{name: s.subject, turns: g.turns(s)}
	if g.Server.Path == "" {
		return out
	}
	for _, side := range []Side{SidePeer, SidePeerDefault} {
		out.claims = append(out.claims,
			wanted{MeasureRate, side, barAggregate}, wanted{MeasureGap50, side, Bar{}},
			wanted{MeasureGap95, side, Bar{}}, wanted{MeasureGap99, side, Bar{}},
			wanted{MeasureFirst50, side, Bar{}}, wanted{MeasureRSS, side, Bar{}})
	}
	return out
}

// admission is what a long prompt does to running streams.
func (g *game) admission(l Load) subject {
	most := admissionStreams*(l.Prompt+admissionMost) + l.Admit + 1
	s := scene{
		subject: g.label(admission),
		wish: EngineWish{
			Longest: room(max(l.Prompt+admissionMost, l.Admit+1)), Sequences: admissionStreams + 1,
			Cells: room(most),
		},
		best: []string{
			"-lm", "none", "-fit", "off", "-kvu", "-np", strconv.Itoa(admissionStreams + 1),
			"-c", strconv.Itoa(room(most)), "-b", "64", "-ub", "64",
		},
		args: append(l.Args(), "--pattern", admission),
		act: func(ctx context.Context, rt runtimeUnderTest) (Run, error) {
			return admit(ctx, rt, l)
		},
	}
	out := subject{
		name: s.subject, turns: g.turns(s),
		alone: []held{{MeasureAdmission, SideNorion, barAdmission}},
	}
	if g.Server.Path == "" {
		return out
	}
	for _, side := range []Side{SidePeer, SidePeerDefault} {
		out.claims = append(out.claims, wanted{MeasureDuring, side, Bar{}},
			wanted{MeasureAdmitted, side, Bar{}}, wanted{MeasureBefore, side, Bar{}})
		out.alone = append(out.alone, held{MeasureAdmission, side, Bar{}})
	}
	return out
}

// admit starts streams, and when they run steadily asks for one token after a long prompt. Streams
// go on until each has had a token after that, and are left then.
func admit(ctx context.Context, rt runtimeUnderTest, l Load) (Run, error) {
	long := Ask{admission, []Span{text(seedSystem, l.Admit)}, 1}
	p := l.streams(admissionStreams)
	p.Stages = append(p.Stages, one(long))
	pl := &player{rt: rt, texts: corpus{rt, map[int][]infer.TokenID{}}, kept: map[string]bool{}}
	if err := pl.prepare(ctx, p); err != nil {
		return Run{}, err
	}
	running, leave := context.WithCancel(ctx)
	defer leave()
	streams := make([]*watch, admissionStreams)
	errs := make([]error, admissionStreams)
	var steady, after sync.WaitGroup // one for each stream
	var over atomic.Bool             // the long prompt has been answered
	var wg sync.WaitGroup
	zero := time.Now()
	for i := range streams {
		tokens, err := pl.prompt(ctx, p.Stages[0].Asks[i])
		if err != nil {
			return Run{}, err
		}
		steady.Add(1)
		after.Add(1)
		isSteady, isAfter := sync.OnceFunc(steady.Done), sync.OnceFunc(after.Done)
		wg.Go(func() {
			defer isSteady() // a stream that ends early holds up nobody
			defer isAfter()
			w := startWatch(zero, p.Stages[0].Asks[i].Name)
			_, errs[i] = rt.Ask(running, question{Tokens: tokens, Answer: admissionMost},
				func(n int) {
					w.tokens(n)
					if w.s.Answer >= admissionSteady {
						isSteady()
					}
					if over.Load() {
						isAfter()
					}
				})
			streams[i] = w // how much was computed of its prompt, nobody says
		})
	}
	steady.Wait()
	tokens, err := pl.prompt(ctx, long)
	var sample Sample
	if err == nil {
		sample, _, err = ask(running, rt, zero, admission, question{Tokens: tokens, Answer: 1})
	}
	over.Store(true)
	if err == nil {
		after.Wait()
	}
	leave()
	wg.Wait()
	run := Run{PlayNs: time.Since(zero).Nanoseconds(), Work: digestOf(pl.work)}
	for i, w := range streams {
		run.Samples = append(run.Samples, w.end())
		if !errors.Is(errs[i], infer.KindCanceled) && errs[i] != nil && err == nil {
			err = errs[i]
		}
	}
	run.Samples = append(run.Samples, sample)
	return run, err
}

// window divides the gaps of running streams: those that ended before the long prompt came, and
// those of which a part lay between its coming and its first token.
func (r Run) window() (before, during []int64) {
	i := slices.IndexFunc(r.Samples, func(s Sample) bool { return s.Name == admission })
	if i < 0 {
		return nil, nil
	}
	from := r.Samples[i].StartNs
	to := from + r.Samples[i].FirstNs
	for j, s := range r.Samples {
		if j == i {
			continue
		}
		at := s.StartNs + s.FirstNs
		for _, gap := range s.GapsNs {
			begun := at
			at += gap
			switch {
			case at <= from:
				before = append(before, gap)
			case begun < to:
				during = append(during, gap)
			}
		}
	}
	return before, during
}

// The measures of an admission.
var (
	MeasureBefore = Measure{"ITL p99 before", "ms", func(r Run) float64 {
		before, _ := r.window()
		return ms(quantile(before, 0.99))
	}}
	MeasureDuring = Measure{"ITL p99 while admitted", "ms", func(r Run) float64 {
		_, during := r.window()
		return ms(quantile(during, 0.99))
	}}
	MeasureAdmission = Measure{"ITL p99 while admitted to before", "ratio", func(r Run) float64 {
		before, during := r.window()
		return quantile(during, 0.99) / max(1, quantile(before, 0.99))
	}}
	MeasureAdmitted = Measure{"TTFT of the long prompt", "ms", func(r Run) float64 {
		for _, s := range r.Samples {
			if s.Name == admission {
				return ms(float64(s.FirstNs))
			}
		}
		return 0
	}}
)
