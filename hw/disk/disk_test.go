package disk_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/hw/disk"
)

func open(t testing.TB, path string) disk.Dir {
	d, err := disk.OpenDir(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func write(t testing.TB, d disk.Dir, name, text string) {
	f, err := d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	require.NoError(t, err)
	_, err = io.WriteString(f, text)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
}

func read(t testing.TB, d disk.Dir, name string) string {
	f, err := d.OpenFile(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	data, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return string(data)
}

// Both implementations keep the same promises.
func TestDir(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(disk.Dir) disk.Dir{
		"real":   func(d disk.Dir) disk.Dir { return d },
		"faulty": func(d disk.Dir) disk.Dir { return disk.NewFaulty(d, disk.Faults{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := wrap(open(t, t.TempDir()))
			require.NoError(t, d.MkdirAll("a/b", 0o755))
			write(t, d, "a/b/x", "one")
			write(t, d, "a/y", "two")
			require.NoError(t, d.Rename("a/b/x", "a/y"))
			require.Equal(t, "one", read(t, d, "a/y"))
			require.NoError(t, d.SyncDir("a"))

			entries, err := d.ReadDir("a")
			require.NoError(t, err)
			require.Len(t, entries, 2)
			require.Equal(t, "b", entries[0].Name())
			fi, err := d.Lstat("a/y")
			require.NoError(t, err)
			require.Equal(t, int64(3), fi.Size())

			f, err := d.OpenFile("a/y", os.O_RDWR, 0)
			require.NoError(t, err)
			require.NoError(t, f.Truncate(2))
			b := make([]byte, 1)
			_, err = f.ReadAt(b, 1)
			require.NoError(t, err)
			require.Equal(t, "n", string(b))
			require.NoError(t, f.Close())
			require.Error(t, f.Close())

			free, err := d.Free()
			require.NoError(t, err)
			require.Positive(t, free)
			require.NoError(t, d.Remove("a/y"))
			require.ErrorIs(t, d.Remove("a/y"), fs.ErrNotExist)
			require.Error(t, d.Remove("."))
			require.NoError(t, d.RemoveAll("a"))
			require.NoError(t, d.RemoveAll("a"))
			_, err = d.Lstat("a")
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, d.Close())
			require.NoError(t, d.Close())
			_, err = d.Lstat(".")
			require.Error(t, err)
		})
	}
}

// No name leaves the tree: not by "..", not as an absolute path, not through a symbolic link.
func TestNamesStayInside(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o644))
	inside := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.MkdirAll(inside, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(inside, "mine"), []byte("m"), 0o644))
	require.NoError(t, os.Symlink(outside, filepath.Join(inside, "link")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(inside, "to")))
	d := open(t, inside)
	for _, name := range []string{
		"../secret", "link/secret", "link/../secret", "to", filepath.Join(outside, "secret"), "/",
	} {
		_, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		require.Error(t, err, name)
		require.Error(t, d.Rename("mine", name+"/x"), name)
		require.Error(t, d.Link(filepath.Join(inside, "mine"), name+"/x"), name)
		require.Error(t, d.MkdirAll(name+"/x", 0o755), name)
		_, _, err = d.TryLock(name)
		require.Error(t, err, name)
	}
	require.Error(t, d.RemoveAll("../root"))
	require.NoError(t, d.RemoveAll("link"), "the link goes, not what it points to")
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestLink(t *testing.T) {
	t.Parallel()
	p := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(p, []byte("x"), 0o644))
	d := open(t, t.TempDir())
	require.NoError(t, d.Link(p, "l"))
	a, err := os.Stat(p)
	require.NoError(t, err)
	b, err := os.Stat(d.Path("l"))
	require.NoError(t, err)
	require.True(t, os.SameFile(a, b))
	require.ErrorIs(t, d.Link(p, "l"), fs.ErrExist)
	require.ErrorIs(t, d.Link(p+"no", "m"), fs.ErrNotExist)
}

func TestLockExcludes(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d, other := open(t, path), open(t, path)
	unlock, ok, err := d.TryLock("l")
	require.NoError(t, err)
	require.True(t, ok)
	for _, x := range []disk.Dir{d, other} {
		_, ok, err = x.TryLock("l")
		require.NoError(t, err)
		require.False(t, ok)
	}
	second, ok, err := d.TryLock("m")
	require.NoError(t, err)
	require.True(t, ok, "another file is another lock")
	require.NoError(t, second())
	require.NoError(t, unlock())
	require.Error(t, unlock(), "twice")
	unlock, ok, err = other.TryLock("l")
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, unlock())
}

// The directory goes on where it was opened, and says when its path leads elsewhere.
func TestMoved(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(disk.Dir) disk.Dir{
		"real":   func(d disk.Dir) disk.Dir { return d },
		"faulty": func(d disk.Dir) disk.Dir { return disk.NewFaulty(d, disk.Faults{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "d")
			require.NoError(t, os.Mkdir(path, 0o700))
			d := wrap(open(t, path))
			moved := func(want bool) {
				got, err := d.Moved()
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
			moved(false)
			require.NoError(t, os.Rename(path, path+".old"))
			moved(true)
			require.NoError(t, os.Mkdir(path, 0o700))
			moved(true)
			write(t, d, "x", "x")
			require.FileExists(t, filepath.Join(path+".old", "x"))
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink(path+".old", path))
			moved(false)
		})
	}
}

func TestOwn(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a mode says nothing about writers here")
	}
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	for mode, want := range map[fs.FileMode]bool{
		0o600: true, 0o644: true, 0o755: true, 0o620: false, 0o602: false, 0o666: false,
	} {
		require.NoError(t, os.Chmod(path, mode))
		fi, err := os.Lstat(path)
		require.NoError(t, err)
		require.Equal(t, want, disk.Own(fi), "%o", mode)
		require.Equal(t, mode == 0o600, disk.Private(fi), "%o", mode)
	}
	if os.Geteuid() != 0 {
		return
	}
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.Chown(path, 12345, 12345))
	fi, err := os.Lstat(path)
	require.NoError(t, err)
	require.False(t, disk.Own(fi), "another user's")
	require.False(t, disk.Private(fi), "another user's")
}

func TestOpenDirRefuses(t *testing.T) {
	t.Parallel()
	p := filepath.Join(t.TempDir(), "f")
	_, err := disk.OpenDir(p)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(p, nil, 0o644))
	_, err = disk.OpenDir(p)
	require.Error(t, err)
}

func TestNoSpace(t *testing.T) {
	t.Parallel()
	require.True(t, disk.NoSpace(&fs.PathError{Op: "write", Path: "x", Err: disk.ErrNoSpace}))
	require.True(t, disk.NoSpace(&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}))
	require.False(t, disk.NoSpace(syscall.EIO))
	require.False(t, disk.NoSpace(nil))
}

// A disk of limited size takes exactly that many bytes, however they are written.
func TestFaultyCapacity(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		capacity := rapid.IntRange(1, 100).Draw(rt, "capacity")
		d := disk.NewFaulty(open(t, path), disk.Faults{CapacityBytes: int64(capacity)})
		f, err := d.OpenFile("x", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		require.NoError(rt, err)
		written, offered := 0, 0
		for offered <= capacity {
			n := rapid.IntRange(1, 40).Draw(rt, "write")
			offered += n
			got, err := f.Write(make([]byte, n))
			written += got
			require.Equal(rt, offered <= capacity, err == nil)
			if err != nil {
				require.True(rt, disk.NoSpace(err))
			}
		}
		require.Equal(rt, capacity, written)
		fi, err := f.Stat()
		require.NoError(rt, err)
		require.Equal(rt, int64(capacity), fi.Size())
		d.Set(disk.Faults{})
		_, err = f.Write([]byte("x"))
		require.NoError(rt, err)
		require.NoError(rt, f.Close())
		require.Zero(rt, d.OpenFiles())
	})
}

func TestFaultyFailsTheChosenCall(t *testing.T) {
	t.Parallel()
	want := errors.New("broken")
	calls := map[disk.Op]func(d disk.Dir, f disk.File) error{
		disk.OpOpen: func(d disk.Dir, _ disk.File) error {
			_, err := d.OpenFile("y", os.O_RDONLY, 0)
			return err
		},
		disk.OpRead: func(_ disk.Dir, f disk.File) error {
			_, err := f.Read(make([]byte, 1))
			return err
		},
		disk.OpWrite: func(_ disk.Dir, f disk.File) error {
			_, err := f.Write([]byte("x"))
			return err
		},
		disk.OpTruncate: func(_ disk.Dir, f disk.File) error { return f.Truncate(0) },
		disk.OpSync:     func(_ disk.Dir, f disk.File) error { return f.Sync() },
		disk.OpClose:    func(_ disk.Dir, f disk.File) error { return f.Close() },
		disk.OpMkdir:    func(d disk.Dir, _ disk.File) error { return d.MkdirAll("d", 0o755) },
		disk.OpReadDir:  func(d disk.Dir, _ disk.File) error { _, err := d.ReadDir("."); return err },
		disk.OpStat:     func(d disk.Dir, _ disk.File) error { _, err := d.Lstat("x"); return err },
		disk.OpRename:   func(d disk.Dir, _ disk.File) error { return d.Rename("x", "z") },
		disk.OpLink:     func(d disk.Dir, _ disk.File) error { return d.Link(d.Path("x"), "l") },
		disk.OpRemove:   func(d disk.Dir, _ disk.File) error { return d.Remove("x") },
		disk.OpSyncDir:  func(d disk.Dir, _ disk.File) error { return d.SyncDir(".") },
		disk.OpLock:     func(d disk.Dir, _ disk.File) error { _, _, err := d.TryLock("k"); return err },
		disk.OpFree:     func(d disk.Dir, _ disk.File) error { _, err := d.Free(); return err },
	}
	for op, call := range calls {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			armed := false
			d := disk.NewFaulty(open(t, t.TempDir()), disk.Faults{
				Fail: func(got disk.Op, _ string, _ int) error {
					if armed && got == op {
						return want
					}
					return nil
				},
			})
			write(t, d, "x", "x")
			f, err := d.OpenFile("x", os.O_RDWR, 0)
			require.NoError(t, err)
			armed = true
			before := d.Calls()
			require.ErrorIs(t, call(d, f), want)
			require.Equal(t, before+1, d.Calls())
			armed = false
			if op != disk.OpClose {
				require.NoError(t, f.Close())
			}
			require.Zero(t, d.OpenFiles())
			require.Equal(t, "x", read(t, d, "x"), "the call was not made")
		})
	}
}

func TestFaultyFree(t *testing.T) {
	t.Parallel()
	d := disk.NewFaulty(open(t, t.TempDir()), disk.Faults{FreeBytes: 7})
	n, err := d.Free()
	require.NoError(t, err)
	require.Equal(t, int64(7), n)
	d.Set(disk.Faults{FreeBytes: -1})
	n, err = d.Free()
	require.NoError(t, err)
	require.Zero(t, n)
}
