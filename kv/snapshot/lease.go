package snapshot

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Source is the tier that a state came from.
type Source string

// The sources of a state.
const (
	FromRAM  Source = "ram"
	FromDisk Source = "disk"
)

// Lease is the use of a state. While it lasts the state is not dropped. It is used by one goroutine
// at a time.
type Lease struct {
	s      *Store
	e      *entry
	source Source
	bytes  []byte
	once   sync.Once
}

// Bytes is the state: read only, shared with other leases, valid until Release.
func (l *Lease) Bytes() []byte { return l.bytes }

// Source is where the state was found.
func (l *Lease) Source() Source { return l.source }

// Release ends the use. A second call does nothing.
func (l *Lease) Release() {
	l.once.Do(func() {
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		l.bytes = nil
		l.s.leases--
		l.s.unlease(l.e)
	})
}

// unlease ends one use of an entry's memory.
func (s *Store) unlease(e *entry) {
	e.leases--
	s.settle(e)
	s.evictRAM()
}

// lease begins one, by a caller.
func (s *Store) lease(e *entry, source Source) *Lease {
	e.leases++
	s.leases++
	return &Lease{s: s, e: e, source: source, bytes: e.buf}
}

// Get leases a state, reading its file where it is not in RAM; the caller releases it. false is
// a miss, counted by its cause. One goroutine reads a file for all that ask for it.
func (s *Store) Get(ctx context.Context, id ID) (*Lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		e := s.entries[id]
		switch reading := s.loading[id]; {
		case s.closed:
			return s.miss(MissClosed)
		case e != nil && e.buf != nil:
			s.ram.hits++
			s.use(e)
			return s.lease(e, FromRAM), true
		case s.dir == nil:
			return s.miss(MissAbsent)
		case reading == nil:
			return s.load(ctx, id)
		default:
			s.mu.Unlock()
			select {
			case <-reading:
			case <-ctx.Done():
			}
			s.mu.Lock()
			if ctx.Err() != nil {
				return s.miss(MissCanceled)
			}
		}
	}
}

func (s *Store) miss(m Miss) (*Lease, bool) {
	s.misses[m]++
	return nil, false
}

// loaded is what a file held.
type loaded struct {
	buf     *Buffer
	content []byte
	state   State
	tokens  int
	saved   time.Time
	bytes   int64
}

// load reads the file of a state that is not in RAM. mu is held on entry and on return, and free
// in between.
func (s *Store) load(ctx context.Context, id ID) (*Lease, bool) {
	reading := make(chan struct{})
	s.loading[id] = reading
	known := s.entries[id] != nil
	s.mu.Unlock()
	f, err := s.read(ctx, id, known)
	m := missOf(err)
	if err != nil && (m == MissDamaged || m == MissForeign) {
		// The name is made with our key and version: nothing else can rightly be there.
		s.o.Log.Warn("snapshot file removed", "id", id, "reason", err)
		_ = s.dir.Remove(fileName(id)) // what stays is a miss again
	}
	s.mu.Lock()
	delete(s.loading, id)
	close(reading)
	e := s.entries[id]
	if s.closed {
		m = MissClosed
	}
	if err != nil {
		if e != nil && m != MissClosed && m != MissCanceled && m != MissIO {
			s.setDisk(e, 0)
			s.settle(e)
		}
		return s.miss(m)
	}
	mem := f.buf.take()
	s.pool.out -= int64(cap(mem))
	if s.closed {
		return s.miss(MissClosed)
	}
	if e == nil {
		content := f.content
		if content == nil { // it was known, and was forgotten meanwhile
			s.pool.put(mem, s.ram.bytes)
			return s.miss(MissAbsent)
		}
		e = s.add(id, content, f.state.Recompute, f.tokens)
		e.saved = f.saved
	}
	if !e.onDisk {
		s.setDisk(e, f.bytes)
	}
	if e.buf == nil {
		s.attach(e, mem)
	} else {
		s.pool.put(mem, s.ram.bytes)
	}
	s.disk.hits++
	s.use(e)
	return s.lease(e, FromDisk), true // on Release it competes for its room in RAM
}

// read reads and checks a whole file. The content is returned only where the entry is not known.
func (s *Store) read(ctx context.Context, id ID, known bool) (f loaded, err error) {
	o, err := s.openFile(fileName(id), func(meta []byte) (err error) {
		f.state, f.tokens, f.saved, err = s.checkMeta(id, meta)
		if err == nil && !known {
			f.content = slices.Clone(meta[metaFixedBytes:])
		}
		return err
	})
	if err != nil {
		return loaded{}, err
	}
	defer func() { _ = o.Close() }() // read only
	f.bytes = o.size
	if f.buf, err = s.Buffer(o.header.state); err != nil {
		return loaded{}, MissClosed
	}
	if err := s.readState(ctx, o, f.buf.Bytes()); err != nil {
		f.buf.Release()
		return loaded{}, err
	}
	return f, nil
}

// checkMeta parses metadata and checks that it belongs under this id.
func (s *Store) checkMeta(id ID, meta []byte) (State, int, time.Time, error) {
	st, n, saved, err := parseMeta(meta)
	if err == nil && s.secret.address(meta[metaFixedBytes:]) != id {
		err = damaged("file under the name of another")
	}
	return st, n, saved, err
}
