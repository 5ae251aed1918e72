package kv

import "iter"

// Held describes what lies at one place under one name.
type Held struct {
	Place      Place  // Live, RAM or Disk
	Seq        Seq    // of Live; else NoSeq
	Blob       BlobID // of RAM and Disk
	Checkpoint bool   // the window or recurrent state alone
	Tokens     int
	Bytes      int64   // there; of cells, what a saved state would have
	Uses       int     // requests that had it, the first one included
	Leases     int     // of requests that have it now, and of writes to disk
	Worth      float64 // as Tree.Worth; the least goes first, negative is no loss to others
	Pinned     bool    // the last one of a pinned prefix
	LastUse    uint64  // Cache.Uses at that moment
}

// Uses counts what was held or used so far. It only grows.
func (c *Cache) Uses() uint64 { return c.tree.tick }

// Held gives what all sequences hold, then all saved state in no particular order; what is both in
// memory and on disk comes twice. The Cache must not be called meanwhile. O(holdings).
func (c *Cache) Held() iter.Seq[Held] {
	return func(yield func(Held) bool) {
		for _, s := range c.seqs {
			if len(s.tokens) > 0 && !yield(c.heldLive(s)) {
				return
			}
		}
		for _, b := range c.blobs {
			for tier, hold := range b.at {
				if hold == nil || tier == onDisk && b.spilling {
					continue
				}
				h := Held{
					Place: RAM + Place(tier), Seq: NoSeq, Blob: b.id, Checkpoint: b.partial,
					Tokens: len(b.tokens), Bytes: hold.Bytes,
				}
				h.describe(c.tree, hold, c.tree.Worth(hold))
				if !yield(h) {
					return
				}
			}
		}
	}
}

// heldLive describes what is in cells. A sequence that has no path is of use to its request only.
func (c *Cache) heldLive(s *sequence) Held {
	h := Held{
		Place: Live, Seq: s.id, Tokens: len(s.tokens), Uses: 1, Worth: -1, LastUse: c.tree.tick,
		Bytes: int64(len(s.tokens)) * c.cfg.CellBytes,
	}
	switch {
	case s.hold != nil:
		h.describe(c.tree, s.hold, c.worth(s))
	case s.state == Busy:
		h.Leases = 1
	}
	return h
}

// describe fills in what the tree knows.
func (h *Held) describe(t *Tree, hold *Holding, worth float64) {
	h.Uses, h.Leases, h.LastUse = int(hold.uses), hold.leases, hold.last
	h.Worth, h.Pinned = worth, t.Pinned(hold)
}
