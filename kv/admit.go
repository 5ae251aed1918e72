package kv

import "slices"

// fits says whether a source can be used now.
func (c *Cache) fits(src *source, promise int) bool {
	if c.cfg.Layout == Streams {
		return true
	}
	used, need := c.kept(src.seq), promise
	switch {
	case src.inPlace && len(src.spans) > 0: // it is made its own before its cells move
		used += c.cells.count(src.seq, src.have)
		need = c.sharedTail(src.seq, src.reuse) + max(0, promise-src.reuse-src.moved)
	case src.inPlace:
		used += c.cells.count(src.seq, src.reuse)
		need = promise - src.reuse
	case src.seq != nil:
		if src.seq.state == Idle {
			used += c.cells.count(src.seq, src.have)
		}
		need = promise - src.reuse
		if src.own {
			need = max(src.have, promise)
		}
	case src.blob != nil:
		need = max(src.have, promise)
	}
	return used+c.promised+need <= c.cfg.Cells
}

// kept counts the cells that cannot be given up: of Busy sequences and of pinned prefixes.
func (c *Cache) kept(except *sequence) int {
	c.cells.begin()
	used := 0
	for _, s := range c.seqs {
		switch {
		case s.state == Busy:
			used += c.cells.count(s, len(s.tokens))
		case s.state == Idle && s != except:
			used += c.cells.count(s, c.keeps(s))
		}
	}
	return used
}

// admit makes room, plans what the source needs and starts the request.
func (c *Cache) admit(src *source, r *Request, most, promise int) Admission {
	c.use(src.blob)
	c.use(src.check)
	s, from := src.seq, Live
	if src.hold != nil {
		c.tree.Touch(src.hold)
	}
	if !src.inPlace {
		s, _ = c.slot(src.seq)
		if s.state == Idle {
			c.evict(s)
		}
	}
	switch {
	case src.inPlace:
		c.takeOver(src, r, promise)
	case src.seq != nil:
		c.copySequence(src, s, r, promise)
	case src.blob != nil:
		from = Place(src.blob.best()) + RAM
		c.restore(src, s, r, promise)
	default:
		from = Nowhere
		c.makeCells(promise, nil)
		s.key = r.Key
	}
	a := Admission{
		Seq: s.id, Reused: len(s.tokens), Moved: src.moved, Source: from, Blob: src.blob.name(),
	}
	c.start(s, r, most, promise)
	call(&c.cfg.Hooks.Admit, AdmitEvent{
		Key: r.Key, Seq: s.id, Prompt: len(r.Tokens), Reused: a.Reused,
	})
	if a.Reused > 0 {
		call(&c.cfg.Hooks.Hit, HitEvent{Key: r.Key, Seq: s.id, Place: from, Tokens: a.Reused})
	}
	a.Ops = c.take()
	return a
}

// use keeps a blob, which may be nil, until settle: what is planned with it may not be done yet
// when a Saved of the same answer looks for room.
func (c *Cache) use(b *blob) {
	if b == nil {
		return
	}
	b.declined = false
	for _, h := range b.at {
		if h != nil {
			h.Lease()
			c.inUse = append(c.inUse, h)
		}
	}
}

// settle says that what was planned has been done.
func (c *Cache) settle() {
	for _, h := range c.inUse {
		h.Unlease()
	}
	clear(c.inUse)
	c.inUse, c.forgets = c.inUse[:0], c.forgets[:0]
}

func (b *blob) name() BlobID {
	if b == nil {
		return 0
	}
	return b.id
}

// start gives s to a request.
func (c *Cache) start(s *sequence, r *Request, most, promise int) {
	s.key = r.Key
	if s.hold != nil {
		s.hold.key = r.Key // what the path has so far is in the space of both
	}
	s.limit, s.most, s.policy = promise, most, r.Policy
	s.prompt = slices.Clone(r.Tokens)
	s.left, s.system, s.useful = len(r.Tokens), r.System, r.Exact
	s.marks = c.marks(r, len(s.tokens))
	c.setState(s, Busy)
	c.fit(s)
}

// takeOver plans that the request gets the idle sequence itself.
func (c *Cache) takeOver(src *source, r *Request, promise int) {
	s := src.seq
	if c.loss(s, src.reuse) > 0 {
		c.spare(s)
	}
	// Others go first: see Op.
	if len(src.spans) > 0 {
		shared := c.sharedTail(s, src.reuse)
		c.makeCells(max(shared, shared+promise-src.have), s)
		if shared > 0 {
			c.unshare(s)
		}
		c.keepSpans(s, src.reuse, src.spans)
		c.setExact(s, min(s.exact, src.reuse))
		return
	}
	freed := src.have - src.reuse - c.cells.shared(s, src.reuse)
	c.makeCells(promise-src.reuse-freed, s)
	c.cutTo(s, src.reuse, src.check)
}

// cutTo plans that s keeps its first n tokens, through a checkpoint if that is not nil.
func (c *Cache) cutTo(s *sequence, n int, check *blob) {
	if n >= len(s.tokens) {
		return
	}
	if check != nil && n > 0 {
		c.planRestore(s, check, n)
		s.low = check.low
	}
	c.plan(Op{Kind: SeqRemove, Seq: s.id, P0: Pos(n), P1: End})
	c.shrink(s, n)
}

func (c *Cache) planRestore(s *sequence, b *blob, tokens int) {
	place := Place(b.best()) + RAM
	c.plan(Op{
		Kind: Restore, Seq: s.id, P1: Pos(tokens), Blob: b.id, Place: place, Partial: b.partial,
	})
	call(&c.cfg.Hooks.Restore, RestoreEvent{Seq: s.id, Blob: b.id, Place: place, Tokens: tokens})
}

// copySequence plans that the free sequence s gets what another one has.
func (c *Cache) copySequence(src *source, s *sequence, r *Request, promise int) {
	from := src.seq
	if !src.own {
		c.makeCells(promise-src.reuse, from)
		c.plan(Op{Kind: SeqCopy, Seq: s.id, From: from.id, P1: Pos(src.reuse)})
		c.cells.share(from, s, src.reuse)
		c.hold(s, r.Key, from.tokens[:src.reuse], src.reuse)
		s.low = from.low
		if src.check != nil {
			c.planRestore(s, src.check, src.reuse)
			s.low = src.check.low
		}
		c.pass(s)
		return
	}
	c.makeCells(max(src.have, promise), from)
	c.plan(Op{Kind: SeqCopy, Seq: s.id, From: from.id, P1: End, Own: true})
	s.low = from.low
	if c.byState() {
		s.low = max(s.low, c.lowOf(src.have))
	}
	c.fill(s, src, r, from.tokens)
}

// restore plans that the free sequence s gets what a blob has.
func (c *Cache) restore(src *source, s *sequence, r *Request, promise int) {
	c.makeCells(max(src.have, promise), nil)
	c.planRestore(s, src.blob, src.have)
	s.low = src.blob.low
	c.fill(s, src, r, src.blob.tokens)
}

// fill books that s has got a whole state, and cuts it.
func (c *Cache) fill(s *sequence, src *source, r *Request, tokens []Token) {
	c.cells.grow(s, len(tokens))
	c.hold(s, r.Key, tokens, src.reuse)
	c.cutTo(s, src.reuse, src.check)
	c.pass(s)
}

// hold books the tokens of a sequence that had none. Its cells are booked already.
func (c *Cache) hold(s *sequence, k Key, tokens []Token, exact int) {
	s.key, s.exact = k, exact
	s.tokens = append(s.tokens[:0], tokens...)
	if exact > 0 {
		s.hold = c.tree.Hold(k, tokens[:exact], Live, uint64(s.id), 0)
		c.lease(s)
	}
}

// Soon looks for a request whose prompt is being computed and that will hold more of tokens than
// can be had now: it is worth waiting until Length(seq) is n, or until seq is no longer Busy, and
// then to Begin. n is 0 when there is nothing to wait for.
func (c *Cache) Soon(k Key, tokens []Token) (seq Seq, n int) {
	seq = NoSeq
	want := min(len(tokens)-1, c.cfg.Cells)
	if want < soonTokens || k.PublicTokens < 0 {
		return seq, 0
	}
	for _, s := range c.seqs {
		if s.state != Busy || len(s.tokens) >= len(s.prompt) || s.exact < len(s.tokens) {
			continue
		}
		same := c.stop(s, min(common(s.prompt, tokens[:want]), s.key.together(k)))
		if same > len(s.tokens) && same > n {
			seq, n = s.id, same
		}
	}
	if n < soonTokens {
		return NoSeq, 0
	}
	c.refresh()
	c.findKeepers()
	sources, err := c.find(&Request{Key: k, Tokens: tokens}, c.cfg.Cells)
	for _, src := range sources {
		if err != nil || n < src.reuse+soonTokens {
			return NoSeq, 0
		}
	}
	return seq, n
}

// stop is the last length of s, up to n, at which others can have what it holds.
func (c *Cache) stop(s *sequence, n int) int {
	if !c.tree.whole[Live] {
		return n
	}
	at := 0
	for _, mark := range s.marks {
		if mark <= n {
			at = mark
		}
	}
	return at
}

// together is how many tokens at the start two keys may share.
func (k Key) together(o Key) int {
	switch {
	case k.Model != o.Model || k.Adapters != o.Adapters || k.Scope != o.Scope:
		return 0
	case k.Salt == o.Salt && (k.Salt == "" || k.PublicTokens == o.PublicTokens):
		return TokensMax
	}
	public := TokensMax
	for _, key := range []Key{k, o} {
		if key.Salt != "" {
			public = min(public, key.PublicTokens)
		}
	}
	return public
}
