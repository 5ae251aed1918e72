package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

func TestSamplerParams(t *testing.T) {
	t.Parallel()
	require.Equal(t, llama.SamplerParams{
		DynatempExponent: 1, TopP: 1, TypicalP: 1, TopNSigma: -1, PenaltyLastN: 64,
		PenaltyRepeat: 1, DRYBase: 1.75, DRYAllowedLength: 2, DRYLastN: 512, MirostatTau: 5,
		MirostatEta: 0.1,
	}, samplerParams(&infer.Sampling{}, 512), "the zero value is greedy and neutral")
	full := infer.Sampling{
		Temperature: 0.7, Seed: 9, TopK: 11, TopP: 0.5, MinP: 0.1, TypicalP: 0.6, TopSigma: 2,
		XTCProbability: 0.3, XTCThreshold: 0.2, DynatempRange: 0.4, DynatempExponent: 2,
		RepeatPenalty: 1.2, PresencePenalty: 0.5, FrequencyPenalty: 0.25, PenaltyLastN: -1,
		DRYMultiplier: 0.8, DRYBase: 2, DRYAllowedLength: 3, DRYLastN: 7,
		DRYBreakers: []string{"x"}, Mirostat: 2, MirostatTau: 4, MirostatEta: 0.2,
		LogitBias: map[infer.TokenID]float32{5: 1},
	}
	require.Equal(t, llama.SamplerParams{
		Seed: 9, Temperature: 0.7, DynatempRange: 0.4, DynatempExponent: 2, TopK: 11, TopP: 0.5,
		MinP: 0.1, TypicalP: 0.6, TopNSigma: 2, XTCProbability: 0.3, XTCThreshold: 0.2,
		PenaltyLastN: 512, PenaltyRepeat: 1.2, PenaltyFrequency: 0.25, PenaltyPresence: 0.5,
		DRYMultiplier: 0.8, DRYBase: 2, DRYAllowedLength: 3, DRYLastN: 7,
		DRYBreakers: []string{"x"}, Mirostat: 2, MirostatTau: 4, MirostatEta: 0.2,
		Bias: map[llama.Token]float32{5: 1},
	}, samplerParams(&full, 512))
}

func TestDrawSeed(t *testing.T) {
	t.Parallel()
	a, b := drawSeed(), drawSeed()
	for range 3 {
		if a != b {
			return
		}
		b = drawSeed()
	}
	t.Fatal("five equal seeds")
}
