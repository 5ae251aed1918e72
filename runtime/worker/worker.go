// Package worker runs a model in a child process: it is an infer.Backend whose engine lives in
// another process of the same program, so that an abort, a crash or a hang of it costs the requests
// that run there and nothing else. It owns the child, the private socket to it, its supervision and
// its confinement. It must not know HTTP, the control layer or where models come from.
//
// The two processes speak gRPC over a socket pair; see docs/adr/0007-worker-wire.md. A child that
// ends, does not answer, or sends what is no message of this protocol is killed: the requests that
// run there end with KindLost, and another child is started, more slowly each time, up to a bound.
//
// Locks: Worker.mu guards the state alone and is never held while anything is waited for.
package worker

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Worker implements infer.Backend, Observer, Counter and Detokenizer. It is safe for concurrent
// use.
type Worker struct {
	o    Options
	log  *slog.Logger
	info infer.Info // of the first child; each one after must have the same

	life   context.Context // ends when Close begins
	end    context.CancelFunc
	revive chan struct{}
	done   chan struct{} // closed when the supervisor has gone
	result error         // of ending the last child; read after done

	mu    sync.Mutex
	state state
}

var (
	_ infer.Backend     = (*Worker)(nil)
	_ infer.Observer    = (*Worker)(nil)
	_ infer.Counter     = (*Worker)(nil)
	_ infer.Detokenizer = (*Worker)(nil)
)

// state says who answers. Exactly one of child and err is set, or none while a child is started.
type state struct {
	child    *child
	err      error
	changed  chan struct{} // closed when another state takes this one's place
	restarts int64
}

// Open starts a child and has it load the model. The error is an *infer.Error: those of the engine
// in the child, KindLost where the child ended or was not ready in time, KindUnsupported where this
// system has no workers.
func Open(ctx context.Context, o Options) (*Worker, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	w := &Worker{
		o: o, log: o.Logger.With("model", o.Engine.Model), revive: make(chan struct{}, 1),
		done: make(chan struct{}), state: state{changed: make(chan struct{})},
	}
	c, err := w.start(ctx)
	if err != nil {
		return nil, err
	}
	w.info = c.info
	w.life, w.end = context.WithCancel(context.WithoutCancel(ctx))
	w.become(c, nil)
	go w.supervise(c)
	return w, nil
}

// become changes who answers.
func (w *Worker) become(c *child, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.state.changed)
	w.state.child, w.state.err, w.state.changed = c, err, make(chan struct{})
}

// Info describes the model and its engine, and what confines them. It stays the same.
func (w *Worker) Info() infer.Info { return w.info }

// Status is what a worker is doing.
type Status struct {
	PID      int   // of the child; 0 while there is none
	Restarts int64 // children after the first
	Err      error // why there is none, once that is known
}

// Status says what the worker is doing.
func (w *Worker) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{Restarts: w.state.restarts, Err: w.state.err}
	if w.state.child != nil {
		s.PID = w.state.child.cmd.Process.Pid
	}
	return s
}

// Revive has a worker that gave up, or that waits to try again, start a child now.
func (w *Worker) Revive() {
	select {
	case w.revive <- struct{}{}:
	default: // it was told already
	}
}

// Close ends running and waiting requests with KindClosed and frees the model. A child that does
// not end within Options.StopTimeout is killed. A second call returns the same result.
func (w *Worker) Close() error {
	w.end()
	<-w.done
	return w.result
}

// get gives the child that answers, and waits for one that is being started.
func (w *Worker) get(ctx context.Context, op string) (*child, error) {
	for {
		w.mu.Lock()
		s := w.state
		w.mu.Unlock()
		switch {
		case w.life.Err() != nil:
			return nil, closed(op)
		case s.child != nil && s.child.answers():
			return s.child, nil
		case s.err != nil:
			return nil, s.err
		}
		select {
		case <-s.changed:
		case <-w.life.Done():
		case <-ctx.Done():
			return nil, ended(op, ctx)
		}
	}
}

// Generate implements infer.Backend.
func (w *Worker) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		ctx, cancel := until(ctx, r.Deadline)
		defer cancel()
		c, err := w.get(ctx, "generate")
		if err != nil {
			yield(infer.Chunk{}, err)
			return
		}
		m := generation{Request: r, Left: left(ctx, r.Deadline)}
		m.Request.Deadline = time.Time{}
		if err := c.generate(ctx, &m, yield); err != nil {
			yield(infer.Chunk{}, w.failed(ctx, c, "generate", err))
		}
	}
}

// Score implements infer.Backend.
func (w *Worker) Score(ctx context.Context, r infer.ScoreRequest) (infer.Scores, error) {
	ctx, cancel := until(ctx, r.Deadline)
	defer cancel()
	m := scoring{Request: r, Left: left(ctx, r.Deadline)}
	m.Request.Deadline = time.Time{}
	return call[infer.Scores](ctx, w, "score", &m)
}

// Embed implements infer.Backend.
func (w *Worker) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	return call[[][]float32](ctx, w, "embed", &texts)
}

// Tokenize implements infer.Backend.
func (w *Worker) Tokenize(ctx context.Context, text string, o infer.TokenizeOptions) (
	[]infer.Token, error,
) {
	return call[[]infer.Token](ctx, w, "tokenize", &tokenization{text, o})
}

// CountTokens implements infer.Counter.
func (w *Worker) CountTokens(ctx context.Context, r infer.Request) (int, error) {
	r.Deadline = time.Time{}
	return call[int](ctx, w, "count", &r)
}

// Detokenize implements infer.Detokenizer.
func (w *Worker) Detokenize(ctx context.Context, tokens []infer.TokenID) ([]byte, error) {
	return call[[]byte](ctx, w, "detokenize", &tokens)
}

// Stats implements infer.Observer. Its totals begin anew with each child.
func (w *Worker) Stats(ctx context.Context) (infer.Stats, error) {
	return call[infer.Stats](ctx, w, "stats", &nothing{})
}

// call asks the child one thing.
func call[Out, In any](ctx context.Context, w *Worker, op string, in *In) (out Out, err error) {
	c, err := w.get(ctx, op)
	if err != nil {
		return out, err
	}
	out, err = ask[Out](ctx, c, op, in)
	if err != nil {
		var none Out
		return none, w.failed(ctx, c, op, err)
	}
	return out, nil
}

// failed gives the typed error of a request: what the child said, or why it could not say anything.
func (w *Worker) failed(ctx context.Context, c *child, op string, err error) error {
	if e, ok := errors.AsType[*infer.Error](err); ok {
		return e
	}
	switch {
	case ctx.Err() != nil:
		return ended(op, ctx)
	case w.life.Err() != nil:
		return closed(op)
	}
	if e := tooLarge(op, err); e != nil {
		return e
	}
	c.condemn(err)
	return lost(op, errors.New("the model's process ended during the request"))
}

// until bounds a request by its deadline, which holds though the child may be stopped.
func until(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	if deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline)
}

// left is how long it is until a deadline; 0 where there is none. It crosses the wire in place of
// the deadline, since the clock on the wall may jump.
func left(ctx context.Context, deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return 0
	}
	at, _ := ctx.Deadline() // an earlier one of the caller's ends ctx, and with it the request
	return max(time.Until(at), 1)
}
