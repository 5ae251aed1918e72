package engine_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// tinyWindow is that of the model of tinyWindowModel.
const tinyWindow = 48

// tinyWindowModel runs like gguftest.TinyModel, with a sliding window in every second layer.
func tinyWindowModel() gguftest.File {
	const layers, head = 2, 8
	f := gguftest.TinyModel(3)
	for i, kv := range f.KVs {
		if kv.Key == "general.architecture" {
			f.KVs[i].Value = "gemma3"
		}
		if rest, ok := strings.CutPrefix(kv.Key, "llama."); ok {
			f.KVs[i].Key = "gemma3." + rest
		}
	}
	f = f.With(gguftest.KV{Key: "gemma3.attention.sliding_window", Value: uint32(tinyWindow)},
		gguftest.KV{Key: "gemma3.attention.sliding_window_pattern", Value: uint32(2)})
	norm := func(name string, size uint64) gguftest.Tensor {
		t := gguftest.F32(name, size)
		for range size {
			t.Data = append(t.Data, 0, 0, 0x80, 0x3f) // 1
		}
		return t
	}
	for i := range layers {
		for part, size := range map[string]uint64{
			"attn_q_norm": head, "attn_k_norm": head, "post_attention_norm": 32, "post_ffw_norm": 32,
		} {
			f.Tensors = append(f.Tensors, norm(fmt.Sprintf("blk.%d.%s.weight", i, part), size))
		}
	}
	return f
}

// draw gives n tokens of the tiny models that are characters.
func draw(d *rand.Rand, n int) []infer.TokenID {
	out := make([]infer.TokenID, n)
	for i := range out {
		out[i] = infer.TokenID(260 + d.IntN(90))
	}
	return out
}

// rivals is how many of the best tokens are looked at where an answer parts from another.
const rivals = 8

// steps runs a request that must succeed and returns its tokens with what the model thought.
func steps(t testing.TB, e infer.Backend, r infer.Request) (
	lps []infer.Logprob, u infer.Usage, ok bool,
) {
	t.Helper()
	r.Logprobs, r.TopLogprobs, r.IgnoreEOS = true, rivals, true
	_, chunks, err := collect(t.Context(), e, r)
	if !assert.NoError(t, err) {
		return nil, u, false
	}
	for _, c := range chunks {
		lps = append(lps, c.Logprobs...)
		if c.Final != nil {
			u = c.Final.Usage
		}
	}
	return lps, u, true
}

// ids are the tokens of an answer.
func ids(lps []infer.Logprob) []infer.TokenID {
	var out []infer.TokenID
	for _, lp := range lps {
		out = append(out, lp.Token.ID)
	}
	return out
}

// closeTo says that two answers come from the same context: the same tokens, with
// log-probabilities that differ by rounding only. A window that is missing cells differs by far
// more. Where a rival is as near to the best token as rounding, either may be taken, and the
// answers part.
func closeTo(t testing.TB, want, got []infer.Logprob, what ...any) {
	t.Helper()
	closeWithin(t, 0.02, want, got, what...)
}

// closeWithin is closeTo for a model whose rounding is of that size.
func closeWithin(t testing.TB, rounding float64, want, got []infer.Logprob, what ...any) {
	t.Helper()
	require.Len(t, got, len(want), what...)
	for i, w := range want {
		if w.Token.ID != got[i].Token.ID && slices.ContainsFunc(w.Top, func(r infer.Logprob) bool {
			return r.Token.ID == got[i].Token.ID && float64(w.Logprob-r.Logprob) < rounding
		}) {
			return
		}
		require.Equal(t, ids(want[:i+1]), ids(got[:i+1]), what...)
		require.InDelta(t, w.Logprob, got[i].Logprob, rounding, what...)
	}
}

// windowEngines runs a test for every way in which the window's cells can lie.
func windowEngines(t *testing.T, change func(*engine.Options),
	run func(*testing.T, func() *engine.Engine),
) {
	for _, small := range []bool{false, true} {
		for _, shared := range []bool{false, true} {
			for _, ram := range []int64{0, 1 << 24} {
				t.Run(fmt.Sprintf("small=%t shared=%t ram=%d", small, shared, ram), func(t *testing.T) {
					path := writeModel(t, tinyWindowModel())
					run(t, func() *engine.Engine {
						o := engine.Options{
							Paths: []string{path}, Threads: 1, ContextTokens: 512, Sequences: 2,
							SmallWindow: small, Shared: shared, RAM: ram, MicroBatch: 64,
						}
						if change != nil {
							change(&o)
						}
						e, err := engine.Open(t.Context(), o)
						require.NoError(t, err)
						t.Cleanup(func() { require.NoError(t, e.Close()) })
						return e
					})
				})
			}
		}
	}
}

// TestWindowBorder: a prompt that leaves an earlier one at any place, on each side of the window's
// border, gets the answer of a cold run.
func TestWindowBorder(t *testing.T) {
	windowEngines(t, nil, func(t *testing.T, start func() *engine.Engine) {
		e := start()
		require.Positive(t, e.Info().ContextTokens)
		d := rand.New(rand.NewPCG(1, 2))
		base := draw(d, 300)
		for _, cut := range []int{299, 290, 254, 253, 252, 251, 250, 205, 201, 129, 64, 1} {
			whole := infer.Request{Tokens: base, MaxTokens: 2}
			_, _, ok := steps(t, e, whole)
			require.True(t, ok)
			r := infer.Request{
				Tokens: append(base[:cut:cut], draw(d, 3)...), MaxTokens: 8,
			}
			warm, u, _ := steps(t, e, r)
			r.KV.NoReuse = true
			cold, _, _ := steps(t, e, r)
			closeTo(t, cold, warm, "cut at %d, reused %+v", cut, u.Cached)
		}
	})
}

// TestWindowWalk: turns of a chat, rewinds, branches and company in random order give the answers
// of a cold run, across a restart too.
func TestWindowWalk(t *testing.T) {
	dir := ""
	windowEngines(t, func(o *engine.Options) { o.CacheDir = dir },
		func(t *testing.T, start func() *engine.Engine) {
			dir = t.TempDir() + "/cache"
			seed := rand.Uint64()
			t.Log("seed", seed)
			d := rand.New(rand.NewPCG(seed, 0))
			e := start()
			talk := draw(d, 70)
			reused := 0
			for turn := range 24 {
				if turn == 12 {
					require.NoError(t, e.Close())
					e = start()
				}
				switch d.IntN(5) {
				case 0: // rewind
					talk = talk[:1+d.IntN(len(talk))]
				case 1: // somebody else
					_, _, _ = steps(t, e, infer.Request{Tokens: draw(d, 1+d.IntN(200)), MaxTokens: 4})
				case 2: // a branch
					at := 1 + d.IntN(len(talk))
					talk = append(talk[:at:at], draw(d, 1+d.IntN(60))...)
				}
				if len(talk) > 400 {
					talk = talk[:60]
				}
				r := infer.Request{Tokens: talk, MaxTokens: 1 + d.IntN(20)}
				warm, u, _ := steps(t, e, r)
				r.KV.NoReuse = true
				cold, _, _ := steps(t, e, r)
				closeTo(t, cold, warm, "turn %d: %d tokens, reused %+v", turn, len(talk), u.Cached)
				reused += u.PromptTokens - u.Computed
				talk = append(append(talk[:len(talk):len(talk)], ids(warm)...), draw(d, 1+d.IntN(9))...)
			}
			require.Positive(t, reused)
		})
}
