package ledger

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/hw/disk"
)

// Format is the version of the byte format in docs/format/ledger.md.
const Format = 1

// Origin names the log in its checkpoints, and the key that signs them.
const Origin = "norion/record"

// The record's own events: who writes them, and their stream.
const (
	systemActor  = "ledger"
	systemStream = "ledger"
)

// Ledger is an open record that this process may write. It is safe for concurrent use.
type Ledger struct {
	*Reader
	now    func() time.Time
	after  time.Duration
	signer note.Signer
	unlock func() error

	head         checkpointFile
	second       *checkpointFile // the witness; nil where there is none
	witnessFault string          // why a witness that was asked for cannot be had

	requests chan *request
	signing  chan chan error // of Sign
	stop     chan struct{}   // closed by Close
	done     chan struct{}   // closed by the writer when it ended
	failure  atomic.Pointer[Error]
	degraded atomic.Value // a string
	state    writerState

	mu     sync.Mutex // guards closed
	closed bool
}

// Open opens the ledger in a directory, makes it where there is none, and checks it against its
// checkpoints. The caller closes it. Errors: ErrOptions, ErrDirectory, ErrLocked, ErrTooNew,
// ErrKey, ErrDamaged, ErrRestored, ErrCheckpoint, ErrUnavailable.
func Open(ctx context.Context, o Options) (*Ledger, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		return nil, badOption("Now", "there is none")
	}
	o = o.withDefaults()
	dir, err := openDirectory(o, true)
	if err != nil {
		return nil, err
	}
	l := &Ledger{
		Reader: &Reader{
			dir: dir, projections: o.Projections, witness: o.Witness, openDir: o.OpenDir,
		},
		now: o.Now, after: o.CheckpointAfter,
		requests: make(chan *request, queueMax), signing: make(chan chan error),
		stop: make(chan struct{}), done: make(chan struct{}),
		head: checkpointFile{dir: dir, name: checkpointName},
	}
	if err := l.open(ctx, o); err != nil {
		return nil, errors.Join(wrap("open", err), l.release())
	}
	go l.write()
	return l, nil
}

// openDirectory opens a directory that belongs to this user alone.
func openDirectory(o Options, create bool) (disk.Dir, error) {
	fail := func(kind Kind, hint string, err error) (disk.Dir, error) {
		return nil, &Error{Op: "open", Kind: kind, Field: o.Dir, Hint: hint, Err: err}
	}
	const hint = "name a directory, no link to one, that only this user may write to"
	if create {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return fail(ErrDirectory, hint, err)
		}
	}
	fi, err := os.Lstat(o.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(ErrNone, hintNone, nil)
	case err != nil:
		return fail(ErrDirectory, hint, err)
	case !fi.IsDir():
		return fail(ErrDirectory, hint, errors.New("it is no directory"))
	case !disk.Own(fi):
		return fail(ErrDirectory, hint, errors.New("another user owns it or may write to it"))
	}
	dir, err := o.OpenDir(o.Dir)
	if err != nil {
		return fail(ErrDirectory, hint, err)
	}
	return dir, nil
}

// Close writes the last checkpoint and releases the ledger. What was acknowledged before is safe
// whether or not it is called. A second Close is no error.
func (l *Ledger) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		<-l.done
		return nil
	}
	close(l.stop)
	<-l.done
	err := l.store.Settle(context.Background())
	if errors.Is(err, storage.ErrBusy) {
		err = nil // a reader elsewhere; the journal stays
	}
	err = errors.Join(err, l.store.Close())
	if l.failure.Load() == nil && err == nil {
		err = l.publishClosed()
	}
	return errors.Join(wrap("close", err), l.release())
}

// release frees what Open got.
func (l *Ledger) release() error {
	var errs []error
	if l.store != nil {
		errs = append(errs, l.store.Close())
	}
	if l.second != nil {
		errs = append(errs, l.second.dir.Close())
	}
	if l.unlock != nil {
		errs = append(errs, l.unlock())
	}
	return errors.Join(append(errs, l.dir.Close())...)
}

// Degraded says what does not work although the record goes on, or "".
func (l *Ledger) Degraded() string {
	s, _ := l.degraded.Load().(string)
	return s
}

// publish signs the state of the tree and replaces the checkpoints.
func (l *Ledger) publish(t *tree, closed event.Digest) error {
	root, err := t.hash()
	if err != nil {
		return err
	}
	data, err := Checkpoint{Origin: Origin, Size: t.size, Root: root, Closed: closed}.sign(l.signer)
	if err != nil {
		return err
	}
	if err := l.head.swap(data); err != nil {
		return err
	}
	fault := l.witnessFault
	if l.second != nil {
		if err := l.second.swap(data); err != nil {
			fault = "witness: " + err.Error()
		}
	}
	l.degraded.Store(fault)
	return nil
}

// publishClosed signs for the bytes of the closed database.
func (l *Ledger) publishClosed() error {
	d, err := fileDigest(l.dir)
	if err != nil {
		return err
	}
	return l.publish(l.tree.Load(), d)
}
