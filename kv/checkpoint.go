package kv

import "slices"

// needsCheckpoints says that a state of this model cannot be cut anywhere.
func (c *Cache) needsCheckpoints() bool {
	return c.cfg.RAMBytes > 0 && (c.cfg.Recurrent || c.cfg.Window > 0)
}

// marks gives the lengths at which checkpoints of a prompt are taken: where the request says that
// others may branch off, at the end of the system prompt, every so often, and before the last
// token, so that the same prompt can come again.
func (c *Cache) marks(r *Request, reused int) []int {
	if !c.needsCheckpoints() {
		return nil
	}
	n := len(r.Tokens)
	marks := append([]int{r.System, n - 1}, r.Marks...)
	if every := c.cfg.CheckpointEvery; every > 0 {
		for at := every; at < n; at += every {
			marks = append(marks, at)
		}
	}
	slices.Sort(marks)
	marks = slices.Compact(slices.DeleteFunc(marks, func(at int) bool {
		return at <= reused || at >= n
	}))
	return marks[max(0, len(marks)-CheckpointsMax):]
}

// NextCheckpoint is the length of seq at which the executor should end a chunk of the prompt and
// call Checkpoint; 0 for none.
func (c *Cache) NextCheckpoint(seq Seq) int {
	s, err := c.sequence("checkpoint", seq, Busy)
	if err != nil {
		return 0
	}
	for _, at := range s.marks {
		if at > len(s.tokens) {
			return at
		}
	}
	return 0
}

// Checkpoint plans a checkpoint of seq as it is now; nil where it is no use or there is no room.
func (c *Cache) Checkpoint(seq Seq) []Op {
	s, err := c.enter("checkpoint", seq, Busy)
	if err != nil || !c.needsCheckpoints() || s.hold == nil || s.exact < len(s.tokens) {
		return c.take()
	}
	for o := s.hold.node.own; o != nil; o = o.next {
		if o.Place == Partial || o.Place == partialDisk {
			return c.take()
		}
	}
	if c.refresh(); c.makeRoom(inRAM, c.cfg.CheckpointBytes) {
		b := c.newBlob(s, slices.Clone(s.tokens), true, c.cfg.CheckpointBytes)
		c.plan(Op{
			Kind: Checkpoint, Seq: s.id, P1: Pos(len(s.tokens)), Blob: b.id, Place: RAM, Partial: true,
		})
	}
	return c.take()
}

// Truncate keeps the first n tokens of seq: for drafts that were rejected and steps that failed.
// n may be the present length; then what the context may hold beyond it is removed. Where the cut
// is not exact, more is cut and Plan.Again says what. Kinds: ErrUnknown, ErrInvalid.
func (c *Cache) Truncate(seq Seq, n int) (Plan, error) {
	s, err := c.enter("truncate", seq, Busy)
	if err != nil {
		return Plan{}, err
	}
	if n < 0 || n > len(s.tokens) {
		return Plan{}, fail("truncate", ErrInvalid, "n", "", "%d of %d tokens", n, len(s.tokens))
	}
	if n == len(s.tokens) {
		c.plan(Op{Kind: SeqRemove, Seq: s.id, P0: Pos(n), P1: End})
		return Plan{Ops: c.take(), Length: n}, nil
	}
	c.refresh()
	length, check := c.cutLive(s, n)
	again := slices.Clone(s.tokens[length:n])
	c.cutTo(s, length, check)
	return Plan{Ops: c.take(), Length: length, Again: again}, nil
}

// cutLive is cut for what s holds itself, also behind what a policy has changed.
func (c *Cache) cutLive(s *sequence, n int) (int, *blob) {
	if !c.cfg.Recurrent && (c.cfg.Window == 0 || s.low <= max(0, n-c.cfg.Window)) {
		return n, nil
	}
	if s.hold == nil {
		return 0, nil
	}
	return c.cut(s.hold, len(s.tokens), s.low, min(n, s.exact), 1)
}
