package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/norion/norion/hw/disk"
)

// Backup copies the record into a new directory at path and verifies the copy. Without keys the
// copy can be verified, but neither written to nor its sealed texts be opened. Errors: ErrDirectory
// where there is something at path, ErrUnavailable, and those of Verify.
func (r *Reader) Backup(ctx context.Context, path string, keys bool) (Report, error) {
	if err := os.Mkdir(path, 0o700); err != nil {
		return Report{}, &Error{
			Op: "backup", Kind: ErrDirectory, Field: path, Err: err,
			Hint: "name a new directory in one that is there",
		}
	}
	if err := r.copyTo(ctx, path, keys); err != nil {
		return Report{}, wrap("backup", err)
	}
	c, err := OpenReader(ctx, Options{Dir: path, Projections: r.projections})
	if err != nil {
		return Report{}, err
	}
	report, err := c.Verify(ctx)
	return report, errors.Join(err, c.Close())
}

func (r *Reader) copyTo(ctx context.Context, path string, keys bool) (err error) {
	to, err := r.openDir(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	// The checkpoint comes first: the database may have grown since, but not shrunk.
	data, cp, err := r.checkpoint()
	if err != nil {
		return err
	}
	if err := disk.WriteFile(to, checkpointName, data); err != nil {
		return err
	}
	names := []string{logPubFile}
	if keys {
		names = append(names, logKeyFile, payloadKeyFile)
	}
	for _, name := range names {
		data, err := disk.ReadFile(r.dir, name, keyBytesMax)
		if err != nil {
			return badKey(name, err)
		}
		if err := disk.WriteFile(to, name, data); err != nil {
			return err
		}
	}
	if cp.Closed.IsZero() {
		err = r.store.Backup(ctx, to.Path(databaseFile))
	} else { // the checkpoint covers its bytes
		err = copyFile(r.dir, to, databaseFile)
	}
	return errors.Join(err, to.SyncDir("."))
}

// copyFile copies a file to a new one.
func copyFile(from, to disk.Dir, name string) (err error) {
	in, err := from.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, in)
	if err != nil {
		err = fmt.Errorf("after %d bytes: %w", n, err)
	} else {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
