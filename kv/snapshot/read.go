package snapshot

import (
	"context"
	"time"
)

// Get reads a state, or shares the memory of one that waits to be written. The caller releases the
// buffer. false is a miss, counted by its cause.
func (s *Store) Get(ctx context.Context, id ID) (*Buffer, bool) {
	if b := s.waiting(id); b != nil {
		return b, true
	}
	b, err := s.read(ctx, id)
	m := missOf(err)
	if err != nil && (m == MissDamaged || m == MissForeign) {
		// The name is made with our key and version: nothing else can rightly be there.
		s.o.Log.Warn("snapshot file removed", "id", id, "reason", err)
		_ = s.dir.Remove(fileName(id)) // what stays is a miss again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if err == nil {
		s.hits++
		if e != nil {
			s.use(e)
		}
		return b, true
	}
	s.misses[m]++
	if e != nil && m != MissClosed && m != MissCanceled && m != MissIO {
		s.setFile(e, 0)
	}
	return nil, false
}

// waiting shares the memory of a state that is not yet written; nil where there is none.
func (s *Store) waiting(id ID) *Buffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil || e.buf == nil {
		return nil
	}
	s.hits++
	s.use(e)
	return e.buf.share()
}

// read reads and checks a whole file.
func (s *Store) read(ctx context.Context, id ID) (*Buffer, error) {
	switch {
	case s.isClosed():
		return nil, MissClosed
	case s.dir == nil:
		return nil, MissAbsent
	}
	f, err := s.openFile(fileName(id), func(meta []byte) error {
		_, _, _, err := s.checkMeta(id, meta)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	b, err := s.Buffer(f.header.state)
	if err != nil {
		return nil, MissClosed
	}
	if err := s.readState(ctx, f, b.Bytes()); err != nil {
		b.Release()
		return nil, err
	}
	return b, nil
}

// checkMeta parses metadata and checks that it belongs under this id.
func (s *Store) checkMeta(id ID, meta []byte) (State, int, time.Time, error) {
	st, n, saved, err := parseMeta(meta)
	if err == nil && s.secret.address(meta[metaFixedBytes:]) != id {
		err = damaged("file under the name of another")
	}
	return st, n, saved, err
}
