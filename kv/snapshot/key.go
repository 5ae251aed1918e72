package snapshot

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/norion/norion/hw/disk"
)

// loadKey reads the key from the file at path, made with a random key when missing. Whoever else
// makes it at the same time, all get the same key. A file that others may read is refused.
func loadKey(openDir func(string) (disk.Dir, error), path string) (key []byte, err error) {
	fail := func(hint string, err error) ([]byte, error) {
		return nil, &Error{Op: "key", Kind: ErrKey, Field: "KeyFile", Hint: hint, Err: err}
	}
	const hint = "check the owner and the permissions of the key's directory"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(hint, err)
	}
	dir, err := openDir(filepath.Dir(path))
	if err != nil {
		return fail(hint, err)
	}
	defer func() { _ = dir.Close() }() // nothing is written through it any more
	name := filepath.Base(path)
	fi, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(dir, name); err != nil {
			return fail(hint, err)
		}
		fi, err = dir.Lstat(name)
	}
	if err != nil {
		return fail(hint, err)
	}
	if !fi.Mode().IsRegular() || !disk.Private(fi) {
		return fail("make the file this user's own, with mode 0600; if others may have read it, "+
			"remove it and the cache", MissUntrusted)
	}
	f, err := dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return fail(hint, err)
	}
	key, err = io.ReadAll(io.LimitReader(f, keyBytes+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return fail(hint, err)
	}
	if len(key) != keyBytes {
		return fail("remove the file; what it encrypted is lost",
			fmt.Errorf("%d bytes, not %d", len(key), keyBytes))
	}
	return key, nil
}

// makeKey makes the file whole or not at all, and leaves one that is there.
func makeKey(dir disk.Dir, name string) (err error) {
	random := make([]byte, keyBytes+8)
	_, _ = rand.Read(random) // never fails
	temp := name + "." + hex.EncodeToString(random[keyBytes:])
	f, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Remove(temp)) }()
	_, err = f.Write(random[:keyBytes])
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = dir.Link(dir.Path(temp), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return dir.SyncDir(".")
}
