package ledger

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/control/ledger/storage/sqlite"
	"github.com/norion/norion/hw/disk"
)

// Reader reads a record, also one that another process writes to. It is safe for concurrent use.
type Reader struct {
	store       storage.Store
	dir         disk.Dir
	projections []Projection
	key         note.Verifier
	payloadKey  []byte // of a Ledger; a reader loads it where it needs it
	witness     string // path, or ""
	openDir     func(path string) (disk.Dir, error)
	tree        atomic.Pointer[tree]

	mu    sync.Mutex // guards cache
	cache map[tileKey]heap
}

type tileKey struct {
	level int
	n     int64
}

// tilesMax bounds the tiles in memory: 16 KiB each.
const tilesMax = 1024

// OpenReader opens a record for reading; it changes nothing. The caller closes it. Errors: ErrNone,
// ErrOptions, ErrDirectory, ErrTooNew, ErrKey, ErrDamaged, ErrUnavailable.
func OpenReader(ctx context.Context, o Options) (*Reader, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	dir, err := openDirectory(o, false)
	if err != nil {
		return nil, err
	}
	r := &Reader{dir: dir, projections: o.Projections}
	if err := r.open(ctx, o); err != nil {
		return nil, errors.Join(wrap("open", err), r.Close())
	}
	return r, nil
}

func (r *Reader) open(ctx context.Context, o Options) (err error) {
	if _, err := r.dir.Lstat(databaseFile); err != nil {
		return &Error{Op: "open", Kind: ErrNone, Field: o.Dir, Err: err, Hint: hintNone}
	}
	if r.key, err = verifier(r.dir); err != nil {
		return err
	}
	r.witness, r.openDir = o.Witness, o.OpenDir
	so := o.sql
	so.Dir, so.Name, so.ReadOnly = r.dir, databaseFile, true
	s, err := sqlite.Open(ctx, so)
	if err != nil {
		return err
	}
	r.store = s
	return nil
}

// checkpoint reads the signed checkpoint of this moment.
func (r *Reader) checkpoint() (data []byte, cp Checkpoint, err error) {
	f := checkpointFile{dir: r.dir, name: checkpointName}
	if err := f.read(); err != nil {
		return nil, cp, err
	}
	cp, err = ParseCheckpoint(f.last, r.key)
	return f.last, cp, err
}

// Close releases the reader. A second Close is no error.
func (r *Reader) Close() error {
	if r.store == nil {
		return r.dir.Close()
	}
	return wrap("close", errors.Join(r.store.Close(), r.dir.Close()))
}

// Key returns the record's public key.
func (r *Reader) Key() note.Verifier { return r.key }

// Last returns the number of the newest event, 0 where there is none.
func (r *Reader) Last(ctx context.Context) (last int64, err error) {
	err = r.store.View(ctx, func(v storage.Reader) (err error) {
		last, err = v.Last(ctx)
		return err
	})
	return last, wrap("read", err)
}

// Version returns the newest version of a stream, 0 where there is none.
func (r *Reader) Version(ctx context.Context, scope event.Scope, stream string) (
	n int64, err error,
) {
	err = r.store.View(ctx, func(v storage.Reader) (err error) {
		n, err = v.Version(ctx, scope, stream)
		return err
	})
	return n, wrap("read", err)
}

// Filter selects events. The zero value selects all.
type Filter struct {
	First, Last int64        // numbers; Last 0 is the newest
	Scope       *event.Scope // nil is every scope; empty parts match every one
	Kind        event.Kind   // "" is every kind; "gene." every kind that begins so
	Actor       string
	Stream      string
	Since       time.Time // zero is no bound
	Until       time.Time // exclusive; zero is no bound
}

// Matches reports whether an event is selected, its number aside.
func (f Filter) Matches(e event.Event) bool {
	part := func(want, have string) bool { return want == "" || want == have }
	kind := part(string(f.Kind), string(e.Kind))
	if n := len(f.Kind); n > 0 && f.Kind[n-1] == '.' && len(e.Kind) > n {
		kind = e.Kind[:n] == f.Kind
	}
	return kind && part(f.Actor, e.Actor) && part(f.Stream, e.Stream) &&
		(f.Scope == nil || part(f.Scope.Tenant, e.Scope.Tenant) &&
			part(f.Scope.Workspace, e.Scope.Workspace) && part(f.Scope.Session, e.Scope.Session)) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) && (f.Until.IsZero() || e.Time.Before(f.Until))
}

// Events calls visit for the selected events in order. The event is visit's to keep.
func (r *Reader) Events(ctx context.Context, f Filter, visit func(event.Event) error) error {
	err := r.store.View(ctx, func(v storage.Reader) error {
		last, err := v.Last(ctx)
		if err != nil {
			return err
		}
		if f.Last > 0 {
			last = min(last, f.Last)
		}
		return v.Rows(ctx, max(1, f.First), last, func(row *storage.Row) error {
			if !f.Matches(row.Event) {
				return nil
			}
			return visit(owned(row))
		})
	})
	return wrapRead(err)
}

// wrapRead leaves an error that is not the record's as it is.
func wrapRead(err error) error {
	if _, ok := errors.AsType[storage.Fault](err); ok {
		return wrap("read", err)
	}
	return err
}

// tiles reads full tiles through a cache. They never change.
func (r *Reader) tiles(ctx context.Context, v storage.Reader) func(int, int64) (heap, error) {
	return func(level int, n int64) (heap, error) {
		key := tileKey{level, n}
		r.mu.Lock()
		h, ok := r.cache[key]
		r.mu.Unlock()
		if ok {
			return h, nil
		}
		hashes, err := storedTile(ctx, v, level, n)
		if err != nil {
			return nil, err
		}
		h = newHeap(hashes)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.cache == nil {
			r.cache = map[tileKey]heap{}
		}
		if len(r.cache) >= tilesMax {
			for any := range r.cache {
				delete(r.cache, any)
				break
			}
		}
		r.cache[key] = h
		return h, nil
	}
}

// at gives a tree of at least size events: the one at hand, else one that is read.
func (r *Reader) at(ctx context.Context, v storage.Reader, size int64) (*tree, error) {
	if t := r.tree.Load(); t != nil && t.size >= size {
		return t, nil
	}
	t, err := loadTree(ctx, v, size)
	if err == nil {
		r.tree.CompareAndSwap(nil, t)
	}
	return t, err
}
