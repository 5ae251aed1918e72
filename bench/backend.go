package bench

import (
	"context"
	"fmt"
	"os"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// EngineWish is what a scenario needs of an engine.
type EngineWish struct {
	Path      string
	Threads   int
	Longest   int    // tokens of the longest request, prompt and answer
	Sequences int    // requests at once
	Cells     int    // tokens of all requests that run at once, nothing shared
	Dir       string // where state that survives a restart may be kept
}

// OpenEngine opens norion's engine in this process.
func OpenEngine(ctx context.Context, w EngineWish) (infer.Backend, error) {
	return engine.Open(ctx, engine.Options{
		Paths: []string{w.Path}, Threads: w.Threads, ContextTokens: w.Longest,
		QueueMax: max(64, w.Sequences),
	})
}

// backend asks an infer.Backend.
type backend struct {
	open func(ctx context.Context) (infer.Backend, error)
	b    infer.Backend
}

func openBackend(ctx context.Context, open func(context.Context) (infer.Backend, error)) (
	*backend, error,
) {
	b, err := open(ctx)
	return &backend{open, b}, err
}

func (b *backend) Close() error { return b.b.Close() }

func (b *backend) Restart(ctx context.Context) (err error) {
	if err = b.b.Close(); err == nil {
		b.b, err = b.open(ctx)
	}
	return err
}

func (b *backend) resident() int64 { return residentBytes(os.Getpid()) }

func (b *backend) Tokenize(ctx context.Context, text string) ([]infer.TokenID, error) {
	tokens, err := b.b.Tokenize(ctx, text, infer.TokenizeOptions{})
	out := make([]infer.TokenID, len(tokens))
	for i, t := range tokens {
		out[i] = t.ID
	}
	return out, err
}

// Ask asks for log-probabilities where the answer is kept, since they name its tokens.
func (b *backend) Ask(ctx context.Context, q question, came func(int)) (r reply, err error) {
	policy, err := policyOf(q.Endless)
	if err != nil {
		return r, err
	}
	for chunk, err := range b.b.Generate(ctx, infer.Request{
		Tokens: q.Tokens, MaxTokens: q.Answer, IgnoreEOS: true, SpecialText: true, Logprobs: q.Keep,
		KV: policy,
	}) {
		if err != nil {
			return r, err
		}
		came(chunk.Tokens)
		for _, l := range chunk.Logprobs {
			r.Answer = append(r.Answer, l.Token.ID)
		}
		if chunk.Final != nil {
			u := chunk.Final.Usage
			if u.PromptTokens != len(q.Tokens) {
				return r, &Error{Op: "measure", Kind: ErrOutput, Field: string(SideNorion),
					Err: fmt.Errorf("%d prompt tokens, not %d", u.PromptTokens, len(q.Tokens))}
			}
			r.Cached = &u.Cached
			r.Computed = u.PromptTokens - u.Cached.Live - u.Cached.RAM - u.Cached.Disk
		}
	}
	return r, nil
}

// policyOf is the request's policy for a stream without an end.
func policyOf(k *Sinks) (infer.KVPolicy, error) {
	if k == nil {
		return infer.KVPolicy{}, nil
	}
	return infer.KVPolicy{}, &infer.Error{Op: "measure", Kind: infer.KindUnsupported,
		Field: "KV", Err: fmt.Errorf("requests cannot ask for %d sinks yet", k.Sinks)}
}
