// Package snapshot keeps the saved memory of sequences, so that tokens computed once are not
// computed again. It owns the pooled buffers that states lie in, in RAM and on their way to disk
// and back, the files that outlive the process, with a budget in bytes, their form and the key that
// they are encrypted with. Which states stay in RAM is their caller's to decide: each lies there as
// long as somebody holds its Buffer. Files are evicted by cost and benefit: what saves the most
// time per byte stays.
//
// A state that cannot be had, for whatever reason, is a miss: counted, never an error of the
// request. What a file holds is believed only after our own checks; a library that reads states
// accepts flipped bytes.
//
// One mutex guards a Store; no disk call is made under it, and that of the pool may be taken under
// it. The lock file of the directory is taken by whoever writes into it, in this or another
// process, and never while a mutex is held.
//
// The package must not know what a state means, how it is computed or restored, nor which prefixes
// are worth looking for. It writes no token anywhere but into its files, and none into a log.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/norion/norion/hw/disk"
)

// Bounds and defaults.
const (
	filesMax          = 8192
	queueEntriesMax   = 16        // states that wait to be written
	queueBytesDefault = 256 << 20 // Options.QueueBytes
	workersMax        = 8         // Options.Workers
	// reserveBytes stays free on the disk, for everything else.
	reserveBytes = 64 << 20
	lockPoll     = 25 * time.Millisecond
	lockWait     = 10 * time.Second
	// A save that failed is not followed by another before retryFirst, doubled each time.
	retryFirst = time.Second
	retryMax   = 5 * time.Minute
)

// Options says how much is kept and where. The zero value keeps nothing.
type Options struct {
	// BufferBytes bounds the memory of all buffers, in use and unused: those that nobody uses stay
	// for later only within what those in use leave of it. Buffers in use alone may exceed it; the
	// store refuses none. 0 keeps no unused buffer. After Close none is kept.
	BufferBytes int64
	// DiskBytes bounds the files in Dir, also those of other processes that have the same
	// bound. 0 turns the disk tier off.
	DiskBytes int64
	// QueueBytes bounds the buffers that wait to be written, shared with their callers or not; a
	// single one may be larger. Default: 256 MiB.
	QueueBytes int64
	// Dir is the directory of the files, created for this user alone when missing. "" turns the
	// disk tier off. Nobody else may own it or write to it.
	Dir string
	// Plain turns encryption off.
	Plain bool
	// Key encrypts the files: 32 bytes, kept by reference. Default: that of KeyFile.
	Key []byte
	// KeyFile holds the key, created for this user alone when missing. Default: Dir with ".key"
	// appended, so that a copy of the directory tells nothing.
	KeyFile string
	// Workers is how many goroutines read one file. Default: GOMAXPROCS, at most 8.
	Workers int
	// OpenDir opens the directory of the files and that of the key. Default: disk.OpenDir.
	OpenDir func(path string) (disk.Dir, error)
	// Now gives the time for pauses between failed saves and for Item.Saved. Default: time.Now.
	Now func() time.Time
	// Log gets what happened to files, by id. Default: discarded.
	Log *slog.Logger
}

// Validate reports ErrOptions for a value out of range.
func (o *Options) Validate() error {
	bad := func(field, why string) error {
		return &Error{Op: "open", Kind: ErrOptions, Field: field, Err: errors.New(why)}
	}
	switch {
	case o.BufferBytes < 0:
		return bad("BufferBytes", "it is negative")
	case o.DiskBytes < 0:
		return bad("DiskBytes", "it is negative")
	case o.QueueBytes < 0:
		return bad("QueueBytes", "it is negative")
	case o.Key != nil && len(o.Key) != keyBytes:
		return bad("Key", fmt.Sprintf("%d bytes, not %d", len(o.Key), keyBytes))
	case o.Key != nil && o.Plain:
		return bad("Plain", "a key is given too")
	case o.Workers < 0 || o.Workers > workersMax:
		return bad("Workers", fmt.Sprintf("%d, at most %d", o.Workers, workersMax))
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.QueueBytes == 0 {
		o.QueueBytes = queueBytesDefault
	}
	if o.KeyFile == "" {
		o.KeyFile = filepath.Clean(o.Dir) + ".key"
	}
	if o.Workers == 0 {
		o.Workers = min(runtime.GOMAXPROCS(0), workersMax)
	}
	if o.OpenDir == nil {
		o.OpenDir = disk.OpenDir
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Store keeps states. It is safe for concurrent use.
type Store struct {
	o       Options
	secret  *secret   // nil without a disk tier
	dir     disk.Dir  // nil without a disk tier
	scratch sync.Pool // of *work
	pool    pool

	stop context.CancelFunc // ends the saving goroutine
	wake chan struct{}      // tells it that queue has grown; capacity 1
	done chan struct{}      // closed when it has ended

	mu       sync.Mutex
	closed   bool
	entries  map[ID]*entry
	strange  map[string]int64 // files that are not ours to read, and their bytes
	files    int              // of entries
	bytes    int64            // of files and strange
	clock    float64          // see use
	degraded error            // why the disk tier does not do all of its work
	queue    []*entry         // to be written, in order
	writing  *entry           // is being written
	idle     chan struct{}    // not nil while there is something to save; closed then
	failed   time.Time        // when a save last did
	pause    time.Duration    // until the next one after it
	sequence uint64

	hits, evictions uint64
	misses          map[Miss]uint64
	saves           SaveStats
}

// Open returns a store with what its directory holds, and changes nothing there. A directory or key
// that cannot be used is no error: the store works without its disk tier, and Stats says why.
// ErrOptions is returned for options that cannot be used.
func Open(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s := &Store{
		o:       o,
		pool:    pool{limit: o.BufferBytes},
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		entries: map[ID]*entry{},
		strange: map[string]int64{},
		misses:  map[Miss]uint64{},
	}
	if err := s.openDisk(); err != nil {
		s.degraded = err
		o.Log.Warn("snapshots go without a disk tier", "reason", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if s.dir == nil {
		close(s.done)
		return s, nil
	}
	s.firstScan()
	go s.saveLoop(ctx)
	return s, nil
}

// openDisk opens the directory and the key of the files.
func (s *Store) openDisk() (err error) {
	if s.o.Dir == "" || s.o.DiskBytes == 0 {
		return nil
	}
	fail := func(hint string, err error) error {
		return &Error{Op: "open", Kind: ErrDisk, Field: "Dir", Hint: hint, Err: err}
	}
	const hint = "check the owner and the permissions of the cache directory"
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return fail(hint, err)
	}
	key := s.o.Key
	if key == nil && !s.o.Plain {
		if key, err = loadKey(s.o.OpenDir, s.o.KeyFile); err != nil {
			return err
		}
	}
	if s.secret, err = newSecret(key); err != nil {
		return &Error{Op: "open", Kind: ErrKey, Field: "Key", Err: err}
	}
	dir, err := s.o.OpenDir(s.o.Dir)
	if err != nil {
		return fail(hint, err)
	}
	fi, err := dir.Lstat(".")
	if err == nil && !disk.Own(fi) {
		err = MissUntrusted
	}
	if err != nil {
		return fail("the directory must belong to this user, who alone may write to it",
			errors.Join(err, dir.Close()))
	}
	s.dir = dir
	return nil
}

// Close ends the store. A save that has begun is given up, what waits is dropped: call Flush
// first to keep it. Buffers stay valid; their memory is not kept for later. A second Close returns
// nil.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	s.stop()
	<-s.done
	s.pool.close()
	if again || s.dir == nil {
		return nil
	}
	if err := s.dir.Close(); err != nil {
		return &Error{Op: "close", Kind: ErrDisk, Field: "Dir", Err: err}
	}
	return nil
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Put has a state written to disk in the background. It shares the memory of the buffer, which the
// caller goes on using and must not change any more, until the state is written or dropped. A state
// that is there or waits already is not written again. ErrInvalid is returned for a bad description
// or buffer, ErrDisk without a disk tier, ErrNoRoom where too much waits or the disk failed a while
// ago, ErrClosed after Close.
func (s *Store) Put(st State, b *Buffer) (ID, error) {
	if b == nil || b.p != &s.pool || len(b.b) == 0 {
		return ID{}, &Error{
			Op: "put", Kind: ErrInvalid, Field: "buffer",
			Err: errors.New("empty, released, or of another store"),
		}
	}
	if err := st.validate(len(st.Tokens)); err != nil {
		return ID{}, err
	}
	if err := s.usable("put"); err != nil {
		return ID{}, err
	}
	content := st.appendContent(make([]byte, 0, contentBytes(&st)))
	id := s.secret.address(content)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if s.closed {
		return ID{}, &Error{Op: "put", Kind: ErrClosed}
	}
	if e == nil {
		e = s.add(id, content, st.Recompute, len(st.Tokens))
		if !s.enqueue(e, b) {
			delete(s.entries, id)
			return ID{}, &Error{
				Op: "put", Kind: ErrNoRoom, Err: s.degraded,
				Hint: "put it again later: too much waits to be written, or the disk failed",
			}
		}
	}
	if st.Recompute > 0 {
		e.recompute = st.Recompute
	}
	s.use(e)
	return id, nil
}

// usable says why the disk tier cannot be used; nil where it can.
func (s *Store) usable(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return &Error{Op: op, Kind: ErrClosed}
	case s.dir == nil:
		return &Error{Op: op, Kind: ErrDisk, Err: s.degraded}
	}
	return nil
}

func contentBytes(st *State) int {
	n := 1 + 4 + 4*len(st.Tokens)
	for _, f := range st.fields() {
		n += 2 + len(*f)
	}
	return n
}

// Flush waits until nothing waits to be written. It returns ErrCanceled when ctx ends before.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return canceled("flush", ctx.Err())
	}
}
