// Package engine runs requests on one model in this process: it is the infer.Backend over
// runtime/llama. It owns the model, its context and the goroutine that alone touches the context.
// Requests wait in a bounded queue until package kv finds them a sequence and what of their prompt
// is there already; then they run together: each step computes the next token of every answer, and
// as much of the prompts as holds the answers up by no more than Options.Stall. It must not know
// HTTP, the control layer or where models come from.
//
// A reader that does not take its chunks is passed over once the owner is chunksAhead ahead of it;
// it keeps its sequence until it reads on, its deadline, its ctx or Close, or until another request
// wants the room and there is memory to park it in.
//
// Score and Embed have the context to themselves while they run. Deterministic requests are
// computed in steps of their own, with boundaries that depend on nothing but their prompt; requests
// with other adapters have steps of their own, too, and all take turns.
//
// Locks: queue.mu, worker.mu, ends.mu and Engine.chatMu are never held together, nor while the
// model computes.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Engine implements infer.Backend. It is safe for concurrent use.
type Engine struct {
	log     *slog.Logger
	info    infer.Info
	model   *llama.Model
	loras   []*llama.Lora // all that are open
	always  []adapter     // of Options.Loras
	named   map[string]adapter
	base    *adapterSet // of requests that name no adapters
	bounded int         // most tokens of prompt and answer together
	bytes   int         // most bytes of text that may be that many tokens
	outputs int         // most outputs of one step
	drafts  int         // outputs that a step has for guesses; 0 where none can be verified
	// speculate is the mode of requests that name none.
	speculate infer.Speculation
	pooling   gguf.Pooling

	key    kv.Key // of prefixes that every request can share
	shared bool   // the layout
	// checkpoints says that saved state of this model is cut at checkpoints, and that there are some.
	checkpoints bool
	evict       kv.Evictor
	evictors    map[string]kv.Evictor

	life   context.Context // ends when Close begins
	end    context.CancelCauseFunc
	done   chan struct{} // closed when the owner goroutine has gone
	result error         // of freeing the model; read after done

	chatMu sync.Mutex
	chat   *llama.Chat // nil without a template

	queue *queue
	asked chan chan<- infer.Stats // the owner answers between two steps
	ends  ends
}

var (
	_ infer.Backend  = (*Engine)(nil)
	_ infer.Observer = (*Engine)(nil)
)

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

// Close ends running and waiting requests with KindClosed and frees the model. It waits for no
// reader: a loop over an answer may call it. It returns when everything is freed; a second call
// returns the same result.
func (e *Engine) Close() error {
	e.end(errClosed)
	e.queue.close()
	<-e.done
	return e.result
}

// own is what the owner goroutine does once the model is loaded: it alone uses the context.
func (e *Engine) own(w *worker) {
	defer close(e.done)
	w.serve()
	var err error
	if w.cells != nil {
		err = w.cells.close()
	}
	e.result = fail("close", errors.Join(err, e.free(w.c)))
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
