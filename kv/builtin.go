package kv

import "errors"

// Evict refuses.
func (Refuse) Evict(View) ([]Span, error) { return nil, errors.New("nothing is given up") }

// Limit is Sinks + Window.
func (w SinkWindow) Limit(tokens int) int { return min(tokens, w.Sinks+w.Window) }

// Evict gives up what comes right behind the sinks.
func (w SinkWindow) Evict(v View) ([]Span, error) {
	return oldest(v, w.Sinks, w.Block, max(1, w.Window/8))
}

// Evict gives up what comes right behind the system prompt.
func (k KeepSystem) Evict(v View) ([]Span, error) {
	first := max(1, v.System)
	return oldest(v, first, k.Block, max(1, (v.Limit-first)/8))
}

// oldest gives up a block behind the first tokens. The last token of all stays.
func oldest(v View, first, block, otherwise int) ([]Span, error) {
	if block == 0 {
		block = otherwise
	}
	room := v.Length - first - 1
	if room < v.Over() {
		return nil, errors.New("the tokens to keep leave too little room")
	}
	n := min(max(block, v.Over()), room)
	return []Span{{Pos(first), Pos(first + n)}}, nil
}

// Evict gives up a block in the middle of what lies behind the system prompt.
func (m MiddleOut) Evict(v View) ([]Span, error) {
	first := max(1, v.System)
	room := v.Length - first - 1
	if room < v.Over() {
		return nil, errors.New("the tokens to keep leave too little room")
	}
	block := m.Block
	if block == 0 {
		block = max(1, (v.Limit-first)/8)
	}
	n := min(max(block, v.Over()), room)
	at := Pos(first + (room-n)/2)
	return []Span{{at, at + Pos(n)}}, nil
}

// reuseSteps bounds the comparisons of one ChunkReuse.
const reuseSteps = 1 << 22

// Reuse looks for the longest run that the prompt has next, then for the one after it, as long as
// there is one.
func (r ChunkReuse) Reuse(v ReuseView) ([]Span, error) {
	var spans []Span
	prompt, steps := v.Prompt[v.Prefix:], reuseSteps
	for len(prompt) >= r.MinTokens && len(spans) < SpansMax {
		var best Span
		for at := v.Prefix; at < len(v.Held) && steps > 0; at++ {
			steps--
			if v.Held[at] != prompt[0] {
				continue
			}
			n := common(v.Held[at:], prompt)
			steps -= n
			if n = free(spans, at, n); n > int(best.P1-best.P0) {
				best = Span{Pos(at), Pos(at + n)}
			}
		}
		if int(best.P1-best.P0) < r.MinTokens {
			break
		}
		spans = append(spans, best)
		prompt = prompt[best.P1-best.P0:]
	}
	return spans, nil
}

// free is how many of n tokens at a position no span has.
func free(spans []Span, at, n int) int {
	for _, s := range spans {
		switch {
		case int(s.P0) <= at && at < int(s.P1):
			return 0
		case at < int(s.P0):
			n = min(n, int(s.P0)-at)
		}
	}
	return n
}
