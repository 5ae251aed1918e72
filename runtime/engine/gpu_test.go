package engine_test

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

// Bounds of how far a GPU may be from the processor. Both round, the processor also activations to
// 8 bits; TestR7Drift has what that does between two runs of the processor.
const (
	gpuLogprob    = 0.7   // of one token
	gpuMean       = 0.1   // of a text, mean of the distances
	gpuMeanQ8     = 0.2   // with a cache of q8_0: the processor rounds queries to 8 bits, too
	gpuPerplexity = 0.015 // of 1
)

// gpuEngine starts an engine that has layers on a GPU. The test is skipped where there is none.
func gpuEngine(t *testing.T, o engine.Options) *engine.Engine {
	t.Helper()
	require.NoError(t, llama.Start(nil))
	before := gpuFree(t)
	if before == 0 {
		t.Skip("llama.cpp sees no GPU here")
	}
	e := start(t, o)
	require.Less(t, gpuFree(t), before, "nothing lies on the GPU")
	return e
}

// gpuFree is how many bytes are free on all GPUs.
func gpuFree(t *testing.T) (free uint64) {
	t.Helper()
	devices, err := llama.Devices()
	require.NoError(t, err)
	for _, d := range devices {
		if d.Type == llama.DeviceGPU {
			free += d.FreeBytes
		}
	}
	return free
}

// gpuOptions are those of the tests below.
func gpuOptions(t *testing.T, name string) engine.Options {
	return engine.Options{Paths: []string{storetest.Model(t, name)}, ContextTokens: 2048}
}

// TestGPUScore: a GPU, and one that has half of the layers, give a text the log-probabilities that
// the processor gives it.
func TestGPUScore(t *testing.T) {
	text, err := os.ReadFile("../../docs/adr/0003-the-pin.md")
	require.NoError(t, err)
	r := infer.ScoreRequest{Text: string(text[:4000])}
	for _, name := range []string{"smollm2:135m", "gemma3:270m"} {
		for what, change := range map[string]func(*engine.Options){
			"all layers":         func(*engine.Options) {},
			"half of the layers": func(o *engine.Options) { o.GPULayers = 10 },
			"q8_0":               func(o *engine.Options) { o.KVType = "q8_0" },
			"no flash attention": func(o *engine.Options) { o.NoFlash = true },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				o := gpuOptions(t, name)
				change(&o)
				got, err := gpuEngine(t, o).Score(t.Context(), r)
				require.NoError(t, err)
				o.CPUOnly = true
				want, err := start(t, o).Score(t.Context(), r)
				require.NoError(t, err)
				require.Len(t, got.Tokens, len(want.Tokens))
				sum, most := 0.0, 0.0
				for i, w := range want.Tokens {
					off := math.Abs(float64(w.Logprob - got.Tokens[i].Logprob))
					sum, most = sum+off, max(most, off)
				}
				n := float64(len(want.Tokens))
				perplexity := math.Exp((want.Sum - got.Sum) / n)
				t.Logf("%.0f tokens: mean distance %.4f, most %.3f, perplexity %.5f of the processor's",
					n, sum/n, most, perplexity)
				bound := gpuMean
				if o.KVType == "q8_0" {
					bound = gpuMeanQ8
				}
				require.LessOrEqual(t, sum/n, bound)
				require.InDelta(t, 1, perplexity, gpuPerplexity)
			})
		}
	}
}

// TestGPUReuse: on a GPU a deterministic answer has the same tokens and the same numbers, bit for
// bit, whether its prompt is computed, lies in cells, in memory, or on disk after a restart.
func TestGPUReuse(t *testing.T) {
	o := gpuOptions(t, "smollm2:135m")
	o.CacheDir = t.TempDir() + "/cache"
	r := deterministic(someTokens(1, 700), 24)
	e := gpuEngine(t, o)
	want, u, _ := steps(t, e, r)
	require.Equal(t, len(r.Tokens), u.Computed)
	same := func(e *engine.Engine, place func(infer.Cached) int) {
		t.Helper()
		got, u, _ := steps(t, e, r)
		require.Equal(t, want, got, "reused %+v", u.Cached)
		require.GreaterOrEqual(t, place(u.Cached), 640, "%+v", u.Cached)
	}
	same(e, func(c infer.Cached) int { return c.Live })
	_, _, _ = steps(t, e, deterministic(someTokens(2, 500), 1)) // takes the only sequence
	same(e, func(c infer.Cached) int { return c.RAM })
	require.NoError(t, e.Close())
	same(gpuEngine(t, o), func(c infer.Cached) int { return c.Disk })

	o.CPUOnly, o.CacheDir = true, ""
	cpu, _, _ := steps(t, start(t, o), r)
	closeWithin(t, gpuLogprob, cpu, want)
}

// TestGPUSinks: on a GPU an answer that outgrows its window gives up the tokens that it gives up on
// the processor, and goes on with the same ones.
func TestGPUSinks(t *testing.T) {
	for _, layout := range []string{"streams", "shared"} {
		t.Run(layout, func(t *testing.T) {
			o := gpuOptions(t, "smollm2:135m")
			o.ContextTokens, o.Shared = 256, layout == "shared"
			r := infer.Request{
				Prompt: strings.Repeat("One, two, three, four, five, six, seven. ", 8), MaxTokens: 400,
				KV: infer.KVPolicy{Evict: "sink-window", Sinks: 4, Window: 128, Block: 16},
			}
			got, u, _ := steps(t, gpuEngine(t, o), r)
			o.CPUOnly = true
			want, v, _ := steps(t, start(t, o), r)
			require.Positive(t, u.Evicted)
			require.Equal(t, v.Evicted, u.Evicted)
			same := 0
			for same < len(want) && want[same].Token.ID == got[same].Token.ID {
				same++
			}
			t.Logf("%d of %d tokens before the first that differs, %d given up", same, len(want), u.Evicted)
			closeWithin(t, gpuLogprob, want, got)
			require.False(t, slices.ContainsFunc(got, func(l infer.Logprob) bool {
				return math.IsNaN(float64(l.Logprob))
			}))
		})
	}
}
