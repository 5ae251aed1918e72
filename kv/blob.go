package kv

import (
	"iter"
	"maps"
	"slices"
)

// blob is saved state, in memory, on disk or both.
type blob struct {
	id       BlobID
	key      Key
	tokens   []Token // what its cells hold
	exact    int
	low      int // the first position that the window has after it was restored
	partial  bool
	at       [2]*Holding // by tier
	spilling bool
	declined bool      // the disk gave it up, and nobody has used it since
	parked   *sequence // the books of the request that waits for it
}

// Tiers of saved state.
const (
	inRAM = iota
	onDisk
)

// place is where a blob's holding of a tier is in the tree.
func (b *blob) place(tier int) Place {
	return [2][2]Place{{RAM, Disk}, {Partial, partialDisk}}[index(b.partial)][tier]
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// best is the tier that it is restored from.
func (b *blob) best() int { return index(b.at[inRAM] == nil) }

// lowOf is the first position that a window has after so many tokens were restored.
func (c *Cache) lowOf(tokens int) int {
	if c.cfg.Window == 0 {
		return 0
	}
	return max(0, tokens-c.cfg.Window)
}

// budget of a tier, and what is used.
func (c *Cache) budget(tier int) (used, most int64) {
	if tier == inRAM {
		return c.tree.bytes[RAM] + c.tree.bytes[Partial], c.cfg.RAMBytes
	}
	return c.tree.bytes[Disk] + c.tree.bytes[partialDisk], c.cfg.DiskBytes
}

// blobOf gives the blob of a holding that is not Live.
func (c *Cache) blobOf(h *Holding) *blob { return c.blobs[BlobID(h.ID)] }

// newBlob books state in RAM, with an estimate of its bytes. It has the tokens from now on.
func (c *Cache) newBlob(s *sequence, tokens []Token, partial bool, bytes int64) *blob {
	c.lastBlob++
	b := &blob{
		id: c.lastBlob, key: s.key, tokens: tokens, exact: s.exact, partial: partial,
		low: max(s.low, c.lowOf(len(tokens))),
	}
	c.blobs[b.id] = b
	b.at[inRAM] = c.tree.Hold(b.key, tokens[:b.exact], b.place(inRAM), uint64(b.id), bytes)
	if s.hold != nil {
		b.at[inRAM].uses = s.hold.uses
	}
	return b
}

// makeRoom gives up state of a tier until so many bytes are free. When they cannot be it answers
// false, and nothing has changed.
func (c *Cache) makeRoom(tier int, bytes int64) bool {
	used, most := c.budget(tier)
	if bytes > most || used > most-bytes && used-c.canFree(tier) > most-bytes {
		return false
	}
	for ; used > most-bytes; used, _ = c.budget(tier) {
		c.forget(c.victimBlob(tier), tier)
	}
	return true
}

// canFree is how many bytes of a tier may go: all but those that are leased, and for each pinned
// prefix one state, of which nobody knows yet that it will not be the largest.
func (c *Cache) canFree(tier int) int64 {
	whole, partial := tierPlaces(tier)
	sum := int64(0)
	for _, place := range []Place{whole, partial} {
		for _, h := range c.tree.held[place] {
			if h.leases == 0 {
				sum += h.Bytes
			}
		}
	}
	kept := map[*Holding]bool{}
	for _, pin := range c.tree.held[pinned] {
		if h := c.tree.keeper(pin, whole); h != nil && !kept[h] {
			kept[h] = true
			sum -= h.Bytes
		}
	}
	return sum
}

// tierPlaces are where the tree has whole states and checkpoints of a tier.
func tierPlaces(tier int) (whole, partial Place) {
	if tier == onDisk {
		return Disk, partialDisk
	}
	return RAM, Partial
}

// victimBlob prefers, in RAM, what is also on disk.
func (c *Cache) victimBlob(tier int) *blob {
	if tier == inRAM {
		b := c.least(tier, func(h *Holding) bool { return c.blobOf(h).at[onDisk] != nil })
		if b != nil {
			return b
		}
	}
	return c.least(tier, nil)
}

// least gives the blob that is worth least at a tier.
func (c *Cache) least(tier int, ok func(*Holding) bool) *blob {
	whole, partial := tierPlaces(tier)
	a, b := c.tree.Victim(whole, ok), c.tree.Victim(partial, ok)
	switch {
	case a == nil && b == nil:
		return nil
	case a == nil || b != nil && c.tree.Worth(b) < c.tree.Worth(a):
		a = b
	}
	return c.blobOf(a)
}

// forget plans to delete a blob at a tier.
func (c *Cache) forget(b *blob, tier int) {
	h := b.at[tier]
	b.declined = b.declined || tier == onDisk
	c.tree.Evicted(h)
	place := [...]Place{RAM, Disk}[tier]
	c.plan(Op{Kind: Forget, Seq: NoSeq, Blob: b.id, Place: place, Partial: b.partial})
	call(&c.cfg.Hooks.Evict, EvictEvent{
		Place: place, Seq: NoSeq, Blob: b.id, Tokens: len(b.tokens), Bytes: h.Bytes,
	})
	c.release(b, tier)
}

// release books that a blob is gone at a tier.
func (c *Cache) release(b *blob, tier int) {
	h := b.at[tier]
	if h == nil {
		return
	}
	b.at[tier] = nil
	if b.at[inRAM] == nil && b.at[onDisk] == nil {
		delete(c.blobs, b.id)
	}
	var marks []*blob
	if !b.partial {
		marks = c.checkpointsOn(h)
	}
	c.tree.Release(h)
	c.dropOrphans(marks)
}

// checkpointsOn gives the checkpoints that a holding is a base of.
func (c *Cache) checkpointsOn(h *Holding) []*blob {
	if len(c.tree.held[Partial])+len(c.tree.held[partialDisk]) == 0 {
		return nil
	}
	var found []*blob
	for n := h.node; n != nil; n = n.parent {
		for o := n.own; o != nil; o = o.next {
			if o.Place == Partial || o.Place == partialDisk {
				found = append(found, c.blobOf(o))
			}
		}
	}
	return found
}

// dropOrphans forgets those checkpoints that nothing is a base of any more.
func (c *Cache) dropOrphans(marks []*blob) {
	for _, b := range marks {
		for tier, h := range b.at {
			if h != nil && h.leases == 0 && !based(h.node) {
				c.forget(b, tier)
			}
		}
	}
}

// based says that a whole state is held in n or below.
func based(n *node) bool { return n.below[Live]+n.below[RAM]+n.below[Disk] > 0 }

// Saved answers Save and Checkpoint: the state has so many bytes.
func (c *Cache) Saved(id BlobID, bytes int64) []Op {
	b := c.blobs[id]
	if b == nil || b.at[inRAM] == nil {
		return c.take()
	}
	if bytes <= 0 {
		c.SaveFailed(id)
		return c.take()
	}
	c.tree.Resize(b.at[inRAM], bytes)
	if !c.makeRoom(inRAM, 0) {
		c.forget(b, inRAM) // it is larger than was thought
	}
	mark := c.cfg.RAMBytes / 4 * 3
	if c.cfg.WriteThrough {
		mark = 0
	}
	c.spill(mark)
	return c.take()
}

// SaveFailed answers Save and Checkpoint: there is no such state.
func (c *Cache) SaveFailed(id BlobID) {
	if b := c.blobs[id]; b != nil {
		c.release(b, inRAM)
	}
}

// spill plans to copy to disk what is worth least, until at most so many bytes are in RAM alone.
func (c *Cache) spill(most int64) {
	if c.cfg.DiskBytes == 0 {
		return
	}
	alone := int64(0)
	for _, place := range []Place{RAM, Partial} {
		for _, h := range c.tree.held[place] {
			if c.blobOf(h).canSpill() {
				alone += h.Bytes
			}
		}
	}
	refused := map[*blob]bool{}
	for alone > most {
		b := c.least(inRAM, func(h *Holding) bool {
			b := c.blobOf(h)
			return b.canSpill() && !refused[b]
		})
		if b == nil {
			return
		}
		h := b.at[inRAM]
		h.Lease() // until it is spilled
		if !c.makeRoom(onDisk, h.Bytes) {
			h.Unlease()
			refused[b] = true
			continue
		}
		alone -= h.Bytes
		b.at[onDisk] = c.tree.Hold(b.key, b.tokens[:b.exact], b.place(onDisk), uint64(b.id), h.Bytes)
		b.at[onDisk].uses = h.uses
		b.spilling = true
		b.at[onDisk].Lease()
		c.plan(Op{Kind: Spill, Seq: NoSeq, Blob: b.id, Place: Disk, Partial: b.partial})
		call(&c.cfg.Hooks.Spill, SpillEvent{
			From: RAM, To: Disk, Blob: b.id, Tokens: len(b.tokens), Bytes: h.Bytes,
		})
	}
}

// canSpill says that the state of a blob is in RAM alone and may go to disk. What a policy has
// changed is of use to its own request only; what another blob has on disk has a file already.
func (b *blob) canSpill() bool {
	if b.at[onDisk] != nil || b.declined || b.exact < len(b.tokens) {
		return false
	}
	for h := b.at[inRAM].node.own; h != nil; h = h.next {
		if h.Place == b.place(onDisk) && h.key == b.key {
			return false
		}
	}
	return true
}

// Tidy plans what can be done in idle time: state that is only in RAM goes to disk too.
func (c *Cache) Tidy() []Op {
	c.spill(0)
	return c.take()
}

// Spilled answers Spill: the state is on disk too, with so many bytes.
func (c *Cache) Spilled(id BlobID, bytes int64) []Op {
	if b := c.endSpill(id); b != nil && b.at[onDisk] != nil {
		c.tree.Resize(b.at[onDisk], max(1, bytes))
		if !c.makeRoom(onDisk, 0) {
			c.forget(b, onDisk)
		}
	}
	return c.take()
}

// SpillFailed answers Spill: the state is not on disk.
func (c *Cache) SpillFailed(id BlobID) {
	if b := c.endSpill(id); b != nil {
		c.release(b, onDisk)
	}
}

func (c *Cache) endSpill(id BlobID) *blob {
	b := c.blobs[id]
	if b == nil || !b.spilling {
		return nil
	}
	b.spilling = false
	for _, h := range b.at {
		if h != nil {
			h.Unlease()
		}
	}
	return b
}

// Lost says that the bytes of a blob at a place are missing or damaged.
func (c *Cache) Lost(id BlobID, at Place) {
	if b := c.blobs[id]; b != nil && (at == RAM || at == Disk) {
		c.release(b, int(at-RAM))
	}
}

// Adopt takes in state that an earlier process left on disk. Those adopted later count as used
// later. Kinds: ErrInvalid, ErrNoRoom (the disk budget). Whatever the error, nothing has changed.
func (c *Cache) Adopt(s Snapshot) (BlobID, []Op, error) {
	switch {
	case len(s.Tokens) == 0 || len(s.Tokens) > TokensMax:
		return 0, nil, fail("adopt", ErrInvalid, "Tokens", "", "%d tokens", len(s.Tokens))
	case s.Bytes <= 0:
		return 0, nil, fail("adopt", ErrInvalid, "Bytes", "", "%d bytes", s.Bytes)
	case s.Key.PublicTokens < 0:
		return 0, nil, fail("adopt", ErrInvalid, "Key.PublicTokens", "", "%d", s.Key.PublicTokens)
	case !c.makeRoom(onDisk, s.Bytes):
		return 0, nil, fail("adopt", ErrNoRoom, "Bytes", "raise the disk budget",
			"%d bytes do not fit a budget of %d", s.Bytes, c.cfg.DiskBytes)
	}
	c.lastBlob++
	b := &blob{
		id: c.lastBlob, key: s.Key, tokens: slices.Clone(s.Tokens), exact: len(s.Tokens),
		partial: s.Partial, low: len(s.Tokens), // nobody knows
	}
	c.blobs[b.id] = b
	b.at[onDisk] = c.tree.Hold(b.key, b.tokens, b.place(onDisk), uint64(b.id), s.Bytes)
	return b.id, c.take(), nil
}

// Blob describes saved state; ok is false when it is gone.
func (c *Cache) Blob(id BlobID) (b Blob, ok bool) {
	if b := c.blobs[id]; b != nil {
		return b.describe(), true
	}
	return Blob{}, false
}

// Blobs gives all saved state, oldest first. The Cache must not be called meanwhile.
func (c *Cache) Blobs() iter.Seq[Blob] {
	return func(yield func(Blob) bool) {
		for _, id := range slices.Sorted(maps.Keys(c.blobs)) {
			if !yield(c.blobs[id].describe()) {
				return
			}
		}
	}
}

func (b *blob) describe() Blob {
	d := Blob{
		ID: b.id, Key: b.key, Tokens: b.tokens, Exact: b.exact == len(b.tokens), Partial: b.partial,
	}
	if h := b.at[inRAM]; h != nil {
		d.RAM = h.Bytes
	}
	if h := b.at[onDisk]; h != nil && !b.spilling {
		d.Disk = h.Bytes
	}
	return d
}
