package kv

import (
	"fmt"
	"slices"
)

// Check compares the books of a Cache with each other.
func (c *Cache) Check() error {
	promised, refs := 0, map[*run]int{}
	for _, s := range c.seqs {
		promised += s.room()
		sum := 0
		for _, r := range s.runs {
			sum += r.cells
			refs[r]++
		}
		if sum != len(s.tokens) {
			return fmt.Errorf("sequence %d: runs of %d cells, %d tokens", s.id, sum, len(s.tokens))
		}
		if err := c.checkSequence(s); err != nil {
			return fmt.Errorf("sequence %d: %w", s.id, err)
		}
	}
	used := 0
	for r, n := range refs {
		used += r.cells
		if r.refs != n || r.cells <= 0 {
			return fmt.Errorf("a run of %d cells with %d references, %d found", r.cells, r.refs, n)
		}
	}
	switch {
	case promised != c.promised:
		return fmt.Errorf("promised %d, the sum is %d", c.promised, promised)
	case used != c.cells.used:
		return fmt.Errorf("used %d, the sum is %d", c.cells.used, used)
	case c.cfg.Layout == Shared && used+promised > c.cfg.Cells:
		return fmt.Errorf("used %d and promised %d of %d", used, promised, c.cfg.Cells)
	case len(c.ops) > 0 && slices.ContainsFunc(c.ops, func(o Op) bool { return o.Kind != Forget }):
		return fmt.Errorf("operations were left: %+v", c.ops)
	}
	for tier := range 2 {
		if n, most := c.budget(tier); n > most {
			return fmt.Errorf("tier %d: %d bytes of %d", tier, n, most)
		}
	}
	return c.tree.Check()
}

func (c *Cache) checkSequence(s *sequence) error {
	switch {
	case s.state == Free && (len(s.tokens) > 0 || s.hold != nil):
		return fmt.Errorf("free with %d tokens", len(s.tokens))
	case s.exact > len(s.tokens) || (s.hold == nil) != (s.exact == 0):
		return fmt.Errorf("%d of %d tokens exact", s.exact, len(s.tokens))
	case s.hold == nil:
		return nil
	case s.hold.key != s.key || s.hold.Place != Live || s.hold.ID != uint64(s.id):
		return fmt.Errorf("key %+v in the tree, not %+v", s.hold.key, s.key)
	case (s.hold.leases > 0) != (s.state == Busy):
		return fmt.Errorf("%d leases, %v", s.hold.leases, s.state)
	case !slices.Equal(s.hold.Path(), s.tokens[:s.exact]):
		return fmt.Errorf("another path")
	}
	return nil
}

// Path gives the tokens of a holding.
func (h *Holding) Path() []Token {
	var edges [][]Token
	for n := h.node; n != nil; n = n.parent {
		edges = append(edges, n.edge)
	}
	slices.Reverse(edges)
	return slices.Concat(edges...)
}

// Check walks the whole tree.
func (t *Tree) Check() error {
	seen, inMap := 0, 0
	below := map[*node][kinds]int32{}
	for p, list := range t.held {
		bytes := int64(0)
		for i, h := range list {
			bytes += h.Bytes
			if h.index != i || int(h.Place) != p || h.leases < 0 {
				return fmt.Errorf("holding %d at %d: %+v", i, p, h)
			}
			if !slices.Contains(slices.Collect(h.node.holdings()), h) {
				return fmt.Errorf("holding %d at %d is not in its node", i, p)
			}
			for n := h.node; n != nil; n = n.parent {
				b := below[n]
				b[p]++
				below[n] = b
			}
		}
		if bytes != t.bytes[p] {
			return fmt.Errorf("%d bytes at %d, the sum is %d", t.bytes[p], p, bytes)
		}
	}
	for n, b := range below {
		seen++
		if n.parent != nil && !n.isSalt {
			if t.kid(n.parent, n.edge[0]) != n {
				return fmt.Errorf("node %d is not a child", n.id)
			}
			if !slices.Contains(n.parent.kids[:], n) {
				inMap++
			}
		}
		if err := t.checkNode(n, b); err != nil {
			return fmt.Errorf("node %d: %w", n.id, err)
		}
	}
	if seen != t.nodes || inMap != len(t.child) || len(t.free)+t.nodes != int(t.nextID) {
		return fmt.Errorf("%d nodes, %d found; %d children, %d found",
			t.nodes, seen, len(t.child), inMap)
	}
	return nil
}

func (n *node) holdings() func(func(*Holding) bool) {
	return func(yield func(*Holding) bool) {
		for h := n.own; h != nil && yield(h); h = h.next {
			continue
		}
	}
}

func (t *Tree) checkNode(n *node, below [kinds]int32) error {
	owns, has, more := uint8(0), uint8(0), int32(0)
	for p, count := range below {
		if count > 0 {
			has |= 1 << p
		}
	}
	for h := range n.holdings() {
		owns |= 1 << h.Place
	}
	for key := range t.child {
		if key>>32 == uint64(n.id) {
			more++
		}
	}
	if n.owns != owns || n.has != has || n.more != more {
		return fmt.Errorf("owns %b, found %b; has %b, found %b; %d more children, found %d",
			n.owns, owns, n.has, has, n.more, more)
	}
	if n.below != below {
		return fmt.Errorf("below %v, found %v", n.below, below)
	}
	if n.parent != nil {
		if n.end != n.parent.end+len(n.edge) || n.salted != (n.isSalt || n.parent.salted) {
			return fmt.Errorf("ends at %d, its parent at %d", n.end, n.parent.end)
		}
		if n.isSalt != (len(n.edge) == 0) || n.isSalt && t.salts[saltKey{n.parent.id, n.salt}] != n {
			return fmt.Errorf("an edge of %d tokens", len(n.edge))
		}
	}
	kids := map[*node]bool{}
	for p, first := range n.first {
		sum := int32(0)
		for h := range n.holdings() {
			if int(h.Place) == p {
				sum++
			}
		}
		var prev *node
		for k := first; k != nil; prev, k = k, k.next[p] {
			kids[k] = true
			sum += k.below[p]
			if k.prev[p] != prev || k.parent != n || k.below[p] == 0 {
				return fmt.Errorf("child %d in list %d", k.id, p)
			}
		}
		if sum != below[p] {
			return fmt.Errorf("list %d has %d, not %d", p, sum, below[p])
		}
	}
	if len(kids) == 1 && n.own == nil && n.parent != nil && !n.isSalt {
		for k := range kids {
			if !k.isSalt {
				return fmt.Errorf("could be joined with %d", k.id)
			}
		}
	}
	return nil
}

// Key gives the key of what a sequence holds.
func (c *Cache) Key(seq Seq) Key { return c.seqs[seq].key }

// CheckSpans is what the Cache asks of a policy's answer.
func CheckSpans(v View, spans []Span) error { return checkSpans(v, spans) }

// Pending gives what would come with the next answer.
func (c *Cache) Pending() []Op { return c.take() }
