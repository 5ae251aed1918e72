package snapshot_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/kv/snapshot"
)

// overwrite puts a file of this user there.
func overwrite(t testing.TB, file string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, data, 0o600))
}

// missedOnce wants a miss, whatever its cause, and the file gone.
func missedOnce(t testing.TB, s *snapshot.Store, id snapshot.ID, file, what string) {
	t.Helper()
	l, ok := s.Get(t.Context(), id)
	require.False(t, ok, what)
	require.Nil(t, l, what)
	n := uint64(0)
	for _, m := range s.Stats().Misses {
		n += m
	}
	require.Equal(t, uint64(1), n, what)
	require.NoFileExists(t, file, what)
}

// badFiles tries each damaged form of a good file: found when a store opens, and in a store that
// knows the good one.
func badFiles(t *testing.T, forms func(good []byte, try func(bad []byte, what string))) {
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, file, id, data := saved(t, change, 70)
			good, err := os.ReadFile(file)
			require.NoError(t, err)
			known := opened(t, dir, change)
			tried := 0
			forms(good, func(bad []byte, what string) {
				tried++
				overwrite(t, file, bad)
				o := snapshot.Options{DiskBytes: 1 << 30, Dir: dir, Key: key()}
				change(&o)
				s, err := snapshot.Open(o)
				require.NoError(t, err)
				missedOnce(t, s, id, file, what)
				require.NoError(t, s.Close())

				overwrite(t, file, good)
				requireHit(t, known, id, data, snapshot.FromDisk)
				overwrite(t, file, bad)
				_, ok := known.Get(t.Context(), id)
				require.False(t, ok, what)
				require.NoFileExists(t, file, what)
			})
			st := known.Stats()
			require.Equal(t, uint64(tried), st.Misses[snapshot.MissDamaged]+
				st.Misses[snapshot.MissForeign])
			require.Zero(t, st.Disk.Entries)
			require.Zero(t, st.Disk.Bytes)
			overwrite(t, file, good)
			requireHit(t, known, id, data, snapshot.FromDisk)
		})
	}
}

// R5: every byte of a file is changed in three ways, one at a time.
func TestR5Flipped(t *testing.T) {
	t.Parallel()
	badFiles(t, func(good []byte, try func([]byte, string)) {
		for i := range good {
			for _, mask := range []byte{0x01, 0x80, 0xff} {
				bad := slices.Clone(good)
				bad[i] ^= mask
				try(bad, fmt.Sprintf("byte %d of %d ^ %#x", i, len(good), mask))
			}
		}
	})
}

// R5: the file is cut at every byte, and is longer than it should be.
func TestR5Truncated(t *testing.T) {
	t.Parallel()
	badFiles(t, func(good []byte, try func([]byte, string)) {
		for n := range good {
			try(slices.Clone(good[:n]), fmt.Sprintf("%d of %d bytes", n, len(good)))
		}
		try(append(slices.Clone(good), 0), "a byte more")
		try(make([]byte, len(good)), "zeros")
		try(append(slices.Clone(good[:len(good)/2]), make([]byte, len(good)-len(good)/2)...),
			"the second half zeros")
	})
}

// R5: in a file of several blocks, random bytes are changed and blocks change places.
func TestR5Blocks(t *testing.T) {
	t.Parallel()
	const block = snapshot.BlockBytes + snapshot.TagBytes
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, file, id, data := saved(t, change, 3*snapshot.BlockBytes+100)
			good, err := os.ReadFile(file)
			require.NoError(t, err)
			s := opened(t, dir, change)
			first := len(good) - (3*block + 100 + snapshot.TagBytes)
			try := func(bad []byte, what string) {
				overwrite(t, file, bad)
				requireMiss(t, s, id, snapshot.MissDamaged)
				require.NoFileExists(t, file, what)
			}
			rnd := rand.New(rand.NewPCG(1, 2)) // the seed of every run
			for range 40 {
				bad := slices.Clone(good)
				i := first + rnd.IntN(len(good)-first)
				bad[i] ^= 1 << rnd.IntN(8)
				try(bad, fmt.Sprintf("byte %d", i))
			}
			swapped := slices.Clone(good)
			copy(swapped[first:], good[first+block:first+2*block])
			copy(swapped[first+block:], good[first:first+block])
			try(swapped, "two blocks change places")
			twice := slices.Clone(good)
			copy(twice[first+block:], good[first:first+block])
			try(twice, "a block twice")
			overwrite(t, file, good)
			requireHit(t, s, id, data, snapshot.FromDisk)
		})
	}
}

// R5: a state of another model, engine, context or part is not found; a good file under the name
// of another state is not believed, nor one that another key or version made.
func TestR5Foreign(t *testing.T) {
	t.Parallel()
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, file, _, _ := saved(t, change, 70)
			good, err := os.ReadFile(file)
			require.NoError(t, err)
			s := opened(t, dir, change)
			for _, alter := range []func(*snapshot.State){
				func(st *snapshot.State) { st.Engine = "engine 1.3 (abd) seq 3" },
				func(st *snapshot.State) { st.Model = "sha256:0124" },
				func(st *snapshot.State) { st.Context = "q8_0 fa=1" },
				func(st *snapshot.State) { st.Part = snapshot.Partial },
			} {
				st := state(100, 5)
				alter(&st)
				other := s.ID(st)
				requireMiss(t, s, other, snapshot.MissAbsent)
				name := filepath.Join(dir, snapshot.FileName(other))
				overwrite(t, name, good)
				requireMiss(t, s, other, snapshot.MissDamaged)
				require.NoFileExists(t, name)
			}
			newer := slices.Clone(good)
			newer[8] = 2
			overwrite(t, filepath.Join(dir, snapshot.FileName(snapshot.ID{9})), newer)
			s = opened(t, dir, change)
			require.Equal(t, 1, s.Stats().Foreign, "counted, not removed")
			require.Equal(t, int64(2*len(good)), s.Stats().Disk.Bytes)
			reports, err := s.Verify(t.Context())
			require.NoError(t, err)
			require.Len(t, reports, 2)
			require.Equal(t, snapshot.MissForeign, reports[0].Bad)
			require.Empty(t, reports[1].Bad)
		})
	}
}

// R5: stores with different keys share a directory. Neither reads nor removes what the other
// wrote, until its budget asks for room: then the other's files go first.
func TestR5OtherKey(t *testing.T) {
	t.Parallel()
	dir, file, id, data := saved(t, diskOnly, 70)
	size := snapshot.FileBytes(state(100, 5), 70)
	s := opened(t, dir, func(o *snapshot.Options) { plain(o); o.DiskBytes = 2 * size })
	require.Equal(t, 1, s.Stats().Foreign)
	require.Empty(t, s.Index(ident))
	requireMiss(t, s, s.ID(state(100, 5)), snapshot.MissAbsent)
	put(t, s, state(200, 5), data)
	requireHit(t, opened(t, dir, diskOnly), id, data, snapshot.FromDisk)
	put(t, s, state(300, 5), data)
	require.NoFileExists(t, file)
	st := s.Stats()
	require.Zero(t, st.Foreign)
	require.Equal(t, 2*size, st.Disk.Bytes)
	require.Zero(t, st.Disk.Evictions)
}

// R4: what one tenant saved, no other finds: not in RAM, not on disk, not after a restart, and a
// copied file does not help.
func TestR4Scopes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine, theirs := state(1, 20), state(1, 20)
	mine.Scope, theirs.Scope = "tenant a", "tenant b"
	s := opened(t, dir, nil)
	id := put(t, s, mine, fill(1, 100))
	other := s.ID(theirs)
	for range 2 {
		requireMiss(t, s, other, snapshot.MissAbsent)
		_, ok := s.Lookup(other)
		require.False(t, ok)
		index := s.Index(theirs.Identity)
		require.Len(t, index, 1)
		require.Equal(t, "tenant a", index[0].Scope, "the scope stays with the state")
		require.NoError(t, s.Close())
		s = opened(t, dir, nil)
	}
	raw, err := os.ReadFile(filepath.Join(dir, snapshot.FileName(id)))
	require.NoError(t, err)
	overwrite(t, filepath.Join(dir, snapshot.FileName(other)), raw)
	requireMiss(t, s, other, snapshot.MissDamaged)
	requireHit(t, s, id, fill(1, 100), snapshot.FromDisk)
}

// clock is a time that stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// failing fails each call of one kind.
func failing(want disk.Op, with error) disk.Faults {
	return disk.Faults{Fail: func(op disk.Op, name string, _ int) error {
		if op == want && name != snapshot.LockName {
			return with
		}
		return nil
	}}
}

// L7, L8, L9, L12: a disk that is full, fails, or may not be written to. The state stays in RAM,
// nothing half written stays, the tier says what is wrong and is asked again after a pause only,
// and works as soon as the disk does.
func TestL7L8SaveFails(t *testing.T) {
	t.Parallel()
	const eio, full, readOnly = syscall.EIO, syscall.ENOSPC, syscall.EROFS
	for name, f := range map[string]disk.Faults{
		"said before":      {FreeBytes: -1},
		"reserve":          {FreeBytes: snapshot.ReserveBytes},
		"first byte":       {CapacityBytes: 1},
		"in the metadata":  {CapacityBytes: snapshot.HeaderBytes + 20},
		"in the state":     {CapacityBytes: 250},
		"full at create":   failing(disk.OpOpen, full),
		"full at write":    failing(disk.OpWrite, full),
		"full at sync":     failing(disk.OpSync, full),
		"full at rename":   failing(disk.OpRename, full),
		"sync fails":       failing(disk.OpSync, eio),
		"close fails":      failing(disk.OpClose, eio),
		"rename fails":     failing(disk.OpRename, eio),
		"directory sync":   failing(disk.OpSyncDir, eio),
		"read-only":        failing(disk.OpOpen, readOnly),
		"list fails":       failing(disk.OpReadDir, eio),
		"free space fails": failing(disk.OpFree, eio),
		"moved fails":      failing(disk.OpStat, eio),
		"lock fails": {Fail: func(op disk.Op, _ string, _ int) error {
			if op == disk.OpLock {
				return readOnly
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d *disk.Faulty
			dir, now := t.TempDir(), &clock{now: time.Unix(1e9, 0)}
			s := opened(t, dir, func(o *snapshot.Options) {
				faulty(&d)(o)
				o.RAMBytes, o.Now = 1<<20, now.time
			})
			kept := put(t, s, state(1, 3), fill(1, 300))
			want := files(t, dir)
			d.Set(f)
			id := put(t, s, state(2, 3), fill(2, 300))
			st := s.Stats()
			require.Equal(t, snapshot.SaveStats{Done: 1, Failed: 1}, st.Saves)
			require.NotEmpty(t, st.Disk.Degraded)
			require.Equal(t, want, files(t, dir), "nothing new and nothing half")
			requireHit(t, s, id, fill(2, 300), snapshot.FromRAM)

			calls := d.Calls()
			put(t, s, state(2, 3), fill(2, 300))
			require.Equal(t, calls, d.Calls(), "not asked during the pause")
			require.Equal(t, uint64(1), s.Stats().Saves.Skipped)
			now.move(snapshot.RetryFirst)
			put(t, s, state(2, 3), fill(2, 300))
			require.Equal(t, uint64(2), s.Stats().Saves.Failed)

			d.Set(disk.Faults{})
			now.move(2*snapshot.RetryFirst - 1)
			put(t, s, state(2, 3), fill(2, 300))
			require.Equal(t, uint64(2), s.Stats().Saves.Skipped, "the pause is doubled")
			now.move(1)
			put(t, s, state(2, 3), fill(2, 300))
			st = s.Stats()
			require.Equal(t, uint64(2), st.Saves.Done)
			require.Empty(t, st.Disk.Degraded)
			require.NoError(t, s.Close())
			require.Zero(t, d.OpenFiles())
			s = opened(t, dir, diskOnly)
			requireHit(t, s, kept, fill(1, 300), snapshot.FromDisk)
			requireHit(t, s, id, fill(2, 300), snapshot.FromDisk)
		})
	}
}

// The pause between failed saves has an end.
func TestPauseBounded(t *testing.T) {
	t.Parallel()
	var d *disk.Faulty
	now := &clock{now: time.Unix(1e9, 0)}
	s := opened(t, t.TempDir(), func(o *snapshot.Options) {
		faulty(&d)(o)
		o.RAMBytes, o.Now = 1<<20, now.time
	})
	d.Set(failing(disk.OpSync, syscall.EIO))
	for range 20 {
		now.move(snapshot.RetryMax)
		put(t, s, state(1, 1), []byte("x"))
	}
	require.Equal(t, uint64(20), s.Stats().Saves.Failed)
	now.move(snapshot.RetryMax - 1)
	put(t, s, state(1, 1), []byte("x"))
	require.Equal(t, uint64(20), s.Stats().Saves.Failed)
}

// A file that cannot be read is a miss, and stays: the disk may recover.
func TestReadFails(t *testing.T) {
	t.Parallel()
	for _, op := range []disk.Op{disk.OpOpen, disk.OpRead, disk.OpStat} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			dir, file, id, data := saved(t, diskOnly, 2*snapshot.BlockBytes)
			var d *disk.Faulty
			s := opened(t, dir, faulty(&d))
			d.Set(failing(op, syscall.EIO))
			requireMiss(t, s, id, snapshot.MissIO)
			require.FileExists(t, file)
			reports, err := s.Verify(t.Context())
			require.NoError(t, err)
			require.Equal(t, snapshot.MissIO, reports[0].Bad)
			require.ErrorIs(t, reports[0].Err, syscall.EIO)
			d.Set(disk.Faults{})
			requireHit(t, s, id, data, snapshot.FromDisk)
			require.Zero(t, d.OpenFiles())
		})
	}
}

// L10: the N-th disk call of a whole life fails, for every N. Nothing panics, leaks or lies, and
// what is on disk afterwards is whole.
func TestL10EveryDiskCallFailsOnce(t *testing.T) {
	t.Parallel()
	const callsMax = 400
	for n := 1; ; n++ {
		require.Less(t, n, callsMax, "the number of disk calls is bounded")
		dir := filepath.Join(t.TempDir(), "d")
		if done := lifeWithFault(t, dir, n); done {
			require.Greater(t, n, 60, "calls were made")
			return
		}
		s := opened(t, dir, func(o *snapshot.Options) { o.RAMBytes, o.Key = 0, nil })
		require.Empty(t, s.Stats().Disk.Degraded)
		reports, err := s.Verify(t.Context())
		require.NoError(t, err)
		for _, r := range reports {
			require.Empty(t, r.Bad, "call %d: %v", n, r.Err)
		}
		for _, name := range files(t, dir) {
			require.False(t, strings.HasPrefix(name, "tmp-"), "call %d", n)
		}
		put(t, s, state(9, 9), fill(9, 9))
	}
}

// lifeWithFault uses a store for everything while the n-th disk call fails, and reports whether
// there was no n-th call.
func lifeWithFault(t *testing.T, dir string, n int) bool {
	var opens []*disk.Faulty
	total := 0
	for range 2 {
		now := &clock{now: time.Unix(1e9, 0)}
		s, err := snapshot.Open(snapshot.Options{
			DiskBytes: 1 << 20, Dir: dir, Now: now.time, Workers: 1,
			OpenDir: func(path string) (disk.Dir, error) {
				d, err := disk.OpenDir(path)
				if err != nil {
					return nil, err
				}
				f := disk.NewFaulty(d, disk.Faults{Fail: func(disk.Op, string, int) error {
					if total++; total == n {
						return errors.New("the chosen call")
					}
					return nil
				}})
				opens = append(opens, f)
				return f, nil
			},
		})
		require.NoError(t, err)
		for i := range int32(3) {
			data := fill(uint64(i), 400)
			id, err := s.Put(state(i, 4), buffer(t, s, data))
			if err != nil { // nothing is kept in RAM
				require.ErrorIs(t, err, snapshot.ErrNoRoom)
				continue
			}
			require.NoError(t, s.Flush(t.Context()))
			if l, ok := s.Get(t.Context(), id); ok {
				require.Equal(t, data, l.Bytes())
				l.Release()
			}
			now.move(snapshot.RetryMax)
		}
		_, _ = s.Verify(t.Context()) // may fail
		s.Drop(s.ID(state(0, 4)))
		if len(opens) > 2 {
			_, _, _ = s.Clear(t.Context()) // may fail
		}
		_ = s.Close() // may fail
	}
	for _, d := range opens {
		require.Zero(t, d.OpenFiles(), "call %d", n)
	}
	return total < n
}

// The directory is moved, replaced by another or by a link. Nothing is written to a place that
// was not meant, what was saved is still found, and the tier says what happened.
func TestDirectorySwapped(t *testing.T) {
	t.Parallel()
	for name, swap := range map[string]func(t *testing.T, dir string){
		"gone":    func(*testing.T, string) {},
		"another": func(t *testing.T, dir string) { require.NoError(t, os.Mkdir(dir, 0o700)) },
		"a link":  func(t *testing.T, dir string) { require.NoError(t, os.Symlink(t.TempDir(), dir)) },
		"a file":  func(t *testing.T, dir string) { overwrite(t, dir, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, now := filepath.Join(t.TempDir(), "d"), &clock{now: time.Unix(1e9, 0)}
			s := opened(t, dir, func(o *snapshot.Options) { o.RAMBytes, o.Now = 300, now.time })
			id := put(t, s, state(1, 1), fill(1, 300))
			require.NoError(t, os.Rename(dir, dir+".old"))
			swap(t, dir)
			second := put(t, s, state(2, 1), fill(2, 300))
			st := s.Stats()
			require.Equal(t, uint64(1), st.Saves.Failed)
			require.Contains(t, st.Disk.Degraded, "moved or replaced")
			requireHit(t, s, id, fill(1, 300), snapshot.FromDisk)
			require.Len(t, files(t, dir+".old"), 1)
			if entries, err := os.ReadDir(dir); err == nil {
				require.Empty(t, entries)
			}
			_ = os.Remove(dir) // where there is one
			require.NoError(t, os.Rename(dir+".old", dir))
			now.move(snapshot.RetryFirst)
			put(t, s, state(2, 1), fill(2, 300))
			require.Empty(t, s.Stats().Disk.Degraded)
			require.FileExists(t, filepath.Join(dir, snapshot.FileName(second)))
		})
	}
}

// Links and directories under the names of files are not followed.
func TestNotAFile(t *testing.T) {
	t.Parallel()
	dir, file, id, _ := saved(t, diskOnly, 70)
	outside := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.Rename(file, outside))
	for name, make := range map[string]func() error{
		"link out":  func() error { return os.Symlink(outside, file) },
		"directory": func() error { return os.Mkdir(file, 0o700) },
	} {
		require.NoError(t, make(), name)
		s := opened(t, dir, diskOnly)
		require.Zero(t, s.Stats().Disk.Entries)
		requireMiss(t, s, id, snapshot.MissUntrusted)
		require.NoError(t, os.Remove(file))
	}
}
