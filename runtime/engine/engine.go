// Package engine runs requests on one model in this process: it is the infer.Backend over
// runtime/llama. It owns the model, its context and the goroutine that alone touches the
// context; requests wait in a bounded queue and run one after another, each reusing the longest
// prefix that the last one left. It must not know HTTP, the control layer or where models come
// from.
//
// Lock order: Engine.mu, then Engine.chatMu; neither is held while the model computes.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Engine implements infer.Backend. It is safe for concurrent use.
type Engine struct {
	log     *slog.Logger
	info    infer.Info
	model   *llama.Model
	loras   []*llama.Lora
	bounded int // most tokens of prompt and answer together

	life   context.Context // ends when Close begins
	end    context.CancelCauseFunc
	done   chan struct{} // closed when the owner goroutine has gone
	result error         // of freeing the model; read after done

	chatMu sync.Mutex
	chat   *llama.Chat // nil without a template

	mu     sync.RWMutex
	closed bool
	queue  chan *task
}

// task is one visit to the owner goroutine. Whoever takes it first has it: the owner, which then
// runs it to its end, or its caller, which thereby gives up waiting.
type task struct {
	ctx       context.Context
	submitted time.Time
	taken     atomic.Bool
	run       func(*worker)
}

// take claims the task; false means that the other side has it.
func (t *task) take() bool { return t.taken.CompareAndSwap(false, true) }

var _ infer.Backend = (*Engine)(nil)

// Info describes the model and this engine.
func (e *Engine) Info() infer.Info { return e.info }

// submit queues a task. Its run is called at most once, and only when submit returns nil.
func (e *Engine) submit(t *task) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return errClosed
	}
	t.submitted = time.Now()
	select {
	case e.queue <- t:
		return nil
	default:
		return &infer.Error{
			Op: "submit", Kind: infer.KindBusy, Hint: "try again when a request has ended",
			Err: errors.New("the queue is full"),
		}
	}
}

// bind derives the context of one request: it ends with the caller's, with the engine, or at the
// deadline.
func (e *Engine) bind(ctx context.Context, deadline time.Time) (
	context.Context, context.CancelCauseFunc,
) {
	out, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.life, func() { cancel(errClosed) })
	release := func() {}
	if !deadline.IsZero() {
		out, release = context.WithDeadline(out, deadline)
	}
	return out, func(cause error) {
		stop()
		cancel(cause)
		release()
	}
}

// call runs fn on the owner goroutine and waits for it.
func (e *Engine) call(ctx context.Context, op string, deadline time.Time,
	fn func(*worker, *task) error,
) error {
	ctx, cancel := e.bind(ctx, deadline)
	defer cancel(context.Canceled)
	done := make(chan error, 1)
	t := &task{ctx: ctx}
	t.run = func(w *worker) {
		stop := w.abortOn(ctx)
		err := fn(w, t)
		stop()
		if err != nil {
			w.resync()
		}
		if err != nil && ctx.Err() != nil {
			err = ended(op, ctx)
		}
		done <- fail(op, err)
	}
	if err := e.submit(t); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		if t.take() {
			return ended(op, ctx)
		}
		return <-done // it runs, and ends by itself
	}
}

// Close ends running and waiting requests with KindClosed and frees the model. It returns when
// everything is freed; a second call returns the same result.
func (e *Engine) Close() error {
	e.end(errClosed)
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.queue)
	}
	e.mu.Unlock()
	<-e.done
	return e.result
}

// own is the owner goroutine: it alone uses the worker's context.
func (e *Engine) own(w *worker) {
	defer close(e.done)
	for t := range e.queue {
		if t.take() {
			t.run(w)
		}
	}
	e.result = e.free(w)
}

// free closes everything, children first.
func (e *Engine) free(w *worker) error {
	var errs []error
	errs = append(errs, w.c.Close())
	e.chatMu.Lock()
	if e.chat != nil {
		errs = append(errs, e.chat.Close())
	}
	e.chatMu.Unlock()
	for _, l := range e.loras {
		errs = append(errs, l.Close())
	}
	errs = append(errs, e.model.Close())
	return fail("close", errors.Join(errs...))
}

// Tokenize splits a text as the model sees it.
func (e *Engine) Tokenize(ctx context.Context, text string, o infer.TokenizeOptions) (
	[]infer.Token, error,
) {
	if err := ctx.Err(); err != nil {
		return nil, ended("tokenize", ctx)
	}
	if len(text) > infer.PromptBytesMax {
		return nil, &infer.Error{Op: "tokenize", Kind: infer.KindTooLong, Field: "text"}
	}
	ids, err := e.model.Tokenize(text, o.AddSpecial, o.ParseSpecial)
	if err != nil {
		return nil, fail("tokenize", err)
	}
	out := make([]infer.Token, len(ids))
	for i, id := range ids {
		b, err := e.model.AppendPiece(nil, id, true)
		if err != nil {
			return nil, fail("tokenize", err)
		}
		out[i] = infer.Token{ID: infer.TokenID(id), Text: b}
	}
	return out, nil
}

// worker is the state of the owner goroutine.
type worker struct {
	c      *llama.Context
	cached []llama.Token // what sequence 0 holds, in order
	next   llama.Token   // chosen last, computed by the next step
}

// abortOn lets the end of ctx interrupt a running computation. The returned stop is called when
// the computation is over: after it, ctx has no more effect.
func (w *worker) abortOn(ctx context.Context) (stop func()) {
	aborted := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		w.c.Abort()
		close(aborted)
	})
	return func() {
		if !cancel() {
			<-aborted
			w.c.Resume()
		}
	}
}

// forget empties the cache, after anything that leaves it unknown.
func (w *worker) forget() {
	w.cached = w.cached[:0]
	_ = w.c.Drop(0) // cannot fail on an open context's first sequence
}

// reuse keeps the longest prefix that the cache shares with tokens, at most all but the last,
// and returns its length.
func (w *worker) reuse(tokens []llama.Token) int {
	n := 0
	for n < min(len(w.cached), len(tokens)-1) && w.cached[n] == tokens[n] {
		n++
	}
	if n == 0 || w.c.Truncate(0, llama.Pos(n)) != nil {
		w.forget()
		return 0
	}
	w.cached = w.cached[:n]
	return n
}

// feed computes tokens after what is cached, in micro-batches, and returns the place of the last.
// With output, the micro-batch with the last token is left in the batch, to be computed by a
// Step or Decode; the caller then calls keep.
func (w *worker) feed(ctx context.Context, tokens []llama.Token, output bool) (int, error) {
	b := w.c.Batch()
	b.Reset()
	place, base := 0, len(w.cached)
	for i, t := range tokens {
		var err error
		last := i == len(tokens)-1
		place, err = b.Add(t, llama.Pos(base+i), 0, last && output)
		if err != nil {
			return 0, err
		}
		if last && output {
			return place, nil
		}
		if !last && b.Len() < w.c.Info().MicroBatch {
			continue
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err := w.c.Decode(); err != nil {
			return 0, err
		}
		w.keep(tokens[:i+1], base)
	}
	return place, nil
}

// keep records that tokens, which began at position base, have been computed.
func (w *worker) keep(tokens []llama.Token, base int) {
	w.cached = append(w.cached[:base], tokens...)
}

// resync makes cached and cache agree after a step that failed or was interrupted: both keep
// what is known to be computed.
func (w *worker) resync() {
	w.c.Batch().Reset()
	if w.c.Truncate(0, llama.Pos(len(w.cached))) != nil {
		w.forget()
	}
}
