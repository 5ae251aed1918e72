package kv

import (
	"fmt"
	"slices"
)

// Cache keeps the books of one context and plans what is done to its cells. It is used by one
// goroutine. Its executor is told by operations what to do and tells the Cache what was computed;
// both then agree on what every sequence holds.
type Cache struct {
	cfg      Config
	tree     *Tree
	seqs     []*sequence
	cells    cells
	promised int // cells that Busy sequences may still take
	blobs    map[BlobID]*blob
	lastBlob BlobID
	ops      []Op // planned, for the next answer
	sources  []source
	inUse    []*Holding // of blobs that the latest answer restores
	forgets  []Op       // of the latest answer
}

// sequence is what the Cache knows of one. Its path in the tree is tokens[:exact].
type sequence struct {
	id     Seq
	state  SeqState
	key    Key
	tokens []Token
	exact  int // as a cold run would have them
	hold   *Holding
	runs   []*run
	low    int // the window's cells are there from this position on
	keep   int // tokens at the start that are the last of a pinned prefix

	// While Busy:
	limit  int // cells that it may have
	most   int // and no more; its policy gives up tokens
	prompt []Token
	left   int // of the prompt, what no policy gave up
	system int // of the system prompt, likewise
	marks  []int
	useful int // tokens at the start that others may have, 0 for all
	policy Policy
}

// New checks cfg and starts with an empty context.
func New(cfg Config) (*Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.defaults()
	c := &Cache{cfg: cfg, tree: NewTree(cfg.Rank, cfg.Costs), blobs: map[BlobID]*blob{}}
	for id := range Seq(cfg.Sequences) {
		c.seqs = append(c.seqs, &sequence{id: id})
	}
	c.cells.of = c.seqs
	c.tree.whole = [kinds]bool{
		Live: cfg.Recurrent || cfg.SmallWindow, RAM: cfg.Recurrent || cfg.Window > 0,
		Disk: cfg.Recurrent || cfg.Window > 0, Partial: true, partialDisk: true,
	}
	return c, nil
}

// take gives what was planned.
func (c *Cache) take() []Op {
	ops := c.ops
	c.ops = nil
	for _, op := range ops {
		if op.Kind == Forget {
			c.forgets = append(c.forgets, op)
		}
	}
	return ops
}

func (c *Cache) plan(op Op) { c.ops = append(c.ops, op) }

// enter is sequence for a call that follows on what was planned before.
func (c *Cache) enter(op string, seq Seq, states ...SeqState) (*sequence, error) {
	c.settle()
	return c.sequence(op, seq, states...)
}

// sequence gives seq in one of the states.
func (c *Cache) sequence(op string, seq Seq, states ...SeqState) (*sequence, error) {
	if seq < 0 || int(seq) >= len(c.seqs) {
		return nil, fail(op, ErrUnknown, "Seq", "", "%d is outside 0..%d", seq, len(c.seqs)-1)
	}
	s := c.seqs[seq]
	if !slices.Contains(states, s.state) {
		return nil, fail(op, ErrUnknown, "Seq", "", "sequence %d is %v", seq, s.state)
	}
	return s, nil
}

// String gives the short name that users see.
func (s SeqState) String() string {
	switch s {
	case Free:
		return "free"
	case Busy:
		return "busy"
	case Idle:
		return "idle"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// room is how many more cells s was promised.
func (s *sequence) room() int {
	if s.state != Busy {
		return 0
	}
	return max(0, s.limit-len(s.tokens))
}

// grow books tokens that s has got at its end. Those that are not moved are on its path.
func (c *Cache) grow(s *sequence, tokens []Token) {
	c.promised -= s.room()
	exact := s.exact == len(s.tokens)
	use := tokens
	if s.useful > 0 {
		use = tokens[:max(0, min(len(tokens), s.useful-len(s.tokens)))]
	}
	c.cells.grow(s, len(tokens))
	s.tokens = append(s.tokens, tokens...)
	c.promised += s.room()
	if exact && len(use) > 0 {
		s.exact += len(use)
		switch {
		case s.hold == nil:
			s.hold = c.tree.Hold(s.key, s.tokens[:s.exact], Live, uint64(s.id), 0)
			c.lease(s)
		default:
			c.tree.Extend(s.hold, use)
		}
	}
	c.pass(s)
}

// lease keeps the holding of a Busy sequence.
func (c *Cache) lease(s *sequence) {
	if s.state == Busy {
		s.hold.Lease()
	}
}

// pass books what the window may have left behind.
func (c *Cache) pass(s *sequence) {
	if c.cfg.SmallWindow || c.cfg.Window > 0 && c.cfg.Layout == Shared {
		s.low = max(s.low, len(s.tokens)-c.cfg.Window+1)
	}
}

// shrink books that s keeps the first n tokens.
func (c *Cache) shrink(s *sequence, n int) {
	if n >= len(s.tokens) {
		return
	}
	c.promised -= s.room()
	c.cells.remove(s, n, len(s.tokens))
	s.tokens = s.tokens[:n]
	c.promised += s.room()
	if n == 0 {
		s.low = 0
	}
	c.setExact(s, min(s.exact, n))
	c.pass(s)
	c.fit(s)
}

// fit takes back what cannot be promised to s any more: cells that others still have were not
// freed.
func (c *Cache) fit(s *sequence) {
	if over := c.cells.used + c.promised - c.cfg.Cells; c.cfg.Layout == Shared && over > 0 {
		over = min(over, s.room())
		s.limit -= over
		c.promised -= over
	}
}

// setExact books that only the first n tokens are as a cold run would have them.
func (c *Cache) setExact(s *sequence, n int) {
	s.exact = n
	if s.hold == nil || s.hold.Length() <= n {
		return
	}
	marks := c.checkpointsOn(s.hold)
	if n == 0 {
		c.tree.Release(s.hold)
		s.hold = nil
	} else {
		c.tree.Cut(s.hold, n)
	}
	c.dropOrphans(marks)
}

// clear books that s holds nothing and is free.
func (c *Cache) clear(s *sequence) {
	c.shrink(s, 0)
	c.setState(s, Free)
	*s = sequence{id: s.id, runs: s.runs[:0]}
}

func (c *Cache) setState(s *sequence, state SeqState) {
	c.promised -= s.room()
	if s.hold != nil && (s.state == Busy) != (state == Busy) {
		if state == Busy {
			s.hold.Lease()
		} else {
			s.hold.Unlease()
		}
	}
	s.state = state
	c.promised += s.room()
}

// refresh asks the context what the windows hold.
func (c *Cache) refresh() {
	if c.cfg.Window == 0 || c.cfg.PosMin == nil {
		return
	}
	for _, s := range c.seqs {
		if len(s.tokens) > 0 {
			s.low = len(s.tokens)
			if first := c.cfg.PosMin(s.id); first >= 0 {
				s.low = int(first)
			}
		}
	}
}

// Append says that tokens were computed at the end of seq. Reserve must have allowed them.
// It may be called with drafts that Truncate takes back. Kinds: ErrUnknown, ErrNoRoom.
func (c *Cache) Append(seq Seq, tokens []Token) error {
	s, err := c.enter("append", seq, Busy)
	if err != nil {
		return err
	}
	if len(tokens) > s.room() {
		return fail("append", ErrNoRoom, "Tokens", "call Reserve first",
			"%d tokens, %d are promised", len(tokens), s.room())
	}
	if len(tokens) > 0 {
		c.grow(s, tokens)
	}
	return nil
}

// End says that the request is over. What its sequence holds stays, for others to use or until
// its cells are wanted.
func (c *Cache) End(seq Seq) {
	s, err := c.enter("end", seq, Busy)
	if err != nil {
		return
	}
	if len(s.tokens) == 0 {
		c.clear(s)
		return
	}
	c.setState(s, Idle)
	s.prompt, s.marks, s.policy, s.limit, s.most = nil, nil, Policy{}, 0, 0
	c.cells.merge(s)
}

// Drop empties a sequence, Busy or Idle, and frees it.
func (c *Cache) Drop(seq Seq) []Op {
	if s, err := c.enter("drop", seq, Busy, Idle); err == nil {
		c.plan(Op{Kind: SeqRemove, Seq: s.id, P1: End})
		c.clear(s)
	}
	return c.take()
}

// Failed says that an operation of an admission, or of a Plan, did not succeed. The executor has
// emptied the sequence, and so it is here; the request still has it.
func (c *Cache) Failed(seq Seq) {
	s, err := c.sequence("failed", seq, Busy)
	if err != nil {
		return
	}
	c.shrink(s, 0)
	c.ops = append(c.ops, c.forgets...) // they may have been left out
	c.settle()
}
