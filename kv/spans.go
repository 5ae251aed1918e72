package kv

import (
	"cmp"
	"slices"
)

// giveUp plans that spans go and what follows moves up, with room for n more tokens.
func (c *Cache) giveUp(s *sequence, n int, spans []Span) (Plan, error) {
	c.refresh()
	c.findKeepers()
	first, gone, freed := int(spans[0].P0), 0, 0
	for _, span := range spans {
		tokens := int(span.P1 - span.P0)
		gone += tokens
		freed += tokens - c.cells.shared(s, int(span.P0)) + c.cells.shared(s, int(span.P1))
	}
	shared := c.sharedTail(s, int(spans[0].P1))
	if shared > 0 {
		freed = gone
	}
	more := max(shared, shared-freed+n-s.room())
	if !c.canMake(more) {
		return Plan{}, c.noCells("reserve", more)
	}
	c.makeCells(more, nil)
	if shared > 0 {
		c.unshare(s)
	}
	limit := s.limit
	c.keepSpans(s, first, complement(spans, len(s.tokens)))
	c.gaveUp(s, spans, gone)
	c.setLimit(s, max(limit, len(s.tokens)+n))
	return Plan{Ops: c.take(), Length: len(s.tokens), Dropped: gone}, nil
}

// setLimit promises s so many cells in all, as far as they are there.
func (c *Cache) setLimit(s *sequence, limit int) {
	c.promised -= s.room()
	s.limit = limit
	c.promised += s.room()
	c.fit(s)
}

// gaveUp books what a policy has given up.
func (c *Cache) gaveUp(s *sequence, spans []Span, gone int) {
	prompt, system := s.left, s.system
	for _, span := range spans {
		s.left -= max(0, min(prompt, int(span.P1))-int(span.P0))
		s.system -= max(0, min(system, int(span.P1))-int(span.P0))
	}
	s.marks = nil
	call(&c.cfg.Hooks.Evict, EvictEvent{
		Place: Live, Seq: s.id, Tokens: gone, Bytes: int64(gone) * c.cfg.CellBytes, Policy: true,
	})
}

// giveUpAndRecompute plans that spans go and what follows is computed again.
func (c *Cache) giveUpAndRecompute(s *sequence, n int, spans []Span) (Plan, error) {
	c.refresh()
	gone := 0
	kept := slices.Clone(s.tokens)
	for _, span := range slices.Backward(spans) {
		kept = slices.Delete(kept, int(span.P0), int(span.P1))
		gone += int(span.P1 - span.P0)
	}
	length, check := 0, (*blob)(nil)
	if want := min(int(spans[0].P0), s.exact); s.hold != nil {
		length, check = c.cut(s.hold, len(s.tokens), s.low, want, 1)
	}
	c.cutTo(s, length, check)
	c.gaveUp(s, spans, gone)
	return Plan{
		Ops: c.take(), Length: length, Again: kept[length:], Dropped: gone,
	}, nil
}

// complement gives what lies behind the first span and in no other.
func complement(spans []Span, length int) []Span {
	var kept []Span
	for i, span := range spans {
		next := Pos(length)
		if i+1 < len(spans) {
			next = spans[i+1].P0
		}
		if span.P1 < next {
			kept = append(kept, Span{span.P1, next})
		}
	}
	return kept
}

// sharedTail is how many cells s needs to have all its own; 0 if what lies behind a position, and
// is to move, is its own already.
func (c *Cache) sharedTail(s *sequence, pos int) int {
	if c.cells.shared(s, pos) == 0 {
		return 0
	}
	return c.cells.shared(s, 0)
}

// unshare plans that s gets cells that no other sequence has, through a saved state that is not
// kept.
func (c *Cache) unshare(s *sequence) {
	n := len(s.tokens)
	c.lastBlob++
	id := c.lastBlob
	c.plan(Op{Kind: Save, Seq: s.id, P1: Pos(n), Blob: id, Place: RAM})
	c.plan(Op{Kind: SeqRemove, Seq: s.id, P1: End})
	c.plan(Op{Kind: Restore, Seq: s.id, P1: Pos(n), Blob: id, Place: RAM})
	c.plan(Op{Kind: Forget, Seq: NoSeq, Blob: id, Place: RAM})
	c.cells.own(s)
	s.low = max(s.low, c.lowOf(n))
}

// keepSpans plans that of what lies behind the first tokens of s only the kept spans stay, one
// after the other in their order. None of them is shared.
func (c *Cache) keepSpans(s *sequence, first int, kept []Span) {
	sorted := slices.Clone(kept)
	slices.SortFunc(sorted, func(a, b Span) int { return cmp.Compare(a.P0, b.P0) })
	last := Pos(first)
	for _, span := range sorted {
		if span.P0 > last {
			c.plan(Op{Kind: SeqRemove, Seq: s.id, P0: last, P1: span.P0})
		}
		last = span.P1
	}
	end := Pos(len(s.tokens))
	if last < end {
		c.plan(Op{Kind: SeqRemove, Seq: s.id, P0: last, P1: End})
	}
	moved := slices.Equal(sorted, kept)
	c.move(s, Pos(first), end, kept, moved)
	c.bookSpans(s, first, sorted, kept)
}

// move plans the shifts. Spans that stay in their order move up one by one. Others are first put
// behind everything, so that no two tokens have one position.
func (c *Cache) move(s *sequence, to, end Pos, kept []Span, ordered bool) {
	var back []Op
	for _, span := range kept {
		n := span.P1 - span.P0
		op := Op{Kind: Shift, Seq: s.id, P0: span.P0, P1: span.P1, Delta: to - span.P0}
		if op.Delta != 0 {
			if !ordered {
				op.Delta += end
				back = append(back,
					Op{Kind: Shift, Seq: s.id, P0: to + end, P1: to + end + n, Delta: -end})
			}
			c.plan(op)
		}
		to += n
	}
	c.ops = append(c.ops, back...)
}

// bookSpans books what keepSpans planned.
func (c *Cache) bookSpans(s *sequence, first int, sorted, kept []Span) {
	tokens := s.tokens[:first:first]
	for _, span := range kept {
		tokens = append(tokens, s.tokens[span.P0:span.P1]...)
	}
	c.promised -= s.room()
	last := len(s.tokens)
	for _, span := range slices.Backward(sorted) {
		c.cells.remove(s, int(span.P1), last)
		last = int(span.P0)
	}
	c.cells.remove(s, first, last)
	s.tokens = tokens
	c.promised += s.room()
	c.setExact(s, min(s.exact, first))
	c.pass(s)
}
