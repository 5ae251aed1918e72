package kv_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/norion/norion/kv"
)

// machine stands for a context of llama.cpp: it executes operations on cells that know what they
// were computed behind, and refuses what llama.cpp would refuse, abort on or get wrong.
type machine struct {
	cfg   kv.Config
	seqs  []map[kv.Pos]*cell
	state []int // recurrent: tokens that the state has read
	ram   map[kv.BlobID]*saved
	disk  map[kv.BlobID]*saved
	used  int // cells

	fault   func(kv.Op) bool
	failed  []kv.Op
	unsaved map[kv.BlobID]bool
	saves   []kv.BlobID // to be answered
	spills  []kv.BlobID
}

type cell struct {
	token  kv.Token
	tag    uint64 // of everything before it, as it was computed
	refs   int
	window uint64 // sequences whose window still has it
}

type saved struct {
	tokens  []kv.Token
	tags    []uint64
	low     int
	partial bool
	bytes   int64
}

func newMachine(cfg kv.Config) *machine {
	m := &machine{
		cfg: cfg, seqs: make([]map[kv.Pos]*cell, cfg.Sequences),
		state: make([]int, cfg.Sequences),
		ram:   map[kv.BlobID]*saved{}, disk: map[kv.BlobID]*saved{}, unsaved: map[kv.BlobID]bool{},
	}
	for i := range m.seqs {
		m.seqs[i] = map[kv.Pos]*cell{}
	}
	return m
}

// chain mixes as SplitMix64 does.
func chain(before uint64, token kv.Token) uint64 {
	h := before + uint64(uint32(token)) + 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

func (m *machine) cell(seq kv.Seq, token kv.Token, tag uint64, window bool) *cell {
	m.used++
	c := &cell{token: token, tag: tag, refs: 1}
	c.see(seq, window)
	return c
}

func (c *cell) see(seq kv.Seq, window bool) {
	c.window &^= 1 << seq
	if window {
		c.window |= 1 << seq
	}
}

func (c *cell) seen(seq kv.Seq) bool { return c.window>>seq&1 == 1 }

// posMin is the first position that the window of a sequence has.
func (m *machine) posMin(seq kv.Seq) kv.Pos {
	low := kv.Pos(-1)
	for p, c := range m.seqs[seq] {
		if c.seen(seq) && (low < 0 || p < low) {
			low = p
		}
	}
	return low
}

// run executes operations and gives the first one that failed.
func (m *machine) run(ops []kv.Op) error {
	for _, op := range ops {
		if m.unsaved[op.Blob] && op.Kind == kv.Restore || m.fault != nil && m.fault(op) {
			m.failed = append(m.failed, op)
			switch op.Kind {
			case kv.Save, kv.Checkpoint, kv.Spill:
				m.unsaved[op.Blob] = op.Kind != kv.Spill
				continue
			case kv.SeqCopy, kv.Restore:
				m.remove(op.Seq, 0, kv.End)
				return nil
			}
		}
		if err := m.exec(op); err != nil {
			return fmt.Errorf("%v %+v: %w", op.Kind, op, err)
		}
		if err := m.limits(); err != nil {
			return fmt.Errorf("after %v %+v: %w", op.Kind, op, err)
		}
	}
	return nil
}

func (m *machine) limits() error {
	if m.cfg.Layout == kv.Shared {
		if m.used > m.cfg.Cells {
			return fmt.Errorf("%d cells of %d", m.used, m.cfg.Cells)
		}
		return nil
	}
	for i, s := range m.seqs {
		if len(s) > m.cfg.Cells {
			return fmt.Errorf("%d cells of %d in stream %d", len(s), m.cfg.Cells, i)
		}
	}
	return nil
}

func (m *machine) exec(op kv.Op) error {
	switch op.Kind {
	case kv.SeqCopy:
		return m.copy(op)
	case kv.SeqRemove:
		if m.cfg.Recurrent && op.P0 > 0 && m.state[op.Seq] > int(op.P0) {
			return fmt.Errorf("the state has read %d tokens", m.state[op.Seq])
		}
		m.remove(op.Seq, op.P0, op.P1)
	case kv.Shift:
		return m.shift(op)
	case kv.Save, kv.Checkpoint:
		return m.save(op)
	case kv.Restore:
		return m.restore(op)
	case kv.Spill:
		b := m.ram[op.Blob]
		if b == nil {
			return fmt.Errorf("no such blob")
		}
		m.disk[op.Blob] = b
		m.spills = append(m.spills, op.Blob)
	case kv.Forget:
		if op.Place == kv.RAM {
			delete(m.ram, op.Blob)
		} else {
			delete(m.disk, op.Blob)
		}
	default:
		return fmt.Errorf("unknown")
	}
	return nil
}

func (m *machine) copy(op kv.Op) error {
	from, to := m.seqs[op.From], m.seqs[op.Seq]
	if len(to) > 0 || op.From == op.Seq || len(from) == 0 {
		return fmt.Errorf("from %d cells to %d", len(from), len(to))
	}
	if op.Own {
		if op.P1 != kv.End || op.P0 != 0 {
			return fmt.Errorf("a part")
		}
		if m.cfg.Layout == kv.Shared || m.cfg.CopyByState {
			b, err := m.snapshot(op.From, kv.Pos(len(from)), false)
			if err != nil {
				return err
			}
			return m.fill(op.Seq, b)
		}
		for p, c := range from {
			to[p] = m.cell(op.Seq, c.token, c.tag, c.seen(op.From))
		}
		m.state[op.Seq] = m.state[op.From]
		return nil
	}
	if m.cfg.Layout == kv.Streams || m.cfg.SmallWindow || m.cfg.Recurrent {
		return fmt.Errorf("cells cannot be shared")
	}
	for p, c := range from {
		if p >= op.P0 && p < op.P1 {
			c.refs++
			c.see(op.Seq, c.seen(op.From))
			to[p] = c
		}
	}
	return nil
}

func (m *machine) remove(seq kv.Seq, p0, p1 kv.Pos) {
	for p, c := range m.seqs[seq] {
		if p >= p0 && p < p1 {
			if c.refs--; c.refs == 0 {
				m.used--
			}
			c.see(seq, false)
			delete(m.seqs[seq], p)
		}
	}
	if p0 == 0 {
		m.state[seq] = 0
	}
}

func (m *machine) shift(op kv.Op) error {
	if !m.cfg.CanShift {
		return fmt.Errorf("aborts")
	}
	s := m.seqs[op.Seq]
	moved := map[kv.Pos]*cell{}
	for p, c := range s {
		if p >= op.P0 && p < op.P1 {
			if c.refs > 1 {
				return fmt.Errorf("position %d is shared", p)
			}
			moved[p+op.Delta] = c
			delete(s, p)
		}
	}
	if len(moved) != int(op.P1-op.P0) {
		return fmt.Errorf("%d cells", len(moved))
	}
	for p, c := range moved {
		if s[p] != nil || p < 0 {
			return fmt.Errorf("position %d is taken", p)
		}
		s[p] = c
	}
	return nil
}

// snapshot needs the positions below p1 and no other.
func (m *machine) snapshot(seq kv.Seq, p1 kv.Pos, partial bool) (*saved, error) {
	s := m.seqs[seq]
	if len(s) != int(p1) || p1 == 0 {
		return nil, fmt.Errorf("%d cells, not %d", len(s), p1)
	}
	b := &saved{partial: partial, low: max(0, int(p1)-m.cfg.Window)}
	if m.cfg.Window == 0 {
		b.low = 0
	}
	b.low = max(b.low, int(m.posMin(seq)))
	for p := range p1 {
		c := s[p]
		if c == nil {
			return nil, fmt.Errorf("no position %d", p)
		}
		b.tokens, b.tags = append(b.tokens, c.token), append(b.tags, c.tag)
	}
	b.bytes = int64(p1)*m.cfg.CellBytes + int64(p1)%3
	if partial {
		b.bytes = m.cfg.CellBytes * int64(max(1, m.cfg.Window))
	}
	return b, nil
}

func (m *machine) save(op kv.Op) error {
	b, err := m.snapshot(op.Seq, op.P1, op.Kind == kv.Checkpoint)
	if err == nil {
		m.ram[op.Blob] = b
		m.saves = append(m.saves, op.Blob)
	}
	return err
}

func (m *machine) restore(op kv.Op) error {
	b := m.ram[op.Blob]
	if op.Place == kv.Disk {
		b = m.disk[op.Blob]
	}
	if b == nil || b.partial != op.Partial || len(b.tokens) != int(op.P1) {
		return fmt.Errorf("blob %+v", b)
	}
	if !b.partial {
		if len(m.seqs[op.Seq]) > 0 {
			return fmt.Errorf("the sequence has %d cells", len(m.seqs[op.Seq]))
		}
		return m.fill(op.Seq, b)
	}
	for i, tag := range b.tags {
		c := m.seqs[op.Seq][kv.Pos(i)]
		if c == nil || c.tag != tag {
			return fmt.Errorf("a checkpoint on another base at %d", i)
		}
	}
	for p, c := range m.seqs[op.Seq] {
		c.see(op.Seq, int(p) >= b.low && p < op.P1)
	}
	m.state[op.Seq] = len(b.tokens)
	return nil
}

func (m *machine) fill(seq kv.Seq, b *saved) error {
	for i, token := range b.tokens {
		m.seqs[seq][kv.Pos(i)] = m.cell(seq, token, b.tags[i], i >= b.low)
	}
	m.state[seq] = len(b.tokens)
	return nil
}

// compute decodes tokens at the end of a sequence.
func (m *machine) compute(seq kv.Seq, tokens []kv.Token) error {
	s := m.seqs[seq]
	for _, token := range tokens {
		p := kv.Pos(len(s))
		before := uint64(0)
		if p > 0 {
			if s[p-1] == nil {
				return fmt.Errorf("no position %d", p-1)
			}
			before = s[p-1].tag
		}
		if m.cfg.Recurrent && m.state[seq] != int(p) {
			return fmt.Errorf("the state has read %d of %d tokens", m.state[seq], p)
		}
		if m.cfg.Window > 0 {
			for q := max(0, p-kv.Pos(m.cfg.Window)+1); q < p; q++ {
				if !s[q].seen(seq) {
					before = rand.Uint64() // llama.cpp says nothing and computes this
				}
			}
		}
		s[p] = m.cell(seq, token, chain(before, token), true)
		m.state[seq] = int(p) + 1
	}
	if m.cfg.SmallWindow {
		for p, c := range s {
			if int(p) <= len(s)-m.cfg.Window {
				c.see(seq, false)
			}
		}
	}
	return m.limits()
}

// verify compares a sequence with what the books say.
func (m *machine) verify(c *kv.Cache, seq kv.Seq) error {
	tokens, exact := c.Tokens(seq), c.Sequence(seq).Exact
	if len(tokens) != len(m.seqs[seq]) {
		return fmt.Errorf("sequence %d has %d cells, the books say %d",
			seq, len(m.seqs[seq]), len(tokens))
	}
	tag := uint64(0)
	for i, token := range tokens {
		cell := m.seqs[seq][kv.Pos(i)]
		if cell == nil || cell.token != token {
			return fmt.Errorf("sequence %d at %d: %+v, the books say %d", seq, i, cell, token)
		}
		tag = chain(tag, token)
		if i < exact && cell.tag != tag {
			return fmt.Errorf("sequence %d at %d of %d: not as a cold run", seq, i, exact)
		}
	}
	return nil
}

// blobIDs gives what is saved at a place, in order.
func blobIDs(at map[kv.BlobID]*saved) []kv.BlobID { return slices.Sorted(maps.Keys(at)) }
