package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Score implements infer.Backend. Context and text are split as one text, so that the scored
// tokens are those that generation would have seen; a token that spans the border is scored.
func (e *Engine) Score(ctx context.Context, r infer.ScoreRequest) (infer.Scores, error) {
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
	err = e.call(ctx, op, r.Deadline, func(w *worker, t *task) error {
		out.Usage.Timings.Queue = time.Since(t.submitted)
		begin := time.Now()
		if err := e.score(t.ctx, w, tokens, from, r.TopLogprobs, &out); err != nil {
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

// score computes tokens and collects the log-probabilities of those from index from on.
func (e *Engine) score(ctx context.Context, w *worker, tokens []llama.Token, from, top int,
	out *infer.Scores,
) error {
	// The logits before token from are needed, so at least that one is computed again.
	out.Usage.PromptTokens = len(tokens)
	out.Usage.Cached.Live = w.reuse(tokens[:from])
	if _, err := w.feed(ctx, tokens[len(w.cached):from-1], false); err != nil {
		return err
	}
	for at := from - 1; at < len(tokens)-1; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(e.outputs, len(tokens)-1-at)
		for i := range n {
			if _, err := w.c.Batch().Add(tokens[at+i], llama.Pos(at+i), 0, true); err != nil {
				return err
			}
		}
		if err := w.c.Decode(); err != nil {
			return err
		}
		w.cached = append(w.cached, tokens[at:at+n]...)
		for i := range n {
			rivals := make([]llama.TopLogprob, min(top, e.info.Vocabulary))
			lp, err := w.c.Logprobs(i, tokens[at+i+1], rivals)
			if err != nil {
				return err
			}
			scored, err := e.logprobs(tokens[at+i+1], lp, rivals)
			if err != nil {
				return err
			}
			out.Tokens = append(out.Tokens, scored)
			out.Sum += float64(lp)
		}
		at += n
	}
	return nil
}

// EmbedTextsMax bounds one call of Embed.
const EmbedTextsMax = 4096

// Embed implements infer.Backend. Vectors of tokens are pooled as the model's file says; where it
// says nothing, by their mean. The list is one request: it waits once, and the others wait until
// all of it is computed; a long list that should not hold them up is better sent in parts.
func (e *Engine) Embed(ctx context.Context, texts []string) ([][]float32, error) {
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
	out := make([][]float32, len(texts))
	err := e.call(ctx, op, time.Time{}, func(w *worker, t *task) error {
		for i, tokens := range all {
			if t.ctx.Err() != nil {
				return context.Cause(t.ctx)
			}
			var err error
			if out[i], err = e.embed(t.ctx, w, tokens); err != nil {
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

// embed computes one vector. It takes over the cache.
func (e *Engine) embed(ctx context.Context, w *worker, tokens []llama.Token) ([]float32, error) {
	w.forget()
	defer w.forget()
	sum := make([]float32, e.info.EmbeddingSize)
	if !e.info.Abilities.Generate {
		for i, t := range tokens {
			if _, err := w.c.Batch().Add(t, llama.Pos(i), 0, true); err != nil {
				return nil, err
			}
		}
		run := w.c.Decode
		if e.model.Info().Encoder {
			run = w.c.Encode
		}
		if err := run(); err != nil {
			return nil, err
		}
		if err := w.c.Embedding(0, sum); err != nil {
			return nil, err
		}
		return normalize(sum)
	}
	if err := w.c.SetEmbeddings(true); err != nil {
		return nil, err
	}
	defer func() { _ = w.c.SetEmbeddings(false) }() // cannot fail on an open context
	row := make([]float32, len(sum))
	for at := 0; at < len(tokens); at += e.outputs {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		part := tokens[at:min(at+e.outputs, len(tokens))]
		for i, t := range part {
			if _, err := w.c.Batch().Add(t, llama.Pos(at+i), 0, true); err != nil {
				return nil, err
			}
		}
		if err := w.c.Decode(); err != nil {
			return nil, err
		}
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
