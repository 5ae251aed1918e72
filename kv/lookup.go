package kv

// Found is how much of a path is held at a place, and by whom. Holding is nil for none.
type Found struct {
	Tokens  int
	Holding *Holding
}

// Match is what a Tree knows of a path.
type Match struct {
	Tokens int // of the path that anybody holds
	// At is, by place, the longest start of the path that a holding begins with, and one of those
	// that do, the one that came there last.
	At [places]Found
	// Ends is, by place, the longest holding of which the path itself is a continuation.
	Ends [places]Found
}

// Lookup walks down the path. It changes nothing and does not allocate. O(tokens).
func (t *Tree) Lookup(k Key, tokens []Token) Match {
	m := Match{}
	n, depth := t.walk(k, tokens)
	m.Tokens = depth
	if n == nil {
		return m
	}
	for p := range places {
		at := n
		for at != nil && at.below[p] == 0 {
			at = at.parent
		}
		if at != nil {
			if h := at.any(p); h != nil && min(depth, at.end) > 0 {
				m.At[p] = Found{min(depth, at.end), h}
			}
			m.Ends[p] = at.ends(Place(p), depth)
		}
	}
	return m
}

// walk gives the node in which the path leaves the tree and how many tokens are known, and marks
// the nodes on its way until the next walk.
func (t *Tree) walk(k Key, tokens []Token) (*node, int) {
	t.stamp++
	t.depth = 0
	n := t.roots[rootKey{k.Model, k.Adapters, k.Scope}]
	if n == nil {
		return nil, 0
	}
	n.mark = t.stamp
	depth := 0
	if k.Salt != "" && k.PublicTokens < len(tokens) {
		public := max(0, k.PublicTokens)
		n, depth = t.walkPlain(n, tokens[:public])
		below := t.salts[saltKey{n.id, k.Salt}]
		if depth < public || depth < n.end || below == nil {
			t.depth = depth
			return n, depth
		}
		n, tokens = below, tokens[public:]
		n.mark = t.stamp
	}
	n, more := t.walkPlain(n, tokens)
	t.depth = depth + more
	return n, depth + more
}

func (t *Tree) walkPlain(n *node, tokens []Token) (*node, int) {
	at := 0
	for at < len(tokens) {
		next := t.child[childKey(n, tokens[at])]
		if next == nil {
			break
		}
		next.mark = t.stamp
		same := common(next.edge, tokens[at:])
		at += same
		n = next
		if same < len(next.edge) {
			break
		}
	}
	return n, at
}

// any gives a holding in n or below, the one that came last to each place.
func (n *node) any(p int) *Holding {
	for {
		for h := n.own; h != nil; h = h.next {
			if int(h.Place) == p {
				return h
			}
		}
		if n.first[p] == nil {
			return nil
		}
		n = n.first[p]
	}
}

// ends gives the deepest holding at p that ends in n or above, at most at depth.
func (n *node) ends(p Place, depth int) Found {
	for ; n != nil && n.end > 0; n = n.parent {
		if n.end > depth || n.below[p] == 0 {
			continue
		}
		for h := n.own; h != nil; h = h.next {
			if h.Place == p {
				return Found{n.end, h}
			}
		}
	}
	return Found{}
}

// shared is how many tokens of the last lookup's path h begins with.
func (t *Tree) shared(h *Holding) int {
	n := h.node
	for n != nil && n.mark != t.stamp {
		n = n.parent
	}
	if n == nil {
		return 0
	}
	return min(n.end, t.depth)
}
