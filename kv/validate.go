package kv

import (
	"cmp"
	"math"
)

// Validate refuses contradictions. Kinds: ErrInvalid, ErrContradicts.
func (c Config) Validate() error {
	const op = "config"
	for _, f := range []struct {
		name    string
		v       int64
		min, to int64
	}{
		{"Layout", int64(c.Layout), 0, int64(Streams)},
		{"Sequences", int64(c.Sequences), 1, SequencesMax},
		{"Cells", int64(c.Cells), 1, TokensMax},
		{"CellBytes", c.CellBytes, 0, math.MaxInt32},
		{"RAMBytes", c.RAMBytes, 0, math.MaxInt64},
		{"DiskBytes", c.DiskBytes, 0, math.MaxInt64},
		{"Window", int64(c.Window), 0, TokensMax},
		{"CheckpointEvery", int64(c.CheckpointEvery), 0, TokensMax},
		{"CheckpointBytes", c.CheckpointBytes, 0, math.MaxInt32 * SequencesMax},
		{"Rank", int64(c.Rank), 0, int64(LRU)},
	} {
		if f.v < f.min || f.v > f.to {
			return fail(op, ErrInvalid, f.name, "", "%d is outside %d..%d", f.v, f.min, f.to)
		}
	}
	if err := c.Costs.validate(op); err != nil {
		return err
	}
	switch {
	case c.SmallWindow && c.Window == 0:
		return fail(op, ErrContradicts, "SmallWindow", "set Window", "there is no window")
	case c.SmallWindow && c.CanShift:
		return fail(op, ErrContradicts, "CanShift", "keep the windows at full length",
			"positions of a small window cannot be moved")
	case c.DiskBytes > 0 && c.RAMBytes == 0:
		return fail(op, ErrContradicts, "DiskBytes", "set RAMBytes",
			"state reaches the disk through memory")
	}
	return nil
}

// validate refuses what is no cost.
func (c Costs) validate(op string) error {
	for _, v := range []float64{c.Compute, c.ComputePair, c.Copy, c.Restore, c.RestoreDisk} {
		if !(v >= 0 && v <= math.MaxFloat32) {
			return fail(op, ErrInvalid, "Costs", "use 0 for the default proportion", "%v is no cost", v)
		}
	}
	return nil
}

// defaults fills in what is 0.
func (c Config) defaults() Config {
	c.CellBytes = cmp.Or(c.CellBytes, 1)
	c.CheckpointBytes = cmp.Or(c.CheckpointBytes, int64(max(1, c.Window))*c.CellBytes)
	c.Costs = c.Costs.defaults()
	return c
}

// Validate refuses contradictions. Kinds: ErrInvalid, ErrContradicts.
func (p Policy) Validate() error {
	if p.NoReuse && p.Reuse != nil {
		return fail("policy", ErrContradicts, "Reuse", "", "NoReuse and Reuse exclude each other")
	}
	if p.Recompute && p.evictor() == nil {
		return fail("policy", ErrContradicts, "Recompute", "choose an Evictor",
			"nothing is ever given up")
	}
	if err := validate("Evict", p.Evict); err != nil {
		return err
	}
	return validate("Reuse", p.Reuse)
}

func validate(field string, policy any) error {
	if v, ok := policy.(Validator); ok {
		return contain("policy", field, v.Validate)
	}
	return nil
}

// evictor is nil for Refuse.
func (p Policy) evictor() Evictor {
	switch p.Evict.(type) {
	case nil, Refuse, *Refuse:
		return nil
	}
	return p.Evict
}

// sinkWindowMin is the smallest window of which something can be given up: the last token stays.
const sinkWindowMin = 2

// Validate refuses a window that is smaller than the sinks, a block larger than the window, and a
// window that can give up nothing.
func (w SinkWindow) Validate() error {
	const op = "sink-window"
	switch {
	case w.Sinks < 0 || w.Sinks > TokensMax:
		return fail(op, ErrInvalid, "Sinks", "4 suffice", "%d is outside 0..%d", w.Sinks, TokensMax)
	case w.Window < sinkWindowMin || w.Window > TokensMax:
		return fail(op, ErrInvalid, "Window", "the last token stays, and one more must be able to go",
			"%d is outside %d..%d", w.Window, sinkWindowMin, TokensMax)
	case w.Block < 0:
		return fail(op, ErrInvalid, "Block", "0 chooses", "%d is negative", w.Block)
	case w.Window < w.Sinks:
		return fail(op, ErrContradicts, "Window", "a window of Sinks or more",
			"a window of %d behind %d sinks", w.Window, w.Sinks)
	case w.Block > w.Window:
		return fail(op, ErrContradicts, "Block", "an eighth of the window is a good value",
			"a block of %d in a window of %d", w.Block, w.Window)
	}
	return nil
}

// Validate refuses a negative block.
func (k KeepSystem) Validate() error { return validBlock("keep-system", k.Block) }

// Validate refuses a negative block.
func (m MiddleOut) Validate() error { return validBlock("middle-out", m.Block) }

func validBlock(op string, block int) error {
	if block < 0 || block > TokensMax {
		return fail(op, ErrInvalid, "Block", "0 chooses", "%d is outside 0..%d", block, TokensMax)
	}
	return nil
}

// Validate refuses runs of less than one token.
func (r ChunkReuse) Validate() error {
	if r.MinTokens < 1 || r.MinTokens > TokensMax {
		return fail("chunk-reuse", ErrInvalid, "MinTokens", "", "%d is outside 1..%d",
			r.MinTokens, TokensMax)
	}
	return nil
}

// check refuses what cannot be served whoever else is there, and fills in the promise.
func (c *Cache) check(r *Request) error {
	const op = "begin"
	n := len(r.Tokens)
	switch {
	case n == 0 || n > TokensMax:
		return fail(op, ErrInvalid, "Tokens", "", "%d tokens, 1..%d", n, TokensMax)
	case r.Limit < 0 || r.Limit > TokensMax:
		return fail(op, ErrInvalid, "Limit", "", "%d is outside 0..%d", r.Limit, TokensMax)
	case r.System < 0 || r.System > n:
		return fail(op, ErrInvalid, "System", "", "%d of %d tokens", r.System, n)
	case r.Align < 0 || r.Align > TokensMax:
		return fail(op, ErrInvalid, "Align", "", "%d", r.Align)
	case r.Key.PublicTokens < 0:
		return fail(op, ErrInvalid, "Key.PublicTokens", "", "%d", r.Key.PublicTokens)
	}
	if err := r.Policy.Validate(); err != nil {
		return err
	}
	if r.Policy.evictor() == nil {
		if need := max(n, r.Limit); need > c.cfg.Cells {
			return fail(op, ErrTooLong, "Tokens", "shorten it, or choose a policy that gives up tokens",
				"%d tokens, %d cells", need, c.cfg.Cells)
		}
		return nil
	}
	if !c.canShift() && !r.Policy.Recompute {
		return fail(op, ErrUnsupported, "Policy.Evict", "let it recompute what is kept",
			"%s", c.whyNoShift())
	}
	return nil
}

// canShift says that the middle of a sequence can be taken out.
func (c *Cache) canShift() bool { return c.cfg.CanShift && !c.cfg.Recurrent }

func (c *Cache) whyNoShift() string {
	switch {
	case c.cfg.Recurrent:
		return "a recurrent state cannot forget a part of what it has read"
	case c.cfg.SmallWindow:
		return "a cache that holds only the window cannot move positions"
	default:
		return "this model's positions cannot be moved"
	}
}
