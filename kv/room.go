package kv

// findKeepers chooses, for each pinned prefix that no request has in use, the idle sequence that
// stays because of it.
func (c *Cache) findKeepers() {
	for _, s := range c.seqs {
		s.keep = 0
	}
	for _, pin := range c.tree.held[pinned] {
		var keeper *sequence
		for _, s := range c.seqs {
			if s.hold == nil || !pin.node.above(s.hold.node) {
				continue
			}
			if s.state == Busy {
				keeper = nil
				break
			}
			if keeper == nil || s.keep > keeper.keep ||
				s.keep == keeper.keep && len(s.tokens) < len(keeper.tokens) {
				keeper = s
			}
		}
		if keeper != nil {
			keeper.keep = max(keeper.keep, pin.node.end)
		}
	}
}

// dropKeepers lets pinned prefixes go too, when there is nobody to wait for; false otherwise.
func (c *Cache) dropKeepers() bool {
	kept := false
	for _, s := range c.seqs {
		if s.state == Busy {
			return false
		}
		kept = kept || s.keep > 0
	}
	for _, s := range c.seqs {
		s.keep = 0
	}
	return kept
}

// above says that n is o or one of its parents.
func (n *node) above(o *node) bool {
	for o != nil && o.end >= n.end {
		if o == n {
			return true
		}
		o = o.parent
	}
	return false
}

// victim gives the idle sequence that is worth least, nil for none. If freeing is set it is one
// whose end frees cells, as far as there is one.
func (c *Cache) victim(except *sequence, freeing bool) *sequence {
	var victim *sequence
	var least float64
	var last uint64
	for _, s := range c.seqs {
		if s.state != Idle || s.keep > 0 || s == except {
			continue
		}
		if freeing && c.cells.shared(s, 0) == len(s.tokens) {
			continue
		}
		worth, used := -1.0, uint64(0)
		if s.hold != nil {
			worth, used = c.worth(s), s.hold.last
		}
		if victim == nil || worth < least || worth == least && used < last {
			victim, least, last = s, worth, used
		}
	}
	if victim == nil && freeing {
		return c.victim(except, false)
	}
	return victim
}

// worth ranks an idle sequence by the cells that it alone has, and at least its share of all.
func (c *Cache) worth(s *sequence) float64 {
	size := c.cfg.Cells
	if c.cfg.Layout == Shared {
		size = max(len(s.tokens)-c.tree.Covered(s.hold), c.cfg.Cells/c.cfg.Sequences)
	}
	return c.tree.worth(s.hold, float64(size)*float64(c.cfg.CellBytes))
}

// makeCells gives up idle sequences until so many cells are neither used nor promised.
func (c *Cache) makeCells(need int, except *sequence) {
	for c.cfg.Layout == Shared && c.cells.used+c.promised+need > c.cfg.Cells {
		if s := c.victim(except, true); s != nil {
			c.evict(s)
		} else if !c.trim(except) {
			return
		}
	}
}

// trim gives up what a keeper has behind its pinned prefix; false when none has more.
func (c *Cache) trim(except *sequence) bool {
	for _, s := range c.seqs {
		if s != except && s.keep > 0 && c.keeps(s) < len(s.tokens) {
			c.spare(s)
			c.cutTo(s, s.keep, nil)
			return true
		}
	}
	return false
}

// keeps is how many tokens an idle sequence cannot do without.
func (c *Cache) keeps(s *sequence) int {
	if s.keep > 0 {
		if n, check := c.cut(s.hold, len(s.tokens), s.low, s.keep, 1); n < s.keep || check != nil {
			return len(s.tokens)
		}
	}
	return s.keep
}

// canMake says whether makeCells would succeed.
func (c *Cache) canMake(need int) bool {
	return c.cfg.Layout == Streams ||
		c.cells.used+c.promised+need <= c.cfg.Cells ||
		c.kept(nil)+c.promised+need <= c.cfg.Cells
}

// evict gives up an idle sequence, saving it first where that pays.
func (c *Cache) evict(s *sequence) {
	c.spare(s)
	if s.hold != nil && c.cfg.Rank == GDSF {
		c.tree.age[Live] = max(c.tree.age[Live], c.worth(s))
	}
	call(&c.cfg.Hooks.Evict, EvictEvent{
		Place: Live, Seq: s.id, Tokens: len(s.tokens),
		Bytes: int64(len(s.tokens)) * c.cfg.CellBytes,
	})
	c.plan(Op{Kind: SeqRemove, Seq: s.id, P1: End})
	c.clear(s)
}

// spare plans to save an idle sequence that is about to go, where that pays.
func (c *Cache) spare(s *sequence) {
	if c.cfg.RAMBytes == 0 || s.hold == nil {
		return
	}
	fresh := s.exact - c.tree.covered(s.hold, RAM)
	costs := c.cfg.Costs
	if fresh < saveTokens || wanted*costs.compute(s.exact-fresh, s.exact) <=
		2*float64(s.exact)*costs.Restore {
		return
	}
	if s.exact < len(s.tokens) { // what a policy has changed is of use to nobody
		return
	}
	if c.save(s) != nil {
		call(&c.cfg.Hooks.Spill, SpillEvent{
			From: Live, To: RAM, Blob: c.lastBlob, Tokens: s.exact,
			Bytes: int64(s.exact) * c.cfg.CellBytes,
		})
	}
}

// save plans to copy the state of s to RAM; nil when there is no room.
func (c *Cache) save(s *sequence) *blob {
	bytes := int64(len(s.tokens)) * c.cfg.CellBytes
	if !c.makeRoom(inRAM, bytes) {
		return nil
	}
	b := c.newBlob(s, append([]Token(nil), s.tokens...), false, bytes)
	c.plan(Op{Kind: Save, Seq: s.id, P1: Pos(len(s.tokens)), Blob: b.id, Place: RAM})
	return b
}

// saved is state that holds just what s does, as a cold run would have it; nil for none.
func (c *Cache) saved(s *sequence) *blob {
	if s.hold == nil || s.exact < len(s.tokens) {
		return nil
	}
	for o := s.hold.node.own; o != nil; o = o.next {
		if o.Place == RAM || o.Place == Disk {
			if b := c.blobOf(o); len(b.tokens) == len(s.tokens) {
				return b
			}
		}
	}
	return nil
}

// inherit books that b has been used as s was.
func (c *Cache) inherit(b *blob, s *sequence) {
	for _, h := range b.at {
		if h != nil {
			h.uses = max(h.uses, s.hold.uses)
			c.tree.used(h)
		}
	}
}

// Park saves a sequence to RAM and frees it. That of a Busy one is kept until Resume or Release;
// an Idle one that is saved already, also on disk, is not saved again.
// Kinds: ErrNoRoom (the RAM budget), ErrUnknown. Whatever the error, nothing has changed.
func (c *Cache) Park(seq Seq) (BlobID, []Op, error) {
	s, err := c.enter("park", seq, Busy, Idle)
	if err != nil {
		return 0, nil, err
	}
	if len(s.tokens) == 0 {
		return 0, nil, fail("park", ErrUnknown, "Seq", "drop it", "sequence %d is empty", seq)
	}
	c.refresh()
	b := c.saved(s)
	if b != nil && s.state == Idle {
		c.inherit(b, s)
	} else if b = c.save(s); b == nil {
		return 0, nil, c.noRAM("park")
	}
	if s.state == Busy {
		b.parked = &sequence{
			key: s.key, limit: s.limit, most: s.most, prompt: s.prompt, left: s.left,
			system: s.system, marks: s.marks, policy: s.policy, useful: s.useful,
		}
		b.at[inRAM].Lease()
	}
	c.plan(Op{Kind: SeqRemove, Seq: s.id, P1: End})
	c.clear(s)
	return b.id, c.take(), nil
}

func (c *Cache) noRAM(op string) error {
	used, most := c.budget(inRAM)
	return fail(op, ErrNoRoom, "RAMBytes", "raise the budget for saved state",
		"%d of %d bytes are in use", used, most)
}

// Resume gives a parked request a sequence again, as it was. Admission.Reused is its length.
// Kinds: ErrNoRoom, ErrUnknown: the blob is gone, begin anew with the tokens.
func (c *Cache) Resume(id BlobID) (Admission, error) {
	none := Admission{Seq: NoSeq}
	b := c.blobs[id]
	if b == nil || b.parked == nil {
		return none, fail("resume", ErrUnknown, "Blob", "begin anew", "no request waits for it")
	}
	c.settle()
	c.refresh()
	c.findKeepers()
	slot, _ := c.slot(nil)
	src := source{blob: b, hold: b.at[b.best()], have: len(b.tokens), reuse: len(b.tokens)}
	if (slot == nil || !c.fits(&src, b.parked.limit)) && c.dropKeepers() {
		slot, _ = c.slot(nil)
	}
	if slot == nil || !c.fits(&src, b.parked.limit) {
		return none, c.noCells("resume", b.parked.limit)
	}
	if slot.state == Idle {
		c.evict(slot)
	}
	c.use(b)
	p := b.parked
	c.makeCells(max(src.have, p.limit), nil)
	c.planRestore(slot, b, src.have)
	c.cells.grow(slot, src.have)
	c.hold(slot, p.key, b.tokens, b.exact)
	slot.low = b.low
	slot.limit, slot.most, slot.prompt, slot.left = p.limit, p.most, p.prompt, p.left
	slot.system, slot.marks, slot.policy, slot.useful = p.system, p.marks, p.policy, p.useful
	c.setState(slot, Busy)
	a := Admission{Seq: slot.id, Reused: src.have, Source: Place(b.best()) + RAM, Blob: id}
	c.Release(id)
	a.Ops = c.take()
	return a, nil
}

// Release says that a parked request will not be resumed. What it left can be used by others.
func (c *Cache) Release(id BlobID) {
	if b := c.blobs[id]; b != nil && b.parked != nil {
		b.parked = nil
		if h := b.at[inRAM]; h != nil {
			h.Unlease()
		}
		if b.exact < len(b.tokens) {
			for tier, h := range b.at {
				if h != nil {
					c.forget(b, tier)
				}
			}
		}
	}
}

// Save copies what seq holds to RAM and leaves the sequence as it is; with nothing new to save
// the id is that of the blob that has it. Kinds: ErrNoRoom (the RAM budget), ErrUnknown. Whatever
// the error, nothing has changed.
func (c *Cache) Save(seq Seq) (BlobID, []Op, error) {
	s, err := c.enter("save", seq, Busy, Idle)
	if err != nil {
		return 0, nil, err
	}
	if s.hold == nil || s.exact < len(s.tokens) {
		return 0, nil, fail("save", ErrUnknown, "Seq", "",
			"what sequence %d holds is of use to nobody else", seq)
	}
	if b := c.saved(s); b != nil {
		return b.id, c.take(), nil
	}
	c.refresh()
	b := c.save(s)
	if b == nil {
		return 0, nil, c.noRAM("save")
	}
	return b.id, c.take(), nil
}

// Pin keeps a prefix from being given up to make room: the last state that holds it, in cells if
// there is any, stays, except when a request could never be served otherwise. It need not be held
// yet. Kinds: ErrInvalid, ErrNoRoom (PinsMax, or more
// than half of the cells).
func (c *Cache) Pin(k Key, tokens []Token) error {
	sum := len(tokens)
	for _, h := range c.tree.held[pinned] {
		sum += h.Length()
	}
	switch {
	case len(tokens) == 0 || k.PublicTokens < 0:
		return fail("pin", ErrInvalid, "Tokens", "", "%d tokens", len(tokens))
	case len(c.tree.held[pinned]) >= PinsMax:
		return fail("pin", ErrNoRoom, "", "unpin another", "%d prefixes are pinned", PinsMax)
	case sum > c.cfg.Cells/2:
		return fail("pin", ErrNoRoom, "Tokens", "unpin another",
			"%d pinned tokens, more than half of %d cells", sum, c.cfg.Cells)
	}
	c.tree.Pin(k, tokens)
	return nil
}

// Unpin undoes one Pin. Kinds: ErrUnknown.
func (c *Cache) Unpin(k Key, tokens []Token) error {
	if len(tokens) == 0 || !c.tree.Unpin(k, tokens) {
		return fail("unpin", ErrUnknown, "Tokens", "", "the prefix is not pinned")
	}
	return nil
}
