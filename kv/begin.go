package kv

import (
	"cmp"
	"slices"
)

// Bounds of the planner.
const (
	tailTokens = 32 // so few tokens at the end of a sequence are not worth a copy
	saveTokens = 32 // nor worth saving
	soonTokens = 32 // nor worth waiting for
	wanted     = 0.5
)

// source is a way to serve a request.
type source struct {
	seq     *sequence // of Live, or of what is taken over
	blob    *blob
	hold    *Holding
	have    int // tokens of it
	reuse   int // of the prompt
	check   *blob
	inPlace bool
	own     bool   // the copy gets cells of its own
	spans   []Span // in place: what a Reuser keeps after reuse
	moved   int
	gain    float64
}

// Begin gives a request a sequence, with as much of its prompt as can be had. Whatever the error,
// nothing has changed. Kinds: ErrNoRoom (others have to end first, or be parked), ErrTooLong,
// ErrPolicy, ErrUnsupported (a policy that this model cannot have), ErrInvalid.
func (c *Cache) Begin(r Request) (Admission, error) {
	if err := c.check(&r); err != nil {
		return Admission{Seq: NoSeq}, err
	}
	most, err := c.most(&r)
	if err != nil {
		return Admission{Seq: NoSeq}, err
	}
	promise := min(most, max(len(r.Tokens), r.Limit))
	c.settle()
	c.refresh()
	c.findKeepers()
	src, err := c.choose(&r, most, promise)
	if src == nil && err == nil && c.dropKeepers() {
		src, err = c.choose(&r, most, promise)
	}
	switch {
	case err != nil:
		return Admission{Seq: NoSeq}, err
	case src == nil:
		return Admission{Seq: NoSeq}, c.noCells("begin", promise)
	}
	return c.admit(src, &r, most, promise), nil
}

// choose gives the best way to serve a request for which there is room, nil for none.
func (c *Cache) choose(r *Request, most, promise int) (*source, error) {
	sources, err := c.find(r, most)
	for i := range sources {
		if c.fits(&sources[i], promise) {
			return &sources[i], err
		}
	}
	return nil, err
}

// most is how many cells the sequence may ever have.
func (c *Cache) most(r *Request) (int, error) {
	most := c.cfg.Cells
	e := r.Policy.evictor()
	if e == nil {
		return most, nil
	}
	if r.Limit > 0 {
		most = min(most, r.Limit)
	}
	if l, ok := e.(Limiter); ok {
		limit := 0
		err := contain("begin", "Policy.Evict", func() error {
			limit = l.Limit(most)
			return nil
		})
		if err != nil {
			return 0, err
		}
		if limit < 1 || limit > most {
			return 0, fail("begin", ErrPolicy, "Policy.Evict", "", "a limit of %d, outside 1..%d",
				limit, most)
		}
		most = limit
	}
	return most, nil
}

// find lists the ways to serve a request, best first. The last one computes everything.
func (c *Cache) find(r *Request, most int) ([]source, error) {
	c.sources = c.sources[:0]
	slot, loss := c.slot(nil)
	if slot != nil {
		c.sources = append(c.sources, source{gain: -loss})
	}
	if !r.Policy.NoReuse {
		want := min(len(r.Tokens)-1, most)
		m := c.tree.Lookup(r.Key, r.Tokens[:want])
		c.findLive(r, slot, loss)
		if err := c.findMoved(r, want); err != nil {
			return nil, err
		}
		if slot != nil {
			c.findSaved(r, &m, loss)
		}
	}
	slices.SortStableFunc(c.sources, func(a, b source) int { return -cmp.Compare(a.gain, b.gain) })
	return c.sources, nil
}

// findLive lists what sequences hold. slot is what a copy would go to.
func (c *Cache) findLive(r *Request, slot *sequence, loss float64) {
	costs := c.cfg.Costs
	for _, s := range c.seqs {
		if s.hold == nil {
			continue
		}
		shared := c.tree.shared(s.hold)
		reuse, check := c.cut(s.hold, len(s.tokens), s.low, shared, r.Align)
		if reuse == 0 {
			continue
		}
		src := source{seq: s, hold: s.hold, have: len(s.tokens), reuse: reuse, check: check}
		saved := costs.compute(0, reuse)
		if s.state == Idle && reuse >= s.keep {
			in := src
			in.inPlace, in.gain = true, saved-c.loss(s, reuse)
			c.sources = append(c.sources, in)
		}
		slot, loss := slot, loss
		if slot == s {
			slot, loss = c.slot(s)
		}
		if slot == nil {
			continue
		}
		if c.shares() {
			src.gain = saved - loss
			c.sources = append(c.sources, src)
			continue
		}
		src.own = true
		if c.cfg.Window > 0 && c.byState() { // the copy has less of the window
			low := max(s.low, c.lowOf(src.have))
			src.reuse, src.check = c.cut(s.hold, src.have, low, shared, r.Align)
		}
		if src.reuse > 0 {
			src.gain = costs.compute(0, src.reuse) - loss - float64(src.have)*costs.Copy
			c.sources = append(c.sources, src)
		}
	}
}

// shares says that a copy is a mark on cells.
func (c *Cache) shares() bool {
	return c.cfg.Layout == Shared && !c.cfg.SmallWindow && !c.cfg.Recurrent
}

// byState says that copies are made through a saved state.
func (c *Cache) byState() bool { return c.cfg.Layout == Shared || c.cfg.CopyByState }

func (c *Cache) findSaved(r *Request, m *Match, loss float64) {
	for _, p := range []Place{RAM, Disk} {
		cost := c.cfg.Costs.Restore
		if p == Disk {
			cost = c.cfg.Costs.RestoreDisk
		}
		for _, f := range []Found{m.At[p], m.Ends[p]} {
			h := f.Holding()
			if h == nil {
				continue
			}
			b := c.blobOf(h)
			have := len(b.tokens)
			if b.spilling && p == Disk || have > c.cfg.Cells {
				continue
			}
			reuse, check := c.cut(h, have, b.low, f.Tokens, r.Align)
			if reuse > 0 {
				c.sources = append(c.sources, source{
					blob: b, hold: h, have: have, reuse: reuse, check: check,
					gain: c.cfg.Costs.compute(0, reuse) - loss - float64(have)*cost,
				})
			}
		}
	}
}

// cut gives the most tokens, at most want, to which a state with so many tokens, whose window goes
// back to low, can be cut so that a cold run would have the same, and the checkpoint that it takes.
// The first want tokens of the state are those on the path of h.
func (c *Cache) cut(h *Holding, have, low, want, align int) (int, *blob) {
	align = max(1, align)
	want -= want % align
	switch {
	case want <= 0:
		return 0, nil
	case want == have:
		return want, nil
	case !c.cfg.Recurrent && (c.cfg.Window == 0 || low <= max(0, want-c.cfg.Window)):
		return want, nil
	}
	for n := h.node; n != nil && n.end > 0; n = n.parent {
		if n.end > want || n.end%align != 0 || n.below[Partial]+n.below[partialDisk] == 0 {
			continue
		}
		for _, p := range []Place{Partial, partialDisk} {
			for o := n.own; o != nil; o = o.next {
				if o.Place == p && !c.blobOf(o).spillingTo(p) {
					return n.end, c.blobOf(o)
				}
			}
		}
	}
	return 0, nil
}

// spillingTo says that the state is not yet at p.
func (b *blob) spillingTo(p Place) bool { return b.spilling && p == partialDisk }

// slot gives a sequence to use: a free one, or else the idle one whose loss is least.
func (c *Cache) slot(except *sequence) (*sequence, float64) {
	for _, s := range c.seqs {
		if s.state == Free {
			return s, 0
		}
	}
	s := c.victim(except, false)
	if s == nil {
		return nil, 0
	}
	return s, c.loss(s, 0)
}

// loss is what it costs that s keeps only so many tokens: what nobody else has of it may be wanted.
func (c *Cache) loss(s *sequence, keep int) float64 {
	if s.hold == nil || s.exact-keep <= tailTokens {
		return 0
	}
	from := max(keep, c.tree.Covered(s.hold))
	if from >= s.exact {
		return 0
	}
	loss := wanted * c.cfg.Costs.compute(from, s.exact)
	if c.cfg.RAMBytes > 0 { // it will be saved
		loss = min(loss, 2*float64(len(s.tokens))*c.cfg.Costs.Restore)
	}
	return loss
}
