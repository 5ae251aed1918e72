package snapshot_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/kv/snapshot"
)

// Two stores on one directory find what the other saved, keep one budget together, and take a file
// that the other evicted as a miss.
func TestSharedDirectory(t *testing.T) {
	t.Parallel()
	dir, size := t.TempDir(), snapshot.FileBytes(state(0, 1), 100)
	two := func(o *snapshot.Options) { o.DiskBytes = 2 * size }
	a, b := opened(t, dir, two), opened(t, dir, two)
	one := put(t, a, state(1, 1), fill(1, 100))
	requireHit(t, b, one, fill(1, 100))
	put(t, b, state(1, 1), fill(1, 100))
	require.Zero(t, b.Stats().Saves.Done, "it is there")
	second := put(t, b, state(2, 1), fill(2, 100))
	three := state(3, 1)
	three.Recompute = time.Hour
	third := put(t, a, three, fill(3, 100))
	require.Len(t, files(t, dir), 2, "a counts what b wrote")
	missed := 0
	for id, want := range map[snapshot.ID][]byte{one: fill(1, 100), second: fill(2, 100)} {
		if l, ok := b.Get(t.Context(), id); ok {
			require.Equal(t, want, l.Bytes())
			l.Release()
		} else {
			missed++
		}
	}
	require.Equal(t, 1, missed)
	require.Equal(t, uint64(1), b.Stats().Misses[snapshot.MissAbsent])
	requireHit(t, b, third, fill(3, 100))
	n, _, err := a.Clear(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, n)
	requireMiss(t, b, third, snapshot.MissAbsent)
	put(t, b, state(4, 1), fill(4, 100))
	require.Equal(t, 1, b.Stats().Files, "who writes learns of everything")
}

// Stores that work on one directory at once, with a budget that evicts all the time, only ever
// give what was put. Run it with the race detector.
func TestSharedRace(t *testing.T) {
	t.Parallel()
	const stores, users, rounds, states = 2, 3, 25, 12
	dir, size := t.TempDir(), snapshot.FileBytes(state(0, 1), 3000)
	var all []*snapshot.Store
	for range stores {
		all = append(all, opened(t, dir, func(o *snapshot.Options) {
			o.BufferBytes, o.DiskBytes = 3*3000, 5*size
		}))
	}
	var wg sync.WaitGroup
	for i := range stores * users {
		s, rnd := all[i%stores], rand.New(rand.NewPCG(uint64(i), 0))
		wg.Go(func() {
			for range rounds {
				first := rnd.Int32N(states)
				use(t, s, first, rnd.IntN(20))
			}
		})
	}
	wg.Wait()
	for _, s := range all {
		require.NoError(t, s.Flush(t.Context()))
		st := s.Stats()
		require.Zero(t, st.BufferBytes)
		require.Zero(t, st.Saves.Failed, "%s", st.Degraded)
		require.LessOrEqual(t, st.FreeBytes, int64(3*3000))
		require.Zero(t, st.Misses[snapshot.MissDamaged])
		reports, err := s.Verify(t.Context())
		require.NoError(t, err)
		total := int64(0)
		for _, r := range reports {
			require.Empty(t, r.Bad)
			total += r.Bytes
		}
		require.LessOrEqual(t, total, 5*size)
	}
}

// use does one thing with a state.
func use(t *testing.T, s *snapshot.Store, first int32, what int) {
	st, data := state(first, 1), fill(uint64(first), 3000)
	st.Recompute = time.Duration(1+what) * time.Millisecond
	switch {
	case what == 0:
		s.Drop(s.ID(st))
	case what == 1:
		_, _, err := s.Clear(t.Context())
		assertNil(t, err)
	case what == 2:
		s.Stats()
		s.List()
		s.Index(ident)
	case what < 10:
		b, err := s.Buffer(int64(len(data)))
		assertNil(t, err)
		copy(b.Bytes(), data)
		if _, err = s.Put(st, b); err == nil && what == 3 {
			assertNil(t, s.Flush(t.Context()))
		}
		b.Release()
	default:
		if l, ok := s.Get(t.Context(), s.ID(st)); ok {
			if string(l.Bytes()) != string(data) {
				t.Errorf("state %d is not what was put", first)
			}
			l.Release()
		}
	}
}

func assertNil(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}

// Close waits for no other process: while one keeps the lock, a save waits and is given up.
func TestLockedByAnother(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other, err := disk.OpenDir(dir)
	require.NoError(t, err)
	unlock, ok, err := other.TryLock(snapshot.LockName)
	require.NoError(t, err)
	require.True(t, ok)
	s := opened(t, dir, nil)
	require.Empty(t, s.Stats().Degraded, "opening does not wait")
	_, err = give(t, s, state(1, 1), []byte("x"))
	require.NoError(t, err)
	ctx, cancel := contextDone(t)
	defer cancel()
	_, _, err = s.Clear(ctx)
	require.ErrorIs(t, err, snapshot.ErrCanceled)
	require.NoError(t, s.Close())
	require.Empty(t, files(t, dir))
	require.Equal(t, uint64(1), s.Stats().Saves.Skipped)
	require.NoError(t, unlock())
	require.NoError(t, other.Close())
}

// The key is made once, for this user alone, whoever comes first; a damaged one is not replaced.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	dir := filepath.Join(home, "kv")
	own := func(o *snapshot.Options) { o.Key = nil }
	var wg sync.WaitGroup
	ids := make([]snapshot.ID, 4)
	for i := range ids {
		wg.Go(func() {
			s, err := snapshot.Open(snapshot.Options{DiskBytes: 1 << 20, Dir: dir})
			assertNil(t, err)
			ids[i] = s.ID(state(1, 1))
			if why := s.Stats().Degraded; why != "" {
				t.Error(why)
			}
			assertNil(t, s.Close())
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.Equal(t, ids[0], id, "one key")
	}
	entries, err := os.ReadDir(home)
	require.NoError(t, err)
	require.Len(t, entries, 2, "the directory and the key, nothing half made")
	fi, err := os.Stat(dir + ".key")
	require.NoError(t, err)
	require.Equal(t, int64(snapshot.KeyBytes), fi.Size())
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())

	s := opened(t, dir, own)
	id := put(t, s, state(1, 1), []byte("x"))
	require.NoError(t, s.Close())
	good, err := os.ReadFile(dir + ".key")
	require.NoError(t, err)
	for what, bad := range map[string][]byte{"empty": {}, "short": good[1:], "long": append(good, 0)} {
		overwrite(t, dir+".key", bad)
		s := opened(t, dir, own)
		require.Contains(t, s.Stats().Degraded, "bad key file", what)
		_, err := give(t, s, state(1, 1), []byte("x"))
		require.ErrorIs(t, err, snapshot.ErrKey, what)
		_, err = s.Verify(t.Context())
		require.ErrorIs(t, err, snapshot.ErrKey)
		kept, err := os.ReadFile(dir + ".key")
		require.NoError(t, err)
		require.Equal(t, bad, kept, what)
		require.NoError(t, s.Close())
	}
	overwrite(t, dir+".key", good)
	requireHit(t, opened(t, dir, own), id, []byte("x"))
}

// The directory cannot be used: the store opens without a disk tier and says why.
func TestDirectoryUnusable(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(dir string) error{
		"a file":         func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"below a file":   func(dir string) error { return os.WriteFile(filepath.Dir(dir), nil, 0o600) },
		"loop of links":  func(dir string) error { return os.Symlink(dir, dir) },
		"link to nobody": func(dir string) error { return os.Symlink(dir+"x", dir) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "home", "kv")
			if name != "below a file" {
				require.NoError(t, os.Mkdir(filepath.Dir(dir), 0o700))
			}
			require.NoError(t, prepare(dir))
			s := opened(t, dir, nil)
			require.Contains(t, s.Stats().Degraded, "disk tier unavailable")
			_, err := give(t, s, state(1, 1), []byte("x"))
			require.ErrorIs(t, err, snapshot.ErrDisk)
			requireMiss(t, s, snapshot.ID{}, snapshot.MissAbsent)
		})
	}
	var d *disk.Faulty
	for _, op := range []disk.Op{disk.OpLock, disk.OpReadDir} {
		dir, _, id, data := saved(t, nil, 100)
		s := opened(t, dir, func(o *snapshot.Options) {
			faulty(&d)(o)
			open := o.OpenDir
			o.OpenDir = func(path string) (disk.Dir, error) {
				_, err := open(path)
				d.Set(disk.Faults{Fail: func(got disk.Op, _ string, _ int) error {
					if got == op {
						return fmt.Errorf("read-only: %w", os.ErrPermission)
					}
					return nil
				}})
				return d, err
			}
		})
		require.Contains(t, s.Stats().Degraded, "permission", string(op))
		requireHit(t, s, id, data)
	}
}

// A state that another store wrote meanwhile is not written again.
func TestWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := opened(t, dir, nil), opened(t, dir, nil)
	id := put(t, a, state(1, 1), fill(1, 100))
	put(t, b, state(1, 1), fill(1, 100))
	st := b.Stats()
	require.Equal(t, snapshot.SaveStats{Skipped: 1}, st.Saves)
	require.Equal(t, 1, st.Files)
	requireHit(t, b, id, fill(1, 100))
}
