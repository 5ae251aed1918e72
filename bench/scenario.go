package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/norion/norion/runtime/infer"
)

// Scenario measures requests: norion's engine alone, in this process, or in turns with llama-server
// of the same build. Then each turn is one process: `norion bench NAME` without a peer, or a server
// and its client here.
type Scenario struct {
	Method
	Model   string
	Threads int     // 0 means as many as llama-bench takes
	Norion  Program // this program; only with Server
	Server  Program // llama-server of the same build; no Path leaves peers out
	// PeerFlags replace the flags that are best for llama-server by what was measured.
	PeerFlags []string
	// Shared lets norion's sequences lie in one buffer; else each has a stream of its own.
	Shared bool
	// Planner plans norion's loads; nil: what they leave open is llama.cpp's. PlanFlag says the same
	// to norion's own processes.
	Planner  Planner
	PlanFlag string
	// Open opens norion in this process. Default: its engine, as planned.
	Open func(ctx context.Context, w EngineWish) (infer.Backend, error)
}

// Validate refuses what cannot be measured. Alone, one round is enough. Errors: ErrFlag.
func (s *Scenario) Validate() error {
	if s.Model == "" {
		return badFlag("model", "name one: -m smollm2:135m", "none was given")
	}
	if s.Threads < 0 || s.Threads > threadsMax {
		return badFlag("threads", "", "%d is outside 0..%d", s.Threads, threadsMax)
	}
	if s.Server.Path == "" && s.Rounds >= 1 && s.Rounds < RoundsMin {
		return nil
	}
	return s.Method.Validate()
}

// game is a scenario in progress.
type game struct {
	Scenario
	*paired
	name string
	work map[string]string // digest of the scripted text, by subject
}

// begin opens the report of the benchmark called name.
func (s Scenario) begin(ctx context.Context, name string) (*game, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Threads == 0 {
		s.Threads = DefaultThreads()
	}
	alone := s.Server.Path == ""
	rounds := s.Rounds
	if alone {
		s.Method.Rounds = 0 // a comparison's least number does not bind
	}
	p, err := s.start(ctx, name, []string{s.Model})
	if err != nil {
		return nil, err
	}
	if alone {
		p.Rounds = max(1, rounds)
		p.report.Rounds = p.Rounds
	}
	return &game{s, p, name, map[string]string{}}, nil
}

// act is what one side does in a turn: it asks rt and says what came of it.
type act func(ctx context.Context, rt runtimeUnderTest) (Run, error)

// scene is what one subject needs: the engine for norion, flags for the peer, and flags that make
// `norion bench NAME` do the same alone.
type scene struct {
	subject string
	wish    EngineWish
	best    []string // llama-server's best flags, without model and threads
	keep    bool     // what was computed is kept over a restart, by the peer with its best flags
	args    []string
	act     act
}

// turns are the sides of a scene: norion here, or norion and the peer twice in processes.
func (g *game) turns(s scene) []turn {
	s.wish.Path, s.wish.Threads = g.paths[g.Scenario.Model], g.Threads
	if g.Server.Path == "" {
		return []turn{{SideNorion, func(ctx context.Context) (Run, error) {
			return g.inProcess(ctx, s)
		}}}
	}
	norion := g.Norion
	norion.Side = SideNorion
	args := slices.Concat([]string{
		"bench", g.name, "-m", s.wish.Path, "-t", strconv.Itoa(g.Threads),
		"--rounds", "1", "--json", "--shared=" + strconv.FormatBool(g.Shared),
	}, s.args)
	if g.PlanFlag != "" {
		args = append(args, "--plan", g.PlanFlag)
	}
	common := []string{"-m", s.wish.Path, "-t", strconv.Itoa(g.Threads)}
	best := g.Server
	best.Side, best.Args = SidePeer, slices.Concat(best.Args, common, s.best)
	if g.PeerFlags != nil {
		best.Args = slices.Concat(g.Server.Args, common, g.PeerFlags)
	}
	plain := g.Server
	plain.Side, plain.Args = SidePeerDefault, slices.Concat(plain.Args, common)
	return []turn{
		norion.turn(args, func(run *Run, out []byte) error { return g.readChild(run, out, s) }),
		{SidePeer, func(ctx context.Context) (Run, error) { return g.served(ctx, s, best) }},
		{SidePeerDefault, func(ctx context.Context) (Run, error) { return g.served(ctx, s, plain) }},
	}
}

// inProcess opens an engine for one turn.
func (g *game) inProcess(ctx context.Context, s scene) (run Run, err error) {
	if s.keep {
		dir, err := os.MkdirTemp("", "norion-bench-")
		if err != nil {
			return run, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		s.wish.Dir = filepath.Join(dir, "cache")
	}
	s.wish.Shared = g.Shared
	var line string
	b, err := openBackend(ctx, func(ctx context.Context) (b infer.Backend, err error) {
		if g.Open != nil {
			return g.Open(ctx, s.wish)
		}
		b, line, err = openEngine(ctx, s.wish, g.Planner)
		return b, err
	})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	run, err = s.act(ctx, b)
	run.Plan = line
	return run, err
}

// served starts a server for one turn. With its best flags it samples greedily in one step.
func (g *game) served(ctx context.Context, s scene, p Program) (run Run, err error) {
	var extra map[string]any
	keep := s.keep && p.Side == SidePeer
	if p.Side == SidePeer {
		extra = map[string]any{"samplers": []string{"top_k"}, "top_k": 1}
	}
	if keep {
		dir, err := os.MkdirTemp("", "norion-bench-")
		if err != nil {
			return run, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		p.Args = append(p.Args, "--slot-save-path", dir+string(filepath.Separator))
	}
	server, err := startServer(ctx, p, keep, extra)
	if err != nil {
		return run, err
	}
	defer func() {
		err = errors.Join(err, server.Close())
		run.PeakRSSBytes = server.peak
	}()
	if err := server.sameBuild(ctx, g.report.Build.LlamaCommit); err != nil {
		return run, err
	}
	if run, err = s.act(ctx, server); err != nil {
		return run, err
	}
	return run, g.sameWork(s.subject, run)
}

// readChild takes the one run of a report of norion alone.
func (g *game) readChild(run *Run, out []byte, s scene) error {
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		return &Error{Op: "measure", Kind: ErrOutput, Field: string(SideNorion), Err: err}
	}
	if r.Schema != ReportSchema || r.Name != g.name || len(r.Runs) != 1 {
		return &Error{
			Op: "measure", Kind: ErrOutput, Field: string(SideNorion),
			Err: fmt.Errorf("a report of %q with %d runs", clip(r.Name), len(r.Runs)),
		}
	}
	use := run.Use
	use.FirstByteNs = 0 // of the report
	*run = r.Runs[0]
	run.Use = use
	return g.sameWork(s.subject, *run)
}

// sameWork refuses a run whose scripted text is not that of the others.
func (g *game) sameWork(subject string, run Run) error {
	if known, ok := g.work[subject]; ok && known != run.Work {
		return &Error{
			Op: "measure", Kind: ErrOutput, Field: string(run.Side),
			Err: errors.New("the sides did not do the same work"),
		}
	}
	g.work[subject] = run.Work
	return nil
}

// label names a subject.
func (g *game) label(what string) string {
	return fmt.Sprintf("%s %s t=%d", what, g.Scenario.Model, g.Threads)
}
