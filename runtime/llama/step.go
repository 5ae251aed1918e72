package llama

// arrays are the batch's places in C memory, owned by the context. Each has the same length,
// the capacity of the batch.
type arrays struct {
	token  []Token
	pos    []Pos
	seq    []Seq
	output []int8
}

// Batch is what one Decode computes: a list of places, each one token of one sequence. It
// belongs to its context and is filled by the goroutine that owns it.
type Batch struct {
	c       *Context
	arrays  arrays
	n       int
	outputs int
}

// Batch returns the context's batch, as it was left.
func (c *Context) Batch() *Batch { return &c.batch }

// Reset empties the batch.
func (b *Batch) Reset() { b.n, b.outputs = 0, 0 }

// Len is the number of places filled.
func (b *Batch) Len() int { return b.n }

// Room is how many more places there are.
func (b *Batch) Room() int { return len(b.arrays.token) - b.n }

// Add fills the next place and returns its index. output asks for logits or an embedding there.
// Errors: Invalid.
func (b *Batch) Add(token Token, pos Pos, seq Seq, output bool) (int, error) {
	const op = "batch"
	switch {
	case b.arrays.token == nil:
		return 0, &Error{Op: op, Code: Closed}
	case b.Room() == 0:
		return 0, fail(op, Invalid, "decode first", "all %d places are filled", b.n)
	case pos < 0 || pos >= ContextTokensMax:
		return 0, fail(op, Invalid, "", "position %d is outside 0..%d", pos, ContextTokensMax-1)
	case b.c.info.Positions > 0 && int(pos) >= b.c.info.Positions:
		return 0, fail(op, Invalid, "", "position %d: the model has %d", pos, b.c.info.Positions)
	case output && b.outputs == b.c.params.Outputs:
		return 0, fail(op, Invalid, "raise ContextParams.Outputs",
			"more than %d outputs", b.c.params.Outputs)
	}
	if err := b.c.checkSeq(op, seq); err != nil {
		return 0, err
	}
	if err := b.c.model.checkToken(op, token); err != nil {
		return 0, err
	}
	i := b.n
	b.arrays.token[i], b.arrays.pos[i], b.arrays.seq[i] = token, pos, seq
	b.arrays.output[i] = 0
	if output {
		b.arrays.output[i] = 1
		b.outputs++
	}
	b.n++
	return i, nil
}

// Decode computes the batch and empties it. Without an output nothing waits for the device.
// Errors: Invalid, Full (nothing changed: free cells, fill the batch again and decode), Canceled
// (what was computed stays: ask PosMax), Decode, Unsupported on a dry model, Closed.
func (c *Context) Decode() error {
	if err := c.ready("decode"); err != nil {
		return err
	}
	defer c.leave()
	return c.computed(decode(c.h, c.batch.n))
}

// Encode runs the encoder over the batch and empties it. Errors as Decode, and Unsupported.
func (c *Context) Encode() error {
	if err := c.ready("encode"); err != nil {
		return err
	}
	defer c.leave()
	switch {
	case !c.model.info.Encoder:
		c.batch.Reset()
		return fail("encode", Unsupported, "use Decode", "this model has no encoder")
	case c.batch.n > c.info.MicroBatch:
		c.batch.Reset()
		return fail("encode", Invalid, "raise ContextParams.MicroBatch",
			"a batch of more than %d tokens", c.info.MicroBatch)
	}
	return c.computed(encode(c.h, c.batch.n))
}

// ready admits a call that computes the batch; the caller leaves. A batch that is refused is
// emptied too.
func (c *Context) ready(op string) error {
	if err := c.enter(op); err != nil {
		return err
	}
	if err := c.checkBatch(op, c.batch.n); err != nil {
		c.batch.Reset()
		c.leave()
		return err
	}
	return nil
}

// checkBatch refuses what a failed assertion would end the process for.
func (c *Context) checkBatch(op string, n int) error {
	switch {
	case n == 0:
		return fail(op, Invalid, "", "the batch is empty")
	case c.model.dry:
		return fail(op, Unsupported, "load the model without Dry", "a dry model has no weights")
	case (!c.info.Causal || !c.info.Memory) && n > c.info.MicroBatch:
		return fail(op, Invalid, "raise ContextParams.MicroBatch",
			"full attention computes at most %d tokens at once", c.info.MicroBatch)
	case c.params.Embeddings && n > c.params.Outputs:
		return fail(op, Invalid, "raise ContextParams.Outputs",
			"%d places with vectors, at most %d", n, c.params.Outputs)
	}
	return nil
}

// computed remembers which places of the batch have an output, and empties it.
func (c *Context) computed(err error) error {
	n := c.batch.n
	c.batch.Reset()
	c.outputs = c.outputs[:0]
	if err != nil {
		return err
	}
	c.outputs = append(c.outputs, c.batch.arrays.output[:n]...)
	for i := range c.outputs {
		if c.params.Embeddings {
			c.outputs[i] = 1
		}
	}
	return nil
}

// Sync waits for the device.
func (c *Context) Sync() error {
	if err := c.enter("sync"); err != nil {
		return err
	}
	defer c.leave()
	syncContext(c.h)
	return nil
}

// checkOutput refuses a place of the last batch that has no output.
func (c *Context) checkOutput(op string, place int) error {
	if place < 0 || place >= len(c.outputs) || c.outputs[place] == 0 {
		return fail(op, Invalid, "add it with output", "place %d has no output", place)
	}
	return nil
}

// Logits returns the logits of a place of the last Decode, [vocabulary]. The slice is owned by
// C and valid until the next Decode.
func (c *Context) Logits(place int) ([]float32, error) {
	if err := c.enter("logits"); err != nil {
		return nil, err
	}
	defer c.leave()
	if err := c.checkOutput("logits", place); err != nil {
		return nil, err
	}
	out := logits(c.h, place, c.model.info.Vocabulary)
	if out == nil {
		return nil, fail("logits", Invalid, "", "place %d has no logits", place)
	}
	return out, nil
}

// Embedding copies the vector of a sequence of the last Decode into dst,
// [ContextInfo.EmbeddingSize]. It needs pooling.
func (c *Context) Embedding(seq Seq, dst []float32) error {
	if err := c.enter("embedding"); err != nil {
		return err
	}
	defer c.leave()
	if err := c.checkSeq("embedding", seq); err != nil {
		return err
	}
	if len(dst) != c.info.EmbeddingSize {
		return fail("embedding", Invalid, "", "room for %d values, need %d",
			len(dst), c.info.EmbeddingSize)
	}
	if !c.params.Embeddings || c.info.Pooling == PoolingNone || !embedding(c.h, seq, dst) {
		return fail("embedding", Unsupported, "set ContextParams.Embeddings and Pooling",
			"sequence %d has no vector", seq)
	}
	return nil
}

// SetEmbeddings switches vectors on or off; what the last Decode gave is gone. While vectors are
// on every place of a Decode is an output, so it may hold at most ContextParams.Outputs places.
func (c *Context) SetEmbeddings(on bool) error {
	if err := c.enter("embeddings"); err != nil {
		return err
	}
	defer c.leave()
	c.params.Embeddings = on
	c.outputs = c.outputs[:0]
	setEmbeddings(c.h, on)
	return nil
}

// EmbeddingAt copies the vector of a place of the last Decode into dst, [embedding size]. It
// needs embeddings without pooling.
func (c *Context) EmbeddingAt(place int, dst []float32) error {
	const op = "embedding"
	if err := c.enter(op); err != nil {
		return err
	}
	defer c.leave()
	if err := c.checkOutput(op, place); err != nil {
		return err
	}
	if len(dst) != c.model.info.EmbeddingSize {
		return fail(op, Invalid, "", "room for %d values, need %d",
			len(dst), c.model.info.EmbeddingSize)
	}
	if !c.params.Embeddings || c.info.Pooling != PoolingNone || !embeddingAt(c.h, place, dst) {
		return fail(op, Unsupported, "set ContextParams.Embeddings without Pooling",
			"place %d has no vector", place)
	}
	return nil
}

// TopLogprob is one alternative of Logprobs.
type TopLogprob struct {
	Token   Token
	Logprob float32
}

// Logprobs gives natural log-probabilities at a place of the last Decode: of token, and of the
// len(top) most probable tokens, best first, into top.
func (c *Context) Logprobs(place int, token Token, top []TopLogprob) (float32, error) {
	const op = "logprobs"
	if err := c.enter(op); err != nil {
		return 0, err
	}
	defer c.leave()
	if err := c.checkOutput(op, place); err != nil {
		return 0, err
	}
	if err := c.model.checkToken(op, token); err != nil {
		return 0, err
	}
	if len(top) > c.model.info.Vocabulary {
		return 0, fail(op, Invalid, "", "%d alternatives of %d tokens",
			len(top), c.model.info.Vocabulary)
	}
	lp, ok := logprobs(c.h, place, token, top)
	if !ok {
		return 0, fail(op, Invalid, "", "place %d has no logits", place)
	}
	return lp, nil
}
