package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrForeign means that a file is none that this user's programs wrote: of another owner, no
// regular file, or larger than any of its kind.
var ErrForeign = errors.New("not a file of this program and user")

// ReadFile reads a small file that a program of this user wrote, of at most limit bytes. Errors:
// ErrForeign, fs.ErrNotExist, and those of reading.
func ReadFile(dir Dir, name string, limit int64) ([]byte, error) {
	fi, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || !Own(fi) || fi.Size() > limit {
		return nil, fmt.Errorf("%s: %w", name, ErrForeign)
	}
	f, err := dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return data, errors.Join(err, f.Close())
}

// WriteFile replaces a file in one step: after a crash there is the old one or the new one, whole.
func WriteFile(dir Dir, name string, data []byte) error {
	temporary := name + "." + rand.Text()
	f, err := dir.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = dir.Rename(temporary, name)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(temporary))
	}
	return dir.SyncDir(".")
}
