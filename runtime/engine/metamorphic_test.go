package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// deterministic is a request whose answer must be the same each time.
func deterministic(tokens []infer.TokenID, n int) infer.Request {
	return infer.Request{
		Tokens: tokens, MaxTokens: n, IgnoreEOS: true, Logprobs: true, TopLogprobs: rivals,
		KV: infer.KVPolicy{Deterministic: true},
	}
}

// models are those on which determinism is tested bit for bit, by path.
func models(t *testing.T) map[string]string {
	m := map[string]string{}
	for name, f := range map[string]gguftest.File{
		"tiny": gguftest.TinyModel(1), "tiny window": tinyWindowModel(),
	} {
		m[name] = writeModel(t, f)
	}
	m["smollm2"] = storetest.Model(t, "smollm2:135m")
	return m
}

// TestR7EveryLength: whatever the length of the prompt, what is reused of it changes no bit.
func TestR7EveryLength(t *testing.T) {
	for name, path := range models(t) {
		t.Run(name, func(t *testing.T) {
			e := start(t, engine.Options{Paths: []string{path}, RAM: 1 << 28, Sequences: 2})
			base := someTokens(1, 140)
			lengths := []int{64, 65, 66, 67, 68, 69, 79, 129, 130, 131}
			if name == "smollm2" {
				lengths = []int{65, 130}
			}
			for _, n := range lengths {
				r := deterministic(base[:n], 3)
				r.KV.NoReuse = true
				cold, _, _ := steps(t, e, r)
				r.KV.NoReuse = false
				_, _, _ = steps(t, e, r)
				warm, u, _ := steps(t, e, r)
				require.Equal(t, cold, warm, "%d tokens, reused %+v", n, u.Cached)
			}
		})
	}
}

// TestR7AnswerOfAnother: what a deterministic answer computed one token at a time is not reused as
// a part of a deterministic prompt, neither while that answer runs nor after it.
func TestR7AnswerOfAnother(t *testing.T) {
	for name, path := range models(t) {
		t.Run(name, func(t *testing.T) {
			e := start(t, engine.Options{Paths: []string{path}, RAM: 1 << 28, Sequences: 2})
			first := deterministic(someTokens(2, 100), 40)
			said, _, _ := steps(t, e, first)
			next := deterministic(append(first.Tokens[:100:100], ids(said)[:32]...), 3)
			next.KV.NoReuse = true
			cold, _, _ := steps(t, e, next)
			next.KV.NoReuse = false
			after, u, _ := steps(t, e, next)
			require.Equal(t, cold, after, "reused %+v", u.Cached)
			release, result := stuckAt(t.Context(), e, first, 34)
			during, u, _ := steps(t, e, next)
			require.Equal(t, cold, during, "reused %+v", u.Cached)
			release()
			require.ErrorIs(t, wait(t, result), errFinal)
		})
	}
}

// stuckAt starts a reader that stops after so many chunks until it is released.
func stuckAt(ctx context.Context, e infer.Backend, r infer.Request, chunks int) (
	release func(), result <-chan error,
) {
	begun, hold, out := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		last, n := errFinal, 0
		for _, err := range e.Generate(ctx, r) {
			if err != nil {
				last = err
			}
			if n++; n == chunks {
				close(begun)
				<-hold
			}
		}
		out <- last
	}()
	<-begun
	return sync.OnceFunc(func() { close(hold) }), out
}

// TestR7Parked: an answer that was parked has the tokens and the numbers of one that was not, with
// memory or without.
func TestR7Parked(t *testing.T) {
	for name, path := range models(t) {
		t.Run(name, func(t *testing.T) {
			r := deterministic(someTokens(3, 90), 40)
			plain := start(t, engine.Options{Paths: []string{path}})
			want, _, _ := steps(t, plain, r)
			for _, ram := range []int64{1 << 28} {
				e := start(t, engine.Options{Paths: []string{path}, RAM: ram})
				alone, _, _ := steps(t, e, r)
				require.Equal(t, want, alone, "with %d bytes of memory", ram)
				var got []infer.Logprob
				parked := 0
				for c, err := range e.Generate(t.Context(), r) {
					require.NoError(t, err)
					if got = append(got, c.Logprobs...); len(got) == 5 {
						answer(t, e, infer.Request{Prompt: "Urgent", MaxTokens: 2, Priority: 1})
					}
					if c.Final != nil {
						parked = c.Final.Usage.Parked
					}
				}
				require.Positive(t, parked)
				require.Equal(t, want, got, "with %d bytes of memory", ram)
			}
		})
	}
}

// TestR7Interleavings: the same requests, in any order and company, cached anywhere or not, parked,
// beside requests that are canceled: the same numbers each time.
func TestR7Interleavings(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	for name, path := range models(t) {
		rounds, count := 25, 4
		if name == "smollm2" {
			rounds, count = 1, 2
		}
		t.Run(name, func(t *testing.T) {
			d := rand.New(rand.NewPCG(seed, 0))
			var requests []infer.Request
			var want [][]infer.Logprob
			base := draw(d, 100)
			reference := start(t, engine.Options{Paths: []string{path}})
			for i := range count {
				r := deterministic(append(base[:60+8*i:60+8*i], draw(d, 10+d.IntN(30))...), 8)
				lps, _, _ := steps(t, reference, r)
				requests, want = append(requests, r), append(want, lps)
			}
			dir := t.TempDir() + "/cache"
			for round := range rounds {
				o := engine.Options{Paths: []string{path}, Sequences: 1 + d.IntN(4)}
				o.RAM = []int64{0, 1 << 15, 1 << 28}[d.IntN(3)]
				if d.IntN(2) == 0 {
					o.CacheDir = dir
				}
				e := start(t, o)
				for range 2 {
					interleave(t, e, d, requests, want, fmt.Sprintf("round %d, %+v", round, o))
				}
				require.NoError(t, e.Close())
			}
		})
	}
}

// interleave runs requests at once, in company, and compares what they get.
func interleave(t *testing.T, e *engine.Engine, d *rand.Rand, requests []infer.Request,
	want [][]infer.Logprob, what string,
) {
	var wg sync.WaitGroup
	got := make([][]infer.Logprob, len(requests))
	for _, i := range d.Perm(len(requests)) {
		r := requests[i]
		r.KV.NoReuse, r.Priority = d.IntN(4) == 0, d.IntN(3)
		wg.Go(func() { got[i], _, _ = steps(t, e, r) })
		company := infer.Request{
			Tokens: draw(d, 1+d.IntN(60)), MaxTokens: 1 + d.IntN(8), IgnoreEOS: true,
			Priority: d.IntN(4),
		}
		if d.IntN(2) == 0 {
			company.Tokens, company.KV.Deterministic = r.Tokens, d.IntN(2) == 0
		}
		leaves := d.IntN(4)
		wg.Go(func() {
			for range e.Generate(t.Context(), company) {
				if leaves--; leaves == 0 {
					break
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, want, got, what)
}
