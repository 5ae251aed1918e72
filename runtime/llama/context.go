package llama

import (
	"math"
	"runtime"
)

// FlashAttention says when the fused attention kernel is used.
type FlashAttention int32

const (
	FlashAuto FlashAttention = iota // where the device has it, the default
	FlashOn
	FlashOff
)

// Pooling says how token embeddings become one vector.
type Pooling int32

const (
	PoolingModel Pooling = iota // as the model says, the default
	PoolingNone
	PoolingMean
	PoolingCLS
	PoolingLast
	PoolingRank
)

// Attention says which tokens a token sees.
type Attention int32

const (
	AttentionModel Attention = iota // as the model says, the default
	AttentionCausal
	AttentionFull
)

// ContextParams chooses the size and manner of a context. The zero value is one sequence of the
// trained length.
type ContextParams struct {
	Tokens       int // cells of the KV cache; 0 means as trained; rounded up to 256
	Sequences    int // 0 means 1
	Batch        int // most tokens of one Decode; 0 means 2048
	MicroBatch   int // most tokens computed at once; 0 means 512
	Outputs      int // most outputs of one Decode; 0 means Sequences, or Batch for embeddings
	Threads      int // of a decode step; 0 means the processors available
	ThreadsBatch int // of a prefill; 0 means Threads

	Flash         FlashAttention
	TypeK, TypeV  string // type of cached keys and values; "" means f16
	Unified       bool   // all sequences share one buffer; else each has Tokens/Sequences
	SmallWindow   bool   // keep only the window on sliding-window layers; cuts are then limited
	NoOffloadKQV  bool   // keep the cache in host memory
	NoOffloadOps  bool   // compute on the host what lies on the host
	Performance   bool   // let the library time itself
	Embeddings    bool   // output vectors instead of logits
	Pooling       Pooling
	Attention     Attention
	RopeFreqBase  float32 // 0 as the model says
	RopeFreqScale float32 // 0 as the model says
}

// Bounds of ContextParams.
const (
	ContextTokensMax = 1 << 26
	SequencesMax     = 256 // of the pinned llama.cpp
	ThreadsMax       = 512
)

// fill returns p with every default made explicit for a model.
func (p ContextParams) fill(info ModelInfo) ContextParams {
	set := func(v *int, otherwise int) {
		if *v == 0 {
			*v = otherwise
		}
	}
	set(&p.Sequences, 1)
	set(&p.Tokens, max(info.TrainedTokens, 256))
	set(&p.Batch, 2048)
	p.Batch = min(p.Batch, max(p.Tokens, 256))
	set(&p.MicroBatch, 512)
	p.MicroBatch = min(p.MicroBatch, p.Batch)
	if p.Embeddings || info.Encoder {
		set(&p.Outputs, p.Batch)
	}
	set(&p.Outputs, p.Sequences)
	p.Outputs = max(p.Outputs, p.Sequences)
	set(&p.Threads, runtime.NumCPU())
	set(&p.ThreadsBatch, p.Threads)
	if p.TypeK == "" {
		p.TypeK = "f16"
	}
	if p.TypeV == "" {
		p.TypeV = "f16"
	}
	return p
}

// reservedOutputs rounds the outputs that room is reserved for up to 16. The library places the
// tensors of a graph one after another at multiples of 32 bytes, and among the first are the
// indices of the outputs, 4 bytes each. Sixteen of them fill a cache line; with fewer, all that
// follow can lie across two lines, which cost a prefill with AMX 15 % (docs/measurements.md).
func reservedOutputs(n int) int {
	const line = 16
	return (n + line - 1) / line * line
}

// Validate refuses parameters that cannot be used, whatever the model.
func (p *ContextParams) Validate() error {
	const op = "context"
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"tokens", p.Tokens, ContextTokensMax},
		{"sequences", p.Sequences, SequencesMax},
		{"batch", p.Batch, ContextTokensMax},
		{"micro-batch", p.MicroBatch, ContextTokensMax},
		{"outputs", p.Outputs, ContextTokensMax},
		{"threads", p.Threads, ThreadsMax},
		{"batch threads", p.ThreadsBatch, ThreadsMax},
	} {
		if f.value < 0 || f.value > f.max {
			return fail(op, Invalid, "use 0 for the default", "%s %d is outside 0..%d",
				f.name, f.value, f.max)
		}
	}
	switch {
	case p.Flash < FlashAuto || p.Flash > FlashOff:
		return fail(op, Invalid, "", "unknown flash attention mode %d", p.Flash)
	case p.Pooling < PoolingModel || p.Pooling > PoolingRank:
		return fail(op, Invalid, "", "unknown pooling %d", p.Pooling)
	case p.Attention < AttentionModel || p.Attention > AttentionFull:
		return fail(op, Invalid, "", "unknown attention %d", p.Attention)
	case p.Flash == FlashOff && p.TypeV != "" && p.TypeV != "f16" && p.TypeV != "f32" &&
		p.TypeV != "bf16":
		return fail(op, Invalid, "turn flash attention on or use f16 values",
			"%s values need flash attention", p.TypeV)
	}
	for _, v := range []float32{p.RopeFreqBase, p.RopeFreqScale} {
		if !(v >= 0) || math.IsInf(float64(v), 0) {
			return fail(op, Invalid, "", "rope value %v", v)
		}
	}
	return nil
}

// kvTypes are the types that the pinned llama.cpp accepts for cached keys and values.
var kvTypes = map[string]bool{
	"f32": true, "f16": true, "bf16": true, "q8_0": true, "q4_0": true, "q4_1": true,
	"iq4_nl": true, "q5_0": true, "q5_1": true,
}

// KVTypes lists the accepted types of cached keys and values.
func KVTypes() []string {
	return []string{"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"}
}

// ContextInfo holds what a context really got.
type ContextInfo struct {
	Tokens         int // cells in all
	SequenceTokens int // most tokens of one sequence
	Batch          int
	MicroBatch     int
	Sequences      int
	Threads        int
	ThreadsBatch   int
	Pooling        Pooling
	EmbeddingSize  int  // values of Embedding; with PoolingRank the scores
	Causal         bool // a token sees only those before it
	Shift          bool // Shift and Divide are possible
	Memory         bool // there is a KV cache or state
	// WindowCells is the size of a sliding-window model's window cache: of each sequence, or in a
	// Unified cache of all together. It lets go of the oldest positions beyond the window when it
	// needs their cells; with SmallWindow that is soon. 0 where no layer has a window.
	WindowCells int
	// Positions is the length of the table that the model looks positions up in: no sequence is
	// longer. 0 where there is no table.
	Positions int
}

// Context runs a model: it holds the KV cache and computes. One goroutine at a time, except
// Abort, which any may call.
type Context struct {
	life
	h      contextHandle
	model  *Model
	params ContextParams
	info   ContextInfo
	batch  Batch
	// outputs says of each place of the last Decode whether it has an output; empty after one
	// that failed.
	outputs []int8
	loras   []*Lora
	pool    []*Threads
}

// NewContext makes a context. Errors: Invalid, also for sequences longer than the model has
// positions for, Memory, Closed, Missing.
func (m *Model) NewContext(p ContextParams) (*Context, error) {
	if err := m.enter("context"); err != nil {
		return nil, err
	}
	defer m.leave()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if m.vocabularyOnly {
		return nil, fail("context", Unsupported, "load the model without VocabularyOnly",
			"a vocabulary computes nothing")
	}
	asked := p.Tokens
	p = p.fill(m.info)
	for _, name := range []string{p.TypeK, p.TypeV} {
		if !kvTypes[name] {
			return nil, fail("context", Invalid, "use f16 or q8_0", "unknown KV type %q", name)
		}
	}
	if err := checkPositions(&p, asked, positions(m.h)); err != nil {
		return nil, err
	}
	h, err := newContext(m.h, &p)
	if err != nil {
		return nil, err
	}
	c := &Context{h: h, model: m, params: p}
	c.setInfo()
	c.batch = Batch{c: c, arrays: batchArrays(h)}
	c.outputs = make([]int8, 0, len(c.batch.arrays.output))
	m.adopt()
	return c, nil
}

// checkPositions refuses to ask for sequences that are longer than the model's table of positions.
// A default, or what rounding up adds, is only never filled. A Unified cache may hold several
// sequences of that length.
func checkPositions(p *ContextParams, asked, rows int) error {
	if rows == 0 || asked == 0 || asked/p.Sequences <= rows {
		return nil
	}
	return fail("context", Invalid, "ask for fewer tokens",
		"the model has positions for %d tokens a sequence, not for %d", rows, asked/p.Sequences)
}

// setInfo asks what the context got.
func (c *Context) setInfo() {
	c.info = contextInfo(c.h)
	c.info.Positions = positions(c.model.h)
	if c.info.Positions > 0 {
		c.info.SequenceTokens = min(c.info.SequenceTokens, c.info.Positions)
	}
}

// Info says what the context got.
func (c *Context) Info() ContextInfo { return c.info }

// Model is the model it runs.
func (c *Context) Model() *Model { return c.model }

// Close frees the context and its cache.
func (c *Context) Close() error {
	return c.close("close context", func() {
		freeContext(c.h)
		c.batch.Reset()
		c.batch.arrays = arrays{} // they were in C memory
		c.outputs = nil
		for _, l := range c.loras {
			l.disown()
		}
		for _, t := range c.pool {
			t.disown()
		}
		c.model.disown()
	})
}

// Abort makes a running and every later Decode end with Canceled until Resume. Tokens computed
// before it stay in the cache. Any goroutine may call it.
func (c *Context) Abort() { c.setAbort(true) }

// Resume ends the effect of Abort.
func (c *Context) Resume() { c.setAbort(false) }

// setAbort holds the lock that Close needs, so that Close waits for it and never finds it in use.
func (c *Context) setAbort(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		abort(c.h, on)
	}
}

// SetThreads changes the number of threads of a decode step and of a prefill.
func (c *Context) SetThreads(n, batch int) error {
	if n < 1 || n > ThreadsMax || batch < 1 || batch > ThreadsMax {
		return fail("threads", Invalid, "", "%d and %d, want 1..%d", n, batch, ThreadsMax)
	}
	if err := c.enter("threads"); err != nil {
		return err
	}
	defer c.leave()
	setThreads(c.h, n, batch)
	c.setInfo()
	return nil
}

// SetLoras replaces the adapters that apply, each with its scale. None clears them.
func (c *Context) SetLoras(loras []*Lora, scales []float32) error {
	const op = "set adapters"
	if err := c.enter(op); err != nil {
		return err
	}
	defer c.leave()
	if len(loras) != len(scales) {
		return fail(op, Invalid, "", "%d adapters, %d scales", len(loras), len(scales))
	}
	handles := make([]loraHandle, len(loras))
	for i, l := range loras {
		if l == nil || l.model != c.model {
			return fail(op, Invalid, "load it for this model", "adapter %d is of another model", i)
		}
		if v := float64(scales[i]); math.IsNaN(v) || math.IsInf(v, 0) {
			return fail(op, Invalid, "", "scale %v of adapter %d", v, i)
		}
		if err := l.enter(op); err != nil {
			return err
		}
		defer l.leave()
		handles[i] = l.h
	}
	if !setLoras(c.h, handles, scales) {
		return fail(op, Internal, "", "llama.cpp refused the adapters")
	}
	for _, l := range loras {
		l.adopt()
	}
	for _, l := range c.loras {
		l.disown()
	}
	c.loras = append([]*Lora(nil), loras...)
	return nil
}

// Threads is a pool of threads that contexts can share.
type Threads struct {
	life
	h threadsHandle
}

// ThreadsParams chooses a pool.
type ThreadsParams struct {
	N        int // threads, 1..ThreadsMax
	Poll     int // 0 sleeps between graphs, 100 spins
	Priority int // -1 low, 0 normal, 1..3 higher
}

// NewThreads starts a pool. It outlives the contexts it is attached to.
func NewThreads(p ThreadsParams) (*Threads, error) {
	if p.N < 1 || p.N > ThreadsMax || p.Poll < 0 || p.Poll > 100 || p.Priority < -1 ||
		p.Priority > 3 {
		return nil, fail("thread pool", Invalid, "", "%+v", p)
	}
	h, err := newThreads(p)
	if err != nil {
		return nil, err
	}
	return &Threads{h: h}, nil
}

// Close stops the threads.
func (t *Threads) Close() error {
	return t.close("close thread pool", func() { freeThreads(t.h) })
}

// Attach lets the context compute on pools: decode for single steps, batch for prefills; nil
// means the context's own threads.
func (c *Context) Attach(decode, batch *Threads) error {
	if err := c.enter("attach"); err != nil {
		return err
	}
	defer c.leave()
	var next []*Threads
	var handles [2]threadsHandle
	for i, t := range []*Threads{decode, batch} {
		if t == nil {
			continue
		}
		if err := t.enter("attach"); err != nil {
			return err
		}
		defer t.leave()
		handles[i] = t.h
		next = append(next, t)
	}
	attach(c.h, handles[0], handles[1])
	for _, t := range next {
		t.adopt()
	}
	for _, t := range c.pool {
		t.disown()
	}
	c.pool = next
	return nil
}
