package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// String names the source for people and in the manifest. It holds no secret.
func (s Source) String() string {
	switch s.Kind {
	case SourceWheel:
		parts := make([]string, len(s.Wheels))
		for i, w := range s.Wheels {
			parts[i] = w.Package + "==" + w.Version
		}
		return "wheel " + strings.Join(parts, " + ")
	case SourceHub:
		return "hub " + s.Repository + "/" + s.File
	case SourceFile:
		return "file " + s.Path
	default:
		url, _, _ := strings.Cut(s.URL, "?") // a query may hold a token
		return url
	}
}

// fetchFile links or copies a local file. A link shares the file with its owner: whoever changes
// it there changes it here, which Verify finds.
func (j *job) fetchFile(ctx context.Context, src Source) (fetched, error) {
	real, err := filepath.EvalSymlinks(src.Path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fetched{}, &Error{Kind: ErrNotFound, Name: clip(src.Path), Hint: "check the path"}
	}
	if err != nil {
		return fetched{}, err
	}
	in, err := os.Open(real)
	if err != nil {
		return fetched{}, err
	}
	f, err := j.copyFile(ctx, src, real, in)
	if err = errors.Join(err, in.Close()); err != nil {
		err = errors.Join(err, j.discardPart())
	}
	return f, err
}

func (j *job) copyFile(ctx context.Context, src Source, real string, in *os.File) (fetched, error) {
	fi, err := in.Stat()
	if err != nil {
		return fetched{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > ModelBytesMax {
		return fetched{}, &Error{
			Kind: ErrNotModel, Name: clip(real), Err: errors.New("not a regular file of fair size"),
		}
	}
	report := func(n int64) { j.report(StageDownload, n, fi.Size()) }
	if src.Link {
		if err := j.discardPart(); err != nil {
			return fetched{}, err
		}
		err := j.s.dir.Link(real, j.part)
		if err == nil {
			got, err := j.s.hash(ctx, j.part, report)
			return fetched{got: got, size: fi.Size(), source: src.String()}, err
		}
		j.s.o.Log.Info("a link is not possible, the file is copied", "error", err)
	}
	if err := j.checkRoom(fi.Size()); err != nil {
		return fetched{}, err
	}
	out, err := j.createPart()
	if err != nil {
		return fetched{}, err
	}
	sum := newSum()
	n, err := copyTo(ctx, io.MultiWriter(out, sum), io.LimitReader(in, fi.Size()), report)
	if err == nil && n != fi.Size() {
		err = fmt.Errorf("%s shrank while it was copied", clip(real))
	}
	return finish(out, sum, n, src.String(), err)
}
