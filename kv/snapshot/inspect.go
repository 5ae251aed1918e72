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

// SaveStats counts states that were to be written to disk.
type SaveStats struct {
	Done    uint64
	Failed  uint64 // by a fault of the disk
	Skipped uint64 // dropped, not worth its room, the queue full, or a fault shortly before
}

// Stats is a snapshot of the counters of a store.
type Stats struct {
	Files       int   // of this store's key and version
	Foreign     int   // of another, or too many to know; they are the first to be evicted
	Bytes       int64 // of all of them
	BudgetBytes int64
	Hits        uint64
	Misses      map[Miss]uint64
	Evictions   uint64
	Saves       SaveStats
	Waiting     int // states that wait to be written, the one being written included
	// Degraded says why the disk tier does not do all of its work, "" when it does or was not
	// asked for.
	Degraded string

	BufferBytes int64 // of buffers in use
	FreeBytes   int64 // of buffers that wait to be used again
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Stats{
		Files: s.files, Foreign: len(s.strange), Bytes: s.bytes, BudgetBytes: s.o.DiskBytes,
		Hits: s.hits, Misses: maps.Clone(s.misses), Evictions: s.evictions, Saves: s.saves,
		Waiting: len(s.queue),
	}
	if s.writing != nil {
		out.Waiting++
	}
	if s.degraded != nil {
		out.Degraded = s.degraded.Error()
	}
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	out.BufferBytes, out.FreeBytes = s.pool.used, s.pool.spare
	return out
}

// Item describes a state that the store holds.
type Item struct {
	ID ID
	Identity
	Part      Part
	Tokens    int // how many
	Recompute time.Duration
	FileBytes int64     // 0 while it waits to be written
	Saved     time.Time // zero while it waits
}

func (e *entry) item() Item {
	st, _, _ := parseContent(e.content) // made by us, or checked when it was read
	return Item{
		ID: e.id, Identity: st.Identity, Part: st.Part, Tokens: e.tokens, Recompute: e.recompute,
		FileBytes: e.fileBytes, Saved: e.saved,
	}
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
	Bytes int64 // of the file, also of one that is still to be written
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
		out = append(out, Indexed{ID: e.id, State: st, Bytes: e.bytes()})
	}
	slices.SortFunc(out, func(a, b Indexed) int {
		return cmp.Or(cmp.Compare(len(a.Tokens), len(b.Tokens)), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// Drop forgets a state and removes its file, in one disk call. Buffers of it stay valid.
func (s *Store) Drop(id ID) {
	s.mu.Lock()
	e := s.entries[id]
	file := e == nil || e.fileBytes > 0
	if e != nil {
		s.forget(e)
	}
	s.mu.Unlock()
	if file && s.dir != nil {
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

// Verify reads every file, and changes nothing: neither does Open, so that everything is reported
// that this store has not come upon otherwise. What is damaged is removed when it is asked for, or
// by the next save. It returns ErrDisk without a disk tier, ErrCanceled when ctx ends.
func (s *Store) Verify(ctx context.Context) ([]Report, error) {
	list, err := s.list("verify")
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

// list gives the names in the directory.
func (s *Store) list(op string) ([]string, error) {
	if err := s.usable(op); err != nil {
		return nil, err
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

// Clear forgets every state and removes every file, also foreign and half-written ones. Buffers
// stay valid. It returns how many files went and their bytes. ErrDisk says that some stayed, or
// that there is no disk tier, ErrCanceled that ctx ended, ErrClosed comes after Close.
func (s *Store) Clear(ctx context.Context) (files int, bytes int64, err error) {
	if err := s.usable("clear"); err != nil {
		return 0, 0, err
	}
	s.forgetAll()
	unlock, err := s.lockDir(ctx) // waits for a save
	if err != nil {
		if ctx.Err() != nil {
			return 0, 0, canceled("clear", err)
		}
		return 0, 0, &Error{Op: "clear", Kind: ErrDisk, Field: "Dir", Err: err}
	}
	defer func() { err = errors.Join(err, unlock()) }()
	names, err := s.list("clear")
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
	s.forgetAll() // a save may have found the files again before the lock was ours
	if len(failed) > 0 {
		return files, bytes, &Error{
			Op: "clear", Kind: ErrDisk, Field: "Dir", Err: errors.Join(failed...),
			Hint: "check the owner and the permissions of the cache directory",
		}
	}
	return files, bytes, nil
}

func (s *Store) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		s.forget(e)
	}
	for name := range s.strange {
		s.setStrange(name, 0)
	}
}
