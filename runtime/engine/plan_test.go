package engine

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
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
	shape := gguf.Shape{
		Layers: []gguf.Layer{layer, windowed}, TensorBytes: 1000, Causal: true,
	}
	// heads, keys and values, bytes, layers; and masks of 50 tokens in a micro-batch
	const perToken = 2*(64+64)*2*2 + 50*2
	for _, c := range []struct {
		name     string
		o        Options
		adapters int64
		free     int64
		field    string // "" where it fits
		hasHint  string
	}{
		{"exactly", Options{}, 0, 100 * perToken, "", ""},
		{"one byte less", Options{}, 0, 100*perToken - 1, "context", "q8_0"},
		{"already small", Options{KVType: "q4_0"}, 0, 100, "context", "--ctx"},
		{"with weights", Options{Load: llama.LoadRead}, 0, 100*perToken + 1000, "", ""},
		{
			"with weights, one byte less",
			Options{Load: llama.LoadRead},
			0,
			100*perToken + 999,
			"context", "--ctx",
		},
		{"weights alone", Options{Load: llama.LoadRead}, 0, 999, "model", "mapped"},
		{"with an adapter", Options{}, 30, 100*perToken + 30, "", ""},
		{"with an adapter, one byte less", Options{}, 30, 100*perToken + 29, "context", "q8_0"},
		{
			"with weights and an adapter, one byte less",
			Options{Load: llama.LoadRead},
			30,
			100*perToken + 1029,
			"context", "--ctx",
		},
	} {
		c.o.MicroBatch = 50
		n, err := c.o.need(shape, 100, c.adapters)
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
	n, err := (&Options{}).need(gguf.Shape{Layers: []gguf.Layer{vast}}, llama.ContextTokensMax,
		math.MaxInt64)
	require.NoError(t, err)
	require.Error(t, n.within(math.MaxInt64-1, "test"), "sizes do not wrap around")
}

// TestC3Compute: what a micro-batch needs, as the pinned llama.cpp reports it for SmolLM2 and
// Gemma 3 at 262,144 tokens; each reports less than 20 MiB more, whatever the context.
func TestC3Compute(t *testing.T) {
	t.Parallel()
	smollm2 := gguf.Shape{Causal: true, Layers: []gguf.Layer{{Heads: 9}}}
	gemma3 := gguf.Shape{Causal: true, Layers: []gguf.Layer{{Heads: 4}}, Window: 512}
	for _, c := range []struct {
		name  string
		o     Options
		shape gguf.Shape
		mib   int64
	}{
		{"smollm2", Options{}, smollm2, 256},
		{"smollm2, small batch", Options{MicroBatch: 128}, smollm2, 64},
		{"smollm2, no flash", Options{NoFlash: true}, smollm2, 5120},
		{"gemma3", Options{}, gemma3, 512},
		{"gemma3, no flash", Options{NoFlash: true}, gemma3, 3072},
		{"encoder", Options{}, gguf.Shape{}, 131072},
	} {
		require.Equal(t, c.mib<<20, c.o.computeBytes(c.shape, 262144), c.name)
	}
	require.EqualValues(t, math.MaxInt64,
		(&Options{NoFlash: true}).computeBytes(gguf.Shape{Layers: []gguf.Layer{{Heads: headsMax}}},
			llama.ContextTokensMax))
}

// TestAutoLoad: weights are read into memory only while half of it stays free.
func TestAutoLoad(t *testing.T) {
	t.Parallel()
	want := llama.LoadAuto
	if device.HugePages() {
		want = llama.LoadRead
	}
	require.Equal(t, want, AutoLoad(1, 1, true))
	require.Equal(t, llama.LoadAuto, AutoLoad(math.MaxInt64, math.MaxInt64, true))
	memory, err := device.AvailableMemory()
	if err != nil {
		require.ErrorIs(t, err, device.ErrUnknown)
		return
	}
	require.Equal(t, llama.LoadAuto, AutoLoad(memory.TotalBytes/2, 1, true))
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
		{
			"t5",
			llama.ModelInfo{Encoder: true, Decoder: true},
			true, gguf.PoolingUnspecified,
			false, false,
		},
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
