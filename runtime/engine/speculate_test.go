package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// guessed runs a request in one of the modes, and gives its steps too: those that chose tokens.
func guessed(t *testing.T, e infer.Backend, r infer.Request, mode infer.Speculation) (
	text string, u infer.Usage, steps int,
) {
	t.Helper()
	r.Speculate = mode
	text, f := answer(t, e, r)
	require.LessOrEqual(t, f.Usage.Accepted, f.Usage.Drafted)
	if mode == infer.SpeculateOff {
		require.Zero(t, f.Usage.Drafted)
	}
	return text, f.Usage, f.Usage.CompletionTokens - f.Usage.Accepted
}

// TestSpeculate: repeated text takes far fewer steps and free text hardly more guesses than come
// true; the answers are those of single steps.
func TestSpeculate(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	cold := infer.KVPolicy{NoReuse: true}
	repeats := infer.Request{
		Prompt: long("It was said of the old captain.", 13), MaxTokens: 60, IgnoreEOS: true, KV: cold,
	}
	free := infer.Request{Prompt: story, MaxTokens: 60, IgnoreEOS: true, KV: cold}
	want, _, plain := guessed(t, e, repeats, "")
	require.Equal(t, 60, plain, "nothing is guessed unless it is asked for")
	wantFree, _, _ := guessed(t, e, free, infer.SpeculateOff)
	for mode, most := range map[infer.Speculation]int{
		infer.SpeculateOn: 60 / 6, infer.SpeculateAdaptive: 60, // as far as the machine's speed says
	} {
		text, u, steps := guessed(t, e, repeats, mode)
		t.Logf("%s: 60 tokens in %d steps, %d of %d guesses right", mode, steps, u.Accepted, u.Drafted)
		require.Equal(t, want, text)
		require.LessOrEqual(t, steps, most)
		text, u, steps = guessed(t, e, free, mode)
		t.Logf("%s, free text: 60 tokens in %d steps, %d guesses", mode, steps, u.Drafted)
		require.Equal(t, wantFree, text)
		require.Less(t, u.Drafted, 20)
	}
	_, _, problem := e.Books()
	require.NoError(t, problem)
}

// twice draws text that repeats itself, so that there is something to guess; a model of random
// weights goes on with it or not.
func twice(d *rand.Rand) []infer.TokenID {
	phrase := make([]infer.TokenID, 9+d.IntN(12))
	for i := range phrase {
		phrase[i] = infer.TokenID(260 + d.IntN(90))
	}
	return slices.Concat(phrase, phrase, phrase[:8+d.IntN(len(phrase)-8)])
}

// verses lets a model of random weights repeat itself.
var verses = infer.Constraint{Grammar: `root ::= ("abcdefghijkl" | "mno;")+`}

// letters spells each letter by its own token, not by that of its byte.
func letters() infer.Sampling {
	s := infer.Sampling{LogitBias: map[infer.TokenID]float32{}}
	for id := range infer.TokenID(256) {
		s.LogitBias[3+id] = -100
	}
	return s
}

// TestSpeculateRandom: wrong guesses leave no trace, in either layout, alone or together with
// other answers whose guesses are of other lengths.
func TestSpeculateRandom(t *testing.T) {
	for _, shared := range []bool{false, true} {
		e := openTiny(t, func(o *engine.Options) {
			o.Sequences, o.Shared, o.Speculate = 3, shared, "ngram"
		})
		seed := rand.Uint64()
		t.Log("seed", seed)
		d, wrong, right, fewer, others := rand.New(rand.NewPCG(seed, 0)), 0, 0, 0, 0
		for range 60 {
			var requests []infer.Request
			var alone []string
			for i := range 3 {
				r := infer.Request{Tokens: twice(d), MaxTokens: 1 + d.IntN(60), IgnoreEOS: true}
				if i == 0 {
					r.Tokens, r.Prompt = nil, strings.Repeat("abcdefghijkl", 2+d.IntN(6))
					r.Constraint, r.Sampling = verses, letters()
				}
				text, _, _ := guessed(t, e, r, infer.SpeculateOff)
				alone = append(alone, text)
				text, u, steps := guessed(t, e, r, infer.SpeculateOn)
				if !shared {
					require.Equal(t, alone[len(alone)-1], text)
				}
				require.Equal(t, u.PromptTokens+u.CompletionTokens-1, u.Cells)
				wrong, right = wrong+u.Drafted-u.Accepted, right+u.Accepted
				fewer += u.CompletionTokens - steps
				r.Speculate = infer.SpeculateOn
				requests = append(requests, r)
			}
			texts, finals := together(t, e, requests)
			for i, f := range finals {
				if texts[i] != alone[i] {
					others++
				}
				require.Equal(t, requests[i].MaxTokens, f.Usage.CompletionTokens)
			}
		}
		t.Logf("%d guesses right, %d wrong", right, wrong)
		require.Positive(t, right)
		require.Positive(t, wrong)
		require.Equal(t, right, fewer)
		if !shared { // the company's rounding decides a near tie now and then
			require.LessOrEqual(t, others, 3, "of 180")
		}
		busy, promised, problem := e.Books()
		require.NoError(t, problem)
		require.Zero(t, busy+promised)
	}
}

// TestSpeculateStorm: requests that end at any time, with guesses under way, leave the books right.
func TestSpeculateStorm(t *testing.T) {
	for _, shared := range []bool{false, true} {
		e := openTiny(t, func(o *engine.Options) {
			o.Sequences, o.Shared, o.QueueMax, o.RAM = 3, shared, 64, 1<<20
			if shared {
				o.Cells = 400
			}
		})
		seed := rand.Uint64()
		t.Log("seed", seed)
		var wg sync.WaitGroup
		for client := range 8 {
			wg.Go(func() {
				d := rand.New(rand.NewPCG(seed, uint64(client)))
				for range 80 {
					ctx, cancel := context.WithCancel(t.Context())
					r := infer.Request{
						Tokens: twice(d), MaxTokens: 1 + d.IntN(120), IgnoreEOS: true, Priority: d.IntN(2),
						Speculate: []infer.Speculation{"on", "adaptive", "off"}[d.IntN(3)],
					}
					if d.IntN(4) == 0 {
						r.KV = infer.KVPolicy{
							Evict: "sink-window", Sinks: 2, Window: 60, Block: 10, Recompute: true,
						}
					}
					stop := d.IntN(120)
					for c, err := range e.Generate(ctx, r) {
						if err != nil {
							assert.Equal(t, infer.KindCanceled, infer.KindOf(err), "%v", err)
						}
						if stop -= c.Tokens; stop < 0 {
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
		require.Zero(t, busy+promised)
	}
}

// TestSpeculateWith: grammars, log-probabilities, stop texts and full caches are as without.
func TestSpeculateWith(t *testing.T) {
	e := openTiny(t, nil)
	for name, r := range map[string]infer.Request{
		"grammar":  {Constraint: verses, MaxTokens: 100},
		"stop":     {Constraint: verses, MaxTokens: 100, Stop: []string{"klab"}},
		"logprobs": {Constraint: verses, MaxTokens: 50, Logprobs: true, TopLogprobs: 2},
		"one":      {Constraint: verses, MaxTokens: 1},
		"full":     {Constraint: verses, MaxTokens: 256 - 50},
		"end":      {Constraint: infer.Constraint{Grammar: `root ::= "` + verse40 + `"`}},
		"penalty":  {MaxTokens: 80, Sampling: infer.Sampling{RepeatPenalty: 1.3, PenaltyLastN: 8}},
		"sampled": {MaxTokens: 80, Constraint: verses, Sampling: infer.Sampling{
			Temperature: 0.1, Seed: 7,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r.Prompt = strings.Repeat("abcdefghijkl", 5)[:50-1]
			r.IgnoreEOS, r.Sampling.LogitBias = name != "end", letters().LogitBias
			all := map[infer.Speculation][]infer.Logprob{}
			texts, finals := map[infer.Speculation]string{}, map[infer.Speculation]*infer.Final{}
			for _, mode := range []infer.Speculation{"off", "on", "adaptive"} {
				r.Speculate = mode
				text, chunks, err := collect(t.Context(), e, r)
				require.NoError(t, err)
				for _, c := range chunks {
					all[mode] = append(all[mode], c.Logprobs...)
				}
				f := chunks[len(chunks)-1].Final
				texts[mode], finals[mode] = text, f
				require.Equal(t, texts["off"], text)
				require.Equal(t, finals["off"].Reason, f.Reason)
				require.Equal(t, finals["off"].Stop, f.Stop)
				require.Equal(t, finals["off"].Usage.CompletionTokens, f.Usage.CompletionTokens)
				require.Equal(t, finals["off"].Usage.Cells, f.Usage.Cells)
				require.Len(t, all[mode], len(all["off"]))
				for i, lp := range all[mode] {
					require.Equal(t, all["off"][i].Token, lp.Token)
					require.InDelta(t, all["off"][i].Logprob, lp.Logprob, 1e-3)
					require.Len(t, lp.Top, 2)
				}
				_, _, problem := e.Books()
				require.NoError(t, problem)
			}
			t.Logf("%q %+v", texts["on"], finals["on"].Usage)
			if name != "one" {
				require.Positive(t, finals["on"].Usage.Drafted)
			}
			if r.Constraint.Grammar == verses.Grammar {
				require.Equal(t, name != "one", finals["on"].Usage.Accepted > 0)
			}
		})
	}
}

const verse40 = "abcdefghijklabcdefghijklabcdefghijkl"

// TestSpeculateRefused: who asks for guesses where they cannot be is told why, and who leaves it
// open goes without.
func TestSpeculateRefused(t *testing.T) {
	small := open(t, "gemma3:270m", func(o *engine.Options) {
		o.SmallWindow, o.ContextTokens, o.Speculate = true, 2048, "ngram"
	})
	full := open(t, "gemma3:270m", nil)
	prompt := strings.Repeat("def add(a, b):\n    return a + b\n\n", 4)
	for name, c := range map[string]struct {
		e  *engine.Engine
		kv infer.KVPolicy
	}{
		"deterministic": {openTiny(t, nil), infer.KVPolicy{Deterministic: true}},
		"small window":  {small, infer.KVPolicy{}},
		"window": {full, infer.KVPolicy{
			Evict: "sink-window", Sinks: 2, Window: 200, Recompute: true,
		}},
	} {
		r := infer.Request{
			Prompt: prompt, MaxTokens: 3, KV: c.kv, IgnoreEOS: true, Speculate: infer.SpeculateOn,
		}
		_, _, err := collect(t.Context(), c.e, r)
		require.Equal(t, infer.KindUnsupported, infer.KindOf(err), name)
		require.ErrorContains(t, err, "speculate", name)
		for _, mode := range []infer.Speculation{"", "adaptive"} {
			r.Speculate = mode
			_, f := answer(t, c.e, r)
			require.Zero(t, f.Usage.Drafted, name)
		}
	}
	_, u, _ := guessed(t, full, infer.Request{
		Prompt: prompt, MaxTokens: 30, IgnoreEOS: true,
	}, infer.SpeculateOn)
	require.Positive(t, u.Drafted, "a window at full length can be taken back")
	_, _, problem := full.Books()
	require.NoError(t, problem)
	o := engine.Options{Paths: []string{"x"}, Speculate: "magic"}
	require.ErrorContains(t, o.Validate(), "speculate")
}

// TestSpeculateAllocates: guesses cost no memory for each token.
func TestSpeculateAllocates(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.ContextTokens = 1024 })
	mallocs := func(mode infer.Speculation, n int) int {
		r := infer.Request{
			Prompt: strings.Repeat("abcdefghijkl", 5), MaxTokens: n, IgnoreEOS: true, Speculate: mode,
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := collect(t.Context(), e, r)
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		return int(after.Mallocs - before.Mallocs)
	}
	more := map[infer.Speculation]int{}
	for _, mode := range []infer.Speculation{"off", "on"} {
		mallocs(mode, 10)
		more[mode] = mallocs(mode, 700) - mallocs(mode, 100)
	}
	t.Log(fmt.Sprint(more))
	require.Less(t, more["on"], more["off"]+60)
}
