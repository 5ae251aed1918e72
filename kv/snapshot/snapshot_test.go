package snapshot_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv/snapshot"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for field, change := range map[string]func(*snapshot.Options){
		"BufferBytes": func(o *snapshot.Options) { o.BufferBytes = -1 },
		"DiskBytes":   func(o *snapshot.Options) { o.DiskBytes = -1 },
		"QueueBytes":  func(o *snapshot.Options) { o.QueueBytes = -1 },
		"Key":         func(o *snapshot.Options) { o.Key = make([]byte, snapshot.KeyBytes-1) },
		"Plain":       func(o *snapshot.Options) { o.Key, o.Plain = key(), true },
		"Workers":     func(o *snapshot.Options) { o.Workers = snapshot.WorkersMax + 1 },
	} {
		var o snapshot.Options
		require.NoError(t, o.Validate())
		o.Workers = snapshot.WorkersMax
		require.NoError(t, o.Validate())
		change(&o)
		_, err := snapshot.Open(o)
		require.ErrorIs(t, err, snapshot.ErrOptions)
		var e *snapshot.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, field, e.Field)
	}
}

func TestStateBounds(t *testing.T) {
	t.Parallel()
	s := opened(t, t.TempDir(), nil)
	long := strings.Repeat("x", snapshot.FieldBytesMax)
	many := make([]int32, snapshot.TokensMax+1)
	for name, c := range map[string]struct {
		field     string
		good, bad func(*snapshot.State)
	}{
		"engine empty": {
			"Engine", func(st *snapshot.State) { st.Engine = "x" },
			func(st *snapshot.State) { st.Engine = "" },
		},
		"model long": {
			"Model", func(st *snapshot.State) { st.Model = long },
			func(st *snapshot.State) { st.Model = long + "x" },
		},
		"context long": {
			"Context", func(st *snapshot.State) { st.Context = long },
			func(st *snapshot.State) { st.Context = long + "x" },
		},
		"scope": {
			"Scope", func(st *snapshot.State) { st.Scope = "" },
			func(st *snapshot.State) { st.Scope = long + "x" },
		},
		"part 0": {
			"Part", func(st *snapshot.State) { st.Part = snapshot.Partial },
			func(st *snapshot.State) { st.Part = 0 },
		},
		"part 3": {
			"Part", func(st *snapshot.State) { st.Part = snapshot.Full },
			func(st *snapshot.State) { st.Part = snapshot.Partial + 1 },
		},
		"no tokens": {
			"Tokens", func(st *snapshot.State) { st.Tokens = []int32{-1} },
			func(st *snapshot.State) { st.Tokens = nil },
		},
		"many tokens": {
			"Tokens", func(st *snapshot.State) { st.Tokens = many[1:] },
			func(st *snapshot.State) { st.Tokens = many },
		},
		"recompute": {
			"Recompute", func(st *snapshot.State) { st.Recompute = math.MaxInt64 },
			func(st *snapshot.State) { st.Recompute = -1 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := state(1, 3)
			c.good(&st)
			put(t, s, st, []byte{1})
			c.bad(&st)
			_, err := give(t, s, st, []byte{1})
			require.ErrorIs(t, err, snapshot.ErrInvalid)
			var e *snapshot.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.field, e.Field)
		})
	}
}

// The blocks of a file end where they should: every size around the borders comes back, in this
// store and in the next.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	const block = snapshot.BlockBytes
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := opened(t, dir, change)
			sizes := []int{1, 15, 16, 17, block - 1, block, block + 1, 2 * block, 3*block + 5}
			ids := make([]snapshot.ID, len(sizes))
			for i, n := range sizes {
				st := state(int32(i), 1+i*100)
				ids[i] = put(t, s, st, fill(uint64(i), n))
				require.Equal(t, ids[i], s.ID(st))
				requireHit(t, s, ids[i], fill(uint64(i), n))
				fi, err := os.Stat(filepath.Join(dir, snapshot.FileName(ids[i])))
				require.NoError(t, err)
				require.Equal(t, snapshot.FileBytes(st, n), fi.Size())
			}
			require.NoError(t, s.Close())
			s = opened(t, dir, change)
			for i, n := range sizes {
				requireHit(t, s, ids[i], fill(uint64(i), n))
			}
			reports, err := s.Verify(t.Context())
			require.NoError(t, err)
			require.Len(t, reports, len(sizes))
			for _, r := range reports {
				require.Empty(t, r.Bad)
				require.NoError(t, r.Err)
			}
			require.Empty(t, s.Stats().Misses)
		})
	}
}

// The metadata of a file may be larger than a block.
func TestManyTokensOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := opened(t, dir, nil)
	st := state(0, snapshot.BlockBytes/2)
	id := put(t, s, st, []byte("x"))
	require.NoError(t, s.Close())
	s = opened(t, dir, nil)
	requireHit(t, s, id, []byte("x"))
	require.Equal(t, st.Tokens, s.Index(ident)[0].Tokens)
}

// After a restart the index gives identity and tokens back, of this engine, model and context.
func TestIndexAfterRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := opened(t, dir, nil)
	short, long, other, foreign := state(5, 3), state(5, 9), state(5, 6), state(5, 4)
	short.Recompute, long.Part = 1500*time.Microsecond, snapshot.Partial
	other.Scope, foreign.Model = "b", "sha256:9999"
	want := []snapshot.State{short, other, long}
	for i, st := range append([]snapshot.State{foreign}, want...) {
		put(t, s, st, fill(uint64(i), 10))
	}
	check := func() {
		got := s.Index(ident)
		require.Len(t, got, len(want))
		for i, st := range want {
			require.Equal(t, st, got[i].State)
			require.Equal(t, s.ID(st), got[i].ID)
			require.Equal(t, snapshot.FileBytes(st, 10), got[i].Bytes)
		}
		require.Len(t, s.Index(foreign.Identity), 1)
		require.Empty(t, s.Index(snapshot.Identity{Engine: "older"}))
	}
	check()
	require.NoError(t, s.Close())
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s = opened(t, dir, func(o *snapshot.Options) { o.Now = func() time.Time { return now } })
	check()
	id := put(t, s, state(77, 2), []byte("new"))
	all := s.List()
	require.Len(t, all, 5)
	i := slices.IndexFunc(all, func(i snapshot.Item) bool { return i.ID == id })
	require.Equal(t, now, all[i].Saved)
	require.Equal(t, snapshot.FileBytes(state(77, 2), 3), all[i].FileBytes)
	require.Equal(t, 2, all[i].Tokens)
}

// Every part of the identity, the part and each token make another state.
func TestIdentityDecides(t *testing.T) {
	t.Parallel()
	s := opened(t, t.TempDir(), nil)
	ids := map[snapshot.ID]bool{}
	for _, change := range []func(*snapshot.State){
		func(*snapshot.State) {},
		func(st *snapshot.State) { st.Engine += "x" },
		func(st *snapshot.State) { st.Model += "x" },
		func(st *snapshot.State) { st.Context += "x" },
		func(st *snapshot.State) { st.Scope += "x" },
		func(st *snapshot.State) { st.Engine, st.Model = st.Engine+st.Model[:1], st.Model[1:] },
		func(st *snapshot.State) { st.Part = snapshot.Partial },
		func(st *snapshot.State) { st.Tokens[0]++ },
		func(st *snapshot.State) { st.Tokens[2]-- },
		func(st *snapshot.State) { st.Tokens = st.Tokens[:2] },
	} {
		st := state(1, 3)
		change(&st)
		ids[s.ID(st)] = true
	}
	require.Len(t, ids, 10)
	st := state(1, 3)
	st.Recompute = time.Hour
	require.True(t, ids[s.ID(st)], "the cost is no part of it")
}

// What is on disk tells nothing to who has no key: no token, no identity, and no name that can be
// guessed. Nothing is logged but ids.
func TestNothingReadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log bytes.Buffer
	s := opened(t, dir, func(o *snapshot.Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	st := state(0x12345670, 8)
	data := []byte("the memory of a private prompt")
	id := put(t, s, st, data)
	raw, err := os.ReadFile(filepath.Join(dir, snapshot.FileName(id)))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, snapshot.FileName(id)), raw[1:], 0o600))
	require.NoError(t, s.Close())
	s = opened(t, dir, nil)
	require.NoError(t, s.Close())
	token := binary.LittleEndian.AppendUint32(nil, uint32(st.Tokens[3]))
	for _, secret := range [][]byte{token, data, []byte(ident.Model), []byte(ident.Engine)} {
		require.NotContains(t, string(raw), string(secret))
	}
	require.NotContains(t, log.String(), strconv.Itoa(int(st.Tokens[3])))
	require.NotContains(t, log.String(), ident.Model)

	clear := opened(t, t.TempDir(), plain)
	require.NotEqual(t, id, clear.ID(st), "the name depends on the key")
	other := opened(t, t.TempDir(), func(o *snapshot.Options) { o.Key[0]++ })
	require.NotEqual(t, id, other.ID(st))
}

// Two files of one state share no block: each has a key of its own.
func TestNoNonceTwice(t *testing.T) {
	t.Parallel()
	dir, file, id, data := saved(t, nil, 100)
	first, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.Remove(file))
	s := opened(t, dir, nil)
	require.Equal(t, id, put(t, s, state(100, 5), data))
	second, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Len(t, second, len(first))
	same := 0
	for i := snapshot.HeaderBytes; i < len(first); i++ {
		if first[i] == second[i] {
			same++
		}
	}
	require.Less(t, same, len(first)/8)
}

// A buffer holds its state through Drop, Clear and Close.
func TestBufferHolds(t *testing.T) {
	t.Parallel()
	data := fill(1, 100)
	for name, end := range map[string]func(*testing.T, *snapshot.Store, snapshot.ID){
		"drop": func(_ *testing.T, s *snapshot.Store, id snapshot.ID) { s.Drop(id) },
		"clear": func(t *testing.T, s *snapshot.Store, _ snapshot.ID) {
			_, _, err := s.Clear(t.Context())
			require.NoError(t, err)
		},
		"close": func(t *testing.T, s *snapshot.Store, _ snapshot.ID) {
			require.NoError(t, s.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := opened(t, t.TempDir(), func(o *snapshot.Options) { o.BufferBytes = 1000 })
			id := put(t, s, state(1, 1), data)
			a, ok := s.Get(t.Context(), id)
			require.True(t, ok)
			b, ok := s.Get(t.Context(), id)
			require.True(t, ok)
			require.Equal(t, int64(200), s.Stats().BufferBytes)
			end(t, s, id)
			b.Release()
			b.Release()
			for range 3 { // memory that was given back would be written to here
				if c, err := s.Buffer(100); err == nil {
					clear(c.Bytes())
					c.Release()
				}
			}
			require.Equal(t, int64(100), s.Stats().BufferBytes)
			require.Equal(t, data, a.Bytes())
			a.Release()
			require.Nil(t, a.Bytes())
			require.Zero(t, s.Stats().BufferBytes)
		})
	}
}

func TestDropAndClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := opened(t, dir, nil)
	a, b := put(t, s, state(1, 1), fill(1, 50)), put(t, s, state(2, 1), fill(2, 50))
	require.Len(t, files(t, dir), 2)
	s.Drop(a)
	s.Drop(a)
	requireMiss(t, s, a, snapshot.MissAbsent)
	requireHit(t, s, b, fill(2, 50))
	require.Len(t, files(t, dir), 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tmp-left"), []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes"), []byte("mine"), 0o600))
	n, size, err := s.Clear(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, snapshot.FileBytes(state(2, 1), 50)+4, size)
	require.Equal(t, []string{"notes"}, files(t, dir), "what is not ours stays")
	requireMiss(t, s, b, snapshot.MissAbsent)
	st := s.Stats()
	require.Zero(t, st.Bytes)
	require.Zero(t, st.Files)
	put(t, s, state(2, 1), fill(2, 50))
	require.Len(t, files(t, dir), 2)
}

// A state put twice is kept once, the first one, and written once.
func TestPutTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := opened(t, dir, nil)
	id := put(t, s, state(1, 4), fill(1, 70))
	require.Equal(t, id, put(t, s, state(1, 4), fill(2, 70)))
	requireHit(t, s, id, fill(1, 70))
	st := s.Stats()
	require.Equal(t, uint64(1), st.Saves.Done)
	require.Equal(t, 1, st.Files)
	require.NoError(t, s.Close())
	s = opened(t, dir, nil)
	put(t, s, state(1, 4), fill(1, 70))
	require.Zero(t, s.Stats().Saves.Done, "it is on disk already")
	requireHit(t, s, id, fill(1, 70))
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := opened(t, t.TempDir(), nil)
	id := put(t, s, state(1, 1), []byte("x"))
	b := buffer(t, s, []byte("y"))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	requireMiss(t, s, id, snapshot.MissClosed)
	_, err := s.Buffer(1)
	require.ErrorIs(t, err, snapshot.ErrClosed)
	_, err = s.Put(state(2, 1), b)
	require.ErrorIs(t, err, snapshot.ErrClosed)
	b.Release()
	_, err = s.Verify(t.Context())
	require.ErrorIs(t, err, snapshot.ErrClosed)
	_, _, err = s.Clear(t.Context())
	require.ErrorIs(t, err, snapshot.ErrClosed)
	require.NoError(t, s.Flush(t.Context()))
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	dir, _, id, data := saved(t, nil, 3*snapshot.BlockBytes)
	s := opened(t, dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, ok := s.Get(ctx, id)
	require.False(t, ok)
	require.Equal(t, uint64(1), s.Stats().Misses[snapshot.MissCanceled])
	_, err := s.Verify(ctx)
	require.ErrorIs(t, err, snapshot.ErrCanceled)
	requireHit(t, s, id, data)
}

// Without a disk tier the store is a pool of buffers.
func TestNoDisk(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]snapshot.Options{
		"no directory": {BufferBytes: 100, DiskBytes: 100},
		"no budget":    {BufferBytes: 100, Dir: filepath.Join(t.TempDir(), "x")},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := snapshot.Open(o)
			require.NoError(t, err)
			b := buffer(t, s, fill(1, 100))
			_, err = s.Put(state(1, 1), b)
			require.ErrorIs(t, err, snapshot.ErrDisk)
			require.Equal(t, fill(1, 100), b.Bytes())
			b.Release()
			require.Equal(t, int64(100), s.Stats().FreeBytes)
			require.Empty(t, s.Stats().Degraded)
			require.NoDirExists(t, o.Dir)
			requireMiss(t, s, snapshot.ID{}, snapshot.MissAbsent)
			require.Empty(t, s.List())
			s.Drop(snapshot.ID{})
			_, err = s.Verify(t.Context())
			require.ErrorIs(t, err, snapshot.ErrDisk)
			_, _, err = s.Clear(t.Context())
			require.ErrorIs(t, err, snapshot.ErrDisk)
			require.NoError(t, s.Flush(t.Context()))
			require.NoError(t, s.Close())
			require.NoError(t, s.Close())
			requireMiss(t, s, snapshot.ID{}, snapshot.MissClosed)
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	id := snapshot.ID{1, 0xab}
	got, ok := snapshot.ParseName(snapshot.FileName(id))
	require.True(t, ok)
	require.Equal(t, id, got)
	for _, bad := range []string{
		"", ".kv", id.String(), id.String()[1:] + ".kv", "0" + id.String() + ".kv",
		strings.ToUpper(id.String()) + ".kv", "g" + id.String()[1:] + ".kv", "../x.kv",
	} {
		_, ok := snapshot.ParseName(bad)
		require.False(t, ok, bad)
	}
}
