package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// State is the part of the current state that belongs to one projection: values by key. It is
// valid during the call that it was handed to.
type State interface {
	// Get returns a value, nil where there is none.
	Get(key string) ([]byte, error)
	// Range calls f for the keys that begin with prefix, in the order of their bytes. The value
	// is valid until f returns; f changes nothing.
	Range(prefix string, f func(key string, value []byte) error) error
	// Put sets a value.
	Put(key string, value []byte) error
	// Delete removes a value; a missing one is no error.
	Delete(key string) error
}

// Projection computes current state from events. It is applied within the transaction that
// appends an event, and again from the first event on by Rebuild and Verify: what it does may
// depend on nothing but its arguments.
type Projection interface {
	// Name identifies the projection and its version: "gate.1". Under a new name it is built
	// anew when the ledger is opened.
	Name() string
	// Apply takes one event in. An error refuses the append.
	Apply(s State, e event.Event) error
}

// systemState is the projection that names those that are up to date.
const systemState = "ledger"

// stored is the state of one projection in a transaction.
type stored struct {
	ctx  context.Context // of the transaction
	w    storage.Writer
	name string
}

func (s stored) Get(key string) ([]byte, error)     { return s.w.Get(s.ctx, s.name, key) }
func (s stored) Put(key string, value []byte) error { return s.w.Put(s.ctx, s.name, key, value) }
func (s stored) Delete(key string) error            { return s.w.Delete(s.ctx, s.name, key) }

func (s stored) Range(prefix string, f func(string, []byte) error) error {
	return s.w.Range(s.ctx, s.name, prefix, f)
}

// Snapshot is the state of a projection at one event. It implements State in memory.
type Snapshot map[string][]byte

// Get implements State.
func (s Snapshot) Get(key string) ([]byte, error) { return s[key], nil }

// Put implements State.
func (s Snapshot) Put(key string, value []byte) error {
	s[key] = append([]byte{}, value...)
	return nil
}

// Delete implements State.
func (s Snapshot) Delete(key string) error {
	delete(s, key)
	return nil
}

// Range implements State.
func (s Snapshot) Range(prefix string, f func(string, []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if strings.HasPrefix(k, prefix) {
			if err := f(k, s[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Digest identifies the state: two are equal when their digests are.
func (s Snapshot) Digest() event.Digest {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(s)) {
		for _, part := range [][]byte{[]byte(k), s[k]} {
			_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // a digest cannot fail
			h.Write(part)
		}
	}
	return event.Digest(h.Sum(nil))
}

// Project computes the state of a projection after the event upTo from the events alone.
func (r *Reader) Project(ctx context.Context, p Projection, upTo int64) (Snapshot, error) {
	s := Snapshot{}
	err := r.store.View(ctx, func(v storage.Reader) error {
		return v.Rows(ctx, 1, upTo, func(row *storage.Row) error { return p.Apply(s, owned(row)) })
	})
	return s, wrap("project", err)
}

// State reads the state of a projection as it is stored.
func (r *Reader) State(ctx context.Context, projection string) (s Snapshot, err error) {
	err = r.store.View(ctx, func(v storage.Reader) (err error) {
		s, err = storedState(ctx, v, projection)
		return err
	})
	return s, wrap("state", err)
}

// storedState copies what is stored of a projection.
func storedState(ctx context.Context, v storage.Reader, projection string) (Snapshot, error) {
	s := Snapshot{}
	return s, v.Range(ctx, projection, "", func(k string, value []byte) error {
		return s.Put(k, value)
	})
}

// Get reads one value of a projection, nil where there is none.
func (r *Reader) Get(ctx context.Context, projection, key string) (value []byte, err error) {
	err = r.store.View(ctx, func(v storage.Reader) (err error) {
		value, err = v.Get(ctx, projection, key)
		return err
	})
	return value, wrap("state", err)
}

// Rebuild makes the stored state of every projection anew from the events. It returns the digests
// of what was stored before and is now, by name.
func (l *Ledger) Rebuild(ctx context.Context) (before, after map[string]event.Digest, err error) {
	before, after = map[string]event.Digest{}, map[string]event.Digest{}
	err = l.store.Update(ctx, func(w storage.Writer) error {
		for _, p := range l.projections {
			was, err := storedState(ctx, w, p.Name())
			if err != nil {
				return err
			}
			before[p.Name()] = was.Digest()
			is, err := rebuild(ctx, w, p)
			if err != nil {
				return fmt.Errorf("projection %s: %w", p.Name(), err)
			}
			after[p.Name()] = is.Digest()
		}
		return nil
	})
	return before, after, wrap("rebuild", err)
}

// rebuild replaces the stored state of a projection.
func rebuild(ctx context.Context, w storage.Writer, p Projection) (Snapshot, error) {
	s := Snapshot{}
	last, err := w.Last(ctx)
	if err != nil {
		return nil, err
	}
	err = w.Rows(ctx, 1, last, func(row *storage.Row) error { return p.Apply(s, owned(row)) })
	if err != nil {
		return nil, err
	}
	if err := w.Clear(ctx, p.Name()); err != nil {
		return nil, err
	}
	for k, v := range s {
		if err := w.Put(ctx, p.Name(), k, v); err != nil {
			return nil, err
		}
	}
	return s, w.Put(ctx, systemState, p.Name(), nil)
}

// bringUp builds the projections that are new, and marks those that this program does not keep, so
// that one that does builds them anew.
func (l *Ledger) bringUp(ctx context.Context) error {
	return l.store.Update(ctx, func(w storage.Writer) error {
		live, err := storedState(ctx, w, systemState)
		if err != nil {
			return err
		}
		for _, p := range l.projections {
			if _, ok := live[p.Name()]; !ok {
				if _, err := rebuild(ctx, w, p); err != nil {
					return fmt.Errorf("projection %s: %w", p.Name(), err)
				}
			}
			delete(live, p.Name())
		}
		for name := range live {
			if err := w.Delete(ctx, systemState, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// owned is the event of a row that outlives it.
func owned(r *storage.Row) event.Event {
	e := r.Event
	e.Body = slices.Clone(r.Body)
	return e
}
