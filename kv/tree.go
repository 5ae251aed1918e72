package kv

// Places that only the books have.
const (
	pinned      = Nowhere + iota // a path that is wanted, not held
	partialDisk                  // a checkpoint in a file; Partial is one in memory
	kinds       = int(partialDisk) + 1
)

// Tree is a radix tree over token ids: it knows which paths are held where. Each model, adapter
// set and scope has a root of its own, and each salt a root below the end of its public prefix. A
// node stands for the tokens of its edge behind those of its parents; it exists as long as a
// Holding ends in it or below. A Tree is used by one goroutine.
type Tree struct {
	rank   Rank
	costs  Costs
	whole  [kinds]bool // paths there cannot be cut: a longer one does not cover its start
	roots  map[rootKey]*node
	child  map[uint64]*node // by parent and first token, what a node has beyond kidsMax
	salts  map[saltKey]*node
	free   []uint32 // ids of nodes that are gone
	nextID uint32
	nodes  int
	tick   uint64
	depth  int           // tokens that the last lookup matched
	path   []*node       // its way
	at     [places]*node // the last node on its way with a holding in it or below
	ends   [places]*node // the last one in which a holding ends
	held   [kinds][]*Holding
	bytes  [kinds]int64
	age    [kinds]float64
}

type rootKey struct{ model, adapters, scope string }

type saltKey struct {
	parent uint32
	salt   string
}

// kidsMax is how many children a node keeps beside it. What a lookup reads comes first.
const kidsMax = 2

// node is a stretch of tokens. Its lists of children by place are of those with a holding there.
// What a lookup reads comes first, within 64 bytes.
type node struct {
	edge   []Token
	kids   [kidsMax]*node
	firsts [kidsMax]Token // their first tokens
	id     uint32
	more   int32 // children in Tree.child
	has    uint8 // places of the holdings in it and below, as bits
	owns   uint8 // places of its own
	isSalt bool  // the root of a salt's space; its edge is empty
	salted bool  // in such a space

	end    int          // tokens from the root
	below  [kinds]int32 // holdings in it and below, by place
	parent *node
	first  [kinds]*node // child lists
	next   [kinds]*node
	prev   [kinds]*node
	own    *Holding // list
	hits   uint64
	last   uint64
	salt   string
	root   *rootKey // of a root
}

// Holding is a path that is held at a place, by whatever ID names there.
type Holding struct {
	ID    uint64
	Place Place
	Bytes int64 // what it takes there

	key    Key
	node   *node
	leases int
	uses   float64
	base   float64 // the age of its place when it was last used
	last   uint64
	next   *Holding // of the node
	index  int      // in Tree.held
}

// Length is how many tokens the path has.
func (h *Holding) Length() int { return h.node.end }

// Lease keeps h from being a victim until Unlease was called as often.
func (h *Holding) Lease() { h.leases++ }

// Unlease ends a Lease.
func (h *Holding) Unlease() { h.leases = max(0, h.leases-1) }

// NewTree starts empty. The costs say what a token is worth when victims are ranked.
func NewTree(rank Rank, costs Costs) *Tree {
	return &Tree{
		rank: rank, costs: costs.defaults(),
		roots: map[rootKey]*node{}, child: map[uint64]*node{}, salts: map[saltKey]*node{},
	}
}

// Nodes is how many nodes there are.
func (t *Tree) Nodes() int { return t.nodes }

// Hold enters a path. The tokens are copied.
func (t *Tree) Hold(k Key, tokens []Token, p Place, id uint64, bytes int64) *Holding {
	h := &Holding{ID: id, Place: p, Bytes: bytes, key: k, uses: 1, index: len(t.held[p])}
	t.held[p] = append(t.held[p], h)
	t.bytes[p] += bytes
	t.attach(h, t.insert(t.root(k), k, tokens))
	t.used(h)
	return h
}

// Release takes a path out.
func (t *Tree) Release(h *Holding) {
	list := t.held[h.Place]
	last := list[len(list)-1]
	list[h.index], last.index = last, h.index
	list[len(list)-1] = nil
	t.held[h.Place] = list[:len(list)-1]
	t.bytes[h.Place] -= h.Bytes
	n := h.node
	t.detach(h)
	t.prune(n)
}

// Resize sets what h takes at its place.
func (t *Tree) Resize(h *Holding, bytes int64) {
	t.bytes[h.Place] += bytes - h.Bytes
	h.Bytes = bytes
}

// Extend makes a path longer. The tokens are copied.
func (t *Tree) Extend(h *Holding, tokens []Token) {
	n := h.node
	if t.mayGrow(n, h, len(tokens)) {
		n.edge = append(n.edge, tokens...)
		n.end += len(tokens)
		return
	}
	to := t.insert(n, h.key, tokens)
	t.detach(h)
	t.attach(h, to)
	t.prune(n)
}

// mayGrow says that h alone is in n, and nothing is below it.
func (t *Tree) mayGrow(n *node, h *Holding, tokens int) bool {
	if n.isSalt || n.parent == nil || n.own != h || h.next != nil || h.key.splits(n, tokens) {
		return false
	}
	total := int32(0)
	for _, count := range n.below {
		total += count
	}
	return total == 1
}

// splits says that a path from n on, so many tokens long, goes on in its salt's space.
func (k *Key) splits(n *node, tokens int) bool {
	return k.Salt != "" && !n.salted && n.end+tokens > k.PublicTokens
}

// Cut makes a path shorter.
func (t *Tree) Cut(h *Holding, length int) {
	n := h.node
	if length >= n.end {
		return
	}
	to := n
	for to.parent != nil && to.end-len(to.edge) >= length {
		to = to.parent
	}
	if length < to.end {
		to = t.split(to, length-(to.end-len(to.edge)))
	}
	t.detach(h)
	t.attach(h, to)
	t.prune(n)
}

func (t *Tree) root(k Key) *node {
	key := rootKey{k.Model, k.Adapters, k.Scope}
	n := t.roots[key]
	if n == nil {
		n = t.newNode(nil, nil)
		n.root = &key
		t.roots[key] = n
	}
	return n
}

func (t *Tree) newNode(parent *node, edge []Token) *node {
	n := &node{parent: parent, edge: edge}
	if last := len(t.free) - 1; last >= 0 {
		n.id = t.free[last]
		t.free = t.free[:last]
	} else {
		n.id = t.nextID
		t.nextID++
	}
	if parent != nil {
		n.end, n.salted = parent.end+len(edge), parent.salted
	}
	t.nodes++
	return n
}

func childKey(parent *node, first Token) uint64 {
	return uint64(parent.id)<<32 | uint64(uint32(first))
}

// kid gives the child of n that begins with a token.
func (t *Tree) kid(n *node, first Token) *node {
	for i := range n.kids {
		if n.firsts[i] == first && n.kids[i] != nil {
			return n.kids[i]
		}
	}
	if n.more == 0 {
		return nil
	}
	return t.child[childKey(n, first)]
}

// setKid enters, replaces or, with nil, takes out the child of n that begins with a token.
func (t *Tree) setKid(n *node, first Token, kid *node) {
	at := -1
	for i := range n.kids {
		switch {
		case n.kids[i] == nil:
			at = i
		case n.firsts[i] == first:
			n.kids[i] = kid
			return
		}
	}
	if n.more > 0 {
		key := childKey(n, first)
		if _, there := t.child[key]; there && kid != nil {
			t.child[key] = kid
			return
		} else if there {
			delete(t.child, key)
			n.more--
			return
		}
	}
	switch {
	case kid == nil:
	case at >= 0:
		n.firsts[at], n.kids[at] = first, kid
	default:
		t.child[childKey(n, first)] = kid
		n.more++
	}
}

// insert gives the node that ends the tokens behind n, which ends at a node.
func (t *Tree) insert(n *node, k Key, tokens []Token) *node {
	if k.splits(n, len(tokens)) {
		public := max(0, k.PublicTokens-n.end)
		n = t.insertPlain(n, tokens[:public])
		key := saltKey{n.id, k.Salt}
		below := t.salts[key]
		if below == nil {
			below = t.newNode(n, nil)
			below.salted, below.isSalt, below.salt = true, true, k.Salt
			t.salts[key] = below
		}
		n, tokens = below, tokens[public:]
	}
	return t.insertPlain(n, tokens)
}

func (t *Tree) insertPlain(n *node, tokens []Token) *node {
	for len(tokens) > 0 {
		next := t.kid(n, tokens[0])
		if next == nil {
			next = t.newNode(n, append([]Token(nil), tokens...))
			t.setKid(n, tokens[0], next)
			return next
		}
		same := common(next.edge, tokens)
		if same < len(next.edge) {
			next = t.split(next, same)
		}
		n, tokens = next, tokens[same:]
	}
	return n
}

// split puts a new node in front of n that takes the first tokens of its edge. Both edges go on
// lying in one array: a node is appended to only while nothing is below it, and then what lies
// behind its edge belongs to nobody.
func (t *Tree) split(n *node, tokens int) *node {
	up := t.newNode(n.parent, n.edge[:tokens])
	up.hits, up.last = n.hits, n.last
	t.replace(n, up)
	up.below, up.has = n.below, n.has
	n.edge, n.parent = n.edge[tokens:], up
	t.setKid(up, n.edge[0], n)
	for p := range n.below {
		n.next[p], n.prev[p] = nil, nil
		if n.below[p] > 0 {
			up.first[p] = n
		}
	}
	return up
}

// replace puts by where n is among the children of its parent. Both begin with the same token.
func (t *Tree) replace(n, by *node) {
	t.setKid(n.parent, n.edge[0], by)
	for p := range n.below {
		by.next[p], by.prev[p] = n.next[p], n.prev[p]
		if n.next[p] != nil {
			n.next[p].prev[p] = by
		}
		if n.prev[p] != nil {
			n.prev[p].next[p] = by
		} else if n.below[p] > 0 {
			n.parent.first[p] = by
		}
	}
}

func (t *Tree) attach(h *Holding, n *node) {
	h.node, h.next, n.own = n, n.own, h
	p := h.Place
	n.owns |= 1 << p
	for ; n != nil; n = n.parent {
		n.below[p]++
		n.has |= 1 << p
		if up := n.parent; n.below[p] == 1 && up != nil {
			n.next[p], n.prev[p] = up.first[p], nil
			if up.first[p] != nil {
				up.first[p].prev[p] = n
			}
			up.first[p] = n
		}
	}
}

// detach leaves the nodes in place.
func (t *Tree) detach(h *Holding) {
	n := h.node
	at := &n.own
	for *at != h {
		at = &(*at).next
	}
	*at, h.next, h.node = h.next, nil, nil
	p := h.Place
	n.owns = 0
	for o := n.own; o != nil; o = o.next {
		n.owns |= 1 << o.Place
	}
	for ; n != nil; n = n.parent {
		n.below[p]--
		if n.below[p] > 0 {
			continue
		}
		n.has &^= 1 << p
		if up := n.parent; up != nil {
			if n.prev[p] != nil {
				n.prev[p].next[p] = n.next[p]
			} else {
				up.first[p] = n.next[p]
			}
			if n.next[p] != nil {
				n.next[p].prev[p] = n.prev[p]
			}
			n.next[p], n.prev[p] = nil, nil
		}
	}
}

// prune takes out n and its parents as far as nothing is held there, and joins a node that only
// leads to one child with it.
func (t *Tree) prune(n *node) {
	for n != nil && n.empty() {
		up := n.parent
		switch {
		case up == nil:
			delete(t.roots, *n.root)
		case n.isSalt:
			delete(t.salts, saltKey{up.id, n.salt})
		default:
			t.setKid(up, n.edge[0], nil)
		}
		t.drop(n)
		n = up
	}
	if n != nil && n.parent != nil && !n.isSalt && n.own == nil {
		if only := n.onlyChild(); only != nil && !only.isSalt {
			t.join(n, only)
		}
	}
}

func (t *Tree) drop(n *node) {
	t.free = append(t.free, n.id)
	t.nodes--
}

func (n *node) empty() bool {
	return n.below == [kinds]int32{}
}

// onlyChild gives the one child of n, nil when there are several.
func (n *node) onlyChild() *node {
	var only *node
	for _, first := range n.first {
		switch {
		case first == nil:
		case only == nil && first.below == n.below:
			only = first
		case first != only:
			return nil
		}
	}
	return only
}

// join puts the edge of n in front of that of its only child and takes n out.
func (t *Tree) join(n, only *node) {
	t.setKid(n, only.edge[0], nil) // n is gone, but what Tree.child has of it must be, too
	t.replace(n, only)
	only.edge = append(n.edge, only.edge...)
	only.parent = n.parent
	only.hits = max(only.hits, n.hits)
	t.drop(n)
}

// common is how many tokens at the start of a and b are equal.
func common(a, b []Token) int {
	const long, short = 64, 8 // compared at once
	n := min(len(a), len(b))
	i := 0
	for i+long <= n && *(*[long]Token)(a[i:]) == *(*[long]Token)(b[i:]) {
		i += long
	}
	for i+short <= n && *(*[short]Token)(a[i:]) == *(*[short]Token)(b[i:]) {
		i += short
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
