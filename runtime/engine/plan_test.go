package engine

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// TestC3Need: the arithmetic of a refusal, and that its hint would help.
func TestC3Need(t *testing.T) {
	t.Parallel()
	layer := gguf.Layer{KVHeads: 2, KeyLength: 64, ValueLength: 64, Cached: true}
	windowed := layer
	windowed.Window = 16
	shape := gguf.Shape{Layers: []gguf.Layer{layer, windowed}, TensorBytes: 1000}
	const perToken = 2 * (64 + 64) * 2 * 2 // heads, keys and values, bytes, layers
	for _, c := range []struct {
		name    string
		o       Options
		free    int64
		field   string // "" where it fits
		hasHint string
	}{
		{"exactly", Options{}, 100 * perToken, "", ""},
		{"one byte less", Options{}, 100*perToken - 1, "context", "q8_0"},
		{"already small", Options{KVType: "q4_0"}, 100, "context", "--ctx"},
		{"with weights", Options{NoMap: true}, 100*perToken + 1000, "", ""},
		{"with weights, one byte less", Options{NoMap: true}, 100*perToken + 999, "context", "--ctx"},
		{"weights alone", Options{NoMap: true}, 999, "model", "mapped"},
	} {
		n, err := c.o.need(shape, 100)
		require.NoError(t, err, c.name)
		err = n.within(c.free, "test")
		if c.field == "" {
			require.NoError(t, err, c.name)
			continue
		}
		e, ok := errors.AsType[*infer.Error](err)
		require.True(t, ok, c.name)
		require.Equal(t, infer.KindNoMemory, e.Kind)
		require.Equal(t, c.field, e.Field, c.name)
		require.Contains(t, e.Hint, c.hasHint, c.name)
		if c.o.KVType == "q4_0" {
			require.NotContains(t, e.Hint, "q8_0", "it would need more")
		}
	}
	vast := layer
	vast.KVHeads, vast.KeyLength, vast.ValueLength = 1<<16, 1<<20, 1<<20
	n, err := (&Options{}).need(gguf.Shape{Layers: []gguf.Layer{vast}}, llama.ContextTokensMax)
	require.NoError(t, err)
	require.Error(t, n.within(math.MaxInt64-1, "test"), "sizes do not wrap around")
}

func TestAbilities(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		m               llama.ModelInfo
		memory          bool
		pooling         gguf.Pooling
		generate, embed bool
	}{
		{"llama", llama.ModelInfo{Decoder: true}, true, gguf.PoolingUnspecified, true, true},
		{"bert", llama.ModelInfo{Decoder: true}, false, gguf.PoolingMean, false, true},
		{"t5", llama.ModelInfo{Encoder: true, Decoder: true}, true, gguf.PoolingUnspecified,
			false, false},
		{"t5encoder", llama.ModelInfo{Encoder: true}, false, gguf.PoolingUnspecified, false, true},
		{"reranker", llama.ModelInfo{Decoder: true}, false, gguf.PoolingRank, false, false},
	} {
		a := abilities(c.m, llama.ContextInfo{Memory: c.memory}, c.pooling)
		require.Equal(t, c.generate, a.Generate, c.name)
		require.Equal(t, c.generate, a.Score && a.Grammar, c.name)
		require.Equal(t, c.embed, a.Embed, c.name)
	}
}

// TestSamplerHistory: a context longer than what samplers may look back over is no error.
func TestSamplerHistory(t *testing.T) {
	t.Parallel()
	for _, tokens := range []int{llama.HistoryMax, llama.HistoryMax + 1, llama.ContextTokensMax} {
		p := samplerParams(&infer.Sampling{PenaltyLastN: -1}, tokens)
		require.EqualValues(t, llama.HistoryMax, p.DRYLastN)
		require.EqualValues(t, llama.HistoryMax, p.PenaltyLastN)
	}
}
