package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/norion/norion/control/event"
)

// Bounds of appends.
const (
	BatchEventsMax = 256
	queueMax       = 1024 // appends that wait for the writer
	groupEventsMax = 4096 // events of one commit
)

// Expect is a condition of an append: the version that a stream of its scope must have, 0 where it
// must be new.
type Expect struct {
	Stream  string
	Version int64
}

// Batch is what is appended together: all of it or nothing. An event.Forgotten among the drafts
// destroys the key of the sealed text that it names, in the same transaction.
type Batch struct {
	// Drafts become events in this order. They are of one scope.
	Drafts []event.Draft
	// Key makes the append idempotent for ever within its scope: a second append with the same
	// key and the same drafts changes nothing and returns the first's events.
	Key string
	// Expect must hold (optimistic concurrency).
	Expect []Expect
	// Sealed are the texts that the drafts commit to, as far as they are not stored yet.
	Sealed []Sealed
	// Check runs in the transaction after the projections took the events in; an error undoes
	// all of it and comes back from Append. It may not keep its arguments.
	Check func(state func(projection string) State, events []event.Event) error
}

// Appended are the recorded events.
type Appended struct {
	Events []event.Event
	// Duplicate says that an earlier append with the same key recorded them.
	Duplicate bool
}

// request is an append on its way to the writer.
type request struct {
	Batch
	events []event.Event // without what the writer gives
	taken  atomic.Bool   // by the writer, or by the caller who gave up
	result chan result   // capacity 1
}

type result struct {
	Appended
	err error
}

// Append records events. When it returns nil they are on stable storage, with the projections that
// follow from them. Errors: ErrInvalid, ErrConflict, ErrKeyReused, ErrNotFound for a text that is
// not there in this scope, ErrForgotten, ErrUnavailable, ErrClosed; ErrCanceled when ctx ended
// before the writer took it up: nothing was recorded; ErrPending when ctx ended after that: an
// append with the same key tells the outcome. What Check and projections return comes back as it
// is.
func (l *Ledger) Append(ctx context.Context, b Batch) (Appended, error) {
	q, err := prepare(b)
	if err != nil {
		return Appended{}, err
	}
	if slices.ContainsFunc(q.events, own) {
		return Appended{}, invalid("Drafts", "only the ledger itself records its own events")
	}
	if err := l.usable(); err != nil {
		return Appended{}, err
	}
	select {
	case l.requests <- q:
	case <-ctx.Done():
		return Appended{}, wrap("append", ctx.Err())
	case <-l.done:
		return Appended{}, errClosed()
	}
	select {
	case r := <-q.result:
		return r.Appended, r.err
	case <-ctx.Done():
		if q.taken.CompareAndSwap(false, true) {
			return Appended{}, wrap("append", ctx.Err())
		}
		return Appended{}, &Error{
			Op: "append", Kind: ErrPending, Err: ctx.Err(),
			Hint: "append again with the same key to learn what became of it",
		}
	case <-l.done:
		select {
		case r := <-q.result:
			return r.Appended, r.err
		default:
			return Appended{}, errClosed()
		}
	}
}

func errClosed() error { return &Error{Op: "append", Kind: ErrClosed} }

// own reports whether an event is of a kind that only the ledger records.
func own(e event.Event) bool {
	return e.Kind == event.LedgerCreated || e.Kind == event.LedgerRecovered ||
		e.Kind == event.LedgerMigrated
}

// usable says why nothing can be appended, or nil.
func (l *Ledger) usable() error {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return errClosed()
	}
	if e := l.failure.Load(); e != nil {
		return e
	}
	return nil
}

// prepare checks a batch and computes what does not depend on the record.
func prepare(b Batch) (*request, error) {
	if len(b.Drafts) == 0 || len(b.Drafts) > BatchEventsMax {
		return nil, invalid("Drafts", "%d events, 1 to %d", len(b.Drafts), BatchEventsMax)
	}
	if err := event.CheckKey(b.Key); err != nil {
		return nil, &Error{Op: "append", Kind: ErrInvalid, Field: "Key", Err: err}
	}
	q := &request{Batch: b, result: make(chan result, 1)}
	for i, d := range b.Drafts {
		field := fmt.Sprintf("Drafts[%d]", i)
		if d.Scope != b.Drafts[0].Scope {
			return nil, invalid(field, "%s and %s: nothing crosses a scope", d.Scope,
				b.Drafts[0].Scope)
		}
		e, err := event.New(d)
		if err != nil {
			return nil, &Error{Op: "append", Kind: ErrInvalid, Field: field, Err: err}
		}
		e.Key = b.Key
		q.events = append(q.events, e)
	}
	for i, s := range b.Sealed {
		if err := q.checkSealed(s); err != nil {
			return nil, invalid(fmt.Sprintf("Sealed[%d]", i), "%w", err)
		}
	}
	return q, nil
}

// checkSealed refuses a text that the drafts do not commit to.
func (q *request) checkSealed(s Sealed) error {
	switch {
	case s.Digest.IsZero():
		return errors.New("it was not made by Seal")
	case s.scope != q.events[0].Scope:
		return fmt.Errorf("it belongs to %s", s.scope)
	case !slices.ContainsFunc(q.events, func(e event.Event) bool { return e.Payload == s.Digest }):
		return errors.New("no draft commits to it")
	}
	return nil
}
