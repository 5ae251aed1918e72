// Package store owns the models on this machine: a catalogue of names, the files pulled for them,
// their digests and licences. A model is a blob named by its SHA-256 digest and a small manifest
// per name; a name is visible only when its blob is whole, whatever was killed, full or pulled
// the plug in between. Names, digests and manifests that come from outside are parsed strictly,
// and every file below the root is opened through os.Root.
//
// Locks, in the order they are taken: the lock of a name (held during its pull), then the lock of
// the store (held while a manifest and its blob appear or go). Both end with the process.
//
// The package must not know how a model is run, and never writes to a terminal.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/norion/norion/hw/disk"
)

// The directories below the root.
const (
	blobsDir     = "blobs"
	manifestsDir = "manifests"
	partialDir   = "partial"
	locksDir     = "locks"
	storeLock    = "locks/.store"
)

const (
	lockPollMs       = 25
	templateBytesMax = 1 << 20
	// reserveBytes stays free after a download, for everything else on the disk.
	reserveBytes = 16 << 20
)

// Options says where the store is and what it uses. The zero value is the user's own store.
type Options struct {
	// Root is the directory of the store, created when missing. Default: Home()/models.
	Root string
	// Getenv reads the environment: NORION_HOME, XDG_DATA_HOME and HOME for Root, HF_ENDPOINT
	// for Hub, HF_TOKEN for HubToken. Default: os.Getenv.
	Getenv func(string) string
	// Catalogue lists what can be pulled. Default: DefaultCatalogue.
	Catalogue *Catalogue
	// Hub is the base URL of the model hub. Default: HF_ENDPOINT, else the catalogue's.
	Hub string
	// HubToken is sent to the host of Hub only. Default: HF_TOKEN; "" sends none.
	HubToken string
	// Client makes the HTTP requests; its CheckRedirect is replaced. Default: one with timeouts
	// for the connection and the headers, the system's proxy settings and no compression.
	Client *http.Client
	// Pip is the Python package client as a command with arguments. Default: python3 -m pip, or
	// python -m pip where there is no python3.
	Pip []string
	// Templates returns the text of a chat template that the catalogue names. Default: none;
	// Model.Template then stays empty.
	Templates func(name string) (string, error)
	// OpenDir opens the root. Default: disk.OpenDir.
	OpenDir func(path string) (disk.Dir, error)
	// Now gives the time for Model.PulledAt. Default: time.Now.
	Now func() time.Time
	// RetryDelay is the pause before the first repeated request; it doubles each time. Default 1 s.
	RetryDelay time.Duration
	// StallTimeout ends a request that brings no byte for so long. Default: 1 min.
	StallTimeout time.Duration
	// Log gets what a user need not see: retries and repairs. Default: discarded.
	Log *slog.Logger
}

// Validate reports ErrOptions for a value out of range.
func (o *Options) Validate() error {
	bad := func(field string, err error) error {
		return &Error{Op: "open", Kind: ErrOptions, Name: field, Err: err}
	}
	switch {
	case strings.ContainsRune(o.Root, 0):
		return bad("root", errors.New("it contains a NUL byte"))
	case o.RetryDelay < 0:
		return bad("retry delay", errors.New("it is negative"))
	case o.StallTimeout < 0:
		return bad("stall timeout", errors.New("it is negative"))
	case !printable(o.HubToken):
		return bad("hub token", errNotPrintable)
	}
	if o.Hub != "" {
		if err := checkURL(o.Hub); err != nil {
			return bad("hub", err)
		}
	}
	return nil
}

const errNotPrintable = Kind("it contains more than printable ASCII")

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// withDefaults fills in what is empty.
func (o Options) withDefaults() (Options, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Root == "" {
		home, err := Home(o.Getenv)
		if err != nil {
			return o, err
		}
		o.Root = filepath.Join(home, "models")
	}
	if o.Catalogue == nil {
		c, err := DefaultCatalogue()
		if err != nil {
			return o, err
		}
		o.Catalogue = c
	}
	if o.Hub == "" {
		o.Hub = o.Getenv("HF_ENDPOINT")
	}
	if o.Hub == "" {
		o.Hub = o.Catalogue.Hub
	}
	o.Hub = strings.TrimRight(o.Hub, "/")
	if o.HubToken == "" {
		o.HubToken = o.Getenv("HF_TOKEN")
	}
	if o.Client == nil {
		o.Client = defaultClient()
	}
	if o.OpenDir == nil {
		o.OpenDir = disk.OpenDir
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.RetryDelay == 0 {
		o.RetryDelay = time.Second
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Store is an open model store. It is safe for concurrent use, also by several processes.
type Store struct {
	o   Options
	dir disk.Dir
}

// Open opens the store and creates its directories. The caller closes it. Errors: ErrOptions,
// ErrCatalogue, ErrPermission, ErrNoSpace, ErrIO.
func Open(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o, err := o.withDefaults() // what the environment says of the hub is checked when it is used
	if err != nil {
		return nil, typed("open", "", ErrOptions, err)
	}
	if err := o.Catalogue.Validate(); err != nil {
		return nil, typed("open", "catalogue", ErrCatalogue, err)
	}
	if err := os.MkdirAll(o.Root, 0o755); err != nil {
		return nil, noRoot(o.Root, err)
	}
	dir, err := o.OpenDir(o.Root)
	if err != nil {
		return nil, noRoot(o.Root, err)
	}
	for _, d := range []string{blobsDir, manifestsDir, partialDir, locksDir} {
		if err := dir.MkdirAll(d, 0o755); err != nil && !isReadOnly(dir, d) {
			return nil, noRoot(o.Root, errors.Join(err, dir.Close()))
		}
	}
	return &Store{o: o, dir: dir}, nil
}

// noRoot says that the store's directory cannot be made or opened.
func noRoot(root string, err error) error {
	out := typed("open", root, ErrIO, err)
	if e, ok := errors.AsType[*Error](out); ok && e.Hint == "" {
		e.Hint = "name a directory that can be written in NORION_HOME"
	}
	return out
}

// isReadOnly lets a store that exists already be read on a read-only disk.
func isReadOnly(dir disk.Dir, name string) bool {
	fi, err := dir.Lstat(name)
	return err == nil && fi.IsDir()
}

// Close releases the store. A second Close is no error.
func (s *Store) Close() error { return typed("close", "", ErrIO, s.dir.Close()) }

// Root returns the absolute directory of the store.
func (s *Store) Root() string { return s.dir.Path(".") }

// Catalogue returns what can be pulled.
func (s *Store) Catalogue() *Catalogue { return s.o.Catalogue }

// Model is a model file that can be opened.
type Model struct {
	Name         Name      // zero for a plain path
	Path         string    // absolute path of the GGUF file
	Digest       Digest    // zero for a plain path
	DigestFrom   string    // who stated the digest: "catalogue", "hub", or "computed" by the pull
	SizeBytes    int64     // size of the file
	Licence      Licence   // zero for a plain path
	Source       string    // where it came from, for people
	PulledAt     time.Time // UTC; zero for a plain path
	TemplateName string    // chat template that the catalogue names, or ""
	Template     string    // its text; "" when there is none or it cannot be found
	Problem      error     // List only: why the model cannot be used, or nil
}

// Resolve finds the model that ref means. What ends in .gguf, contains a path separator or is an
// existing file is a path; all else is a name or an alias, and must have been pulled. The file
// is not hashed (Verify does that); its size must be the recorded one. Errors: ErrName,
// ErrUnknownModel with near names as the hint, ErrNotPulled, ErrNotFound, ErrNotModel,
// ErrPermission, ErrDamaged, ErrTooNew.
func (s *Store) Resolve(ctx context.Context, ref string) (Model, error) {
	if err := ctx.Err(); err != nil {
		return Model{}, typed("resolve", clip(ref), ErrCanceled, err)
	}
	if isPath(ref) {
		m, err := fromPath(ref)
		return m, typed("resolve", clip(ref), ErrIO, err)
	}
	m, err := s.resolveName(ref)
	return m, typed("resolve", clip(ref), ErrIO, err)
}

func (s *Store) resolveName(ref string) (Model, error) {
	name, err := ParseName(ref)
	if err != nil {
		return Model{}, err
	}
	m, err := s.read(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	e, ok := s.o.Catalogue.Lookup(name)
	if !ok {
		return Model{}, s.unknown(name, true)
	}
	if m, err = s.read(e.Name); errors.Is(err, fs.ErrNotExist) {
		return Model{}, &Error{
			Kind: ErrNotPulled, Name: name.String(),
			Hint: fmt.Sprintf("pull it first: norion pull %s", e.Name),
		}
	}
	return m, err
}

// isPath says whether ref means a file.
func isPath(ref string) bool {
	if strings.ContainsRune(ref, '/') || strings.ContainsRune(ref, filepath.Separator) ||
		strings.EqualFold(path.Ext(ref), ".gguf") {
		return true
	}
	fi, err := os.Stat(ref)
	return err == nil && fi.Mode().IsRegular()
}

// fromPath checks that the file exists and can be opened; it reads nothing.
func fromPath(ref string) (Model, error) {
	fi, err := os.Stat(ref)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Model{}, &Error{
			Kind: ErrNotFound, Name: clip(ref),
			Hint: "check the path; a name from `norion list --all` works too",
		}
	case errors.Is(err, fs.ErrPermission):
		return Model{}, noPermission(ref, err)
	case err != nil:
		return Model{}, &Error{Kind: ErrNotFound, Name: clip(ref), Err: err}
	case !fi.Mode().IsRegular():
		return Model{}, &Error{
			Kind: ErrNotModel, Name: clip(ref), Err: errors.New("it is not a regular file"),
			Hint: "give the path of the .gguf file itself",
		}
	}
	f, err := os.Open(ref)
	if errors.Is(err, fs.ErrPermission) {
		return Model{}, noPermission(ref, err)
	}
	if err != nil {
		return Model{}, err
	}
	abs, err := filepath.Abs(ref)
	if err = errors.Join(err, f.Close()); err != nil {
		return Model{}, err
	}
	return Model{Path: abs, SizeBytes: fi.Size(), Source: abs}, nil
}

func noPermission(ref string, err error) error {
	return &Error{
		Kind: ErrPermission, Name: clip(ref), Err: err,
		Hint: "make the file readable for this user",
	}
}

// List returns the models that have been pulled, sorted by name. One that cannot be used is
// listed with its Problem. Errors: ErrIO, ErrCanceled.
func (s *Store) List(ctx context.Context) ([]Model, error) {
	names, _, err := s.names()
	if err != nil {
		return nil, typed("list", "", ErrIO, err)
	}
	models := make([]Model, 0, len(names))
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, typed("list", "", ErrCanceled, err)
		}
		m, err := s.read(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		m.Name, m.Problem = n, typed("list", n.String(), ErrDamaged, err)
		models = append(models, m)
	}
	return models, nil
}

// names returns the names that have a manifest, sorted, and whether the directory holds other
// things, which nothing here wrote.
func (s *Store) names() (names []Name, foreign bool, err error) {
	entries, err := s.dir.ReadDir(manifestsDir)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		stem, isManifest := strings.CutSuffix(e.Name(), ".json")
		if !isManifest {
			continue
		}
		if n, err := nameOfFile(stem); err == nil {
			names = append(names, n)
		} else {
			foreign = true
		}
	}
	slices.SortFunc(names, func(a, b Name) int { return strings.Compare(a.s, b.s) })
	return names, foreign, nil
}

// lock waits for the lock file name. onWait, when not nil, is called once when another holder has
// it. Errors: ErrLocked at the deadline of ctx, ctx.Err() when it was canceled, a disk error.
func (s *Store) lock(ctx context.Context, name string, onWait func()) (func() error, error) {
	tick := time.NewTicker(lockPollMs * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		unlock, ok, err := s.dir.TryLock(name)
		if err != nil || ok {
			return unlock, err
		}
		if first && onWait != nil {
			onWait()
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, &Error{
				Kind: ErrLocked, Err: ctx.Err(),
				Hint: "another norion is working on this model; try again when it is done",
			}
		case <-tick.C:
		}
	}
}

// lockName is the lock file of a name.
func lockName(n Name) string { return path.Join(locksDir, n.file()) }
