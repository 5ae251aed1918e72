package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Score implements infer.Backend. Context and text are split as one text, so that the scored
// tokens are those that generation would have seen; a token that spans the border is scored.
func (e *Engine) Score(ctx context.Context, r infer.ScoreRequest) (infer.Scores, error) {
	out, err := e.score(ctx, &r)
	e.ends.add(howEnded(err))
	return out, err
}

func (e *Engine) score(ctx context.Context, r *infer.ScoreRequest) (infer.Scores, error) {
	const op = "score"
	if err := r.Validate(); err != nil {
		return infer.Scores{}, err
	}
	if err := e.queue.enter(); err != nil {
		return infer.Scores{}, err
	}
	defer e.queue.leave()
	if !e.info.Abilities.Score {
		return infer.Scores{}, &infer.Error{Op: op, Kind: infer.KindUnsupported}
	}
	if err := e.fits(op, "text", len(r.Context)+len(r.Text)); err != nil {
		return infer.Scores{}, err
	}
	tokens, err := e.model.Tokenize(r.Context+r.Text, true, false)
	if err != nil {
		return infer.Scores{}, fail(op, err)
	}
	from := 0
	if r.Context != "" {
		before, err := e.model.Tokenize(r.Context, true, false)
		if err != nil {
			return infer.Scores{}, fail(op, err)
		}
		for from < min(len(before), len(tokens)) && before[from] == tokens[from] {
			from++
		}
	}
	from = max(from, 1) // nothing comes before the first token
	if len(tokens) < from {
		return infer.Scores{}, nil // a text that the tokenizer drops
	}
	if len(tokens) > e.bounded {
		return infer.Scores{}, &infer.Error{
			Op: op, Kind: infer.KindTooLong, Field: "text", Hint: "use a larger context (--ctx)",
			Err: fmt.Errorf("%d tokens exceed the context of %d", len(tokens), e.bounded),
		}
	}
	var out infer.Scores
	// The logits before token from are needed, so at least that one is computed again.
	need := kv.Request{Key: e.key, Tokens: booked(tokens[:from]), Limit: len(tokens)}
	submitted := time.Now()
	err = e.call(ctx, op, r.Deadline, len(tokens)-1, &need, func(ctx context.Context, w *worker,
		a kv.Admission,
	) error {
		begin := time.Now()
		out.Usage.Timings.Queue = begin.Sub(submitted)
		out.Usage.PromptTokens, out.Usage.Cached = len(tokens), cached(a)
		v := scoring{w: w, a: a, tokens: tokens, top: r.TopLogprobs, out: &out}
		if err := v.run(ctx, from); err != nil {
			return err
		}
		out.Usage.Timings.Prefill = time.Since(begin)
		return nil
	})
	if err != nil {
		return infer.Scores{}, err
	}
	return out, nil
}

// scoring is a text on its way through the model.
type scoring struct {
	w      *worker
	a      kv.Admission
	tokens []llama.Token
	top    int
	out    *infer.Scores
}

// run computes the tokens and collects the log-probabilities of those from index from on.
func (v *scoring) run(ctx context.Context, from int) error {
	e, at := v.w.e, v.a.Reused
	for at < len(v.tokens)-1 {
		if v.w.observe(); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(v.w.c.Info().MicroBatch, from-1-at) // nobody asks for what these predict
		if n <= 0 {
			n = min(e.outputs, len(v.tokens)-1-at)
		}
		if err := v.decode(at, n, at >= from-1); err != nil {
			return err
		}
		if at >= from-1 {
			if err := v.collect(at, n); err != nil {
				return err
			}
		}
		at += n
	}
	return nil
}

// decode computes n tokens from index at on.
func (v *scoring) decode(at, n int, output bool) error {
	x := v.w.cells
	plan, err := x.cache.Reserve(v.a.Seq, n)
	if err != nil {
		return err
	}
	if err := x.run(plan.Ops); err != nil {
		return err
	}
	for i, t := range v.tokens[at : at+n] {
		_, err := v.w.c.Batch().Add(t, llama.Pos(at+i), llama.Seq(v.a.Seq), output)
		if err != nil {
			return err
		}
	}
	if err := v.w.c.Decode(); err != nil {
		return err
	}
	v.out.Usage.Computed += n
	v.w.totals.Computed += int64(n)
	v.w.totals.Steps++
	return x.cache.Append(v.a.Seq, booked(v.tokens[at:at+n]))
}

// collect reads what the last n tokens say of those after them.
func (v *scoring) collect(at, n int) error {
	e := v.w.e
	for i := range n {
		rivals := make([]llama.TopLogprob, min(v.top, e.info.Vocabulary))
		lp, err := v.w.c.Logprobs(i, v.tokens[at+i+1], rivals)
		if err != nil {
			return err
		}
		scored, err := e.logprobs(v.tokens[at+i+1], lp, rivals)
		if err != nil {
			return err
		}
		v.out.Tokens = append(v.out.Tokens, scored)
		v.out.Sum += float64(lp)
	}
	return nil
}

// EmbedTextsMax bounds one call of Embed.
const EmbedTextsMax = 4096

// Embed implements infer.Backend. Vectors of tokens are pooled as the model's file says; where it
// says nothing, by their mean. A model that reads a whole text at once computes several together,
// up to Options.Sequences and ContextTokens in all; but for the order of rounding, their vectors
// are those of one by one. The list is one request: it waits once, and the others wait until all of
// it is computed; a long list that should not hold them up is better sent in parts.
func (e *Engine) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	out, err := e.embedAll(ctx, texts)
	e.ends.add(howEnded(err))
	return out, err
}

func (e *Engine) embedAll(ctx context.Context, texts []string) ([][]float32, error) {
	const op = "embed"
	if len(texts) == 0 || len(texts) > EmbedTextsMax {
		return nil, &infer.Error{
			Op: op, Kind: infer.KindInvalid, Field: "texts",
			Err: fmt.Errorf("%d texts, want 1..%d", len(texts), EmbedTextsMax),
		}
	}
	if !e.info.Abilities.Embed {
		return nil, &infer.Error{
			Op: op, Kind: infer.KindUnsupported,
			Err: errors.New("this model gives no vectors of texts"),
		}
	}
	if err := e.queue.enter(); err != nil {
		return nil, err
	}
	defer e.queue.leave()
	all := make([][]llama.Token, len(texts)) // all are checked before the first is computed
	for i, text := range texts {
		var err error
		if all[i], err = e.embedTokens(fmt.Sprintf("texts[%d]", i), text); err != nil {
			return nil, err
		}
	}
	cost := 0
	for _, tokens := range all {
		cost += len(tokens)
	}
	out := make([][]float32, len(texts))
	var need *kv.Request
	if e.info.Abilities.Generate {
		longest := slices.MaxFunc(all, func(a, b []llama.Token) int { return len(a) - len(b) })
		need = &kv.Request{
			Key: e.key, Tokens: booked(longest), Policy: kv.Policy{NoReuse: true},
		}
	}
	err := e.call(ctx, op, time.Time{}, cost, need, func(ctx context.Context, w *worker,
		a kv.Admission,
	) error {
		if need == nil {
			return e.embedTexts(ctx, w, all, out)
		}
		for i, tokens := range all {
			var err error
			if out[i], err = e.embed(ctx, w, llama.Seq(a.Seq), tokens); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// embedTokens splits and checks one text.
func (e *Engine) embedTokens(field, text string) ([]llama.Token, error) {
	const op = "embed"
	if !utf8.ValidString(text) {
		return nil, notUTF8(op, field)
	}
	if err := e.fits(op, field, len(text)); err != nil {
		return nil, err
	}
	tokens, err := e.model.Tokenize(text, true, false)
	if err != nil {
		return nil, fail(op, err)
	}
	kind := infer.KindTooLong
	switch {
	case len(tokens) == 0:
		kind = infer.KindInvalid
	case len(tokens) <= e.bounded:
		return tokens, nil
	}
	return nil, &infer.Error{
		Op: op, Kind: kind, Field: field, Hint: "use a larger context (--ctx), or shorter texts",
		Err: fmt.Errorf("%d tokens, want 1..%d", len(tokens), e.bounded),
	}
}

// embedTexts computes the vectors of a model that reads a whole text at once: of as many texts
// together as there are sequences for, and room in a batch.
func (e *Engine) embedTexts(ctx context.Context, w *worker, texts [][]llama.Token,
	out [][]float32,
) error {
	run, sequences := w.c.Decode, w.c.Info().Sequences
	if e.model.Info().Encoder {
		run = w.c.Encode
	}
	for at := 0; at < len(texts); {
		if w.observe(); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, batch := 0, w.c.Batch()
		for n < sequences && at+n < len(texts) && batch.Len()+len(texts[at+n]) <= e.bounded {
			for i, t := range texts[at+n] {
				if _, err := batch.Add(t, llama.Pos(i), llama.Seq(n), true); err != nil {
					return err
				}
			}
			n++
		}
		w.totals.Embedded += int64(batch.Len())
		w.totals.Steps++
		if err := run(); err != nil {
			return err
		}
		for i := range n {
			v := make([]float32, e.info.EmbeddingSize)
			err := w.c.Embedding(llama.Seq(i), v)
			if err == nil {
				out[at+i], err = normalize(v)
			}
			if err != nil {
				return err
			}
			if w.cells != nil {
				_ = w.c.Drop(llama.Seq(i)) // cannot fail on an open context's sequence
			}
		}
		at += n
	}
	return nil
}

// embed computes one vector with a model that generates. It leaves the sequence empty.
func (e *Engine) embed(ctx context.Context, w *worker, seq llama.Seq, tokens []llama.Token) (
	[]float32, error,
) {
	defer func() { _ = w.c.Drop(seq) }() // cannot fail on an open context's sequence
	sum := make([]float32, e.info.EmbeddingSize)
	if err := w.c.SetEmbeddings(true); err != nil {
		return nil, err
	}
	defer func() { _ = w.c.SetEmbeddings(false) }() // cannot fail on an open context
	row := make([]float32, len(sum))
	for at := 0; at < len(tokens); at += e.outputs {
		if w.observe(); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		part := tokens[at:min(at+e.outputs, len(tokens))]
		for i, t := range part {
			if _, err := w.c.Batch().Add(t, llama.Pos(at+i), seq, true); err != nil {
				return nil, err
			}
		}
		if err := w.c.Decode(); err != nil {
			return nil, err
		}
		w.totals.Steps++
		w.totals.Embedded += int64(len(part))
		for i := range part {
			if err := w.c.EmbeddingAt(i, row); err != nil {
				return nil, err
			}
			if !e.pooled(at+i, len(tokens)) {
				continue
			}
			for j, v := range row {
				sum[j] += v
			}
		}
	}
	return normalize(sum)
}

// pooled says whether token i of n counts for the vector of a text.
func (e *Engine) pooled(i, n int) bool {
	switch e.pooling {
	case gguf.PoolingCLS:
		return i == 0
	case gguf.PoolingLast:
		return i == n-1
	}
	return true
}

// normalize scales v to length 1.
func normalize(v []float32) ([]float32, error) {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 || math.IsNaN(sum) || math.IsInf(sum, 0) {
		return nil, errors.New("the model gave a vector without direction")
	}
	scale := float32(1 / math.Sqrt(sum))
	for i := range v {
		v[i] *= scale
	}
	return v, nil
}
