package measure

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/gguf"
)

var (
	rated = func() gguf.Shape {
		s := gguf.Shape{
			Architecture: "llama", Layers: make([]gguf.Layer, 8), ContextLength: 8192, Causal: true,
			EmbeddingLength: 1024, VocabularySize: 32000, Cache: gguf.CacheFull,
			InputBytes: 20 << 20, OutputBytes: 40 << 20,
		}
		for i := range s.Layers {
			s.Layers[i] = gguf.Layer{
				Heads: 8, KVHeads: 2, KeyLength: 128, ValueLength: 128, FeedForward: 4096,
				Cached: true, Parameters: 80e6, Bytes: 45 << 20, LargestBytes: 8 << 20,
			}
		}
		return s
	}()
	rating = device.Machine{
		CPU:    device.CPU{Cores: 2, Threads: 2},
		Memory: device.RAM{TotalBytes: 16 << 30, AvailableBytes: 16 << 30},
	}
)

// with makes a plan with a device's rates.
func with(t *rapid.T, w plan.Wish, depth int, rates ...plan.Calibration) plan.Plan {
	w.DepthTokens, w.Calibration = depth, rates
	p, err := plan.Make(rated, rating, w)
	require.NoError(t, err)
	return p
}

// TestRatesOfAMachine: the rates of a machine come out of the speeds that it reaches.
func TestRatesOfAMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		wish := plan.Wish{ContextTokens: 4096, Sequences: rapid.IntRange(1, 8).Draw(t, "sequences")}
		rate := func(name string, low, high float64) float64 {
			return rapid.Float64Range(low, high).Draw(t, name)
		}
		truth := plan.Calibration{Device: hostName, BytesPerSecond: rate("bytes", 1e9, 100e9)}
		truth.OpsPerSecond = truth.BytesPerSecond * rate("ops", 10, 1000)
		if wish.Sequences > 1 {
			truth.StepOpsPerSecond = truth.BytesPerSecond * rate("step", 3, 100)
		}
		r := Result{PromptTokens: PromptTokens}
		if rapid.Bool().Draw(t, "deep") {
			truth.CacheBytesPerSecond = truth.BytesPerSecond * rate("cache", 0.2, 2)
			r.deep = 4 * PromptTokens
			r.deepRate = with(t, wish, r.deep, truth).Decode.TokensPerSecond
		}
		p := with(t, wish, PromptTokens, truth)
		r.Plan = p
		r.Decode.Measured, r.DecodeAll.Measured = p.Decode.TokensPerSecond, p.DecodeAll.TokensPerSecond
		r.Prefill.Measured = p.Prefill.TokensPerSecond
		got, err := r.Rates(rated, rating, wish)
		require.NoError(t, err)
		again := with(t, wish, PromptTokens, got)
		require.InEpsilon(t, r.Decode.Measured, again.Decode.TokensPerSecond, 1e-4)
		require.InEpsilon(t, r.DecodeAll.Measured, again.DecodeAll.TokensPerSecond, 1e-4)
		require.InEpsilon(t, r.Prefill.Measured, again.Prefill.TokensPerSecond, 1e-4)
		require.InEpsilon(t, truth.BytesPerSecond, got.BytesPerSecond, 1e-3)
	})
}

// TestRatesOfABusyMachine: whatever was measured, however busy the machine was at each part of it,
// a plan with the rates says the same speed of an answer alone and of a prompt.
func TestRatesOfABusyMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		wish := plan.Wish{ContextTokens: 4096, Sequences: rapid.IntRange(2, 8).Draw(t, "sequences")}
		share := func(name string, low, high float64) float64 {
			return rapid.Float64Range(low, high).Draw(t, name)
		}
		r := Result{Plan: with(t, wish, PromptTokens), PromptTokens: PromptTokens}
		r.Decode.Measured = share("decode", 1, 1000)
		r.DecodeAll.Measured = r.Decode.Measured * share("together", 0.1, 20)
		r.Prefill.Measured = r.Decode.Measured * share("prefill", 2, 200)
		if rapid.Bool().Draw(t, "twice") {
			r.deep, r.deepRate = 4*PromptTokens, r.Decode.Measured*share("deep", 0.05, 1.5)
		}
		got, err := r.Rates(rated, rating, wish)
		require.NoError(t, err)
		again := with(t, wish, PromptTokens, got)
		require.InEpsilon(t, r.Decode.Measured, again.Decode.TokensPerSecond, 1e-4)
		require.InEpsilon(t, r.Prefill.Measured, again.Prefill.TokensPerSecond, 1e-4)
	})
}
