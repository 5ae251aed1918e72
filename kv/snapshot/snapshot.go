// Package snapshot keeps the saved memory of sequences, so that tokens computed once are not
// computed again: in RAM, and in files that outlive the process. It owns two tiers, each with a
// budget in bytes, the pooled buffers that states travel in, the form of the files and the key
// they are encrypted with. Eviction is by cost and benefit: what saves the most time per byte
// stays.
//
// A state that cannot be had, for whatever reason, is a miss: counted, never an error of the
// request. What a file holds is believed only after our own checks; a library that reads states
// accepts flipped bytes.
//
// One mutex guards a Store; no disk call is made under it. The lock file of the directory is taken
// by whoever writes into it, in this or another process, and never while the mutex is held.
//
// The package must not know what a state means, how it is computed or restored, nor which prefixes
// are worth looking for. It writes no token anywhere but into its files, and none into a log.
package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
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
	ramEntriesMax     = 8192
	diskEntriesMax    = 8192
	queueEntriesMax   = 16        // states that wait to be written
	DefaultQueueBytes = 256 << 20 // Options.QueueBytes
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
	// RAMBytes bounds the states in RAM; only leases can exceed it. 0 keeps none.
	RAMBytes int64
	// DiskBytes bounds the files in Dir, also those of other processes that have the same
	// bound. 0 turns the disk tier off.
	DiskBytes int64
	// QueueBytes bounds what comes on top of RAMBytes: states that wait to be written, and free
	// buffers. Default: DefaultQueueBytes.
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
	case o.RAMBytes < 0:
		return bad("RAMBytes", "it is negative")
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
		o.QueueBytes = DefaultQueueBytes
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
	secret  *secret
	dir     disk.Dir  // nil without a disk tier
	scratch sync.Pool // of *work

	stop context.CancelFunc // ends the saving goroutine
	wake chan struct{}      // tells it that queue has grown; capacity 1
	done chan struct{}      // closed when it has ended

	mu       sync.Mutex
	closed   bool
	entries  map[ID]*entry
	loading  map[ID]chan struct{} // closed when the read of the file has ended
	strange  map[string]int64     // files that are not ours to read, and their bytes
	ram      tier
	disk     tier
	pool     pool
	queue    []*entry      // to be written, in order; each is leased
	waiting  int           // entries of queue and the one being written
	queued   int64         // bytes of those
	idle     chan struct{} // not nil while there is something to save; closed then
	failed   time.Time     // when a save last did
	pause    time.Duration // until the next one after it
	sequence uint64        // of entries, to break ties
	leases   int           // of callers
	misses   map[Miss]uint64
	saves    SaveStats
}

// entry is one state, in one of the tiers or both, or leased by somebody although in none.
type entry struct {
	id        ID
	content   []byte // identity, part and tokens: what id is the address of
	tokens    int
	cost      float64 // ms to compute again
	recompute time.Duration
	saved     time.Time
	sequence  uint64
	uses      uint64

	buf    []byte // the state, or nil when it is not in RAM
	leases int    // of buf
	queued bool   // in queue or being written; this is one of leases
	gone   bool   // no longer in entries; buf goes with the last lease

	onDisk    bool
	fileBytes int64

	ramWorth, diskWorth float64
}

// Open returns a store with what its directory holds. A directory or key that cannot be used is
// no error: the store works without its disk tier, and Stats says why. ErrOptions is returned for
// options that cannot be used.
func Open(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s := &Store{
		o:       o,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		entries: map[ID]*entry{},
		loading: map[ID]chan struct{}{},
		strange: map[string]int64{},
		ram:     tier{budget: o.RAMBytes},
		disk:    tier{budget: o.DiskBytes},
		pool:    pool{limit: o.RAMBytes + o.QueueBytes},
		misses:  map[Miss]uint64{},
	}
	key, err := s.openDisk()
	if err != nil {
		s.disk.degraded = err
		o.Log.Warn("snapshots go without a disk tier", "reason", err)
	}
	if s.dir == nil {
		key = make([]byte, keyBytes) // names need one
		_, _ = rand.Read(key)        // never fails
	}
	if s.secret, err = newSecret(key); err != nil {
		return nil, errors.Join(&Error{Op: "open", Kind: ErrOptions, Field: "Key", Err: err},
			s.closeDir())
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if s.dir != nil {
		s.firstScan()
	}
	go s.saveLoop(ctx)
	return s, nil
}

// openDisk opens the directory and returns the key of the files.
func (s *Store) openDisk() (key []byte, err error) {
	if s.o.Dir == "" || s.o.DiskBytes == 0 {
		return nil, nil
	}
	fail := func(hint string, err error) ([]byte, error) {
		return nil, &Error{Op: "open", Kind: ErrDisk, Field: "Dir", Hint: hint, Err: err}
	}
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return fail("check the owner and the permissions of the cache directory", err)
	}
	if key = s.o.Key; key == nil && !s.o.Plain {
		if key, err = loadKey(s.o.OpenDir, s.o.KeyFile); err != nil {
			return nil, err
		}
	}
	dir, err := s.o.OpenDir(s.o.Dir)
	if err != nil {
		return fail("check the owner and the permissions of the cache directory", err)
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
	return key, nil
}

func (s *Store) closeDir() error {
	if s.dir == nil {
		return nil
	}
	return s.dir.Close()
}

// Close ends the store. A save that has begun is given up, what waits is dropped: call Flush
// first to keep it. Leases stay valid. A second Close returns nil.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	<-s.done
	if err := s.closeDir(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return &Error{Op: "close", Kind: ErrDisk, Field: "Dir", Err: err}
	}
	return nil
}

// ID returns the content address of a state; st must be valid.
func (s *Store) ID(st State) ID {
	w, done := scratch(&s.scratch, int64(metaFixedBytes+4*len(st.Tokens)))
	defer done()
	return s.secret.address(st.appendContent(w.buf[:0]))
}

// Put keeps a state in RAM and has it written to disk in the background. It takes the buffer in
// every case. A state that is held already is not replaced. ErrInvalid is returned for a bad
// description, ErrNoRoom where neither tier takes the state, ErrClosed after Close.
func (s *Store) Put(st State, b *Buffer) (ID, error) {
	if b == nil || b.s != s || len(b.b) == 0 {
		return ID{}, &Error{
			Op: "put", Kind: ErrInvalid, Field: "buffer",
			Err: errors.New("empty, given away before, or of another store"),
		}
	}
	if err := st.Validate(); err != nil {
		b.Release()
		return ID{}, err
	}
	content := st.appendContent(make([]byte, 0, contentBytes(&st)))
	id := s.secret.address(content)
	mem := b.take()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pool.out -= int64(cap(mem))
	if s.closed {
		return ID{}, &Error{Op: "put", Kind: ErrClosed}
	}
	e := s.entries[id]
	if e == nil {
		e = s.add(id, content, st.Recompute, len(st.Tokens))
	}
	if st.Recompute > 0 {
		e.cost, e.recompute = costOf(st.Recompute, e.tokens), st.Recompute
	}
	if e.buf == nil {
		s.attach(e, mem)
	} else {
		s.pool.put(mem, s.ram.bytes)
	}
	s.use(e)
	if !e.onDisk {
		s.enqueue(e)
	}
	s.evictRAM()
	if e.buf == nil && !e.onDisk {
		return ID{}, &Error{
			Op: "put", Kind: ErrNoRoom,
			Hint: "give the cache a larger budget in RAM or on disk",
		}
	}
	return id, nil
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
