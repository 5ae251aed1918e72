package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
)

// Bars of the native benchmark.
var (
	barRate = Bar{Limit: 0.98}
	barRSS  = Bar{Limit: 1.05, AtMost: true}
)

const (
	quickPrompt  = 128
	quickGen     = 32
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
	Method
	Norion     Program // this program: Path, and no Args
	Bench      Program // llama-bench of the same build
	Completion Program // llama-completion of the same build; no Path leaves first tokens out
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
	*paired
}

// Run measures every test of the grid, and for each model and number of threads the time to the
// first token from process start. In each round both sides run once, next to each other, and the
// order alternates. It stops at the first failure.
func (c Compare) Run(ctx context.Context, g Grid) (Report, []Pair, error) {
	if c.Quick {
		g = QuickGrid(g)
	}
	if g.Reps == 0 {
		g.Reps = compareReps
	}
	if err := g.Validate(); err != nil {
		return Report{}, nil, err
	}
	p, err := c.start(ctx, "native", g.Models)
	if err != nil {
		return Report{}, nil, err
	}
	r := &comparison{c, p}
	tests := g.Tests()
	var subjects []subject
	for _, t := range tests {
		subjects = append(subjects, r.rateSubject(t, g.Reps))
	}
	for _, t := range r.starts(tests) {
		subjects = append(subjects, r.firstSubject(t))
	}
	return r.measure(ctx, subjects)
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
		s.turns = append(s.turns, p.turn(side.test.Args(r.paths[t.Model], reps),
			func(run *Run, out []byte) error { return r.readRate(run, out, side.test, reps) }))
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
		{"b", t.Batch, def.Batch},
		{"ub", t.MicroBatch, def.MicroBatch},
		{"ctk", t.TypeK, def.TypeK},
		{"ctv", t.TypeV, def.TypeV},
		{"ngl", t.GPULayers, def.GPULayers},
		{"nkvo", t.NoKVOffload, def.NoKVOffload},
		{"fa", t.Flash, def.Flash},
		{"poll", t.Poll, def.Poll},
		{"lm", t.Load, def.Load},
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
		return &Error{
			Op: "measure", Kind: ErrOutput, Field: string(run.Side),
			Err: fmt.Errorf("%d records, not one of %s with %d samples", len(records), t, reps),
		}
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
			return &Error{
				Op: "measure", Kind: ErrOutput, Field: string(run.Side),
				Err: fmt.Errorf("%s: no answer", t.Model),
			}
		}
		return nil
	}
	return subject{
		name: fmt.Sprintf("first token %s t=%d", t.Model, t.Threads),
		turns: []turn{
			norion.turn(run, read),
			best.turn(append([]string{"--no-warmup", "-fit", "off", "-c", tokens}, peer...), read),
			plain.turn(peer, read),
		},
		claims: []wanted{
			{MeasureFirst, SidePeer, Bar{}},
			{MeasureFirst, SidePeerDefault, Bar{}},
			{MeasureRSS, SidePeer, Bar{}},
		},
	}
}
