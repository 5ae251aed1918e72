package snapshot

import (
	"cmp"
	"time"
)

// tier is the account of one tier. Worth is by GDSF (Cherkasova, "Improving WWW Proxies
// Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs 1998): clock + uses x cost /
// bytes, where the clock is the worth of what was evicted last, so that what is not used grows old.
type tier struct {
	budget    int64
	bytes     int64
	entries   int
	clock     float64 // ms per byte
	hits      uint64
	evictions uint64
	degraded  error
}

func (t *tier) worth(e *entry, bytes int64) float64 {
	return t.clock + float64(e.uses)*e.cost/float64(max(1, bytes))
}

// add makes a new entry, which is in no tier yet. The caller holds mu, as for all that follows.
func (s *Store) add(id ID, content []byte, recompute time.Duration, tokens int) *entry {
	s.sequence++
	e := &entry{
		id: id, content: content, tokens: tokens, cost: costOf(recompute, tokens),
		recompute: recompute, sequence: s.sequence,
	}
	s.entries[id] = e
	return e
}

// use counts a use and renews the worth in both tiers.
func (s *Store) use(e *entry) {
	e.uses++
	e.ramWorth = s.ram.worth(e, int64(cap(e.buf)))
	e.diskWorth = s.disk.worth(e, e.diskBytes())
}

// diskBytes is the size of the file, also of one not yet written.
func (e *entry) diskBytes() int64 {
	if e.onDisk {
		return e.fileBytes
	}
	return fileBytes(int64(metaFixedBytes+len(e.content)), int64(len(e.buf)))
}

// attach puts a state into RAM.
func (s *Store) attach(e *entry, mem []byte) {
	e.buf = mem
	s.ram.bytes += int64(cap(mem))
	s.ram.entries++
	e.ramWorth = s.ram.worth(e, int64(cap(mem)))
	s.pool.trim(s.ram.bytes)
}

// detach takes a state out of RAM.
func (s *Store) detach(e *entry) {
	s.ram.bytes -= int64(cap(e.buf))
	s.ram.entries--
	s.pool.put(e.buf, s.ram.bytes)
	e.buf = nil
}

// setDisk records that the entry has a file of so many bytes; 0 that it has none.
func (s *Store) setDisk(e *entry, bytes int64) {
	if e.onDisk {
		s.disk.bytes -= e.fileBytes
		s.disk.entries--
	}
	e.onDisk, e.fileBytes = bytes > 0, bytes
	if e.onDisk {
		s.disk.bytes += bytes
		s.disk.entries++
		e.diskWorth = s.disk.worth(e, bytes)
	}
}

// settle forgets an entry that is in no tier, and frees the state of one that is gone and unused.
func (s *Store) settle(e *entry) {
	if e.gone && e.leases == 0 && e.buf != nil {
		s.detach(e)
	}
	if !e.gone && e.buf == nil && !e.onDisk {
		e.gone = true
		delete(s.entries, e.id)
	}
}

// discard removes an entry from the index. A state that is leased stays until the last release.
func (s *Store) discard(e *entry) {
	s.setDisk(e, 0)
	e.gone = true
	delete(s.entries, e.id)
	s.settle(e)
}

// evictRAM drops what is worth least from RAM until the budget holds or all is leased. What waits
// to be written is charged to the queue.
func (s *Store) evictRAM() {
	for s.ram.bytes-s.queued > s.ram.budget || s.ram.entries > ramEntriesMax {
		var least *entry
		for _, e := range s.entries {
			if e.buf != nil && e.leases == 0 && (least == nil || lessRAM(e, least) < 0) {
				least = e
			}
		}
		if least == nil {
			return
		}
		s.ram.clock = max(s.ram.clock, least.ramWorth)
		s.ram.evictions++
		s.detach(least)
		s.settle(least)
	}
}

func lessRAM(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.ramWorth, b.ramWorth), cmp.Compare(a.sequence, b.sequence))
}

func lessDisk(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.diskWorth, b.diskWorth), cmp.Compare(a.sequence, b.sequence))
}

// makeRoom forgets files until one of need bytes fits beside the rest, and returns their names, to
// be removed. It reports false, and changes nothing, where they are worth more than e, in use, or
// not enough.
func (s *Store) makeRoom(e *entry, need int64) (names []string, ok bool) {
	excess := s.disk.bytes + need - s.disk.budget
	files := s.disk.entries + len(s.strange) + 1 - diskEntriesMax
	if need > s.disk.budget {
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
		for _, v := range s.byDiskWorth() {
			if excess <= 0 && files <= 0 || lessDisk(v, e) > 0 {
				break
			}
			victims = append(victims, v)
			excess, files = excess-v.fileBytes, files-1
		}
	}
	if excess > 0 || files > 0 {
		return nil, false
	}
	for _, name := range names {
		s.disk.bytes -= s.strange[name]
		delete(s.strange, name)
	}
	for _, v := range victims {
		names = append(names, fileName(v.id))
		s.disk.clock = max(s.disk.clock, v.diskWorth)
		s.disk.evictions++
		s.setDisk(v, 0)
		s.settle(v)
	}
	return names, true
}
