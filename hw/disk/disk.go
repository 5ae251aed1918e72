// Package disk is the seam between norion and the file system. It owns one directory tree at a
// time, opened through os.Root so that no name can leave it, and offers the few operations that
// durable code needs: open, rename, remove, sync, lock and free space. The same interface has a
// fault-injecting form for tests (Faulty).
//
// The package must not know what is stored: no models, records or formats.
package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is an open file of a Dir. It is used by one goroutine at a time, except ReadAt.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Seeker
	io.Closer
	// Truncate sets the size in bytes.
	Truncate(size int64) error
	// Sync returns when the contents are on stable storage.
	Sync() error
	// Stat describes the open file.
	Stat() (fs.FileInfo, error)
}

// Dir is one directory tree. Names are relative, slash separated, and never leave the tree: also
// not through a symbolic link. A Dir is safe for concurrent use.
type Dir interface {
	// OpenFile opens or creates name; flag is made of os.O_* bits, perm is used on creation.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// MkdirAll creates name and its missing parents.
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir lists name, sorted.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Lstat describes name itself, never what a link points to.
	Lstat(name string) (fs.FileInfo, error)
	// Rename replaces newName by oldName in one step.
	Rename(oldName, newName string) error
	// Link makes name a hard link to the file at path, which may lie outside the tree on the same
	// file system. A symbolic link at path is not followed.
	Link(path, name string) error
	// Remove deletes a file or an empty directory.
	Remove(name string) error
	// RemoveAll deletes name and everything below it; a missing name is no error.
	RemoveAll(name string) error
	// SyncDir makes creations, renames and removals in the directory name durable.
	SyncDir(name string) error
	// TryLock takes the advisory lock of the file name, creating it when missing. It reports
	// false at once when another holder, in this or another process, has it. The lock ends with
	// unlock or with the process: it cannot go stale.
	TryLock(name string) (unlock func() error, ok bool, err error)
	// Free returns the bytes that this user may still write.
	Free() (int64, error)
	// Moved reports whether the path that the directory was opened at now leads elsewhere or
	// nowhere. The Dir itself goes on in the directory it was opened on.
	Moved() (bool, error)
	// Path returns the operating system's path of name, for a program or a library that opens
	// the file itself.
	Path(name string) string
	// Close releases the directory; files that are open stay open. A second Close is no error.
	Close() error
}

// ErrNoSpace matches every report of a full disk or an exhausted quota.
var ErrNoSpace = errors.New("no space left on the disk")

// NoSpace reports whether err says that a disk is full or a quota is exhausted.
func NoSpace(err error) bool {
	return errors.Is(err, ErrNoSpace) || noSpace(err)
}

// Own reports whether this process's user owns the file or directory that fi describes and nobody
// else may write to it. On Windows, where a mode does not say so, it is always true.
func Own(fi fs.FileInfo) bool { return own(fi) }

// Private reports whether, besides Own, nobody else may read it.
func Private(fi fs.FileInfo) bool { return own(fi) && private(fi) }

// osDir is the real file system.
type osDir struct {
	root *os.Root
	path string // absolute
}

// OpenDir opens the existing directory at path. The caller closes it.
func OpenDir(path string) (Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	return &osDir{root: root, path: abs}, nil
}

func (d *osDir) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not f: a nil *os.File is not a nil File
	}
	return f, nil
}

func (d *osDir) MkdirAll(name string, perm fs.FileMode) error {
	return d.root.MkdirAll(name, perm)
}

func (d *osDir) ReadDir(name string) ([]fs.DirEntry, error) {
	return fs.ReadDir(d.root.FS(), name)
}

func (d *osDir) Lstat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }

func (d *osDir) Rename(oldName, newName string) error { return d.root.Rename(oldName, newName) }

// Link opens the parent of name through the root first, so that a name that leaves the tree is
// refused before the operating system sees it.
func (d *osDir) Link(path, name string) error {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return &fs.PathError{Op: "link", Path: name, Err: fs.ErrInvalid}
	}
	if _, err := d.root.Stat(filepath.Dir(filepath.FromSlash(name))); err != nil {
		return err
	}
	return os.Link(path, d.Path(name))
}

func (d *osDir) Remove(name string) error    { return d.root.Remove(name) }
func (d *osDir) RemoveAll(name string) error { return d.root.RemoveAll(name) }

func (d *osDir) SyncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(f), f.Close())
}

func (d *osDir) TryLock(name string) (func() error, bool, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	ok, err := tryLock(f)
	if err != nil || !ok {
		return nil, false, errors.Join(err, f.Close())
	}
	return f.Close, true, nil // closing the only descriptor ends the lock
}

func (d *osDir) Free() (int64, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return 0, err
	}
	n, err := freeBytes(f, d.path)
	return n, errors.Join(err, f.Close())
}

func (d *osDir) Moved() (bool, error) {
	here, err := d.root.Stat(".")
	if err != nil {
		return false, err
	}
	there, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && !os.SameFile(here, there), err
}

func (d *osDir) Path(name string) string {
	return filepath.Join(d.path, filepath.FromSlash(name))
}

func (d *osDir) Close() error { return d.root.Close() }
