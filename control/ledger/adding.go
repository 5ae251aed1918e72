package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// adding is one request in a transaction.
type adding struct {
	l   *Ledger
	w   storage.Writer
	q   *request
	ctx context.Context // of the transaction
}

// add appends a request to the tree t and returns the tree after it, and what the caller of Append
// is told. t may not be used any more. A request that is refused leaves nothing in the transaction.
// An error means that the transaction cannot go on.
func (a *adding) add(t *tree) (*tree, result, error) {
	earlier, err := a.admit()
	if err != nil {
		return t, result{err: err}, fatal(err)
	}
	if earlier != nil {
		return t, result{Appended: Appended{Events: earlier, Duplicate: true}}, nil
	}
	if len(a.l.projections) == 0 && a.q.Check == nil { // nothing refuses it any more
		events, err := a.insert(t)
		return t, result{Appended: Appended{Events: events}}, err
	}
	next := t.clone()
	var events []event.Event
	err = a.w.Nested(a.ctx, func() (err error) {
		if events, err = a.insert(next); err != nil {
			return err
		}
		return a.project(events)
	})
	if err != nil {
		clear(a.l.state.versions)
		return t, result{err: err}, fatal(err)
	}
	return next, result{Appended: Appended{Events: events}}, nil
}

// fatal returns err if it is one of the storage's.
func fatal(err error) error {
	if _, ok := errors.AsType[storage.Fault](err); ok {
		return err
	}
	return nil
}

// admit returns the events of an earlier append with the same key, nil where there is none, and
// refuses what may not be appended.
func (a *adding) admit() (earlier []event.Event, err error) {
	if a.q.Key != "" {
		if earlier, err = a.duplicate(); err != nil || earlier != nil {
			return earlier, err
		}
	}
	scope := a.q.events[0].Scope
	for _, x := range a.q.Expect {
		have, err := a.version(scope, x.Stream)
		if err != nil {
			return nil, err
		}
		if have != x.Version {
			return nil, &Error{
				Op: "append", Kind: ErrConflict, Field: x.Stream,
				Err:  fmt.Errorf("it is at version %d, not %d", have, x.Version),
				Hint: "read the stream again and decide anew",
			}
		}
	}
	for _, e := range a.q.events {
		if err := a.admitPayloads(e); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// admitPayloads wants the sealed texts that an event speaks of to be there, in its scope.
func (a *adding) admitPayloads(e event.Event) error {
	sealed := func(s Sealed) bool { return s.Digest == e.Payload }
	if !e.Payload.IsZero() && !slices.ContainsFunc(a.q.Sealed, sealed) {
		if err := a.openable(e.Scope, e.Payload); err != nil {
			return err
		}
	}
	if e.Kind != event.PayloadForgotten {
		return nil
	}
	f, err := forgotten(e)
	if err != nil {
		return err
	}
	return a.openable(e.Scope, f.Payload)
}

func forgotten(e event.Event) (event.Forgotten, error) {
	b, err := e.Decode()
	if err != nil {
		return event.Forgotten{}, err
	}
	f, ok := b.(event.Forgotten)
	if !ok {
		return f, invalid("Drafts", "%s of version %d is not known", e.Kind, e.Schema)
	}
	return f, nil
}

// openable reports whether a stored text opens in a scope.
func (a *adding) openable(scope event.Scope, d event.Digest) error {
	p, err := a.w.Payload(a.ctx, d)
	if err == nil {
		_, err = unseal(a.l.payloadKey, p, scope, d)
	}
	return err
}

// duplicate returns the events of an earlier append with the same key.
func (a *adding) duplicate() (events []event.Event, err error) {
	first, last, err := a.w.Keyed(a.ctx, a.q.events[0].Scope, a.q.Key)
	if err != nil || first == 0 {
		return nil, err
	}
	err = a.w.Rows(a.ctx, first, last, func(row *storage.Row) error {
		events = append(events, owned(row))
		return nil
	})
	if err == nil && !slices.EqualFunc(events, a.q.events, sameDraft) {
		err = &Error{
			Op: "append", Kind: ErrKeyReused, Field: a.q.Key, Hint: "use a new key for a new append",
		}
	}
	return events, err
}

// sameDraft reports whether a recorded event is that of a draft. A sealed text has another
// ciphertext each time, so that only its being there is compared.
func sameDraft(have, want event.Event) bool {
	return have.Scope == want.Scope && have.Stream == want.Stream && have.Kind == want.Kind &&
		have.Schema == want.Schema && have.Actor == want.Actor && have.Key == want.Key &&
		have.Payload.IsZero() == want.Payload.IsZero() && string(have.Body) == string(want.Body)
}

// version is the newest version of a stream.
func (a *adding) version(scope event.Scope, stream string) (int64, error) {
	key, s := streamKey{scope, stream}, &a.l.state
	if v, ok := s.versions[key]; ok {
		return v, nil
	}
	v, err := a.w.Version(a.ctx, scope, stream)
	if err != nil {
		return 0, err
	}
	if s.versions == nil || len(s.versions) >= versionsMax {
		s.versions = map[streamKey]int64{}
	}
	s.versions[key] = v
	return v, nil
}

// insert writes the rows of a request and their hashes.
func (a *adding) insert(t *tree) ([]event.Event, error) {
	for _, s := range a.q.Sealed {
		if err := a.w.AddPayload(a.ctx, s.Digest, s.stored); err != nil {
			return nil, err
		}
	}
	now := time.UnixMicro(a.l.now().UnixMicro()).UTC()
	events := slices.Clone(a.q.events)
	for i := range events {
		e := &events[i]
		v, err := a.version(e.Scope, e.Stream)
		if err != nil {
			return nil, err
		}
		e.Seq, e.Version, e.Time = t.size+1, v+1, now
		if err := a.insertOne(t, *e); err != nil {
			return nil, err
		}
		a.l.state.versions[streamKey{e.Scope, e.Stream}] = e.Version
	}
	return events, nil
}

// insertOne writes one event, the tiles that it completes, and what it forgets.
func (a *adding) insertOne(t *tree, e event.Event) error {
	a.l.state.data = e.AppendCanonical(a.l.state.data[:0])
	row := storage.Row{Event: e, Leaf: tlog.RecordHash(a.l.state.data)}
	if err := a.w.AddEvent(a.ctx, &row); err != nil {
		return err
	}
	for _, made := range t.append(row.Leaf) {
		if err := a.w.AddTile(a.ctx, made.level, made.n, made.data); err != nil {
			return err
		}
	}
	if e.Kind != event.PayloadForgotten {
		return nil
	}
	f, err := forgotten(e)
	if err != nil {
		return err
	}
	_, err = a.w.DropKey(a.ctx, f.Payload)
	return err
}

// project lets the projections take the events in, and the request check what came of it.
func (a *adding) project(events []event.Event) error {
	for _, e := range events {
		for _, p := range a.l.projections {
			if err := p.Apply(stored{a.ctx, a.w, p.Name()}, e); err != nil {
				return err
			}
		}
	}
	if a.q.Check == nil {
		return nil
	}
	return a.q.Check(func(name string) State { return stored{a.ctx, a.w, name} }, events)
}
