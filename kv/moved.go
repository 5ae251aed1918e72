package kv

import (
	"fmt"
	"slices"
)

// findMoved asks the request's Reuser what idle sequences of its own space could serve elsewhere.
func (c *Cache) findMoved(r *Request, want int) error {
	if r.Policy.Reuse == nil || !c.canShift() {
		return nil
	}
	for _, s := range c.seqs {
		if s.state != Idle || s.low > 0 || !s.key.same(r.Key) {
			continue
		}
		prefix := 0
		if s.hold != nil {
			prefix = c.tree.shared(s.hold)
		}
		if prefix < s.keep {
			continue
		}
		v := ReuseView{Held: slices.Clone(s.tokens), Prompt: r.Tokens[:want:want], Prefix: prefix}
		var spans []Span
		err := contain("begin", "Policy.Reuse", func() (err error) {
			spans, err = r.Policy.Reuse.Reuse(v)
			return err
		})
		if err != nil {
			return err
		}
		spans = slices.Clone(spans)
		moved, err := checkMoves(s.tokens, r.Tokens[prefix:want], prefix, spans)
		if err != nil {
			return fail("begin", ErrPolicy, "Policy.Reuse", "", "%w", err)
		}
		if moved > 0 {
			c.sources = append(c.sources, source{
				seq: s, hold: s.hold, have: len(s.tokens), reuse: prefix, inPlace: true,
				spans: spans, moved: moved,
				gain: c.cfg.Costs.compute(0, prefix+moved) - c.loss(s, prefix),
			})
		}
	}
	return nil
}

// same says that two keys name one space; how much of it is public does not matter.
func (k Key) same(o Key) bool {
	k.PublicTokens = o.PublicTokens
	return k == o
}

// checkMoves says what is wrong with the answer of a Reuser, and how many tokens it moves.
func checkMoves(held, prompt []Token, prefix int, spans []Span) (int, error) {
	if len(spans) > SpansMax {
		return 0, fmt.Errorf("%d spans, at most %d", len(spans), SpansMax)
	}
	moved := 0
	for i, s := range spans {
		if int(s.P0) < prefix || s.P1 <= s.P0 || int(s.P1) > len(held) {
			return 0, fmt.Errorf("span %d..%d outside %d..%d", s.P0, s.P1, prefix, len(held))
		}
		for _, o := range spans[:i] {
			if s.P0 < o.P1 && o.P0 < s.P1 {
				return 0, fmt.Errorf("spans %d..%d and %d..%d overlap", o.P0, o.P1, s.P0, s.P1)
			}
		}
		n := int(s.P1 - s.P0)
		if n > len(prompt)-moved || common(held[s.P0:s.P1], prompt[moved:]) < n {
			return 0, fmt.Errorf("span %d..%d is not what the prompt has next", s.P0, s.P1)
		}
		moved += n
	}
	return moved, nil
}
