package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// layouts are the ways in which several sequences lie in the context.
func layouts(t *testing.T, change func(*engine.Options), run func(*testing.T, *engine.Engine)) {
	for name, shared := range map[string]bool{"streams": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			run(t, open(t, "smollm2:135m", func(o *engine.Options) {
				o.Sequences, o.Shared = 4, shared
				if change != nil {
					change(o)
				}
			}))
		})
	}
}

// together runs requests at the same time and returns their answers in order.
func together(t *testing.T, e infer.Backend, requests []infer.Request) (
	texts []string, finals []*infer.Final,
) {
	t.Helper()
	texts, finals = make([]string, len(requests)), make([]*infer.Final, len(requests))
	var wg sync.WaitGroup
	for i, r := range requests {
		wg.Go(func() {
			text, chunks, err := collect(t.Context(), e, r)
			if assert.NoError(t, err) && assert.NotEmpty(t, chunks) {
				texts[i], finals[i] = text, chunks[len(chunks)-1].Final
			}
		})
	}
	wg.Wait()
	require.False(t, t.Failed())
	return texts, finals
}

// long is text of many tokens that differs from start to start.
func long(start string, sentences int) string {
	return start + strings.Repeat(" The boat left the harbour before the sun came up.", sentences)
}

// TestBatch: requests that run together answer as each does alone, but for rounding: in a shared
// buffer of the cells, and in streams of products with other numbers of rows, as AMX has them.
func TestBatch(t *testing.T) {
	layouts(t, nil, func(t *testing.T, e *engine.Engine) {
		const n = 4
		var requests [n]infer.Request
		var alone, inCompany [n][]infer.Logprob
		var usage [n]infer.Usage
		for i := range n {
			requests[i] = infer.Request{
				Prompt: long(fmt.Sprintf("Chapter %d.", i), 2+3*i), MaxTokens: 12,
				KV: infer.KVPolicy{NoReuse: true},
			}
			alone[i], _, _ = steps(t, e, requests[i])
		}
		var wg sync.WaitGroup
		for i, r := range requests {
			wg.Go(func() { inCompany[i], usage[i], _ = steps(t, e, r) })
		}
		wg.Wait()
		for i, u := range usage {
			require.Equal(t, u.PromptTokens, u.Computed)
			require.Equal(t, 12, u.CompletionTokens)
			closeWithin(t, 0.3, alone[i], inCompany[i], "request %d", i)
		}
	})
}

// TestFanOut: what many requests begin with is computed once, also when they come together.
func TestFanOut(t *testing.T) {
	layouts(t, nil, func(t *testing.T, e *engine.Engine) {
		system := long("You answer questions about boats.", 12)
		tokens, err := e.Tokenize(t.Context(), system, infer.TokenizeOptions{AddSpecial: true})
		require.NoError(t, err)
		var requests []infer.Request
		total := 0
		for i := range 10 {
			r := infer.Request{
				Prompt: system + fmt.Sprintf(" Question %d: why?", i), MaxTokens: 4, IgnoreEOS: true,
			}
			all, err := e.Tokenize(t.Context(), r.Prompt, infer.TokenizeOptions{AddSpecial: true})
			require.NoError(t, err)
			total += len(all) - len(tokens)
			requests = append(requests, r)
		}
		_, finals := together(t, e, requests)
		computed := 0
		for _, f := range finals {
			computed += f.Usage.Computed
			c := f.Usage.Cached
			require.Equal(t, f.Usage.PromptTokens, f.Usage.Computed+c.Live+c.RAM+c.Disk)
		}
		require.LessOrEqual(t, computed, len(tokens)+total+2*len(requests))
	})
}

// TestR7Deterministic: a deterministic request gives the same tokens alone, in company, with its
// prefix cached, and after it was parked and resumed.
func TestR7Deterministic(t *testing.T) {
	for _, model := range []string{"smollm2:135m", "gemma3:270m"} {
		t.Run(model, func(t *testing.T) {
			e := open(t, model, func(o *engine.Options) { o.Sequences, o.RAM = 4, 1<<30 })
			r := infer.Request{
				Prompt: long("It was said of the old captain.", 13), MaxTokens: 16, IgnoreEOS: true,
				KV: infer.KVPolicy{Deterministic: true}, Logprobs: true,
			}
			want, cold := answer(t, e, r)
			require.Zero(t, cold.Usage.Cached)
			warm, f := answer(t, e, r)
			require.Equal(t, want, warm)
			if model == "smollm2:135m" {
				require.GreaterOrEqual(t, f.Usage.Cached.Live, 64)
			}
			for _, others := range []int{1, 3, 7} {
				requests := []infer.Request{r}
				for i := range others {
					o := infer.Request{
						Prompt: long(fmt.Sprint(i), 2*i), MaxTokens: 12, IgnoreEOS: true, Priority: i % 2,
					}
					o.KV.Deterministic = i == 1
					requests = append(requests, o)
				}
				texts, _ := together(t, e, requests)
				require.Equal(t, want, texts[0], "with %d others", others)
			}
		})
	}
}

// TestPark: a request makes room for a more urgent one and goes on as if nothing had been.
func TestPark(t *testing.T) {
	layouts(t, func(o *engine.Options) { o.Sequences, o.RAM = 1, 1<<30 },
		func(t *testing.T, e *engine.Engine) {
			r := infer.Request{Prompt: story, MaxTokens: 60, IgnoreEOS: true}
			want, _ := answer(t, e, r)
			r.KV.NoReuse = true
			text, parked := "", false
			for c, err := range e.Generate(t.Context(), r) {
				require.NoError(t, err)
				if text == "" {
					_, f := answer(t, e, infer.Request{Prompt: "Hello", MaxTokens: 3, Priority: 1})
					require.Equal(t, 3, f.Usage.CompletionTokens)
				}
				text += c.Text
				if c.Final != nil {
					parked = c.Final.Usage.Parked > 0
				}
			}
			require.True(t, parked)
			require.Equal(t, want, text)
		})
}

// TestSinks: an answer that is longer than the context goes on, and says what was given up.
func TestSinks(t *testing.T) {
	layouts(t, func(o *engine.Options) { o.Sequences, o.ContextTokens = 2, 256 },
		func(t *testing.T, e *engine.Engine) {
			r := infer.Request{
				Prompt: story, MaxTokens: 300, IgnoreEOS: true,
				KV: infer.KVPolicy{Evict: "sink-window", Sinks: 4, Window: 120, Block: 30},
			}
			_, f := answer(t, e, r)
			require.Equal(t, infer.FinishLength, f.Reason)
			require.Equal(t, 300, f.Usage.CompletionTokens)
			require.LessOrEqual(t, f.Usage.Cells, 124)
			require.Equal(t, f.Usage.PromptTokens+299, f.Usage.Evicted+f.Usage.Cells)
			r.KV = infer.KVPolicy{}
			_, _, err := collect(t.Context(), e, r)
			require.Equal(t, infer.KindTooLong, infer.KindOf(err))
		})
}

// TestR4Scopes: prefixes are shared within a scope and a salt only (R4).
func TestR4Scopes(t *testing.T) {
	layouts(t, nil, func(t *testing.T, e *engine.Engine) {
		cached := func(p infer.KVPolicy) int {
			_, f := answer(t, e, infer.Request{Prompt: story, MaxTokens: 1, KV: p})
			return f.Usage.Cached.Live
		}
		require.Zero(t, cached(infer.KVPolicy{Salt: "a"}))
		require.Zero(t, cached(infer.KVPolicy{Salt: "b"}))
		require.Zero(t, cached(infer.KVPolicy{Scope: "a"}))
		require.NotZero(t, cached(infer.KVPolicy{Salt: "a"}))
		require.NotZero(t, cached(infer.KVPolicy{Scope: "a"}))
	})
}

// TestE6Storm: after ten thousand requests that come and go, in either layout, every cell is
// accounted for and free: a request that needs all that it may have finds them.
func TestE6Storm(t *testing.T) {
	for _, shared := range []bool{false, true} {
		e := openTiny(t, func(o *engine.Options) {
			o.Sequences, o.Shared, o.QueueMax, o.RAM = 3, shared, 64, 1<<20
		})
		const requests, clients = 10_000, 16
		seed := rand.Uint64()
		t.Log("seed", seed)
		var wg sync.WaitGroup
		for client := range clients {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(client)))
				for range requests / clients {
					ctx, cancel := context.WithCancel(t.Context())
					r := infer.Request{
						Prompt:    strings.Repeat("ab", 1+random.IntN(40)) + fmt.Sprint(random.IntN(9)),
						MaxTokens: 1 + random.IntN(30), IgnoreEOS: true, Priority: random.IntN(3),
					}
					stop := random.IntN(40)
					for c, err := range e.Generate(ctx, r) {
						if err != nil {
							assert.Contains(t, []infer.Kind{infer.KindCanceled, infer.KindBusy},
								infer.KindOf(err), "%v", err)
						}
						if stop -= c.Tokens; stop < 0 {
							if random.IntN(2) == 0 {
								break
							}
							cancel()
						}
					}
					cancel()
				}
			})
		}
		wg.Wait()
		busy, promised, problem := e.Books()
		require.NoError(t, problem)
		require.Zero(t, busy)
		require.Zero(t, promised)
		_, f := answer(t, e, infer.Request{
			Tokens: someTokens(1, 6), MaxTokens: e.Info().ContextTokens - 6, IgnoreEOS: true,
		})
		require.Equal(t, e.Info().ContextTokens-6, f.Usage.CompletionTokens)
	}
}

// TestRestart: what an engine computed is not computed again by the next one on the same
// directory, and the answer is the same.
func TestRestart(t *testing.T) {
	for _, plain := range []bool{false, true} {
		dir := t.TempDir() + "/cache"
		change := func(o *engine.Options) { o.CacheDir, o.CachePlain = dir, plain }
		r := infer.Request{Prompt: long("In the year of the flood.", 8), MaxTokens: 12, IgnoreEOS: true}
		first := open(t, "smollm2:135m", change)
		want, _ := answer(t, first, r)
		require.NoError(t, first.Close())
		second := open(t, "smollm2:135m", change)
		require.Empty(t, second.Info().Notes)
		got, f := answer(t, second, r)
		require.Equal(t, want, got)
		require.Equal(t, f.Usage.PromptTokens-1, f.Usage.Cached.Disk)
		require.Equal(t, 1, f.Usage.Computed)
		r.KV.Salt = "another tenant"
		_, f = answer(t, second, r)
		require.Zero(t, f.Usage.Cached)
		require.NoError(t, second.Close())
	}
}
