// Package conform owns the one executed conformance suite for every infer.Backend, the manifest
// that says what a backend is, and the receipt that binds the outcome of the suite to the manifest.
// It must not know more of a backend than its interface: no engine, network, file or process.
package conform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Suite is the version of the suite. It grows with every check that is added or made stricter, and
// receipts of another version are refused.
const Suite = 1

// Options say how a backend is examined. The zero value is fine for a model of natural language.
type Options struct {
	Prompt    string        // raw text that the model goes on from; "" means a story's beginning
	Tokens    int           // tokens of most answers; 0 means 16
	Parallel  int           // requests that run at once; 0 means 4
	CheckTime time.Duration // for one check; 0 means 2 minutes
	// ScoreDistance is how far, on average over a text, log-probabilities of Score may be from those
	// of Generate, in nats. A text computed in one batch is rounded otherwise than token by token. 0
	// means 0.25.
	ScoreDistance float64
}

func (o Options) filled() Options {
	def := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	def(&o.Tokens, 16)
	def(&o.Parallel, 4)
	if o.Prompt == "" {
		o.Prompt = "Once upon a time, in a small village by the sea, there lived"
	}
	if o.CheckTime == 0 {
		o.CheckTime = 2 * time.Minute
	}
	if o.ScoreDistance == 0 {
		o.ScoreDistance = 0.25
	}
	return o
}

// Outcome is how a check ended.
type Outcome string

const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped" // the backend declares that it cannot do this
)

// Result is the outcome of one check.
type Result struct {
	Check   string  `json:"check"`
	Outcome Outcome `json:"outcome"`
	Why     string  `json:"why,omitempty"` // what was wrong, or what is declared
}

// Report is the outcome of the suite: one result for each check, in the suite's order.
type Report struct {
	Suite   int      `json:"suite"`
	Results []Result `json:"results"`
}

// Failures are the results that failed.
func (r *Report) Failures() []Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(x Result) bool {
		return x.Outcome != Failed
	})
}

// Passed says that every check of this suite is in the report, and none failed.
func (r *Report) Passed() bool {
	if r.Suite != Suite || len(r.Results) != len(checks) {
		return false
	}
	for i, x := range r.Results {
		if x.Check != checks[i].name || x.Outcome != Passed && x.Outcome != Skipped {
			return false
		}
	}
	return true
}

// check is one line of the suite. It returns nil, why it failed, or a skip.
type check struct {
	name string
	run  func(context.Context, *subject) error
}

// checks is the suite. Those that close the backend are last.
var checks = []check{
	{"info", checkInfo},
	{"usage adds up", checkUsage},
	{"streamed text is the whole text", checkStream},
	{"max_tokens", checkMaxTokens},
	{"stop texts", checkStop},
	{"greedy is deterministic", checkGreedy},
	{"a seed repeats an answer", checkSeed},
	{"leaving the loop", checkBreak},
	{"cancel", checkCancel},
	{"deadline", checkDeadline},
	{"too long", checkTooLong},
	{"bad fields", checkBadFields},
	{"logprobs", checkLogprobs},
	{"score", checkScore},
	{"tokenize", checkTokenize},
	{"count tokens", checkCount},
	{"embeddings", checkEmbed},
	{"chat", checkChat},
	{"schema", checkSchema},
	{"tools", checkTools},
	{"requests at once", checkParallel},
	{"close while running", checkCloseRunning},
	{"closed", checkClosed},
}

// subject is the backend under examination.
type subject struct {
	infer.Backend
	o      Options
	info   infer.Info
	reuses bool // it cannot be told to compute the whole prompt
}

// skip ends a check whose subject the backend declares that it cannot do.
type skip struct{ why string }

func (s skip) Error() string { return s.why }

// Run examines a backend and closes it. What Info.Abilities denies must be refused with
// KindUnsupported (chat: KindNoTemplate), and is skipped by name; what has no ability of its own,
// such as logprobs, is declared by the same refusal with its field. Everything else must hold. The
// error is that of ctx: then the report is not whole.
//
// A check that does not end in time is given up: its goroutine stays until the backend returns.
func Run(ctx context.Context, b infer.Backend, o Options) (Report, error) {
	s := &subject{Backend: b, o: o.filled(), info: b.Info()}
	report := Report{Suite: Suite}
	stuck := ""
	for _, c := range checks {
		r := Result{Check: c.name, Outcome: Failed}
		if stuck != "" {
			r.Why = fmt.Sprintf("not run: %q did not end", stuck)
			report.Results = append(report.Results, r)
			continue
		}
		err, ended := s.examine(ctx, c)
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		if !ended {
			stuck = c.name
		}
		left, declared := errors.AsType[skip](err)
		switch {
		case err == nil:
			r.Outcome = Passed
		case declared:
			r.Outcome, r.Why = Skipped, left.why
		default:
			r.Why = bounded(err.Error())
		}
		report.Results = append(report.Results, r)
	}
	return report, nil
}

// grace is how long a check may go on once its time is over.
const grace = 5 * time.Second

// examine runs one check; ended is false where it hangs.
func (s *subject) examine(parent context.Context, c check) (err error, ended bool) {
	ctx, cancel := context.WithTimeout(parent, s.o.CheckTime)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %v", p)
			}
		}()
		done <- c.run(ctx, s)
	}()
	select {
	case err := <-done:
		return err, true
	case <-ctx.Done():
	}
	last := time.NewTimer(grace)
	defer last.Stop()
	select {
	case err := <-done:
		return errors.Join(fmt.Errorf("it took more than %v", s.o.CheckTime), err), true
	case <-last.C:
		return fmt.Errorf("it did not end within %v", s.o.CheckTime), false
	}
}

// whyBytesMax bounds the words of a backend that come into a report.
const whyBytesMax = 500

func bounded(s string) string {
	if len(s) > whyBytesMax {
		s = s[:whyBytesMax] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// TB is the part of testing.TB that Test uses.
type TB interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Test runs the suite as a part of a test and closes the backend.
func Test(t TB, b infer.Backend, o Options) Report {
	t.Helper()
	r, err := Run(t.Context(), b, o)
	if err != nil {
		t.Errorf("conformance: %v", err)
	}
	for _, x := range r.Results {
		switch x.Outcome {
		case Failed:
			t.Errorf("%s: %s", x.Check, x.Why)
		case Skipped:
			t.Logf("%s: skipped: %s", x.Check, x.Why)
		}
	}
	return r
}
