package infer

// Sampling chooses tokens. The zero value is greedy: the most probable token, always.
// Names, ranges and defaults are those of llama.cpp's samplers.
type Sampling struct {
	Temperature float32 // 0 is greedy
	Seed        uint32  // 0 and all ones let the engine draw one and report it in Final

	TopK     int     // 0 keeps all
	TopP     float32 // 0 or 1 keeps all
	MinP     float32 // 0 keeps all
	TypicalP float32 // 0 or 1 keeps all
	TopSigma float32 // 0 keeps all (top-n-sigma)

	XTCProbability float32 // 0 is off
	XTCThreshold   float32 // above 0.5 is off

	DynatempRange    float32 // 0 is off
	DynatempExponent float32 // 0 means 1

	RepeatPenalty    float32 // 0 or 1 is off
	PresencePenalty  float32 // 0 is off
	FrequencyPenalty float32 // 0 is off
	PenaltyLastN     int     // tokens looked at; 0 means 64, -1 the whole context

	DRYMultiplier    float32  // 0 is off
	DRYBase          float32  // 0 means 1.75
	DRYAllowedLength int      // 0 means 2
	DRYLastN         int      // 0 means the whole context
	DRYBreakers      []string // nil means newline, colon, quote and asterisk

	Mirostat    int     // 0 off, 1 or 2; replaces top-k, top-p, min-p and typical
	MirostatTau float32 // 0 means 5
	MirostatEta float32 // 0 means 0.1

	// LogitBias is added to logits before anything else; -Inf bans a token.
	LogitBias map[TokenID]float32
}

// DefaultSampling returns the defaults of llama.cpp's own tools.
func DefaultSampling() Sampling {
	return Sampling{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05}
}

// Greedy reports whether the most probable token is always taken, with nothing else in between.
func (s Sampling) Greedy() bool {
	return s.Temperature == 0 && s.Mirostat == 0 && s.penaltiesOff() &&
		s.DRYMultiplier == 0 && len(s.LogitBias) == 0
}

func (s Sampling) penaltiesOff() bool {
	return (s.RepeatPenalty == 0 || s.RepeatPenalty == 1) &&
		s.PresencePenalty == 0 && s.FrequencyPenalty == 0
}
