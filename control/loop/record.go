package loop

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
	"github.com/norion/norion/runtime/infer"
)

// actor is who records requests; profile is the only one there is.
const (
	actor   = "loop"
	profile = "general"
)

// idBytesMax bounds the ids of requests that can name a stream.
const idBytesMax = 100

// notRecorded is what callers are told of an end that could not be recorded. The cause, which may
// name paths, comes with the next request, which is refused.
const notRecorded = "is not in the record"

// Record takes events in. When Append returns nil, they are on stable storage. A ledger.Ledger is
// one.
type Record interface {
	Append(ctx context.Context, b ledger.Batch) (ledger.Appended, error)
}

// Recording says how requests are recorded. All fields are required.
type Recording struct {
	Record Record
	Now    func() time.Time
	NewID  func() string                   // a name that no other request has
	Scope  func(infer.Request) event.Scope // whose a request is
}

// Validate refuses a recording with a field missing. Kinds: infer.KindInvalid.
func (o Recording) Validate() error {
	for field, missing := range map[string]bool{
		"Record": o.Record == nil, "Now": o.Now == nil, "NewID": o.NewID == nil,
		"Scope": o.Scope == nil,
	} {
		if missing {
			return &infer.Error{Op: "record", Kind: infer.KindInvalid, Field: field}
		}
	}
	return nil
}

// recorded is a backend whose generations are recorded.
type recorded struct {
	infer.Backend
	o     Recording
	model event.Digest
}

// Recorded gives a backend that records each run of Generate: request.started before b is asked,
// and request.ended before the caller learns how it ended. Both are in the stream "request/ID" of
// the request's ID, or of a new one where it has none that is a name. A request that cannot be
// recorded is refused with infer.KindRecord; an answer whose end cannot be recorded says so in its
// notes. A started request without an end is one whose process ended, or whose record failed.
//
// Score, Embed and Tokenize are not recorded. The backend is safe for concurrent use. Errors:
// infer.KindInvalid where b does not know the digest of its model.
func Recorded(b infer.Backend, o Recording) (infer.Backend, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	d, err := event.ParseDigest(b.Info().Digest)
	if err == nil && d.IsZero() {
		err = errors.New("there is none")
	}
	if err != nil {
		return nil, &infer.Error{
			Op: "record", Kind: infer.KindInvalid, Field: "Digest", Err: err,
			Hint: "name the digest of the model's file when it is opened",
		}
	}
	return &recorded{Backend: b, o: o, model: d}, nil
}

// Generate implements infer.Backend.
func (b *recorded) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		run := &run{b: b, began: b.o.Now(), scope: b.o.Scope(r), id: b.o.NewID()}
		run.stream = "request/" + run.id
		if r.ID != "" && len(r.ID) <= idBytesMax && event.CheckKey(r.ID) == nil {
			run.stream = "request/" + r.ID
		}
		if err := run.start(ctx, r.Deadline); err != nil {
			yield(infer.Chunk{}, err)
			return
		}
		// A caller who leaves is told nothing: where this fails, the next request is refused.
		defer func() { _ = run.end(ctx, event.OutcomeCancelled, "left") }()
		for c, err := range b.Backend.Generate(ctx, r) {
			run.tokens += int64(c.Tokens)
			switch {
			case err != nil:
				err = run.failed(ctx, err)
			case c.Final != nil:
				c.Final = run.final(ctx, *c.Final)
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// CountTokens implements infer.Counter.
func (b *recorded) CountTokens(ctx context.Context, r infer.Request) (int, error) {
	c, ok := b.Backend.(infer.Counter)
	if !ok {
		return 0, &infer.Error{Op: "count", Kind: infer.KindUnsupported}
	}
	return c.CountTokens(ctx, r)
}

// Detokenize implements infer.Detokenizer.
func (b *recorded) Detokenize(ctx context.Context, tokens []infer.TokenID) ([]byte, error) {
	d, ok := b.Backend.(infer.Detokenizer)
	if !ok {
		return nil, &infer.Error{Op: "detokenize", Kind: infer.KindUnsupported}
	}
	return d.Detokenize(ctx, tokens)
}

// run is one request on its way. It is used by one goroutine.
type run struct {
	b      *recorded
	began  time.Time
	scope  event.Scope
	id     string // unique
	stream string
	prompt int64 // tokens
	tokens int64 // of the answer
	ended  bool
}

func (r *run) append(ctx context.Context, body event.Body) error {
	_, err := r.b.o.Record.Append(ctx, ledger.Batch{Drafts: []event.Draft{
		{Scope: r.scope, Stream: r.stream, Actor: actor, Body: body},
	}})
	return err
}

// start records that the request begins.
func (r *run) start(ctx context.Context, deadline time.Time) error {
	if !deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, deadline)
		defer stop()
	}
	err := r.append(ctx, event.Started{Request: r.id, Model: r.b.model, Profile: profile})
	if err != nil {
		return refusal(ctx, err)
	}
	return nil
}

// end records how the request ended, the first time that it is called. The end of ctx does not
// stop it.
func (r *run) end(ctx context.Context, outcome event.Outcome, reason string) error {
	if r.ended {
		return nil
	}
	r.ended = true
	return r.append(context.WithoutCancel(ctx), event.Ended{
		Request: r.id, Outcome: outcome, Reason: reason, PromptTokens: r.prompt,
		CompletionTokens: r.tokens, DurationUs: max(0, r.b.o.Now().Sub(r.began).Microseconds()),
	})
}

// final records a whole answer and gives what its last chunk says.
func (r *run) final(ctx context.Context, f infer.Final) *infer.Final {
	r.prompt, r.tokens = int64(f.Usage.PromptTokens), int64(f.Usage.CompletionTokens)
	if r.end(ctx, event.OutcomeDone, string(f.Reason)) != nil {
		f.Notes = append(slices.Clip(f.Notes), "its end "+notRecorded)
	}
	return &f
}

// failed records an error and gives what the caller is told.
func (r *run) failed(ctx context.Context, err error) error {
	kind := infer.KindOf(err)
	outcome := event.OutcomeFailed
	if kind == infer.KindCanceled {
		outcome = event.OutcomeCancelled
	}
	if r.end(ctx, outcome, strings.ReplaceAll(string(kind), " ", "-")) != nil {
		return &infer.Error{
			Op: "record", Kind: kind, Hint: infer.HintOf(err),
			Err: fmt.Errorf("%w; this "+notRecorded, err),
		}
	}
	return err
}

// refusal is the error of a request that could not be recorded.
func refusal(ctx context.Context, err error) error {
	e := &infer.Error{Op: "record", Kind: infer.KindRecord, Err: err}
	if of, ok := errors.AsType[*ledger.Error](err); ok {
		e.Hint = of.Hint
	}
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.DeadlineExceeded):
		e.Kind, e.Hint = infer.KindDeadline, ""
	case cause != nil:
		e.Kind, e.Hint = infer.KindCanceled, ""
	}
	return e
}
