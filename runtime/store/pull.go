package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/gguf"
)

const (
	copyBytes = 256 << 10
	// scratchMark stands between the name of a model and the rest of the name of a scratch
	// directory. It is in no Name, so that no other model's files look like one.
	scratchMark = "+"
)

// errGone says that a file that was found went before the store was locked.
const errGone = Kind("the file has gone")

// Stage is what a pull is doing.
type Stage string

// The stages of a pull, in order. Some do not occur in every pull.
const (
	StageWait     Stage = "waiting"     // another process pulls the same model
	StageDownload Stage = "downloading" // bytes are those of the source, packed or not
	StageVerify   Stage = "verifying"   // a file that is here already is hashed
	StagePublish  Stage = "publishing"
)

// Progress is one report of a pull.
type Progress struct {
	Name  Name
	Stage Stage
	Done  int64 // bytes; never shrinks within a stage, except when a source must start again
	Total int64 // bytes; 0 when not known
}

// PullOptions are the callbacks of one pull. All are called from one goroutine at a time.
type PullOptions struct {
	// Progress gets reports, at least at the start and the end of a stage. Default: none.
	Progress func(Progress)
	// Terms is called before anything is downloaded when the licence has a Notice. An error
	// refuses the pull with ErrTerms, and so does no function here: the notice must be shown.
	Terms func(Licence) error
}

// Pull makes the model of a catalogue name or alias available and returns it. When it is here
// already nothing is downloaded. Of several pulls of one name at once, in any processes, one
// works and the others wait. An interrupted download is continued by the next Pull where the
// source can. Errors: ErrName, ErrUnknownModel, ErrTerms, ErrNoSpace, ErrNetwork, ErrUnavailable,
// ErrRefused, ErrDigest, ErrNotModel, ErrNoPip, ErrLocked, ErrPermission, ErrCanceled, ErrTooNew,
// ErrIO. After an error the model is not visible, or it is whole.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Model, error) {
	name, err := ParseName(ref)
	if err != nil {
		return Model{}, typed("pull", clip(ref), ErrName, err)
	}
	e, ok := s.o.Catalogue.Lookup(name)
	if !ok {
		m, err := s.read(name) // it may have been added
		if errors.Is(err, fs.ErrNotExist) {
			err = s.unknown(name, false)
		}
		return m, typed("pull", ref, ErrIO, err)
	}
	m, err := s.pull(ctx, e, o)
	return m, typed("pull", e.Name.String(), ErrIO, err)
}

// Add pulls an entry that need not be in the catalogue, for example a local file or a URL, under
// its name. Errors: those of Pull, and ErrCatalogue for an entry that is not valid.
func (s *Store) Add(ctx context.Context, e Entry, o PullOptions) (Model, error) {
	if err := e.Validate(); err != nil {
		return Model{}, typed("pull", e.Name.String(), ErrCatalogue, err)
	}
	m, err := s.pull(ctx, e, o)
	return m, typed("pull", e.Name.String(), ErrIO, err)
}

func (s *Store) pull(ctx context.Context, e Entry, o PullOptions) (m Model, err error) {
	if m, ok, err := s.present(e); ok || err != nil {
		return m, err
	}
	if err := showTerms(e.Licence, o.Terms); err != nil {
		return Model{}, err
	}
	j := &job{s: s, e: e, o: o, part: path.Join(partialDir, e.Name.file()+".part")}
	unlock, err := s.lock(ctx, lockName(e.Name), func() { j.report(StageWait, 0, 0) })
	if err != nil {
		return Model{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if m, ok, err := s.present(e); ok || err != nil {
		return m, err // whoever had the lock has pulled it
	}
	if err := j.run(ctx); err != nil {
		return Model{}, err
	}
	return s.read(e.Name)
}

func showTerms(l Licence, show func(Licence) error) error {
	if l.Notice == "" {
		return nil
	}
	if show == nil {
		return &Error{
			Kind: ErrTerms, Err: fmt.Errorf("%s must be shown first", l.Title), Hint: l.Notice,
		}
	}
	if err := show(l); err != nil {
		return &Error{Kind: ErrTerms, Err: err, Hint: l.Notice}
	}
	return nil
}

// present returns the model when it is here as the entry wants it. A manifest of a newer norion
// is an error, so that it is not overwritten; a damaged one is pulled again.
func (s *Store) present(e Entry) (Model, bool, error) {
	m, err := s.read(e.Name)
	switch {
	case errors.Is(err, ErrTooNew):
		return Model{}, false, err
	case err != nil:
		return Model{}, false, nil //nolint:nilerr // missing or damaged: pull
	case !e.SHA256.IsZero():
		return m, m.Digest == e.SHA256, nil
	}
	same := func(src Source) bool { return src.String() == m.Source }
	return m, slices.ContainsFunc(e.Sources, same), nil
}

// job is one pull that holds the lock of its name.
type job struct {
	s    *Store
	e    Entry
	o    PullOptions
	part string // the file being written
}

// fetched is a complete file in job.part.
type fetched struct {
	got    Digest
	size   int64
	want   Digest // what the source stated, or zero
	source string
}

func (j *job) report(st Stage, done, total int64) {
	if j.o.Progress != nil {
		j.o.Progress(Progress{Name: j.e.Name, Stage: st, Done: done, Total: total})
	}
}

func (j *job) run(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), j.sweep()); err != nil {
		return err
	}
	if done, err := j.adopt(ctx); done || err != nil {
		return err
	}
	var failed []error
	for _, src := range j.e.Sources {
		f, err := j.fetch(ctx, src)
		if err == nil {
			err = j.check(f)
		}
		if err == nil {
			return j.publish(ctx, f, true)
		}
		err = typed("pull", j.e.Name.String(), ErrIO, err)
		j.s.o.Log.Warn("source failed", "model", j.e.Name.String(), "source", src.String(),
			"error", err)
		failed = append(failed, err)
		if ctx.Err() != nil || errors.Is(err, ErrNoSpace) {
			break // no other source can do better
		}
	}
	return joined(failed)
}

// joined is the error of several sources: kind and hint are those of the first, which is the one
// that the entry prefers.
func joined(failed []error) error {
	var first *Error
	if len(failed) == 1 || !errors.As(failed[0], &first) {
		return failed[0]
	}
	return &Error{Kind: first.Kind, Hint: first.Hint, Err: errors.Join(failed...)}
}

// sweep removes what a killed pull of this name left and cannot use.
func (j *job) sweep() error {
	entries, err := j.s.dir.ReadDir(partialDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), j.e.Name.file()+scratchMark) {
			if err := j.s.dir.RemoveAll(path.Join(partialDir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// scratch is a fresh directory for a package client.
func (j *job) scratch() (string, error) {
	name := path.Join(partialDir, j.e.Name.file()+scratchMark+strings.ToLower(rand.Text()))
	return name, j.s.dir.MkdirAll(name, 0o700)
}

// adopt uses a blob with the right digest that is here without a manifest of this name.
func (j *job) adopt(ctx context.Context) (bool, error) {
	if j.e.SHA256.IsZero() {
		return false, nil
	}
	blob := blobPath(j.e.SHA256)
	fi, err := j.s.dir.Lstat(blob)
	if err != nil || !fi.Mode().IsRegular() {
		return false, nil //nolint:nilerr // missing or strange: fetch, which replaces it
	}
	got, err := j.s.hash(ctx, blob, func(n int64) { j.report(StageVerify, n, fi.Size()) })
	if err != nil || got != j.e.SHA256 {
		return false, err
	}
	f := fetched{got: got, size: fi.Size(), source: j.e.Sources[0].String()}
	err = j.publish(ctx, f, false)
	if errors.Is(err, errGone) {
		return false, nil
	}
	return true, err
}

func (j *job) fetch(ctx context.Context, src Source) (fetched, error) {
	switch src.Kind {
	case SourceWheel:
		return j.fetchWheels(ctx, src)
	case SourceHTTPS:
		return j.fetchURL(ctx, target{url: src.URL, source: src.String(), size: j.e.SizeBytes})
	case SourceHub:
		return j.fetchHub(ctx, src)
	default:
		return j.fetchFile(ctx, src)
	}
}

// check removes a fetched file that is not the model.
func (j *job) check(f fetched) error {
	want := j.e.SHA256
	if want.IsZero() {
		want = f.want
	}
	if !want.IsZero() && f.got != want {
		return errors.Join(&Error{
			Kind: ErrDigest, Err: fmt.Errorf("got %s, want %s", f.got, want),
			Hint: "what arrived was removed; the source has changed or is damaged",
		}, j.discardPart())
	}
	if err := checkModel(j.s.dir, j.part); err != nil {
		return errors.Join(err, j.discardPart())
	}
	return nil
}

// checkModel refuses what is no valid GGUF file, and a part of a split one.
func checkModel(dir disk.Dir, name string) (err error) {
	f, err := dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	g, err := gguf.Read(f, fi.Size())
	if errors.Is(err, gguf.ErrIO) {
		return err
	}
	if err == nil && g.Split().Count > 1 {
		err = fmt.Errorf("it is one of %d parts", g.Split().Count)
	}
	if err != nil {
		return &Error{
			Kind: ErrNotModel, Err: err,
			Hint: "what arrived was removed; the source does not have a whole GGUF model",
		}
	}
	return g.Close()
}

// publish makes the model visible: blob first, manifest last, each durable before the next. The
// blob is the part file, or where move is false the one that is there; errGone when it is not.
func (j *job) publish(ctx context.Context, f fetched, move bool) (err error) {
	j.report(StagePublish, 0, 0)
	s := j.s
	unlock, err := s.lock(ctx, storeLock, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, oldErr := s.readManifest(j.e.Name)
	if fi, err := s.dir.Lstat(blobPath(f.got)); !move && (err != nil || fi.Size() != f.size) {
		return errGone
	}
	if move {
		if err := s.dir.Rename(j.part, blobPath(f.got)); err != nil {
			return err
		}
		// A rename onto a hard link of the same file leaves the old name behind.
		if err := j.discardPart(); err != nil {
			return err
		}
	}
	if err := s.dir.SyncDir(blobsDir); err != nil {
		return err
	}
	if err := j.writeTemplate(); err != nil {
		return err
	}
	if err := j.writeManifest(f); err != nil {
		return err
	}
	if oldErr == nil && old.Digest != f.got {
		_, err = s.collect(old.Digest)
	}
	return err
}

func (j *job) writeTemplate() error {
	text := ""
	if j.e.Template != "" {
		text = j.s.lookupTemplate(j.e.Template)
	}
	if text == "" {
		return j.s.discard(templatePath(j.e.Name))
	}
	return j.s.writeSmall(templatePath(j.e.Name), []byte(text))
}

func (j *job) writeManifest(f fetched) error {
	from := "computed"
	switch {
	case !j.e.SHA256.IsZero():
		from = "catalogue"
	case !f.want.IsZero():
		from = "hub"
	}
	data, err := json.MarshalIndent(manifest{
		Schema: manifestSchema, Name: j.e.Name, Digest: f.got, DigestFrom: from,
		SizeBytes: f.size, Licence: j.e.Licence, Source: f.source,
		PulledAt: j.s.o.Now().UTC(), Template: j.e.Template,
	}, "", "  ")
	if err != nil {
		return err
	}
	return j.s.writeSmall(manifestPath(j.e.Name), append(data, '\n'))
}

func (j *job) discardPart() error {
	return errors.Join(j.s.discard(j.part), j.s.discard(j.part+".json"))
}

// checkRoom refuses a download that cannot fit.
func (j *job) checkRoom(needBytes int64) error {
	free, err := j.s.dir.Free()
	if err != nil {
		return err
	}
	if free-reserveBytes >= needBytes {
		return nil
	}
	return &Error{
		Kind: ErrNoSpace,
		Err: fmt.Errorf("%.1f MiB needed, %.1f MiB free", float64(needBytes+reserveBytes)/(1<<20),
			float64(free)/(1<<20)),
		Hint: "free some space, or put the store on another disk with NORION_HOME",
	}
}

// createPart opens an empty part file.
func (j *job) createPart() (disk.File, error) {
	if err := j.discardPart(); err != nil {
		return nil, err
	}
	return j.s.dir.OpenFile(j.part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
}

// hash returns the digest of a file of the store.
func (s *Store) hash(ctx context.Context, name string, report func(int64)) (Digest, error) {
	f, err := s.dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return Digest{}, err
	}
	sum := newSum()
	_, err = copyTo(ctx, sum, f, report)
	if err = errors.Join(err, f.Close()); err != nil {
		return Digest{}, err
	}
	return digestOf(sum.Sum(nil)), nil
}

// copyTo copies until the end of r, asking ctx between blocks. report gets the bytes so far.
func copyTo(ctx context.Context, w io.Writer, r io.Reader, report func(int64)) (int64, error) {
	buf := make([]byte, copyBytes)
	var done int64
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return done, werr
			}
			done += int64(n)
			if report != nil {
				report(done)
			}
		}
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return done, err
		}
	}
}

// finish makes a part file durable and closes it.
func finish(f disk.File, sum hash.Hash, size int64, src string, err error) (fetched, error) {
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fetched{}, err
	}
	return fetched{got: digestOf(sum.Sum(nil)), size: size, source: src}, nil
}
