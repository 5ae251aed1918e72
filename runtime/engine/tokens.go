package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

var (
	_ infer.Counter     = (*Engine)(nil)
	_ infer.Detokenizer = (*Engine)(nil)
)

// CountTokens implements infer.Counter.
func (e *Engine) CountTokens(ctx context.Context, r infer.Request) (int, error) {
	g, err := e.prepare(ctx, &r)
	if err != nil {
		return 0, fail("count", err)
	}
	g.cancel(context.Canceled)
	g.free()
	return len(g.tokens), nil
}

// Detokenize implements infer.Detokenizer.
func (e *Engine) Detokenize(ctx context.Context, tokens []infer.TokenID) ([]byte, error) {
	if err := e.queue.enter(); err != nil {
		return nil, err
	}
	defer e.queue.leave()
	if ctx.Err() != nil {
		return nil, ended("detokenize", ctx)
	}
	if len(tokens) > infer.TokensMax {
		return nil, &infer.Error{
			Op: "detokenize", Kind: infer.KindTooLong, Field: "tokens",
			Err: fmt.Errorf("%d tokens, at most %d", len(tokens), infer.TokensMax),
		}
	}
	var out []byte
	var err error
	for _, t := range tokens {
		if t < 0 || int(t) >= e.info.Vocabulary {
			return nil, &infer.Error{
				Op: "detokenize", Kind: infer.KindInvalid, Field: "tokens",
				Err: errors.New("a token is outside the vocabulary"),
			}
		}
		if out, err = e.model.AppendPiece(out, llama.Token(t), true); err != nil {
			return nil, fail("detokenize", err)
		}
	}
	return out, nil
}
