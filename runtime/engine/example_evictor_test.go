package engine_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// fading keeps the first Keep tokens for good. Of what follows it gives up every second block, so
// that old text fades rather than ends. A sequence holds at most Most tokens.
type fading struct{ Keep, Block, Most int }

// Limit makes a sequence full before the context is.
func (f fading) Limit(tokens int) int { return min(f.Most, tokens) }

// Evict chooses what goes. It is asked again whenever the sequence is full.
func (f fading) Evict(v kv.View) ([]kv.Span, error) {
	var spans []kv.Span
	for p := f.Keep; p+2*f.Block <= v.Length; p += 2 * f.Block {
		spans = append(spans, kv.Span{P0: kv.Pos(p), P1: kv.Pos(p + f.Block)})
	}
	return spans, nil
}

// tell lets a model tell a story of 400 tokens in 128 cells.
func tell(ctx context.Context, path string) (text string, cost infer.Usage, err error) {
	e, err := engine.Open(ctx, engine.Options{
		Paths: []string{path}, Threads: 1,
		Evictors: map[string]kv.Evictor{"fading": fading{Keep: 32, Block: 8, Most: 128}},
	})
	if err != nil {
		return "", cost, err
	}
	for chunk, err := range e.Generate(ctx, infer.Request{
		Prompt: "Once upon a time", MaxTokens: 400, IgnoreEOS: true,
		KV: infer.KVPolicy{Evict: "fading"},
	}) {
		if err != nil {
			return text, cost, errors.Join(err, e.Close())
		}
		text += chunk.Text
		if chunk.Final != nil {
			cost = chunk.Final.Usage
		}
	}
	return text, cost, e.Close()
}

// The end of the example.

// TestOwnEvictor runs the example of docs/embed.md.
func TestOwnEvictor(t *testing.T) {
	text, cost, err := tell(t.Context(), storetest.Model(t, "smollm2:135m"))
	require.NoError(t, err)
	require.NotEmpty(t, text)
	require.Equal(t, 400, cost.CompletionTokens)
	require.LessOrEqual(t, cost.Cells, 128)
	require.Equal(t, cost.PromptTokens+399, cost.Evicted+cost.Cells)
}

// TestOwnEvictorDoc: the page shows this file's code, in 40 lines at most.
func TestOwnEvictorDoc(t *testing.T) {
	t.Parallel()
	own, err := os.ReadFile("example_evictor_test.go")
	require.NoError(t, err)
	page, err := os.ReadFile("../../docs/embed.md")
	require.NoError(t, err)
	_, code, ok := strings.Cut(string(own), "// fading keeps")
	require.True(t, ok)
	code, _, ok = strings.Cut("// fading keeps"+code, "\n// The end of the example.")
	require.True(t, ok)
	require.LessOrEqual(t, strings.Count(code, "\n"), 40)
	require.Contains(t, string(page), "```go\n"+code+"```\n")
}

// oldest gives up what came first.
type oldest struct{ most int }

func (o oldest) Limit(tokens int) int { return min(o.most, tokens) }

func (o oldest) Evict(v kv.View) ([]kv.Span, error) {
	return []kv.Span{{P0: 0, P1: kv.Pos(v.Length / 2)}}, nil
}

// TestOwnEvictorNeedle: a fact that the policy keeps is in the cells when the answer comes, and one
// that it gives up is not, wherever it stood.
func TestOwnEvictorNeedle(t *testing.T) {
	const most = 128
	e := open(t, "smollm2:135m", func(o *engine.Options) {
		o.ContextTokens, o.MicroBatch = 1024, 32
		o.Evictors = map[string]kv.Evictor{
			"fading": fading{Keep: 48, Block: 8, Most: most}, "oldest": oldest{most},
		}
	})
	needle := "The password of the gate is pineapple. Remember: the password is pineapple.\n"
	held, err := e.Tokenize(t.Context(), needle, infer.TokenizeOptions{AddSpecial: true})
	require.NoError(t, err)
	require.LessOrEqual(t, len(held), 48, "what is kept holds the needle")
	filler := long("The cat sat on the mat and looked at the sea.", 12)
	question := "\nThe gate asks for the password. The password of the gate is"
	for _, c := range []struct {
		name, policy, prompt string
		kept                 bool
	}{
		{"inside", "fading", needle + filler + question, true},
		{"outside", "fading", filler + needle + filler + filler + question, false},
		{"of another policy", "oldest", needle + filler + question, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := infer.Request{
				Prompt: c.prompt, MaxTokens: 4, IgnoreEOS: true,
				KV: infer.KVPolicy{Evict: c.policy, Salt: c.name},
			}
			text, f := answer(t, e, r)
			require.LessOrEqual(t, f.Usage.Cells, most)
			require.Equal(t, f.Usage.PromptTokens+3, f.Usage.Evicted+f.Usage.Cells)
			require.Equal(t, c.kept, strings.Contains(text, "pineapple"), "%q", text)
			r.Prompt, r.MaxTokens = r.Prompt[:400], 1 // what the cells have of its start is not computed
			_, f = answer(t, e, r)
			if c.policy == "fading" {
				require.Equal(t, 48, f.Usage.Cached.Live)
			} else {
				require.Zero(t, f.Usage.Cached)
			}
		})
	}
}

// policy is an evictor made of functions.
type policy struct {
	limit func(int) int
	evict func(kv.View) ([]kv.Span, error)
	valid error
}

func (p policy) Limit(tokens int) int {
	if p.limit == nil {
		return tokens
	}
	return p.limit(tokens)
}
func (p policy) Evict(v kv.View) ([]kv.Span, error) { return p.evict(v) }
func (p policy) Validate() error                    { return p.valid }

// TestOwnEvictorMisbehaves: a policy that panics or answers nonsense ends its own request with a
// typed error; the engine goes on, and no cell is lost.
func TestOwnEvictorMisbehaves(t *testing.T) {
	spans := func(s ...kv.Span) func(kv.View) ([]kv.Span, error) {
		return func(kv.View) ([]kv.Span, error) { return s, nil }
	}
	own := errors.New("not today")
	bad := map[string]kv.Evictor{
		"panics":        policy{evict: func(kv.View) ([]kv.Span, error) { panic("no") }},
		"panics as nil": policy{}, // evict is nil
		"fails":         policy{evict: func(kv.View) ([]kv.Span, error) { return nil, own }},
		"nothing":       policy{evict: spans()},
		"too little":    policy{evict: spans(kv.Span{P0: 3, P1: 3})},
		"everything":    policy{evict: spans(kv.Span{P0: 0, P1: 64})},
		"beyond":        policy{evict: spans(kv.Span{P0: 60, P1: 70})},
		"before":        policy{evict: spans(kv.Span{P0: -1, P1: 9})},
		"backwards":     policy{evict: spans(kv.Span{P0: 9, P1: 5})},
		"overlapping":   policy{evict: spans(kv.Span{P0: 5, P1: 9}, kv.Span{P0: 8, P1: 12})},
		"no limit":      policy{limit: func(int) int { return 0 }},
		"a huge limit":  policy{limit: func(n int) int { return n + 1 }},
		"panics early":  policy{limit: func(int) int { panic("no") }},
		"contradictory": policy{valid: own},
	}
	for _, shared := range []bool{false, true} {
		e := openTiny(t, func(o *engine.Options) {
			o.ContextTokens, o.Sequences, o.Shared, o.Evictors = 64, 2, shared, bad
		})
		good := infer.Request{Prompt: "hello", MaxTokens: 20, IgnoreEOS: true}
		want, _ := answer(t, e, good)
		for name := range bad {
			_, _, err := collect(t.Context(), e, infer.Request{
				Prompt: "hello", MaxTokens: 400, IgnoreEOS: true, KV: infer.KVPolicy{Evict: name},
			})
			require.ErrorIs(t, err, kv.ErrPolicy, name)
			refusal, ok := errors.AsType[*infer.Error](err)
			require.True(t, ok, name)
			require.Equal(t, infer.KindInvalid, refusal.Kind, name)
			require.NotEmpty(t, refusal.Field, name)
			got, _ := answer(t, e, good)
			require.Equal(t, want, got, name)
			busy, promised, problem := e.Books()
			require.NoError(t, problem, name)
			require.Zero(t, busy+promised, name)
		}
	}
}
