package plan

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
)

// fits is a published statement that a model fits somewhere, or not.
type fits struct {
	model, machine string
	wish           Wish
	all            bool // all layers and experts on accelerators
	experts        bool // all layers, but the routed experts of some on the host
	none           bool // it does not fit at all
	source         string
}

func publishedFits() []fits {
	const (
		catchUp = "theaicatchup.com, Q4 KV cache: 32K context into 8 GB: more than 9 GB with f16, " +
			"7.4 GB with q8_0"
		compare = "techcompare.app, Llama 3.1 8B at 128K: 6 GB at 8K, 24 GB at 128K"
		defiled = "defiledai.com, Llama 3.1 70B guide: two cards of 24 GB hold Q4_K_M, one does not"
		ozeki   = "ozeki.chat p_8590, list of quantisations: Q4_K_M of Llama 3.1 70B has 42.52 GB"
		mixtral = "ggml-org/llama.cpp pull request 4406: Q4_K_M of Mixtral 8x7B has 26.4 GB"
		deep    = "ggml-org/llama.cpp issue 10981: Q4_K_M of DeepSeek-V3 has 376.65 GiB"
		gemma   = "llmrun.dev, Gemma 3 27B: Q4_K_M wants a card of 24 GB, and 17.9 GB of it"
	)
	eight, seventy := "llama-3.1-8b-q4_k_m", "llama-3.3-70b-q4_k_m"
	q8 := []string{"q8_0"}
	return []fits{
		{eight, "desktop-12gb", Wish{ContextTokens: 8192}, true, false, false, compare},
		{eight, "desktop-12gb", Wish{ContextTokens: 32768}, true, false, false, catchUp},
		{eight, "desktop-12gb", Wish{ContextTokens: 131072}, false, false, false, compare},
		{eight, "desktop-24gb", Wish{ContextTokens: 131072}, true, false, false, compare},
		{eight, "desktop-8gb", Wish{ContextTokens: 8192}, true, false, false, compare},
		{eight, "desktop-8gb", Wish{ContextTokens: 32768}, false, false, false, catchUp},
		{eight, "desktop-8gb", Wish{ContextTokens: 32768, KVTypes: q8}, true, false, false, catchUp},
		{seventy, "dual-24gb", Wish{ContextTokens: 8192}, true, false, false, defiled},
		{seventy, "desktop-24gb", Wish{ContextTokens: 8192}, false, false, false, defiled},
		{seventy, "desktop-12gb", Wish{ContextTokens: 8192}, false, false, true, ozeki},
		{seventy, "a100-80gb", Wish{ContextTokens: 32768}, true, false, false, ozeki},
		{"mixtral-8x7b-q4_k_m", "desktop-24gb", Wish{}, false, true, false, mixtral},
		{"mixtral-8x7b-q4_k_m", "dual-24gb", Wish{}, true, false, false, mixtral},
		{"deepseek-v3-671b-q4_k_m", "h100-80gb", Wish{}, false, true, false, deep},
		{"deepseek-v3-671b-q4_k_m", "desktop-24gb", Wish{}, false, false, true, deep},
		{"gemma-3-27b-q4_k_m", "desktop-24gb", Wish{ContextTokens: 32768}, true, false, false, gemma},
		{"gemma-3-27b-q4_k_m", "desktop-12gb", Wish{}, false, false, false, gemma},
	}
}

func TestPublishedFits(t *testing.T) {
	t.Parallel()
	for _, f := range publishedFits() {
		s, m := shapeOf(t, f.model), machineOf(t, f.machine)
		name := f.model + " on " + f.machine + ": " + f.source
		p, err := Make(s, m, f.wish)
		if f.none {
			require.ErrorIs(t, err, ErrNoFit, name)
			continue
		}
		require.NoError(t, err, name)
		require.NoError(t, sound(s, m, f.wish, p), name)
		require.Equal(t, f.all || f.experts, p.GPULayers == len(s.Layers)+1, name)
		require.Equal(t, f.experts, len(p.Overrides) > 0, name)
	}
}

// speeds is a published measurement. Zero is not published.
type speeds struct {
	model           string
	card            device.Accelerator
	cards           int
	context         int // twice the depth that was measured at
	decode, prefill float64
	source          string
}

// TestPublishedSpeeds: what others measured lies within the predicted range.
func TestPublishedSpeeds(t *testing.T) {
	t.Parallel()
	card := func(kind string, free int64, bytes, ops float64) device.Accelerator {
		return device.Accelerator{
			Kind: kind, FreeBytes: free, BytesPerSecond: bytes, FloatOpsPerSecond: ops,
			Unified: kind == "metal",
		}
	}
	for _, f := range []speeds{
		{
			"llama-3.1-8b-q4_k_m", card("cuda", 10*gib, 760e9, 119e12), 1, 256, 111.95, 3806.89,
			"dmatora/LLM-inference-speed-benchmarks issue 12: RTX 3080, llama-bench",
		},
		{
			"llama-3.1-8b-q4_k_m", card("cuda", 8*gib, 448e9, 80e12), 1, 4096, 71.9, 0,
			"AlexsJones/llmfit pull request 773: RTX 2080",
		},
		{
			"llama-3.3-70b-q4_k_m", card("cuda", 24*gib, 936e9, 142e12), 2, 256, 21, 0,
			"defiledai.com, Llama 3.1 70B guide: two RTX 3090",
		},
		{
			"mixtral-8x7b-q4_k_m", card("metal", 72*gib, 400e9, 13.6e12), 1, 256, 34.72, 0,
			"ggml-org/llama.cpp pull request 4406: M2 Max with 38 graphics cores",
		},
	} {
		m := host(90 * gib)
		for i := range f.cards {
			f.card.Name = string(rune('A' + i))
			m.Accelerators = append(m.Accelerators, f.card)
		}
		s := shapeOf(t, f.model)
		p := made(t, s, m, Wish{ContextTokens: f.context})
		require.Equal(t, len(s.Layers)+1, p.GPULayers, f.source)
		require.Equal(t, SourceFormula, p.Decode.Source)
		require.LessOrEqual(t, p.Decode.Low, f.decode, f.source)
		require.GreaterOrEqual(t, p.Decode.High, f.decode, f.source)
		if f.prefill > 0 {
			require.LessOrEqual(t, p.Prefill.Low, f.prefill, f.source)
			require.GreaterOrEqual(t, p.Prefill.High, f.prefill, f.source)
		}
		t.Logf("%s: decode %.1f of %.1f, prefill %.0f of %.0f", f.source, p.Decode.TokensPerSecond,
			f.decode, p.Prefill.TokensPerSecond, f.prefill)
	}
}

// TestPublishedScratch: the scratch of logits on a CUDA device, where an output was reserved for
// each token of a micro-batch. The formula allows for what else lives then.
func TestPublishedScratch(t *testing.T) {
	t.Parallel()
	// SciSharp/LLamaSharp issue 1099: Qwen2.5 3B, 300.75 MiB on CUDA0 with a context of 4096.
	m := modelFile{
		Quantisation: "Q4_K_M", Layers: 36, Embedding: 2048, Heads: 16, KVHeads: 2, Head: 128,
		FeedForward: 11008, Vocabulary: 151936, Tied: true,
	}
	w := Wish{Outputs: 512}.withDefaults(m.shape())
	z, err := sizesOf(m.shape(), w, 4096, "f16")
	require.NoError(t, err)
	require.EqualValues(t, 144*mib, prefix(z.kv)[len(z.kv)])
	got := float64(z.compute(true, false, 1)) / mib
	require.GreaterOrEqual(t, got, 300.75)
	require.LessOrEqual(t, got, 300.75*1.05)
}

// eight is a machine with eight accelerators of so much memory.
func eight(free int64) device.Machine {
	m := host(512 * gib)
	for _, name := range []string{"A", "B", "C", "D", "E", "F", "G", "H"} {
		m = withGPU(m, name, free)
	}
	m.Accelerators = slices.Clip(m.Accelerators)
	return m
}

func benchmarkMake(b *testing.B, model string, m device.Machine, w Wish) {
	s := shapeOf(b, model)
	for b.Loop() {
		if _, err := Make(s, m, w); err != nil {
			b.Fatal(err)
		}
	}
}

// Eight devices that hold an 80-layer model, and eight that hold half of it.
func BenchmarkDenseFits(b *testing.B) {
	benchmarkMake(b, "llama-3.3-70b-q4_k_m", eight(24*gib), Wish{})
}

func BenchmarkDensePartly(b *testing.B) {
	benchmarkMake(b, "llama-3.3-70b-q4_k_m", eight(4*gib), Wish{
		ContextTokens: 32768, ContextMin: 4096, KVTypes: []string{"f16", "q8_0"},
	})
}

func BenchmarkExperts(b *testing.B) {
	benchmarkMake(b, "deepseek-v3-671b-q4_k_m", eight(24*gib), Wish{
		ContextTokens: 32768, ContextMin: 4096,
	})
}

// The host's memory is the limit, too: the search keeps what trades time for it.
func BenchmarkTightHost(b *testing.B) {
	m := eight(24 * gib)
	m.Memory.AvailableBytes = 256 * gib
	m.Accelerators[3].Unified = true
	benchmarkMake(b, "deepseek-v3-671b-q4_k_m", m, Wish{})
}
