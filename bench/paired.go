package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"
)

// RoundsMin is the least number of rounds of a comparison that is not quick.
const (
	RoundsMin = 5
	RoundsMax = 1000

	quickRounds = 3
	quickBudget = 45 * time.Second
)

// Method is how a comparison is made: in turns, round by round.
type Method struct {
	Rounds int      // 0 means RoundsMin
	Quick  bool     // few rounds, and none is begun after a while
	Flags  []string // for the report
	// Resolve gives the path of a model and its digest, which may be "". Default: its name is the
	// path.
	Resolve func(ctx context.Context, model string) (path, digest string, err error)
	// Progress is told what happens next. Default: nobody.
	Progress func(string)
}

// Validate refuses what cannot be measured. Errors: ErrFlag.
func (m *Method) Validate() error {
	if m.Rounds != 0 && (m.Rounds < RoundsMin || m.Rounds > RoundsMax) {
		return badFlag("rounds", "use --quick for a look", "%d is outside %d..%d", m.Rounds,
			RoundsMin, RoundsMax)
	}
	return nil
}

// paired is a comparison in progress.
type paired struct {
	Method
	report Report
	paths  map[string]string // of models
	pairs  []Pair
}

// start reads the models once, so that all runs find them in the page cache, and opens the report.
func (m Method) start(ctx context.Context, name string, models []string) (*paired, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if m.Rounds == 0 {
		m.Rounds = RoundsMin
		if m.Quick {
			m.Rounds = quickRounds
		}
	}
	if m.Progress == nil {
		m.Progress = func(string) {}
	}
	if m.Resolve == nil {
		m.Resolve = func(_ context.Context, m string) (string, string, error) { return m, "", nil }
	}
	r := &paired{Method: m, paths: map[string]string{}}
	r.report = Report{
		Schema: ReportSchema, Name: name, Quick: m.Quick, Started: time.Now().UTC(),
		Machine: ThisMachine(), Flags: m.Flags, Rounds: m.Rounds, Claims: []Claim{},
	}
	var err error
	if r.report.Build, err = ThisBuild(); err != nil {
		return nil, err
	}
	for _, m := range models {
		if r.paths[m] != "" {
			continue
		}
		if err := r.read(ctx, m); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// read finds one model and checks that its file is what it should be.
func (r *paired) read(ctx context.Context, m string) error {
	path, stated, err := r.Resolve(ctx, m)
	if err != nil {
		return err
	}
	r.Progress("reading " + m)
	digest, size, err := digestFile(ctx, path)
	if err != nil {
		return err
	}
	if stated != "" && stated != digest {
		return &Error{
			Op: "measure", Kind: ErrFlag, Field: "model",
			Hint: "run norion rm and pull it again",
			Err:  fmt.Errorf("%s: the file is %s, not %s", m, digest, stated),
		}
	}
	r.paths[m] = path
	r.report.Models = append(r.report.Models, Model{Name: m, Digest: digest, Bytes: size})
	return nil
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
	alone  []held
	once   bool // the result does not depend on time: one round is enough
}

// turn is one side's part of a round.
type turn struct {
	side Side
	run  func(ctx context.Context) (Run, error)
}

// turn makes a turn of one process.
func (p Program) turn(args []string, read func(run *Run, out []byte) error) turn {
	return turn{p.Side, func(ctx context.Context) (Run, error) {
		out, use, err := p.Run(ctx, args...)
		run := Run{Side: p.Side, Use: use}
		if err == nil {
			err = read(&run, out)
		}
		return run, err
	}}
}

// wanted is one claim: norion against a side.
type wanted struct {
	measure Measure
	against Side
	bar     Bar
}

// held is a claim about one side by itself.
type held struct {
	measure Measure
	side    Side
	bar     Bar
}

// close completes the report.
func (r *paired) close() {
	r.report.OwnPeak = OwnPeakRSS()
	r.report.DurationS = time.Since(r.report.Started).Seconds()
}

// measure runs all subjects and closes the report. It stops at the first failure.
func (r *paired) measure(ctx context.Context, subjects []subject) (Report, []Pair, error) {
	for _, s := range subjects {
		if r.Quick && time.Since(r.report.Started) > quickBudget {
			r.report.LeftOut = append(r.report.LeftOut, s.name)
			continue
		}
		if err := r.rounds(ctx, s, quickBudget/time.Duration(len(subjects))); err != nil {
			return Report{}, nil, err
		}
	}
	r.close()
	return r.report, r.pairs, nil
}

// rounds measures a subject and adds its claims. Quick runs end early when the budget is spent.
func (r *paired) rounds(ctx context.Context, s subject, budget time.Duration) error {
	start := time.Now()
	rounds := r.Rounds
	if s.once {
		rounds = 1
	}
	for round := range rounds {
		spent := time.Since(start)
		if r.Quick && round > 0 && spent+spent/time.Duration(round) > budget {
			break
		}
		r.Progress(fmt.Sprintf("%s: round %d of %d", s.name, round+1, rounds))
		for place := range s.turns {
			t := s.turns[(place+round)%len(s.turns)] // the order rotates
			run, err := t.run(ctx)
			if err != nil {
				return err
			}
			run.Subject, run.Side, run.Round, run.Turn = s.name, t.side, round, place
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
	for _, h := range s.alone {
		if claim, ok := r.report.Hold(s.name, h.measure, h.side, h.bar); ok {
			r.report.Claims = append(r.report.Claims, claim)
		}
	}
	return nil
}
