package kv

import (
	"cmp"
	"maps"
	"slices"
)

// defaults fills in what is 0.
func (c Costs) defaults() Costs {
	set := func(v *float64, to float64) {
		if *v == 0 {
			*v = to
		}
	}
	set(&c.Compute, 1)
	set(&c.Copy, 0.002*c.Compute)
	set(&c.Restore, 0.001*c.Compute)
	set(&c.RestoreDisk, 0.003*c.Compute)
	return c
}

// compute is the cost of the tokens from..to behind those before them.
func (c Costs) compute(from, to int) float64 {
	a, b := float64(from), float64(to)
	return (b-a)*c.Compute + (b*b-a*a)/2*c.ComputePair
}

// setCosts ranks by other costs from now on. What was aged by the old ones stays in proportion.
func (t *Tree) setCosts(c Costs) {
	scale := c.Compute / t.costs.Compute
	for p := range t.age {
		t.age[p] *= scale
		for _, h := range t.held[p] {
			h.base *= scale
		}
	}
	t.costs = c
}

// Touch says that h was used again.
func (t *Tree) Touch(h *Holding) {
	h.uses++
	t.used(h)
	for n := h.node; n != nil; n = n.parent {
		n.hits++
		n.last = t.tick
	}
}

func (t *Tree) used(h *Holding) {
	t.tick++
	h.last, h.base = t.tick, t.age[h.Place]
	h.node.last = t.tick
}

// Covered is how many tokens at the start of h are held at its place by others too.
func (t *Tree) Covered(h *Holding) int { return t.covered(h, h.Place) }

// covered is how many tokens at the start of h others hold at a place.
func (t *Tree) covered(h *Holding, p Place) int {
	n := h.node
	if t.whole[p] {
		for o := n.own; o != nil; o = o.next {
			if o.Place == p && o != h {
				return n.end
			}
		}
		return 0
	}
	self := int32(0)
	if p == h.Place {
		self = 1
	}
	for n.below[p] <= self {
		if n = n.parent; n == nil {
			return 0
		}
	}
	return n.end
}

// Worth ranks h among the holdings of its place; the least goes first. With GDSF
// (Greedy-Dual-Size-Frequency; Cherkasova, HPL-98-69R1) it is the age of the place when h was last
// used, plus uses x cost to compute what only h has / bytes. With LRU it is the last use.
func (t *Tree) Worth(h *Holding) float64 {
	if t.rank == LRU {
		return float64(h.last)
	}
	return t.worth(h, float64(h.Bytes))
}

func (t *Tree) worth(h *Holding, bytes float64) float64 {
	if t.rank == LRU {
		return float64(h.last)
	}
	if (h.Place == Partial || h.Place == partialDisk) && !based(h.node) {
		return -1
	}
	covered := t.Covered(h)
	if covered >= h.Length() {
		return -1 // nothing is lost
	}
	return h.base + h.uses*t.costs.compute(covered, h.Length())/max(1, bytes)
}

// Victim is the holding at p that is worth least and may go: it is not leased, it is not the last
// one of a pinned path, and ok, if not nil, agrees. It is nil when there is none. O(holdings at p).
func (t *Tree) Victim(p Place, ok func(*Holding) bool) *Holding {
	var victim *Holding
	var least float64
	for _, h := range t.held[p] {
		if h.leases > 0 || ok != nil && !ok(h) {
			continue
		}
		worth := t.Worth(h)
		if victim != nil && (worth > least || worth == least && h.last > victim.last) {
			continue
		}
		if !t.Pinned(h) {
			victim, least = h, worth
		}
	}
	return victim
}

// Evicted says that h is about to be released to make room: its place ages by what it was worth.
func (t *Tree) Evicted(h *Holding) {
	if t.rank == GDSF {
		t.age[h.Place] = max(t.age[h.Place], t.Worth(h))
	}
}

// Pin wants a path to stay held; it need not be. Unpin releases it.
func (t *Tree) Pin(k Key, tokens []Token) *Holding { return t.Hold(k, tokens, pinned, 0, 0) }

// Unpin gives back one Pin of the path and says whether there was one.
func (t *Tree) Unpin(k Key, tokens []Token) bool {
	n, depth := t.walk(k, tokens)
	if depth != len(tokens) || n == nil || n.end != depth {
		return false
	}
	for h := n.own; h != nil; h = h.next {
		if h.Place == pinned {
			t.Release(h)
			return true
		}
	}
	return false
}

// Pinned says that h is the last one of a pinned path at the best place that has it.
func (t *Tree) Pinned(h *Holding) bool {
	if len(t.held[pinned]) == 0 || h.Place > Disk {
		return false
	}
	for n := h.node; n != nil; n = n.parent {
		if n.below[pinned] > 0 && n.ownPin() && n.last1(h.Place) {
			return true
		}
	}
	return false
}

// keeper is the largest holding at p that may come to be the last one of a pinned path; nil when
// none has to stay there, because a better place or a leased holding has the path.
func (t *Tree) keeper(pin *Holding, p Place) *Holding {
	if pin.node.better(p) {
		return nil
	}
	var keeper *Holding
	for _, h := range t.held[p] {
		if !pin.node.above(h.node) {
			continue
		}
		if h.leases > 0 {
			return nil
		}
		if keeper == nil || h.Bytes > keeper.Bytes {
			keeper = h
		}
	}
	return keeper
}

func (n *node) ownPin() bool {
	for h := n.own; h != nil; h = h.next {
		if h.Place == pinned {
			return true
		}
	}
	return false
}

// last1 says that n is held once at p and nowhere better.
func (n *node) last1(p Place) bool { return n.below[p] == 1 && !n.better(p) }

// better says that n is held at a better place than p.
func (n *node) better(p Place) bool {
	for place := Live; place < p; place++ {
		if n.below[place] > 0 {
			return true
		}
	}
	return false
}

// NodeInfo describes a stretch of tokens that is held as one.
type NodeInfo struct {
	Key     Key // without PublicTokens
	From    int // position of the first token
	Tokens  []Token
	Held    [places]int // paths that end in it or below, by place
	Hits    uint64
	LastUse uint64
	Cost    float64 // to compute it again
	Depth   int     // nodes above it
}

// Walk visits all nodes, parents first, in an order that depends only on what was done to the
// Tree, until visit says false. The tokens must not be changed or kept.
func (t *Tree) Walk(visit func(NodeInfo) bool) {
	for _, key := range slices.SortedFunc(maps.Keys(t.roots), rootKey.compare) {
		n := t.roots[key]
		k := Key{Model: n.root.model, Adapters: n.root.adapters, Scope: n.root.scope}
		if !t.walkNode(n, k, 0, visit) {
			return
		}
	}
}

func (k rootKey) compare(o rootKey) int {
	return cmp.Or(cmp.Compare(k.model, o.model), cmp.Compare(k.adapters, o.adapters),
		cmp.Compare(k.scope, o.scope))
}

func (t *Tree) walkNode(n *node, k Key, depth int, visit func(NodeInfo) bool) bool {
	if n.isSalt {
		k.Salt = n.salt
	}
	if len(n.edge) > 0 {
		from := n.end - len(n.edge)
		info := NodeInfo{
			Key: k, From: from, Tokens: n.edge, Hits: n.hits, LastUse: n.last, Depth: depth,
			Cost: t.costs.compute(from, n.end),
		}
		for p := range places {
			info.Held[p] = int(n.below[p])
		}
		if !visit(info) {
			return false
		}
		depth++
	}
	for p, first := range n.first {
		for child := first; child != nil; child = child.next[p] {
			if child.firstPlace() == p && !t.walkNode(child, k, depth, visit) {
				return false
			}
		}
	}
	return true
}

// firstPlace is the first place at which something is held below n.
func (n *node) firstPlace() int {
	for p, count := range n.below {
		if count > 0 {
			return p
		}
	}
	return -1
}
