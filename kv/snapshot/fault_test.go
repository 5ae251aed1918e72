package snapshot_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/kv/snapshot"
)

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

// saveFaults are the ways in which a save fails.
func saveFaults() map[string]disk.Faults {
	const eio, full, readOnly = syscall.EIO, syscall.ENOSPC, syscall.EROFS
	return map[string]disk.Faults{
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
	}
}

// L7, L8, L9, L12: a disk that is full, fails, or may not be written to. Nothing half written
// stays, the tier says what is wrong and is asked again after a pause only, and works as soon as
// the disk does.
func TestL7L8SaveFails(t *testing.T) {
	t.Parallel()
	for name, f := range saveFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d *disk.Faulty
			dir, now := t.TempDir(), &clock{now: time.Unix(1e9, 0)}
			s := opened(t, dir, func(o *snapshot.Options) {
				faulty(&d)(o)
				o.Now = now.time
			})
			kept := put(t, s, state(1, 3), fill(1, 300))
			want := files(t, dir)
			d.Set(f)
			st2 := state(2, 3)
			id := put(t, s, st2, fill(2, 300))
			st := s.Stats()
			require.Zero(t, st.BufferBytes)
			require.Equal(t, snapshot.SaveStats{Done: 1, Failed: 1}, st.Saves)
			require.NotEmpty(t, st.Degraded)
			require.Equal(t, want, files(t, dir), "nothing new and nothing half")

			calls := d.Calls()
			_, err := give(t, s, st2, fill(2, 300))
			require.ErrorIs(t, err, snapshot.ErrNoRoom)
			require.ErrorIs(t, err, snapshot.ErrDisk, "it says why")
			require.Equal(t, calls, d.Calls(), "not asked during the pause")
			require.Equal(t, uint64(1), s.Stats().Saves.Skipped)
			now.move(snapshot.RetryFirst)
			put(t, s, st2, fill(2, 300))
			require.Equal(t, uint64(2), s.Stats().Saves.Failed)

			d.Set(disk.Faults{})
			now.move(2*snapshot.RetryFirst - 1)
			_, err = give(t, s, st2, fill(2, 300))
			require.ErrorIs(t, err, snapshot.ErrNoRoom, "the pause is doubled")
			now.move(1)
			put(t, s, st2, fill(2, 300))
			st = s.Stats()
			require.Equal(t, uint64(2), st.Saves.Done)
			require.Empty(t, st.Degraded)
			require.NoError(t, s.Close())
			require.Zero(t, d.OpenFiles())
			s = opened(t, dir, nil)
			requireHit(t, s, kept, fill(1, 300))
			requireHit(t, s, id, fill(2, 300))
		})
	}
}

// TestC1Pause: a wall clock that is set back by an hour or forward by a year while the store pauses
// after a failed save neither lengthens the pause nor loses what was saved (C1).
func TestC1Pause(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{
		"back": -time.Hour, "forward": 365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d *disk.Faulty
			dir, now := t.TempDir(), &clock{now: time.Unix(1e9, 0)}
			s := opened(t, dir, func(o *snapshot.Options) {
				faulty(&d)(o)
				o.Now = now.time
			})
			kept := put(t, s, state(1, 3), fill(1, 300))
			d.Set(disk.Faults{Fail: func(disk.Op, string, int) error { return errors.New("no") }})
			id := put(t, s, state(2, 3), fill(2, 300))
			require.Equal(t, uint64(1), s.Stats().Saves.Failed)
			d.Set(disk.Faults{})
			now.move(jump + snapshot.RetryFirst)
			put(t, s, state(2, 3), fill(2, 300))
			require.Equal(t, uint64(2), s.Stats().Saves.Done)
			require.NoError(t, s.Close())
			s = opened(t, dir, nil)
			requireHit(t, s, kept, fill(1, 300))
			requireHit(t, s, id, fill(2, 300))
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
		o.Now = now.time
	})
	d.Set(failing(disk.OpSync, syscall.EIO))
	for range 20 {
		now.move(snapshot.RetryMax)
		put(t, s, state(1, 1), []byte("x"))
	}
	require.Equal(t, uint64(20), s.Stats().Saves.Failed)
	now.move(snapshot.RetryMax - 1)
	_, err := give(t, s, state(1, 1), []byte("x"))
	require.ErrorIs(t, err, snapshot.ErrNoRoom)
	require.Equal(t, uint64(20), s.Stats().Saves.Failed)
}

// A file that cannot be read is a miss, and stays: the disk may recover.
func TestReadFails(t *testing.T) {
	t.Parallel()
	for _, op := range []disk.Op{disk.OpOpen, disk.OpRead, disk.OpStat} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			dir, file, id, data := saved(t, nil, 2*snapshot.BlockBytes)
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
			requireHit(t, s, id, data)
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
		s := opened(t, dir, func(o *snapshot.Options) { o.Key = nil })
		require.Empty(t, s.Stats().Degraded)
		reports, err := s.Verify(t.Context())
		require.NoError(t, err)
		for _, r := range reports {
			require.Empty(t, r.Bad, "call %d: %v", n, r.Err)
		}
		put(t, s, state(9, 9), fill(9, 9))
		for _, name := range files(t, dir) {
			require.False(t, strings.HasPrefix(name, "tmp-"), "call %d", n)
		}
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
			id, err := give(t, s, state(i, 4), data)
			if err != nil { // no disk tier
				require.ErrorIs(t, err, snapshot.ErrDisk)
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
			s := opened(t, dir, func(o *snapshot.Options) { o.Now = now.time })
			id := put(t, s, state(1, 1), fill(1, 300))
			require.NoError(t, os.Rename(dir, dir+".old"))
			swap(t, dir)
			second := put(t, s, state(2, 1), fill(2, 300))
			st := s.Stats()
			require.Equal(t, uint64(1), st.Saves.Failed)
			require.Contains(t, st.Degraded, "moved or replaced")
			requireHit(t, s, id, fill(1, 300))
			require.Len(t, files(t, dir+".old"), 1)
			if entries, err := os.ReadDir(dir); err == nil {
				require.Empty(t, entries)
			}
			_ = os.Remove(dir) // where there is one
			require.NoError(t, os.Rename(dir+".old", dir))
			now.move(snapshot.RetryFirst)
			put(t, s, state(2, 1), fill(2, 300))
			require.Empty(t, s.Stats().Degraded)
			require.FileExists(t, filepath.Join(dir, snapshot.FileName(second)))
		})
	}
}

// Links and directories under the names of files are not followed.
func TestNotAFile(t *testing.T) {
	t.Parallel()
	dir, file, id, _ := saved(t, nil, 70)
	outside := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.Rename(file, outside))
	for name, make := range map[string]func() error{
		"link out":  func() error { return os.Symlink(outside, file) },
		"directory": func() error { return os.Mkdir(file, 0o700) },
	} {
		require.NoError(t, make(), name)
		s := opened(t, dir, nil)
		require.Zero(t, s.Stats().Files)
		requireMiss(t, s, id, snapshot.MissUntrusted)
		require.NoError(t, os.Remove(file))
	}
}
