package kv

// call runs a hook. One that panics is not called again.
func call[E any](hook *func(E), e E) {
	if *hook == nil {
		return
	}
	defer func() {
		if recover() != nil {
			*hook = nil
		}
	}()
	(*hook)(e)
}

// SetCosts decides by other costs from now on, such as measured ones; what is 0 has the proportions
// of the defaults. O(sequences and blobs). Kinds: ErrInvalid, and nothing has changed.
func (c *Cache) SetCosts(costs Costs) error {
	if err := costs.validate("set costs"); err != nil {
		return err
	}
	c.cfg.Costs = costs.defaults()
	c.tree.setCosts(c.cfg.Costs)
	return nil
}

// Costs are those that the Cache decides by, with what was 0 filled in.
func (c *Cache) Costs() Costs { return c.cfg.Costs }

// Length is how many tokens seq holds.
func (c *Cache) Length(seq Seq) int { return len(c.Tokens(seq)) }

// Tokens are what seq holds, in order of position. The slice is valid until the next call.
func (c *Cache) Tokens(seq Seq) []Token {
	s, err := c.sequence("tokens", seq, Busy, Idle)
	if err != nil {
		return nil
	}
	return s.tokens
}

// Sequence describes seq.
func (c *Cache) Sequence(seq Seq) SeqInfo {
	s, err := c.sequence("sequence", seq, Free, Busy, Idle)
	if err != nil {
		return SeqInfo{Seq: NoSeq}
	}
	n := len(s.tokens)
	info := SeqInfo{
		Seq: s.id, State: s.state, Length: n, Exact: s.exact, Cells: n - c.cells.shared(s, 0),
		Limit: s.limit, Most: s.most,
	}
	if s.hold != nil {
		info.Hits, info.LastUse = int(s.hold.uses)-1, s.hold.last
		info.Pinned = c.tree.Pinned(s.hold)
	}
	return info
}

// Stats gives the books. It walks all sequences and blobs, not the tree.
func (c *Cache) Stats() Stats {
	st := Stats{
		Cells: c.cells.used, CellsPromised: c.promised, CellsTotal: c.cfg.Cells,
		Nodes: c.tree.Nodes(),
	}
	if c.cfg.Layout == Streams {
		st.CellsTotal *= c.cfg.Sequences
	}
	c.cells.begin()
	for _, s := range c.seqs {
		st.Sequences[s.state]++
		if s.state == Busy {
			st.CellsBusy += c.cells.count(s, len(s.tokens))
		}
	}
	for tier, to := range []*TierStats{&st.RAM, &st.Disk} {
		to.Bytes, to.Budget = c.budget(tier)
		whole, partial := Place(tier)+RAM, [...]Place{Partial, partialDisk}[tier]
		to.Checkpoints = len(c.tree.held[partial])
		to.Blobs = len(c.tree.held[whole]) + to.Checkpoints
	}
	return st
}

// Walk visits the nodes of the tree, parents first, until visit says false. The tokens must not be
// changed or kept, and the Cache must not be called meanwhile.
func (c *Cache) Walk(visit func(NodeInfo) bool) { c.tree.Walk(visit) }
