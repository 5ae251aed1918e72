package snapshot

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// entry is a state that has a file, or waits to get one.
type entry struct {
	id        ID
	content   []byte // identity, part and tokens: what id is the address of
	tokens    int
	recompute time.Duration
	saved     time.Time
	sequence  uint64 // of entries, to break ties
	uses      uint64
	worth     float64 // ms per byte, see Store.use

	buf       *Buffer // what is to be written, nil once it is; its own use
	fileBytes int64   // 0 while there is no file
}

// add makes a new entry. The caller holds mu, as for all that follows up to scan.
func (s *Store) add(id ID, content []byte, recompute time.Duration, tokens int) *entry {
	s.sequence++
	e := &entry{
		id: id, content: content, tokens: tokens, recompute: recompute, sequence: s.sequence,
	}
	s.entries[id] = e
	return e
}

// use counts a use and renews the worth. Worth is by GDSF (Cherkasova, "Improving WWW Proxies
// Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs 1998): clock + uses x cost /
// bytes, where the clock is the worth of what was evicted last, so that what is not used grows old.
func (s *Store) use(e *entry) {
	e.uses++
	s.rate(e)
}

func (s *Store) rate(e *entry) {
	e.worth = s.clock + float64(e.uses)*costOf(e.recompute, e.tokens)/float64(e.bytes())
}

// bytes is the size of the file, also of one not yet written.
func (e *entry) bytes() int64 {
	if e.fileBytes > 0 {
		return e.fileBytes
	}
	return fileBytes(int64(metaFixedBytes+len(e.content)), int64(len(e.buf.Bytes())))
}

// setFile records that the entry has a file of so many bytes; 0 that it has none. An entry without
// a file, of which none is to come either, is forgotten.
func (s *Store) setFile(e *entry, bytes int64) {
	if e.fileBytes > 0 {
		s.bytes -= e.fileBytes
		s.files--
	}
	if e.fileBytes = bytes; bytes > 0 {
		s.bytes += bytes
		s.files++
		s.rate(e)
	} else if e.buf == nil {
		delete(s.entries, e.id)
	}
}

// forget takes an entry out of the index and of the queue. The one that is being written keeps its
// memory until then.
func (s *Store) forget(e *entry) {
	s.setFile(e, 0)
	delete(s.entries, e.id)
	if i := slices.Index(s.queue, e); i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
		s.saves.Skipped++
		s.release(e)
	}
}

// makeRoom forgets files until one of need bytes fits beside the rest, and returns their names, to
// be removed. It reports false, and changes nothing, where they are worth more than e or too few.
func (s *Store) makeRoom(e *entry, need int64) (names []string, ok bool) {
	excess := s.bytes + need - s.o.DiskBytes
	files := s.files + len(s.strange) + 1 - filesMax
	if need > s.o.DiskBytes {
		return nil, false
	}
	for name, bytes := range s.strange { // worth nothing to this store
		if excess <= 0 && files <= 0 {
			break
		}
		names = append(names, name)
		excess, files = excess-bytes, files-1
	}
	var victims []*entry
	if excess > 0 || files > 0 {
		for _, v := range slices.SortedFunc(maps.Values(s.entries), lessWorth) {
			if excess <= 0 && files <= 0 || lessWorth(v, e) > 0 {
				break
			}
			if v.fileBytes > 0 {
				victims = append(victims, v)
				excess, files = excess-v.fileBytes, files-1
			}
		}
	}
	if excess > 0 || files > 0 {
		return nil, false
	}
	for _, name := range names {
		s.setStrange(name, 0)
	}
	for _, v := range victims {
		names = append(names, fileName(v.id))
		s.clock = max(s.clock, v.worth)
		s.evictions++
		s.setFile(v, 0)
	}
	return names, true
}

func lessWorth(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.worth, b.worth), cmp.Compare(a.sequence, b.sequence))
}

// setStrange records the bytes of a file that is not ours to read; 0 that it is gone.
func (s *Store) setStrange(name string, bytes int64) {
	s.bytes += bytes - s.strange[name]
	if s.strange[name] = bytes; bytes == 0 {
		delete(s.strange, name)
	}
}

// firstScan reads what the directory holds, and changes nothing but the lock file. What goes wrong
// degrades the tier until a save succeeds.
func (s *Store) firstScan() {
	unlock, ok, err := s.dir.TryLock(lockName) // who cannot lock cannot write
	if err != nil {
		err = saveError(err)
	} else if ok {
		err = unlock()
	}
	s.degraded = errors.Join(err, s.scan(context.Background(), false))
}

// scan brings the index up to what the directory holds: files that other processes wrote and
// removed. Who is about to write, and has the lock, cleans: it removes what is damaged and what a
// killed process left half written.
func (s *Store) scan(ctx context.Context, clean bool) error {
	list, err := s.dir.ReadDir(".")
	if err != nil {
		return err
	}
	present, unknown := map[ID]bool{}, []ID{}
	s.mu.Lock()
	for _, d := range list {
		id, ok := parseName(d.Name())
		if !ok {
			continue
		}
		present[id] = true
		e := s.entries[id]
		if s.strange[d.Name()] == 0 && (e == nil || e.fileBytes == 0) {
			unknown = append(unknown, id)
		}
	}
	for id, e := range s.entries {
		if !present[id] {
			s.setFile(e, 0)
		}
	}
	for name := range s.strange {
		if id, _ := parseName(name); !present[id] {
			s.setStrange(name, 0)
		}
	}
	s.mu.Unlock()
	for _, d := range list {
		if clean && strings.HasPrefix(d.Name(), tempPrefix) {
			if err := s.remove(d.Name()); err != nil {
				return err
			}
		}
	}
	for _, id := range unknown {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.discover(id, clean)
	}
	return nil
}

// discover takes a file into the index, by its header and metadata. One that is not ours to read
// is only counted, and is the first to go.
func (s *Store) discover(id ID, clean bool) {
	name := fileName(id)
	var st State
	var n int
	var saved time.Time
	var content []byte
	f, err := s.openFile(name, func(meta []byte) (err error) {
		st, n, saved, err = s.checkMeta(id, meta)
		content = slices.Clone(meta[min(len(meta), metaFixedBytes):])
		return err
	})
	if err == nil {
		_ = f.Close() // read only
	}
	m := missOf(err)
	if err != nil && m == MissDamaged && clean {
		s.o.Log.Warn("snapshot file removed", "id", id, "reason", err)
		_ = s.dir.Remove(name) // what stays is a miss
	}
	var foreign int64
	if err != nil && m == MissForeign {
		if fi, err := s.dir.Lstat(name); err == nil {
			foreign = fi.Size()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.files >= filesMax {
		foreign = f.size // too many to know
	}
	switch {
	case foreign > 0:
		s.setStrange(name, foreign)
	case err == nil:
		e := s.entries[id]
		if e == nil {
			e = s.add(id, content, st.Recompute, n)
		}
		e.saved = saved
		s.setFile(e, f.size)
		s.use(e)
	}
}
