// Package engine runs requests on one model in this process: it is the infer.Backend over
// runtime/llama. It owns the model, its context and the goroutine that alone touches the
// context; requests wait in a bounded queue and run one after another, each reusing the longest
// prefix that the last one left. It must not know HTTP, the control layer or where models come
// from.
//
// A reader that does not take its chunks holds up the owner, and with it the requests that wait:
// the owner runs ahead by at most chunksAhead. What ends such a request is its deadline, its ctx,
// or Close; a caller that cannot promise to read sets a deadline.
//
// Locks: queue.mu and Engine.chatMu are never held together, nor while the model computes.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/norion/norion/runtime/gguf"
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
	bytes   int // most bytes of text that may be that many tokens
	outputs int // most outputs of one step
	pooling gguf.Pooling

	life   context.Context // ends when Close begins
	end    context.CancelCauseFunc
	done   chan struct{} // closed when the owner goroutine has gone
	result error         // of freeing the model; read after done

	chatMu sync.Mutex
	chat   *llama.Chat // nil without a template

	queue *queue
}

var _ infer.Backend = (*Engine)(nil)

// Info describes the model and this engine.
func (e *Engine) Info() infer.Info { return e.info }

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
	if ctx.Err() != nil {
		return ended(op, ctx)
	}
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
	if err := e.queue.push(t); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		if e.queue.takeBack(t) {
			return ended(op, ctx)
		}
		return <-done // it runs, and ends by itself
	}
}

// Close ends running and waiting requests with KindClosed and frees the model. It waits for no
// reader: a loop over an answer may call it. It returns when everything is freed; a second call
// returns the same result.
func (e *Engine) Close() error {
	e.end(errClosed)
	e.queue.close()
	<-e.done
	return e.result
}

// own is the owner goroutine: it alone uses the worker's context. It stays on one thread of the
// system, since OpenMP keeps a team of compute threads for each thread that it was called from.
func (e *Engine) own(w *worker) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(e.done)
	for t := e.queue.pop(); t != nil; t = e.queue.pop() {
		t.run(w)
	}
	e.result = fail("close", e.free(w.c))
}

// free closes everything, children first: after the last task, or what a failed Open made. c may
// be nil.
func (e *Engine) free(c *llama.Context) error {
	var errs []error
	if c != nil {
		errs = append(errs, c.Close())
	}
	e.chatMu.Lock()
	defer e.chatMu.Unlock()
	if e.chat != nil {
		errs = append(errs, e.chat.Close())
	}
	for _, l := range e.loras {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, e.model.Close())...)
}

// Tokenize splits a text as the model sees it.
func (e *Engine) Tokenize(ctx context.Context, text string, o infer.TokenizeOptions) (
	[]infer.Token, error,
) {
	if err := e.queue.enter(); err != nil {
		return nil, err
	}
	defer e.queue.leave()
	if err := ctx.Err(); err != nil {
		return nil, ended("tokenize", ctx)
	}
	if len(text) > infer.PromptBytesMax {
		return nil, &infer.Error{Op: "tokenize", Kind: infer.KindTooLong, Field: "text"}
	}
	if !utf8.ValidString(text) {
		return nil, notUTF8("tokenize", "text")
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
