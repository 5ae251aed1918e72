package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// TierStats is the state of one tier.
type TierStats struct {
	Entries     int
	Bytes       int64 // in RAM with what the buffers have to spare, on disk whole files
	BudgetBytes int64
	Hits        uint64
	Evictions   uint64
	// Degraded says why the tier does not do all of its work, "" when it does.
	Degraded string
}

// SaveStats counts states that were to be written to disk.
type SaveStats struct {
	Done    uint64
	Failed  uint64 // by a fault of the disk
	Skipped uint64 // the queue was full, a fault shortly before, or not worth its room
}

// Stats is a snapshot of the counters of a store.
type Stats struct {
	RAM, Disk TierStats
	Misses    map[Miss]uint64
	Saves     SaveStats
	Waiting   int   // states that wait to be written, the one being written included
	Leases    int   // not yet released
	Foreign   int   // files of another key or version; they are the first to be evicted
	FreeBytes int64 // buffers in the pool
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		RAM: s.ram.stats(), Disk: s.disk.stats(), Misses: maps.Clone(s.misses), Saves: s.saves,
		Waiting: s.waiting, Leases: s.leases, Foreign: len(s.strange), FreeBytes: s.pool.bytes,
	}
}

func (t *tier) stats() TierStats {
	out := TierStats{
		Entries: t.entries, Bytes: t.bytes, BudgetBytes: t.budget, Hits: t.hits,
		Evictions: t.evictions,
	}
	if t.degraded != nil {
		out.Degraded = t.degraded.Error()
	}
	return out
}

// Item describes a state that the store holds.
type Item struct {
	ID ID
	Identity
	Part      Part
	Tokens    int // how many
	Recompute time.Duration
	RAMBytes  int64     // 0 when it is not in RAM
	FileBytes int64     // 0 when it is not on disk
	Uses      uint64    // since the store was opened
	Saved     time.Time // zero when it was not saved
}

func (e *entry) item() Item {
	st, _, _ := parseContent(e.content) // made by us, or checked when it was read
	return Item{
		ID: e.id, Identity: st.Identity, Part: st.Part, Tokens: e.tokens, Recompute: e.recompute,
		RAMBytes: int64(cap(e.buf)), FileBytes: e.fileBytes, Uses: e.uses, Saved: e.saved,
	}
}

// Lookup describes a state without using it, so that a caller can weigh a restore against the
// time to compute it again. No disk call is made.
func (s *Store) Lookup(id ID) (Item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil {
		return Item{}, false
	}
	return e.item(), true
}

// List describes what the store holds, by id.
func (s *Store) List() []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := make([]Item, 0, len(s.entries))
	for _, e := range s.entries {
		items = append(items, e.item())
	}
	slices.SortFunc(items, func(a, b Item) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return items
}

// Indexed is a state with its tokens.
type Indexed struct {
	ID ID
	State
	Bytes int64 // of the file, or of the memory where there is no file
}

// Index lists the states with this Engine, Model and Context, of every Scope, shorter ones first:
// what a prefix tree is filled with after a start.
func (s *Store) Index(of Identity) []Indexed {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Indexed
	for _, e := range s.entries {
		st, n, err := parseContent(e.content)
		of.Scope = st.Scope
		if err != nil || st.Identity != of {
			continue
		}
		st.Tokens, st.Recompute = tokensOf(e.content, n), e.recompute
		size := e.fileBytes
		if size == 0 {
			size = int64(cap(e.buf))
		}
		out = append(out, Indexed{ID: e.id, State: st, Bytes: size})
	}
	slices.SortFunc(out, func(a, b Indexed) int {
		return cmp.Or(cmp.Compare(len(a.Tokens), len(b.Tokens)), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// byDiskWorth lists the entries whose files may go, the least worth first.
func (s *Store) byDiskWorth() []*entry {
	var out []*entry
	for _, e := range s.entries {
		if e.onDisk && e.leases == 0 && s.loading[e.id] == nil {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, lessDisk)
	return out
}

// Drop forgets a state and removes its file, in one disk call. A lease of it stays valid.
func (s *Store) Drop(id ID) {
	s.mu.Lock()
	e := s.entries[id]
	file := e != nil && e.onDisk
	if e != nil {
		s.discard(e)
	}
	s.mu.Unlock()
	if file {
		_ = s.dir.Remove(fileName(id)) // what stays is found again, and is valid
	}
}

// Report is the verdict on one file.
type Report struct {
	Name  string
	Bytes int64
	// Bad says what is wrong; "" when the file is whole and ours.
	Bad Miss
	Err error // the cause, nil when nothing is wrong
}

// Verify reads every file, and changes nothing. What is damaged is removed when it is next asked
// for. It returns ErrDisk without a disk tier, ErrCanceled when ctx ends.
func (s *Store) Verify(ctx context.Context) ([]Report, error) {
	list, err := s.files("verify")
	if err != nil {
		return nil, err
	}
	var out []Report
	for _, name := range list {
		id, ok := parseName(name)
		if !ok {
			continue
		}
		r := Report{Name: name}
		if fi, err := s.dir.Lstat(name); err == nil {
			r.Bytes = fi.Size()
		}
		r.Err = s.verify(ctx, id)
		if ctx.Err() != nil {
			return out, canceled("verify", ctx.Err())
		}
		if errors.Is(r.Err, fs.ErrNotExist) {
			continue // evicted meanwhile
		}
		if r.Err != nil {
			r.Bad = missOf(r.Err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (s *Store) verify(ctx context.Context, id ID) error {
	f, err := s.openFile(fileName(id), func(meta []byte) error {
		_, _, _, err := s.checkMeta(id, meta)
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(s.readState(ctx, f, nil), f.Close())
}

// files lists the directory.
func (s *Store) files(op string) ([]string, error) {
	s.mu.Lock()
	closed, degraded := s.closed, s.disk.degraded
	s.mu.Unlock()
	switch {
	case closed:
		return nil, &Error{Op: op, Kind: ErrClosed}
	case s.dir == nil:
		return nil, &Error{Op: op, Kind: ErrDisk, Err: degraded}
	}
	list, err := s.dir.ReadDir(".")
	if err != nil {
		return nil, &Error{Op: op, Kind: ErrDisk, Field: "Dir", Err: err}
	}
	var names []string
	for _, d := range list {
		names = append(names, d.Name())
	}
	return names, nil
}

// Clear forgets every state and removes every file, also foreign and half-written ones. Leases
// stay valid. It returns how many files went and their bytes. ErrDisk says that some stayed.
func (s *Store) Clear(ctx context.Context) (files int, bytes int64, err error) {
	s.discardAll()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return 0, 0, &Error{Op: "clear", Kind: ErrClosed}
	case s.dir == nil:
		return 0, 0, nil
	}
	unlock, err := s.lockDir(ctx) // waits for a save
	if err != nil {
		if ctx.Err() != nil {
			return 0, 0, canceled("clear", err)
		}
		return 0, 0, &Error{Op: "clear", Kind: ErrDisk, Field: "Dir", Err: err}
	}
	defer func() { err = errors.Join(err, unlock()) }()
	names, err := s.files("clear")
	if err != nil {
		return 0, 0, err
	}
	var failed []error
	for _, name := range names {
		if _, ok := parseName(name); !ok && !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		var size int64
		if fi, err := s.dir.Lstat(name); err == nil {
			size = fi.Size()
		}
		if err := s.remove(name); err != nil {
			failed = append(failed, err)
			continue
		}
		files, bytes = files+1, bytes+size
	}
	s.discardAll() // a save may have found the files again before the lock was ours
	if len(failed) > 0 {
		return files, bytes, &Error{
			Op: "clear", Kind: ErrDisk, Field: "Dir", Err: errors.Join(failed...),
			Hint: "check the owner and the permissions of the cache directory",
		}
	}
	return files, bytes, nil
}

func (s *Store) discardAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		s.discard(e)
	}
	for name, size := range s.strange {
		s.disk.bytes -= size
		delete(s.strange, name)
	}
}
