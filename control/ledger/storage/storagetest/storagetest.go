// Package storagetest owns the conformance suite of the record's engines: an engine that passes it
// can keep a record. It must not know any particular engine.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// Run tests the engine that open opens. open is called with a directory; the same directory again
// is the same database.
func Run(t *testing.T, open func(t *testing.T, dir string) storage.Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, storage.Store, func() storage.Store){
		"events": testEvents, "streams": testStreams, "keys": testKeys, "tiles": testTiles,
		"payloads": testPayloads, "state": testState, "rollback": testRollback,
		"nested": testNested, "undone streams": testUndoneStreams, "views": testViews,
		"many readers": testManyReaders, "reopen": testReopen, "backup": testBackup,
		"closed": testClosed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir)
			again := func() storage.Store {
				require.NoError(t, s.Close())
				s = open(t, dir)
				return s
			}
			test(t, s, again)
			require.NoError(t, s.Close())
			require.NoError(t, s.Close(), "twice")
		})
	}
}

var (
	errTest = errors.New("the test's own")
	scopeA  = event.Scope{Tenant: "a"}
	scopeB  = event.Scope{Tenant: "a", Workspace: "b"}
)

// row is a made-up event.
func row(seq int64, scope event.Scope, stream string, version int64) *storage.Row {
	r := &storage.Row{Event: event.Event{
		Seq: seq, Scope: scope, Stream: stream, Version: version, Kind: event.SensorCrossed,
		Schema: 1, Time: time.UnixMicro(1_700_000_000_000_000 + seq).UTC(), Actor: "test",
		Body: []byte(`{"a":1}`),
	}}
	r.Leaf = event.DigestOf(r.AppendCanonical(nil))
	return r
}

// add stores rows in one transaction.
func add(t *testing.T, s storage.Store, rows ...*storage.Row) {
	t.Helper()
	require.NoError(t, s.Update(t.Context(), func(w storage.Writer) error {
		for _, r := range rows {
			if err := w.AddEvent(t.Context(), r); err != nil {
				return err
			}
		}
		return nil
	}))
}

// read returns the events first to last.
func read(t *testing.T, s storage.Store, first, last int64) (all []storage.Row) {
	t.Helper()
	view(t, s, func(r storage.Reader) error {
		return r.Rows(t.Context(), first, last, func(r *storage.Row) error {
			c := *r
			c.Body = bytes.Clone(r.Body)
			all = append(all, c)
			return nil
		})
	})
	return all
}

func view(t *testing.T, s storage.Store, f func(storage.Reader) error) {
	t.Helper()
	require.NoError(t, s.View(t.Context(), f))
}

func testEvents(t *testing.T, s storage.Store, _ func() storage.Store) {
	one, two, three := row(1, scopeA, "s", 1), row(2, scopeA, "s", 2), row(3, scopeB, "s", 1)
	two.Key, three.Body = "key", []byte(`{"b":"é"}`)
	add(t, s, one, two)
	add(t, s, three)
	require.Equal(t, []storage.Row{*one, *two, *three}, read(t, s, 1, 3))
	require.Equal(t, []storage.Row{*two}, read(t, s, 2, 2))
	require.Empty(t, read(t, s, 4, 9))
	view(t, s, func(r storage.Reader) error {
		last, err := r.Last(t.Context())
		require.Equal(t, int64(3), last)
		leaves, err2 := r.Leaves(t.Context(), 2, 3)
		require.Equal(t, [][storage.LeafBytes]byte{two.Leaf, three.Leaf}, leaves)
		require.ErrorIs(t, r.Rows(t.Context(), 1, 3, func(*storage.Row) error { return errTest }),
			errTest)
		return errors.Join(err, err2)
	})
	for what, bad := range map[string]*storage.Row{
		"number twice": row(3, scopeA, "s", 3), "version twice": row(4, scopeA, "s", 2),
	} {
		require.Error(t, s.Update(t.Context(), func(w storage.Writer) error {
			return w.AddEvent(t.Context(), bad)
		}), what)
	}
	orphan := row(4, scopeA, "s", 3)
	orphan.Payload = event.DigestOf(nil)
	require.ErrorIs(t, s.Update(t.Context(), func(w storage.Writer) error {
		return w.AddEvent(t.Context(), orphan)
	}), storage.ErrCorrupt, "a payload that is not there")
	found, err := s.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, found)
}

func testStreams(t *testing.T, s storage.Store, _ func() storage.Store) {
	add(t, s, row(1, scopeA, "s", 1), row(2, scopeA, "s", 2), row(3, scopeB, "s", 1))
	view(t, s, func(r storage.Reader) error {
		for _, tt := range []struct {
			scope  event.Scope
			stream string
			want   int64
		}{
			{scopeA, "s", 2},
			{scopeB, "s", 1},
			{scopeA, "t", 0},
			{event.Scope{Tenant: "a", Session: "b"}, "s", 0},
		} {
			got, err := r.Version(t.Context(), tt.scope, tt.stream)
			require.NoError(t, err)
			require.Equal(t, tt.want, got, "%v %s", tt.scope, tt.stream)
		}
		return nil
	})
}

func testKeys(t *testing.T, s storage.Store, _ func() storage.Store) {
	one, two, three := row(1, scopeA, "s", 1), row(2, scopeA, "t", 1), row(3, scopeB, "s", 1)
	one.Key, two.Key, three.Key = "k", "k", "k"
	add(t, s, one, two, three)
	view(t, s, func(r storage.Reader) error {
		for _, tt := range []struct {
			scope       event.Scope
			key         string
			first, last int64
		}{{scopeA, "k", 1, 2}, {scopeB, "k", 3, 3}, {scopeA, "l", 0, 0}, {event.Scope{}, "k", 0, 0}} {
			first, last, err := r.Keyed(t.Context(), tt.scope, tt.key)
			require.NoError(t, err)
			require.Equal(t, []int64{tt.first, tt.last}, []int64{first, last}, "%v", tt)
		}
		return nil
	})
}

func testTiles(t *testing.T, s storage.Store, _ func() storage.Store) {
	data := bytes.Repeat([]byte{7}, 256*storage.LeafBytes)
	require.NoError(t, s.Update(t.Context(), func(w storage.Writer) error {
		return w.AddTile(t.Context(), 1, 5, data)
	}))
	view(t, s, func(r storage.Reader) error {
		got, err := r.Tile(t.Context(), 1, 5)
		require.NoError(t, err)
		require.Equal(t, data, got)
		got, err = r.Tile(t.Context(), 5, 1)
		require.Nil(t, got)
		return err
	})
}

func testPayloads(t *testing.T, s storage.Store, _ func() storage.Store) {
	p := storage.Payload{Sealed: []byte("sealed"), Key: []byte("key")}
	d := event.DigestOf(p.Sealed)
	one := row(1, scopeA, "s", 1)
	one.Payload = d
	write := func(f func(w storage.Writer) error) {
		t.Helper()
		require.NoError(t, s.Update(t.Context(), f))
	}
	put := func(w storage.Writer) error { return w.AddPayload(t.Context(), d, p) }
	get := func(want storage.Payload) {
		t.Helper()
		view(t, s, func(r storage.Reader) error {
			got, err := r.Payload(t.Context(), d)
			require.Equal(t, want, got)
			return err
		})
	}
	write(put)
	write(put)
	add(t, s, one)
	require.Equal(t, []storage.Row{*one}, read(t, s, 1, 1))
	get(p)
	drop := func(want bool) func(w storage.Writer) error {
		return func(w storage.Writer) error {
			had, err := w.DropKey(t.Context(), d)
			require.Equal(t, want, had)
			return err
		}
	}
	write(drop(true))
	write(drop(false))
	write(put) // a forgotten text stays forgotten
	get(storage.Payload{Sealed: p.Sealed})
	require.NoError(t, s.Settle(t.Context()))
	view(t, s, func(r storage.Reader) error {
		n := 0
		err := r.Payloads(t.Context(), func(got event.Digest, p storage.Payload) error {
			n++
			require.Equal(t, d, got)
			require.Equal(t, "sealed", string(p.Sealed))
			require.Nil(t, p.Key)
			return nil
		})
		require.Equal(t, 1, n)
		return err
	})
}

func testState(t *testing.T, s storage.Store, _ func() storage.Store) {
	ctx := t.Context()
	require.NoError(t, s.Update(ctx, func(w storage.Writer) error {
		return errors.Join(w.Put(ctx, "p", "a/2", []byte("2")), w.Put(ctx, "p", "a/1", []byte("x")),
			w.Put(ctx, "p", "a/1", []byte("1")), w.Put(ctx, "p", "a%", nil),
			w.Put(ctx, "p", "b", []byte("3")), w.Put(ctx, "q", "a/3", []byte("4")),
			w.Put(ctx, "p", "gone", nil), w.Delete(ctx, "p", "gone"), w.Delete(ctx, "p", "never"))
	}))
	pairs := func(projection, prefix string) (all []string) {
		view(t, s, func(r storage.Reader) error {
			return r.Range(ctx, projection, prefix, func(k string, v []byte) error {
				all = append(all, k+"="+string(v))
				return nil
			})
		})
		return all
	}
	require.Equal(t, []string{"a%=", "a/1=1", "a/2=2", "b=3"}, pairs("p", ""))
	require.Equal(t, []string{"a/1=1", "a/2=2"}, pairs("p", "a/"))
	require.Equal(t, []string{"a%="}, pairs("p", "a%"))
	require.Empty(t, pairs("p", "a0"))
	require.Equal(t, []string{"b=3"}, pairs("p", "b"))
	view(t, s, func(r storage.Reader) error {
		all, err := r.Projections(ctx)
		require.Equal(t, []string{"p", "q"}, all)
		v, err2 := r.Get(ctx, "p", "a/2")
		require.Equal(t, "2", string(v))
		v, err3 := r.Get(ctx, "p", "gone")
		require.Nil(t, v)
		return errors.Join(err, err2, err3)
	})
	require.NoError(t, s.Update(ctx, func(w storage.Writer) error { return w.Clear(ctx, "p") }))
	require.Empty(t, pairs("p", ""))
	require.Equal(t, []string{"a/3=4"}, pairs("q", ""))
}

func testRollback(t *testing.T, s storage.Store, _ func() storage.Store) {
	for range 2 { // what was undone can be done again
		require.ErrorIs(t, s.Update(t.Context(), func(w storage.Writer) error {
			require.NoError(t, w.AddEvent(t.Context(), row(1, scopeA, "s", 1)))
			require.NoError(t, w.Put(t.Context(), "p", "k", nil))
			last, err := w.Last(t.Context())
			require.NoError(t, err)
			require.Equal(t, int64(1), last, "a transaction sees itself")
			return errTest
		}), errTest)
	}
	require.Empty(t, read(t, s, 1, 9))
	add(t, s, row(1, scopeA, "s", 1))
	require.Len(t, read(t, s, 1, 9), 1)
}

func testNested(t *testing.T, s storage.Store, _ func() storage.Store) {
	ctx := t.Context()
	require.NoError(t, s.Update(ctx, func(w storage.Writer) error {
		require.NoError(t, w.Nested(ctx, func() error {
			return w.AddEvent(ctx, row(1, scopeA, "s", 1))
		}))
		require.ErrorIs(t, w.Nested(ctx, func() error {
			require.NoError(t, w.AddEvent(ctx, row(2, scopeB, "new", 1)))
			return errTest
		}), errTest)
		return w.Nested(ctx, func() error { return w.AddEvent(ctx, row(2, scopeB, "new", 1)) })
	}))
	require.Len(t, read(t, s, 1, 9), 2)
}

// The names of streams that an undone transaction made and read are not remembered.
func testUndoneStreams(t *testing.T, s storage.Store, _ func() storage.Store) {
	ctx := t.Context()
	undone := func(w storage.Writer) error {
		require.NoError(t, w.AddEvent(ctx, row(1, scopeA, "undone", 1)))
		require.NoError(t, w.Rows(ctx, 1, 1, func(r *storage.Row) error {
			require.Equal(t, "undone", r.Stream)
			return nil
		}))
		return errTest
	}
	kept := func(w storage.Writer) error {
		require.NoError(t, w.AddEvent(ctx, row(1, scopeB, "kept", 1)))
		return w.Rows(ctx, 1, 1, func(r *storage.Row) error {
			require.Equal(t, "kept", r.Stream)
			require.Equal(t, scopeB, r.Scope)
			return nil
		})
	}
	require.ErrorIs(t, s.Update(ctx, undone), errTest)
	require.ErrorIs(t, s.Update(ctx, func(w storage.Writer) error {
		require.ErrorIs(t, w.Nested(ctx, func() error { return undone(w) }), errTest)
		require.NoError(t, kept(w))
		return errTest
	}), errTest)
	require.NoError(t, s.Update(ctx, kept))
}

// Readers and writers run side by side; every view is whole transactions.
func testManyReaders(t *testing.T, s storage.Store, _ func() storage.Store) {
	const transactions, each = 20, 5
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for last := int64(0); last < transactions*each; {
				assert.NoError(t, s.View(t.Context(), func(r storage.Reader) (err error) {
					if last, err = r.Last(t.Context()); err != nil {
						return err
					}
					leaves, err := r.Leaves(t.Context(), 1, transactions*each)
					assert.Len(t, leaves, int(last))
					assert.Zero(t, last%each)
					return err
				}))
			}
		})
	}
	for i := range int64(transactions) {
		var rows []*storage.Row
		for j := range int64(each) {
			rows = append(rows, row(i*each+j+1, scopeA, "s", i*each+j+1))
		}
		add(t, s, rows...)
	}
	wg.Wait()
}

// A view is one state, whatever is written beside it.
func testViews(t *testing.T, s storage.Store, _ func() storage.Store) {
	add(t, s, row(1, scopeA, "s", 1))
	view(t, s, func(r storage.Reader) error {
		before, err := r.Last(t.Context())
		require.NoError(t, err)
		add(t, s, row(2, scopeA, "s", 2))
		after, err := r.Last(t.Context())
		require.Equal(t, before, after)
		return err
	})
	require.Len(t, read(t, s, 1, 9), 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, s.View(ctx, func(storage.Reader) error { return nil }))
	require.Error(t, s.Update(ctx, func(storage.Writer) error { return nil }))
}

func testReopen(t *testing.T, s storage.Store, again func() storage.Store) {
	add(t, s, row(1, scopeA, "s", 1), row(2, scopeB, "s", 1))
	before := read(t, s, 1, 9)
	s = again()
	require.Equal(t, before, read(t, s, 1, 9))
	add(t, s, row(3, scopeA, "s", 2))
	require.Len(t, read(t, s, 1, 9), 3)
}

func testBackup(t *testing.T, s storage.Store, _ func() storage.Store) {
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, s.Backup(t.Context(), path))
	require.FileExists(t, path)
	require.Error(t, s.Backup(t.Context(), path), "it replaces nothing")
}

func testClosed(t *testing.T, s storage.Store, _ func() storage.Store) {
	require.NoError(t, s.Close())
	require.Error(t, s.Update(t.Context(), func(storage.Writer) error { return nil }))
	require.Error(t, s.View(t.Context(), func(storage.Reader) error { return nil }))
	require.Error(t, s.Settle(t.Context()))
}
