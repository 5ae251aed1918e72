package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

var errTest = errors.New("the test's own")

// tick is a clock that moves by a second at each look.
func tick() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

func options(dir string, projections ...Projection) Options {
	return Options{Dir: dir, Now: tick(), Projections: projections, CheckpointAfter: time.Hour}
}

func open(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func reader(t testing.TB, o Options) *Reader {
	t.Helper()
	r, err := OpenReader(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// newDir is a directory for a ledger.
func newDir(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger") }

// draft is an observation in a stream.
func draft(stream string, n int64) event.Draft {
	return event.Draft{
		Stream: stream, Actor: "test", Body: event.Crossed{Sensor: "s", ValueMilli: n},
	}
}

func add(t testing.TB, l *Ledger, drafts ...event.Draft) []event.Event {
	t.Helper()
	a, err := l.Append(t.Context(), Batch{Drafts: drafts})
	require.NoError(t, err)
	require.False(t, a.Duplicate)
	return a.Events
}

func all(t testing.TB, r *Reader, f Filter) (events []event.Event) {
	t.Helper()
	require.NoError(t, r.Events(t.Context(), f, func(e event.Event) error {
		events = append(events, e)
		return nil
	}))
	return events
}

func verified(t testing.TB, r *Reader) Report {
	t.Helper()
	report, err := r.Verify(t.Context())
	require.NoError(t, err)
	return report
}

// sums is a projection: the sum of what sensors measured, by stream. It refuses 13.
type sums struct{ name string }

func (p sums) Name() string { return p.name }

func (p sums) Apply(s State, e event.Event) error {
	b, err := e.Decode()
	c, ok := b.(event.Crossed)
	if err != nil || !ok {
		return err
	}
	if c.ValueMilli == 13 {
		return errTest
	}
	v, err := s.Get(e.Stream)
	if err != nil {
		return err
	}
	have, _ := strconv.ParseInt(string(v), 10, 64)
	if have += c.ValueMilli; have == 0 {
		return s.Delete(e.Stream)
	}
	return s.Put(e.Stream, strconv.AppendInt(nil, have, 10))
}

func TestAppend(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	l := open(t, options(dir))
	made := add(t, l, draft("a", 1), draft("b", 2), draft("a", 3))
	require.Equal(t, []int64{2, 3, 4}, []int64{made[0].Seq, made[1].Seq, made[2].Seq})
	require.Equal(t, int64(2), made[2].Version)
	require.Equal(t, made, all(t, l.Reader, Filter{First: 2}))
	require.Equal(t, int64(4), verified(t, l.Reader).Events)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close(), "twice")
	_, err := l.Append(t.Context(), Batch{Drafts: []event.Draft{draft("a", 1)}})
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, l.Sign(t.Context()), ErrClosed)

	r := reader(t, Options{Dir: dir})
	require.Equal(t, made, all(t, r, Filter{First: 2}))
	report := verified(t, r)
	require.True(t, report.Closed)
	require.Equal(t, int64(4), report.Signed)
	l = open(t, options(dir))
	require.Equal(t, int64(5), add(t, l, draft("a", 4))[0].Seq, "a clean opening records nothing")
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	l := open(t, options(newDir(t)))
	other := draft("a", 1)
	other.Scope.Tenant = "b"
	lost := draft("a", 1)
	lost.Payload = event.DigestOf(nil)
	many := make([]event.Draft, BatchEventsMax+1)
	for i := range many {
		many[i] = draft("a", 1)
	}
	own := event.Draft{Stream: "a", Actor: "b", Body: event.Recovered{}}
	sealed, err := l.Seal(event.Scope{}, []byte("text"))
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		b    Batch
		want error
	}{
		"nothing":        {Batch{}, ErrInvalid},
		"too many":       {Batch{Drafts: many}, ErrInvalid},
		"no body":        {Batch{Drafts: []event.Draft{{Stream: "a", Actor: "b"}}}, ErrInvalid},
		"two scopes":     {Batch{Drafts: []event.Draft{draft("a", 1), other}}, ErrInvalid},
		"bad key":        {Batch{Drafts: []event.Draft{draft("a", 1)}, Key: "a b"}, ErrInvalid},
		"own event":      {Batch{Drafts: []event.Draft{own}}, ErrInvalid},
		"lost text":      {Batch{Drafts: []event.Draft{lost}}, ErrNotFound},
		"made-up text":   {Batch{Drafts: []event.Draft{lost}, Sealed: []Sealed{{}}}, ErrInvalid},
		"unwanted text":  {Batch{Drafts: []event.Draft{lost}, Sealed: []Sealed{sealed}}, ErrInvalid},
		"moved on":       {Batch{Drafts: many[:1], Expect: []Expect{{"a", 1}}}, ErrConflict},
		"another stream": {Batch{Drafts: many[:1], Expect: []Expect{{"a", 0}, {"b", 1}}}, ErrConflict},
	} {
		_, err := l.Append(t.Context(), tt.b)
		require.ErrorIs(t, err, tt.want, name)
	}
	_, err = l.Append(t.Context(), Batch{Drafts: many[1:], Expect: []Expect{{"a", 0}}})
	require.NoError(t, err, "the most that may be")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = l.Append(ctx, Batch{Drafts: []event.Draft{draft("a", 1)}})
	require.Error(t, err)
	require.Equal(t, int64(1+BatchEventsMax), verified(t, l.Reader).Events)
}

// A projection or a check that refuses undoes its request and no other of the same commit.
func TestRefusalsLeaveNothing(t *testing.T) {
	t.Parallel()
	l := open(t, options(newDir(t), sums{"sums"}))
	check := func(want error) func(func(string) State, []event.Event) error {
		return func(state func(string) State, events []event.Event) error {
			v, err := state("sums").Get(events[0].Stream)
			assert.NoError(t, err)
			assert.Equal(t, "7", string(v), "a check sees what the projections made")
			return want
		}
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			b := Batch{Drafts: []event.Draft{draft(fmt.Sprint("s", i), 7)}, Check: check(nil)}
			want := error(nil)
			switch i % 4 {
			case 1:
				b.Check, want = check(errTest), errTest
			case 2:
				b.Drafts, want = append(b.Drafts, draft("x", 13)), errTest
			case 3:
				b.Expect, want = []Expect{{"s", 9}}, ErrConflict
			}
			_, err := l.Append(t.Context(), b)
			assert.ErrorIs(t, err, want)
		})
	}
	wg.Wait()
	require.Equal(t, int64(11), verified(t, l.Reader).Events)
	state, err := l.State(t.Context(), "sums")
	require.NoError(t, err)
	require.Len(t, state, 10)
}

// E7: one key, many callers at once and after a restart: one record.
func TestE7OneKey(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	l := open(t, options(dir, sums{"sums"}))
	b := Batch{Drafts: []event.Draft{draft("a", 1), draft("b", 2)}, Key: "k"}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first []Appended
	for range 16 {
		wg.Go(func() {
			a, err := l.Append(t.Context(), b)
			assert.NoError(t, err)
			mu.Lock()
			defer mu.Unlock()
			if !a.Duplicate {
				first = append(first, a)
			}
		})
	}
	wg.Wait()
	require.Len(t, first, 1)
	require.NoError(t, l.Close())

	l = open(t, options(dir, sums{"sums"}))
	again, err := l.Append(t.Context(), b)
	require.NoError(t, err)
	require.True(t, again.Duplicate)
	require.Equal(t, first[0].Events, again.Events)
	reused := b
	reused.Drafts = b.Drafts[:1]
	_, err = l.Append(t.Context(), reused)
	require.ErrorIs(t, err, ErrKeyReused)
	elsewhere := Batch{Key: "k", Drafts: []event.Draft{draft("a", 1)}}
	elsewhere.Drafts[0].Scope.Tenant = "other"
	a, err := l.Append(t.Context(), elsewhere)
	require.NoError(t, err)
	require.False(t, a.Duplicate, "a key is its scope's")
}

// M8: a forgotten text is gone, also from the files, and everything verifies.
func TestM8Forget(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	scope := event.Scope{Tenant: "a"}
	l := open(t, options(dir))
	sealed, err := l.Seal(scope, []byte("private"))
	require.NoError(t, err)
	d := draft("memory", 1)
	d.Scope, d.Payload = scope, sealed.Digest
	_, err = l.Append(t.Context(), Batch{Drafts: []event.Draft{d}, Sealed: []Sealed{sealed}})
	require.NoError(t, err)
	add(t, l, d) // a second event may commit to it
	text, err := l.Unseal(t.Context(), scope, sealed.Digest)
	require.NoError(t, err)
	require.Equal(t, "private", string(text))
	_, err = l.Unseal(t.Context(), event.Scope{}, sealed.Digest)
	require.ErrorIs(t, err, ErrDamaged, "another scope")
	_, err = l.Unseal(t.Context(), scope, event.DigestOf(nil))
	require.ErrorIs(t, err, ErrNotFound)

	f := event.Forgotten{Payload: sealed.Digest, Reason: "asked"}
	by := event.Draft{Stream: "memory", Actor: "operator"}
	require.ErrorIs(t, l.Forget(t.Context(), by, f), ErrDamaged, "another scope")
	by.Scope = scope
	require.NoError(t, l.Forget(t.Context(), by, f))
	require.ErrorIs(t, l.Forget(t.Context(), by, f), ErrForgotten)
	_, err = l.Unseal(t.Context(), scope, sealed.Digest)
	require.ErrorIs(t, err, ErrForgotten)
	report := verified(t, l.Reader)
	require.Equal(t, []int64{1, 1}, []int64{report.Payloads, report.Forgotten})
	_, err = l.Append(t.Context(), Batch{Drafts: []event.Draft{d}, Sealed: []Sealed{sealed}})
	require.NoError(t, err)
	_, err = l.Unseal(t.Context(), scope, sealed.Digest)
	require.ErrorIs(t, err, ErrForgotten, "it stays forgotten")
	require.NoError(t, l.Close())
	for _, name := range []string{databaseFile, databaseFile + "-wal"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if name == databaseFile {
			require.NoError(t, err)
		}
		require.NotContains(t, string(data), string(sealed.stored.Key), name)
	}
}

// L14: the state that is stored equals the state that follows from the events, byte for byte; a
// changed state is found and made anew; a new projection is built when the ledger is opened.
func TestL14Replay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "") //nolint:usetesting // one for each history
		require.NoError(rt, err)
		l := open(t, options(dir, sums{"sums"}))
		for range rapid.IntRange(1, 6).Draw(rt, "appends") {
			var b Batch
			for range rapid.IntRange(1, 5).Draw(rt, "events") {
				stream := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "stream")
				b.Drafts = append(b.Drafts, draft(stream, rapid.Int64Range(-2, 2).Draw(rt, "value")))
			}
			_, err := l.Append(context.Background(), b)
			require.NoError(rt, err)
		}
		last, err := l.Last(context.Background())
		require.NoError(rt, err)
		live, err := l.State(context.Background(), "sums")
		require.NoError(rt, err)
		replayed, err := l.Project(context.Background(), sums{"sums"}, last)
		require.NoError(rt, err)
		require.Equal(rt, replayed, live)
		require.Equal(rt, replayed.Digest(), live.Digest())
		before, after, err := l.Rebuild(context.Background())
		require.NoError(rt, err)
		require.Equal(rt, before, after)
		require.NoError(rt, l.Close())
		l = open(t, options(dir, sums{"sums"}, sums{"later"}))
		later, err := l.State(context.Background(), "later")
		require.NoError(rt, err)
		require.Equal(rt, live, later)
		require.NoError(rt, l.Close())
	})
}

func TestRebuildRepairs(t *testing.T) {
	t.Parallel()
	l := open(t, options(newDir(t), sums{"sums"}))
	add(t, l, draft("a", 1))
	require.NoError(t, l.store.Update(t.Context(), func(w storage.Writer) error {
		return w.Put(t.Context(), "sums", "a", []byte("2"))
	}))
	report, err := l.Verify(t.Context())
	require.ErrorIs(t, err, ErrDamaged)
	require.Equal(t, "projection sums", report.Findings[0].Where)
	before, after, err := l.Rebuild(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, before["sums"], after["sums"])
	verified(t, l.Reader)
}

// Readers, appenders, conflicts and proofs side by side.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	o := options(dir, sums{"sums"})
	o.CheckpointAfter = time.Millisecond
	l := open(t, o)
	r := reader(t, Options{Dir: dir})
	const writers, each = 8, 40
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for n := 0; n < each; {
				v, err := r.Version(t.Context(), event.Scope{}, "shared")
				assert.NoError(t, err)
				_, err = l.Append(t.Context(), Batch{
					Drafts: []event.Draft{draft("shared", 1)}, Expect: []Expect{{"shared", v}},
				})
				if errors.Is(err, ErrConflict) {
					continue
				}
				if !assert.NoError(t, err) {
					return
				}
				n++
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			assert.NoError(t, l.Sign(t.Context()))
			p, err := r.Prove(t.Context(), 1)
			if assert.NoError(t, err) {
				_, _, err = p.Check(r.key)
				assert.NoError(t, err)
			}
		}
	})
	wg.Wait()
	require.Equal(t, int64(1+writers*each), verified(t, l.Reader).Events)
	v, err := l.Get(t.Context(), "sums", "shared")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(writers*each), string(v))
}

func TestFilter(t *testing.T) {
	t.Parallel()
	l := open(t, options(newDir(t)))
	one := add(t, l, draft("a", 1))[0]
	two := draft("b", 2)
	two.Scope, two.Actor = event.Scope{Tenant: "t", Session: "s"}, "other"
	second := add(t, l, two)[0]
	for name, f := range map[string]Filter{
		"number": {First: 3}, "scope": {Scope: &event.Scope{Tenant: "t"}}, "actor": {Actor: "other"},
		"stream": {Stream: "b"}, "since": {Since: second.Time},
	} {
		require.Equal(t, []event.Event{second}, all(t, l.Reader, f), name)
	}
	require.Equal(t, []event.Event{one, second}, all(t, l.Reader, Filter{Kind: "sensor."}))
	require.Equal(t, []event.Event{one},
		all(t, l.Reader, Filter{Kind: event.SensorCrossed, Until: second.Time}))
	require.Len(t, all(t, l.Reader, Filter{Last: 2}), 2)
	require.ErrorIs(t, l.Events(t.Context(), Filter{}, func(event.Event) error { return errTest }),
		errTest)
	stats, err := l.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{3, 3}, []int64{stats.Events, stats.Streams})
	require.Equal(t, int64(2), stats.Kinds[event.SensorCrossed])
	require.Equal(t, int64(1), stats.Scopes["t//s"])
}

func TestBackup(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	l := open(t, options(dir, sums{"sums"}))
	add(t, l, draft("a", 1))
	require.NoError(t, l.Sign(t.Context()))
	add(t, l, draft("a", 2))
	to := filepath.Join(t.TempDir(), "copy")
	report, err := l.Backup(t.Context(), to, false)
	require.NoError(t, err)
	require.Equal(t, int64(3), report.Events)
	require.Len(t, report.Unchecked, 2)
	_, err = l.Backup(t.Context(), to, false)
	require.ErrorIs(t, err, ErrDirectory, "it replaces nothing")
	_, err = Open(t.Context(), options(to))
	require.ErrorIs(t, err, ErrKey)
	require.NoError(t, l.Close())

	r := reader(t, Options{Dir: dir, Projections: []Projection{sums{"sums"}}})
	to = filepath.Join(t.TempDir(), "closed")
	report, err = r.Backup(t.Context(), to, true)
	require.NoError(t, err)
	require.True(t, report.Closed)
	require.Empty(t, report.Unchecked)
	add(t, open(t, options(to, sums{"sums"})), draft("a", 3))
}
