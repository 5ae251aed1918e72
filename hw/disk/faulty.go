package disk

import (
	"errors"
	"io/fs"
	"os"
	"sync"
)

// Op names a kind of disk call that Faulty can count and fail.
type Op string

// The kinds of disk calls.
const (
	OpOpen     Op = "open"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpClose    Op = "close"
	OpMkdir    Op = "mkdir"
	OpReadDir  Op = "readdir"
	OpStat     Op = "stat"
	OpRename   Op = "rename"
	OpLink     Op = "link"
	OpRemove   Op = "remove"
	OpSyncDir  Op = "syncdir"
	OpLock     Op = "lock"
	OpFree     Op = "free"
)

// ErrInjected is what Faulty returns where Faults names no other error.
var ErrInjected = errors.New("injected disk fault")

// Faults says what goes wrong on a Faulty directory. The zero value fails nothing.
type Faults struct {
	// Fail is asked before each call with its kind, the name it concerns and its 1-based number
	// over all calls; a non-nil error is returned instead of making the call. nil fails nothing.
	// Close is always carried out, so that a test does not leak descriptors.
	Fail func(op Op, name string, n int) error
	// CapacityBytes is how much may be written in all before ErrNoSpace; 0 is no limit. The write
	// that crosses it is a short one, as on a real disk. Removing a file gives nothing back.
	CapacityBytes int64
	// FreeBytes, when Free is asked, replaces the real figure; 0 keeps it, negative means none.
	FreeBytes int64
}

// Faulty is a Dir that passes calls on to another Dir and fails some of them. It is safe for
// concurrent use. Close closes the inner Dir.
type Faulty struct {
	inner Dir

	mu      sync.Mutex
	faults  Faults
	calls   int
	written int64
	open    int
}

// NewFaulty wraps inner.
func NewFaulty(inner Dir, f Faults) *Faulty { return &Faulty{inner: inner, faults: f} }

// Set replaces the faults from the next call on, for example when space has been freed. The
// bytes written so far are forgotten, the number of calls is not.
func (d *Faulty) Set(f Faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults, d.written = f, 0
}

// Calls returns how many calls were made, failed ones included.
func (d *Faulty) Calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// OpenFiles returns how many files are open.
func (d *Faulty) OpenFiles() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

func (d *Faulty) step(op Op, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.faults.Fail == nil {
		return nil
	}
	if err := d.faults.Fail(op, name, d.calls); err != nil {
		return &fs.PathError{Op: string(op), Path: name, Err: err}
	}
	return nil
}

// room returns how many of n bytes may still be written.
func (d *Faulty) room(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.faults.CapacityBytes > 0 {
		n = int(min(int64(n), max(0, d.faults.CapacityBytes-d.written)))
	}
	d.written += int64(n)
	return n
}

func (d *Faulty) opened(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open += n
}

// OpenFile implements Dir.
func (d *Faulty) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	if err := d.step(OpOpen, name); err != nil {
		return nil, err
	}
	f, err := d.inner.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	d.opened(1)
	return &faultyFile{File: f, dir: d, name: name}, nil
}

// MkdirAll implements Dir.
func (d *Faulty) MkdirAll(name string, perm fs.FileMode) error {
	if err := d.step(OpMkdir, name); err != nil {
		return err
	}
	return d.inner.MkdirAll(name, perm)
}

// ReadDir implements Dir.
func (d *Faulty) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := d.step(OpReadDir, name); err != nil {
		return nil, err
	}
	return d.inner.ReadDir(name)
}

// Lstat implements Dir.
func (d *Faulty) Lstat(name string) (fs.FileInfo, error) {
	if err := d.step(OpStat, name); err != nil {
		return nil, err
	}
	return d.inner.Lstat(name)
}

// Rename implements Dir.
func (d *Faulty) Rename(oldName, newName string) error {
	if err := d.step(OpRename, newName); err != nil {
		return err
	}
	return d.inner.Rename(oldName, newName)
}

// Link implements Dir.
func (d *Faulty) Link(path, name string) error {
	if err := d.step(OpLink, name); err != nil {
		return err
	}
	return d.inner.Link(path, name)
}

// Remove implements Dir.
func (d *Faulty) Remove(name string) error {
	if err := d.step(OpRemove, name); err != nil {
		return err
	}
	return d.inner.Remove(name)
}

// RemoveAll implements Dir.
func (d *Faulty) RemoveAll(name string) error {
	if err := d.step(OpRemove, name); err != nil {
		return err
	}
	return d.inner.RemoveAll(name)
}

// SyncDir implements Dir.
func (d *Faulty) SyncDir(name string) error {
	if err := d.step(OpSyncDir, name); err != nil {
		return err
	}
	return d.inner.SyncDir(name)
}

// TryLock implements Dir.
func (d *Faulty) TryLock(name string) (func() error, bool, error) {
	if err := d.step(OpLock, name); err != nil {
		return nil, false, err
	}
	return d.inner.TryLock(name)
}

// Free implements Dir.
func (d *Faulty) Free() (int64, error) {
	if err := d.step(OpFree, "."); err != nil {
		return 0, err
	}
	d.mu.Lock()
	n := d.faults.FreeBytes
	d.mu.Unlock()
	if n != 0 {
		return max(0, n), nil
	}
	return d.inner.Free()
}

// Moved implements Dir.
func (d *Faulty) Moved() (bool, error) {
	if err := d.step(OpStat, "."); err != nil {
		return false, err
	}
	return d.inner.Moved()
}

// Path implements Dir.
func (d *Faulty) Path(name string) string { return d.inner.Path(name) }

// Close implements Dir.
func (d *Faulty) Close() error { return d.inner.Close() }

// faultyFile is a file of a Faulty directory.
type faultyFile struct {
	File
	dir  *Faulty
	name string

	mu     sync.Mutex
	closed bool
}

func (f *faultyFile) Read(p []byte) (int, error) {
	if err := f.dir.step(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.dir.step(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.dir.step(OpWrite, f.name); err != nil {
		return 0, err
	}
	room := f.dir.room(len(p))
	n, err := f.File.Write(p[:room])
	if err == nil && room < len(p) {
		err = &fs.PathError{Op: string(OpWrite), Path: f.name, Err: ErrNoSpace}
	}
	return n, err
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.dir.step(OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Sync() error {
	if err := f.dir.step(OpSync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	f.dir.opened(-1)
	return errors.Join(f.dir.step(OpClose, f.name), f.File.Close())
}
