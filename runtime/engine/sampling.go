package engine

import (
	"math/rand/v2"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// samplerParams makes the defaults of a request explicit for the binding.
func samplerParams(s *infer.Sampling, contextTokens int) llama.SamplerParams {
	p := llama.DefaultSampler()
	contextTokens = min(contextTokens, llama.HistoryMax)
	p.Seed = s.Seed
	p.Temperature = s.Temperature
	p.TopK = int32(s.TopK)
	p.MinP = s.MinP
	p.XTCProbability, p.XTCThreshold = s.XTCProbability, s.XTCThreshold
	p.DynatempRange = s.DynatempRange
	p.PenaltyFrequency, p.PenaltyPresence = s.FrequencyPenalty, s.PresencePenalty
	p.DRYMultiplier, p.DRYBreakers = s.DRYMultiplier, s.DRYBreakers
	p.Mirostat = int32(s.Mirostat)
	for _, f := range []struct {
		to   *float32
		from float32
	}{
		{&p.TopP, s.TopP},
		{&p.TypicalP, s.TypicalP},
		{&p.TopNSigma, s.TopSigma},
		{&p.DynatempExponent, s.DynatempExponent},
		{&p.PenaltyRepeat, s.RepeatPenalty},
		{&p.DRYBase, s.DRYBase},
		{&p.MirostatTau, s.MirostatTau},
		{&p.MirostatEta, s.MirostatEta},
	} {
		if f.from != 0 {
			*f.to = f.from
		}
	}
	switch {
	case s.PenaltyLastN < 0:
		p.PenaltyLastN = int32(contextTokens)
	case s.PenaltyLastN > 0:
		p.PenaltyLastN = int32(s.PenaltyLastN)
	}
	p.DRYLastN = int32(contextTokens)
	if s.DRYLastN > 0 {
		p.DRYLastN = int32(s.DRYLastN)
	}
	if s.DRYAllowedLength > 0 {
		p.DRYAllowedLength = int32(s.DRYAllowedLength)
	}
	if len(s.LogitBias) > 0 {
		p.Bias = make(map[llama.Token]float32, len(s.LogitBias))
		for id, b := range s.LogitBias {
			p.Bias[llama.Token(id)] = b
		}
	}
	return p
}

// looksBack reports whether a sampler must be told of the prompt's tokens.
func looksBack(p *llama.SamplerParams) bool {
	return p.PenaltyRepeat != 1 || p.PenaltyFrequency != 0 || p.PenaltyPresence != 0 ||
		p.DRYMultiplier != 0
}

// drawSeed picks a seed for a request that names none. 0 and the all-ones value have meanings
// of their own.
func drawSeed() uint32 { return 1 + rand.Uint32N(1<<32-2) }
