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
	Cells     int    // tokens of all requests, when what is equal is kept once
	Shared    bool   // one buffer for all sequences, not a stream for each
	Dir       string // where state that survives a restart is kept, "" for none
}

// parkedBytes is what an engine may keep in memory beside its cells.
const parkedBytes = 4 << 30

// Planner has a plan decide what options leave open. It gives the plan in one line, or "".
type Planner func(ctx context.Context, o *engine.Options) (line string, err error)

// openEngine opens norion's engine in this process. plan may be nil.
func openEngine(ctx context.Context, w EngineWish, plan Planner) (
	b infer.Backend, line string, err error,
) {
	o := engine.Options{
		Paths: []string{w.Path}, Threads: w.Threads, ContextTokens: w.Longest,
		QueueMax: UsersMax, Sequences: w.Sequences, Shared: w.Shared, Cells: w.Cells,
		RAM: parkedBytes, CacheDir: w.Dir,
	}
	if plan != nil {
		if line, err = plan(ctx, &o); err != nil {
			return nil, "", err
		}
	}
	e, err := engine.Open(ctx, o)
	if err != nil {
		return nil, "", err
	}
	return e, line, nil
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
	for chunk, err := range b.b.Generate(ctx, infer.Request{
		Tokens: q.Tokens, MaxTokens: q.Answer, IgnoreEOS: true, SpecialText: true, Logprobs: q.Keep,
		KV: q.policy(), Speculate: q.Speculate,
		Sampling: infer.Sampling{Temperature: q.Temperature, Seed: q.Seed},
	}) {
		if err != nil {
			return r, err
		}
		came(chunk.Tokens)
		if q.Text {
			r.Text += chunk.Text
			for range chunk.Tokens {
				r.Ends = append(r.Ends, len(r.Text))
			}
		}
		for _, l := range chunk.Logprobs {
			r.Answer = append(r.Answer, l.Token.ID)
		}
		if chunk.Final != nil {
			u := chunk.Final.Usage
			if u.PromptTokens != len(q.Tokens) {
				return r, &Error{
					Op: "measure", Kind: ErrOutput, Field: string(SideNorion),
					Err: fmt.Errorf("%d prompt tokens, not %d", u.PromptTokens, len(q.Tokens)),
				}
			}
			r.Cached, r.Computed = &u.Cached, u.Computed
			r.Drafted, r.Accepted = u.Drafted, u.Accepted
		}
	}
	return r, nil
}

// policy is what an engine is asked to do with the request's cells.
func (q *question) policy() infer.KVPolicy {
	p := infer.KVPolicy{ReuseChunks: q.Chunks}
	if k := q.Endless; k != nil {
		p.Evict, p.Sinks, p.Window, p.Block = "sink-window", k.Sinks, k.Window, k.Block
	}
	return p
}
