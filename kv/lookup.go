package kv

import "math/bits"

// Found is how much of a path is held at a place.
type Found struct {
	Tokens int
	place  Place
	node   *node
}

// Holding is one that begins with those tokens, the one that came last; nil for none. It must be
// asked before the Tree changes.
func (f Found) Holding() *Holding {
	n := f.node
	for n != nil {
		for h := n.own; h != nil; h = h.next {
			if h.Place == f.place {
				return h
			}
		}
		n = n.first[f.place]
	}
	return nil
}

// Match is what a Tree knows of a path.
type Match struct {
	Tokens int // of the path that anybody holds
	// At is, by place, the longest start of the path that a holding begins with.
	At [places]Found
	// Ends is, by place, the longest holding of which the path itself is a continuation.
	Ends [places]Found
}

// Lookup walks down the path. It changes nothing that others see and does not allocate. O(tokens).
func (t *Tree) Lookup(k Key, tokens []Token) Match {
	m := Match{}
	_, m.Tokens = t.walk(k, tokens)
	for p := range places {
		if n := t.at[p]; n != nil && n.end > 0 {
			m.At[p] = Found{min(m.Tokens, n.end), Place(p), n}
		}
		if n := t.ends[p]; n != nil && n.end > 0 {
			m.Ends[p] = Found{n.end, Place(p), n}
		}
	}
	return m
}

// walk gives the node in which the path leaves the tree and how many tokens are known, and notes
// the nodes on its way.
func (t *Tree) walk(k Key, tokens []Token) (*node, int) {
	t.path = t.path[:0]
	t.depth, t.at, t.ends = 0, [places]*node{}, [places]*node{}
	n := t.roots[rootKey{k.Model, k.Adapters, k.Scope}]
	if n == nil {
		return nil, 0
	}
	t.visit(n, true)
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
		t.visit(n, true)
	}
	n, more := t.walkPlain(n, tokens)
	t.depth = depth + more
	return n, depth + more
}

func (t *Tree) walkPlain(n *node, tokens []Token) (*node, int) {
	at := 0
	for at < len(tokens) {
		next := t.kid(n, tokens[at])
		if next == nil {
			break
		}
		same := common(next.edge, tokens[at:])
		at += same
		n = next
		t.visit(n, same == len(n.edge))
		if same < len(n.edge) {
			break
		}
	}
	return n, at
}

// visit notes a node on the way, all of whose tokens matched if whole is set.
func (t *Tree) visit(n *node, whole bool) {
	t.path = append(t.path, n)
	for has := n.has & (1<<places - 1); has != 0; has &= has - 1 {
		t.at[bits.TrailingZeros8(has)] = n
	}
	if whole {
		for owns := n.owns & (1<<places - 1); owns != 0; owns &= owns - 1 {
			t.ends[bits.TrailingZeros8(owns)] = n
		}
	}
}

// shared is how many tokens of the last lookup's path h begins with. The Tree has not changed.
func (t *Tree) shared(h *Holding) int {
	path := t.path
	for n := h.node; n != nil; n = n.parent {
		for len(path) > 0 && path[len(path)-1].end > n.end {
			path = path[:len(path)-1]
		}
		for i := len(path) - 1; i >= 0 && path[i].end == n.end; i-- {
			if path[i] == n {
				return min(n.end, t.depth)
			}
		}
	}
	return 0
}
