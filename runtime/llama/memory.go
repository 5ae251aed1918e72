package llama

// Clear empties the cache of every sequence.
func (c *Context) Clear() error {
	if err := c.enterMemory("clear"); err != nil {
		return err
	}
	defer c.leave()
	clearMemory(c.h)
	return nil
}

// enterMemory admits a call that needs a cache; the caller leaves.
func (c *Context) enterMemory(op string) error {
	if !c.info.Memory {
		return fail(op, Unsupported, "", "this model keeps no cache")
	}
	return c.enter(op)
}

func (c *Context) checkSeq(op string, seq Seq) error {
	if seq < 0 || int(seq) >= c.params.Sequences {
		return fail(op, Invalid, "", "sequence %d is outside 0..%d", seq, c.params.Sequences-1)
	}
	return nil
}

// enterSeq admits a call on one sequence; the caller leaves.
func (c *Context) enterSeq(op string, seq Seq) error {
	if err := c.checkSeq(op, seq); err != nil {
		return err
	}
	return c.enterMemory(op)
}

// PosMin and PosMax are the first and last cached position of a sequence, -1 when it is empty.
// On a sliding-window model with a small cache PosMin is that of the window.
func (c *Context) PosMin(seq Seq) Pos { return c.posOf(seq, seqPosMin) }

// PosMax is the last cached position of a sequence, -1 when it is empty.
func (c *Context) PosMax(seq Seq) Pos { return c.posOf(seq, seqPosMax) }

func (c *Context) posOf(seq Seq, ask func(contextHandle, Seq) Pos) Pos {
	if c.enterSeq("position", seq) != nil {
		return -1
	}
	defer c.leave()
	return ask(c.h, seq)
}

// Remove takes the positions p0 <= p < p1 out of a sequence. State means that this kind of
// memory cannot give up that part, or that the window before p0 is gone, so that what is left
// could not be continued; the sequence is then unchanged.
func (c *Context) Remove(seq Seq, p0, p1 Pos) error {
	if p0 < 0 || p1 < p0 {
		return fail("remove", Invalid, "", "span %d..%d", p0, p1)
	}
	if err := c.enterSeq("remove", seq); err != nil {
		return err
	}
	defer c.leave()
	if p0 == p1 {
		return nil
	}
	// The last position is that of the window: when an earlier window was put back, the other part
	// of the cache still has what came after it.
	last := seqPosMax(c.h, seq)
	if p0 > 0 && p0 <= last && p1 > last && !c.windowBefore(seq, p0) {
		return fail("remove", State, "drop the sequence and compute it again",
			"the window before position %d is gone", p0)
	}
	if !seqRemove(c.h, seq, p0, p1) {
		return fail("remove", State, "drop the sequence and compute it again",
			"this model cannot forget a part of a sequence")
	}
	return nil
}

// windowBefore says whether the cache still holds the window before p. The cache itself agrees to
// any cut; only the first position that it holds tells.
func (c *Context) windowBefore(seq Seq, p Pos) bool {
	window := Pos(c.model.info.Window)
	first := seqPosMin(c.h, seq)
	return window == 0 || first >= 0 && first <= max(0, p-window)
}

// CutMin is the lowest position above 0 that Truncate can cut a sequence to now and leave it exact;
// 1 for all of them, PosMax+1 for none. A small window cache holds less and less of the beginning,
// a recurrent state only its end.
func (c *Context) CutMin(seq Seq) Pos {
	if c.enterSeq("cut", seq) != nil {
		return 1
	}
	defer c.leave()
	end := seqPosMax(c.h, seq) + 1
	switch first := seqPosMin(c.h, seq); {
	case end == 0:
		return 1
	case c.model.info.Recurrent || c.model.info.Hybrid:
		return end
	case c.model.info.Window > 0 && first > 0:
		return min(first+Pos(c.model.info.Window), end)
	}
	return 1
}

// Drop empties a sequence.
func (c *Context) Drop(seq Seq) error {
	if err := c.enterSeq("drop", seq); err != nil {
		return err
	}
	defer c.leave()
	seqRemove(c.h, seq, -1, -1)
	return nil
}

// Truncate keeps the positions below p. Where what is left cannot be continued exactly (a
// recurrent state, or a window that has moved past p) the sequence is emptied and the error is
// State: compute it again from the start.
func (c *Context) Truncate(seq Seq, p Pos) error {
	const op = "truncate"
	if p < 0 {
		return fail(op, Invalid, "", "position %d", p)
	}
	if err := c.enterSeq(op, seq); err != nil {
		return err
	}
	defer c.leave()
	if p > seqPosMax(c.h, seq) {
		return nil
	}
	if p == 0 {
		seqRemove(c.h, seq, -1, -1)
		return nil
	}
	ok := seqRemove(c.h, seq, p, -1) && c.windowBefore(seq, p)
	if !ok {
		seqRemove(c.h, seq, -1, -1)
		return fail(op, State, "compute the sequence again", "position %d is gone", p)
	}
	return nil
}

// Copy lets sequence to have what from has. In a unified cache the positions p0 <= p < p1 are
// shared and nothing is copied; otherwise the whole stream is copied, p0 must be 0 and p1 past
// the end. What to had is dropped first. A small window cache frees no cell while it is shared:
// sequences that go on from a shared prefix there run Full once each has left it behind.
func (c *Context) Copy(from, to Seq, p0, p1 Pos) error {
	const op = "copy"
	if err := c.checkSeq(op, to); err != nil {
		return err
	}
	if p0 < 0 || p1 < p0 {
		return fail(op, Invalid, "", "span %d..%d", p0, p1)
	}
	if err := c.enterSeq(op, from); err != nil {
		return err
	}
	defer c.leave()
	if from == to {
		return fail(op, Invalid, "", "sequence %d onto itself", from)
	}
	whole := p0 == 0 && p1 > seqPosMax(c.h, from)
	if !whole && (!c.params.Unified || c.model.info.Recurrent || c.model.info.Hybrid) {
		return fail(op, Unsupported, "copy the whole sequence, then truncate",
			"a part can be copied only in a unified cache of cells")
	}
	seqRemove(c.h, to, -1, -1)
	if whole {
		p0, p1 = -1, -1
	}
	seqCopy(c.h, from, to, p0, p1)
	return nil
}

// Keep drops every sequence but one.
func (c *Context) Keep(seq Seq) error {
	if err := c.enterSeq("keep", seq); err != nil {
		return err
	}
	defer c.leave()
	if c.params.Unified {
		seqKeep(c.h, seq)
		return nil
	}
	for other := range Seq(c.params.Sequences) { // seqKeep looks at the stream of seq only
		if other != seq {
			seqRemove(c.h, other, -1, -1)
		}
	}
	return nil
}

// Shift adds delta to the positions p0 <= p < p1 of a sequence. It moves the cells themselves:
// every sequence that shares them moves too. Unsupported where ContextInfo.Shift is false.
func (c *Context) Shift(seq Seq, p0, p1, delta Pos) error {
	const op = "shift"
	if err := c.checkShift(op, seq, p0, p1); err != nil {
		return err
	}
	if p0+delta < 0 || int64(p1)+int64(delta) > ContextTokensMax {
		return fail(op, Invalid, "", "span %d..%d moved by %d", p0, p1, delta)
	}
	if err := c.enterSeq(op, seq); err != nil {
		return err
	}
	defer c.leave()
	seqAdd(c.h, seq, p0, p1, delta)
	return nil
}

// Divide divides the positions p0 <= p < p1 of a sequence by d, 2 or more. As Shift otherwise.
func (c *Context) Divide(seq Seq, p0, p1 Pos, d int) error {
	const op = "divide"
	if err := c.checkShift(op, seq, p0, p1); err != nil {
		return err
	}
	if d < 2 || d > ContextTokensMax {
		return fail(op, Invalid, "", "divisor %d", d)
	}
	if err := c.enterSeq(op, seq); err != nil {
		return err
	}
	defer c.leave()
	seqDivide(c.h, seq, p0, p1, d)
	return nil
}

func (c *Context) checkShift(op string, seq Seq, p0, p1 Pos) error {
	switch {
	case !c.info.Shift:
		return fail(op, Unsupported, "compute the sequence again",
			"positions of this model's cache cannot be moved")
	case p0 < 0 || p1 < p0:
		return fail(op, Invalid, "", "span %d..%d", p0, p1)
	}
	return c.checkSeq(op, seq)
}

// StateFlags choose what part of a sequence's state is copied.
type StateFlags uint32

const (
	// StatePartial is the window or recurrent part only. It fits only a sequence whose other
	// part is still in place: the caller keeps that record, the library does not.
	StatePartial StateFlags = 1
)

// enterState admits a call on the state of a sequence; the caller leaves.
func (c *Context) enterState(op string, seq Seq, flags StateFlags) error {
	if flags&^StatePartial != 0 {
		return fail(op, Invalid, "", "unknown flags %#x", uint32(flags))
	}
	if c.model.dry {
		return fail(op, Unsupported, "load the model without Dry", "a dry model has no state")
	}
	return c.enterSeq(op, seq)
}

// StateSize is the bytes that StateGet needs now, 0 for an empty sequence.
func (c *Context) StateSize(seq Seq, flags StateFlags) (int, error) {
	if err := c.enterState("state size", seq, flags); err != nil {
		return 0, err
	}
	defer c.leave()
	return c.sizeOf("state size", seq, flags)
}

func (c *Context) sizeOf(op string, seq Seq, flags StateFlags) (int, error) {
	if seqPosMax(c.h, seq) < 0 {
		return 0, nil
	}
	n := stateSize(c.h, seq, flags)
	if n == 0 {
		return 0, fail(op, Memory, hints[Memory], "the state could not be measured")
	}
	return n, nil
}

// StateGet copies the state of a sequence into dst and returns the bytes written. The bytes name
// neither model nor context and carry no checksum: keep them with both.
func (c *Context) StateGet(seq Seq, dst []byte, flags StateFlags) (int, error) {
	const op = "state get"
	if err := c.enterState(op, seq, flags); err != nil {
		return 0, err
	}
	defer c.leave()
	need, err := c.sizeOf(op, seq, flags)
	if err != nil {
		return 0, err
	}
	if len(dst) < need || need == 0 {
		return 0, fail(op, Invalid, "ask StateSize", "room for %d bytes, need %d", len(dst), need)
	}
	n := stateGet(c.h, seq, dst, flags)
	if n == 0 {
		return 0, fail(op, State, "", "nothing was copied")
	}
	return n, nil
}

// StateSet replaces a sequence by a state from StateGet. Bytes that do not fit are the error
// State and leave the sequence empty. Only bytes that this program wrote and checked may be
// given: the library accepts changed values. Positions that no sequence can have are State too;
// they can be taken out only with everything else, so every sequence is then empty.
func (c *Context) StateSet(seq Seq, src []byte, flags StateFlags) error {
	const op = "state set"
	if err := c.enterState(op, seq, flags); err != nil {
		return err
	}
	defer c.leave()
	if len(src) == 0 {
		return fail(op, Invalid, "", "no bytes")
	}
	if stateSet(c.h, seq, src, flags) != len(src) {
		seqRemove(c.h, seq, -1, -1)
		return fail(op, State, "compute the sequence again", "the bytes do not fit this context")
	}
	if first, last := seqPosMin(c.h, seq), seqPosMax(c.h, seq); first < 0 ||
		last >= ContextTokensMax {
		clearMemory(c.h)
		return fail(op, State, "compute every sequence again",
			"the bytes hold positions %d..%d; every sequence was dropped", first, last)
	}
	return nil
}

// MemoryUse is what one buffer type holds, in bytes.
type MemoryUse struct {
	Buffer  string `json:"buffer"` // such as CPU or CUDA0
	Device  string `json:"device"`
	Host    bool   `json:"host"`
	Model   uint64 `json:"model"`   // weights
	Context uint64 `json:"context"` // KV cache
	Compute uint64 `json:"compute"` // scratch
	Output  uint64 `json:"output"`  // logits and vectors that a Decode leaves
}

// MemoryUse counts the context's and its model's buffers, on a dry load exactly as on one
// with LoadRead; a mapped file may count more, under another name. The output buffer has room for
// one output of each sequence, and grows to what a Decode asks for.
func (c *Context) MemoryUse() ([]MemoryUse, error) {
	if err := c.enter("memory"); err != nil {
		return nil, err
	}
	defer c.leave()
	return memoryUse(c.h), nil
}
