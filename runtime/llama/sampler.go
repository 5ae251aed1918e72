package llama

import (
	"math"
	"slices"
	"strings"
)

// TriggerType says what starts a lazy grammar; the values are upstream's.
type TriggerType int32

const (
	TriggerToken TriggerType = iota
	TriggerWord
	TriggerPattern
	TriggerPatternFull
)

// Trigger starts a lazy grammar when the text meets it.
type Trigger struct {
	Type  TriggerType
	Value string
	Token Token
}

// Grammar constrains what a sampler may choose.
type Grammar struct {
	Text      string // GBNF with a rule named root; "" is none
	Lazy      bool   // applies from the first trigger on
	Prefill   bool   // it also covers GenerationPrompt
	Triggers  []Trigger
	Preserved []Token // tokens that stay whole
	// GenerationPrompt is what the chat template put at the start of the answer.
	GenerationPrompt string
}

// SamplerParams is a full chain in llama.cpp's order: bias, penalties, DRY, top-n-sigma, top-k,
// typical, top-p, min-p, XTC, temperature, distribution. Values are as upstream defines them,
// not as a user leaves them out; DefaultSampler gives a chain that changes nothing.
//
// Where the first cut needs only the largest logits (temperature 0, top-k up to 1024, or min-p
// without typical and top-p) and there is neither mirostat nor top-n-sigma, nothing is built or
// sorted for the other tokens, unless a grammar refuses the choice; the choice is the same.
type SamplerParams struct {
	Seed                              uint32 // upstream draws one for 0xFFFFFFFF
	Temperature                       float32
	DynatempRange, DynatempExponent   float32
	TopK                              int32
	TopP, MinP, TypicalP, TopNSigma   float32
	XTCProbability, XTCThreshold      float32
	PenaltyLastN                      int32
	PenaltyRepeat                     float32
	PenaltyFrequency, PenaltyPresence float32
	DRYMultiplier, DRYBase            float32
	DRYAllowedLength, DRYLastN        int32
	DRYBreakers                       []string
	Mirostat                          int32
	MirostatTau, MirostatEta          float32
	Bias                              map[Token]float32
	IgnoreEOS                         bool
	Grammar                           Grammar

	whole bool // for tests: upstream's chain on the whole vocabulary
}

// DefaultSampler is greedy: temperature 0 and every other stage neutral.
func DefaultSampler() SamplerParams {
	return SamplerParams{
		DynatempExponent: 1, TopP: 1, TypicalP: 1, TopNSigma: -1, XTCThreshold: 1,
		PenaltyLastN: 64, PenaltyRepeat: 1, DRYBase: 1.75, DRYAllowedLength: 2,
		MirostatTau: 5, MirostatEta: 0.1,
	}
}

// Bounds of SamplerParams.
const (
	HistoryMax      = 1 << 20 // tokens that penalties or DRY look back
	DRYBreakersMax  = 64
	GrammarBytesMax = 4 << 20
)

func (p *SamplerParams) validate(vocabulary int) error {
	const op = "sampler"
	for _, v := range []float32{
		p.Temperature, p.DynatempRange, p.DynatempExponent, p.TopP, p.MinP, p.TypicalP,
		p.TopNSigma, p.XTCProbability, p.XTCThreshold, p.PenaltyRepeat, p.PenaltyFrequency,
		p.PenaltyPresence, p.DRYMultiplier, p.DRYBase, p.MirostatTau, p.MirostatEta,
	} {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fail(op, Invalid, "", "a value is %v", v)
		}
	}
	switch {
	case p.PenaltyRepeat <= 0:
		return fail(op, Invalid, "use 1 for none", "repeat penalty %v", p.PenaltyRepeat)
	case p.Mirostat < 0 || p.Mirostat > 2:
		return fail(op, Invalid, "", "mirostat %d is outside 0..2", p.Mirostat)
	case p.PenaltyLastN < 0 || p.PenaltyLastN > HistoryMax:
		return fail(op, Invalid, "", "penalty history %d is outside 0..%d", p.PenaltyLastN, HistoryMax)
	case p.DRYLastN < 0 || p.DRYLastN > HistoryMax:
		return fail(op, Invalid, "", "DRY history %d is outside 0..%d", p.DRYLastN, HistoryMax)
	case p.DRYAllowedLength < 0:
		return fail(op, Invalid, "", "DRY length %d", p.DRYAllowedLength)
	case len(p.DRYBreakers) > DRYBreakersMax:
		return fail(op, Invalid, "", "%d DRY breakers, at most %d", len(p.DRYBreakers), DRYBreakersMax)
	case slices.ContainsFunc(p.DRYBreakers, hasNUL):
		return fail(op, Invalid, "", "a NUL byte in a DRY breaker")
	}
	for t, b := range p.Bias {
		if t < 0 || int(t) >= vocabulary {
			return fail(op, Invalid, "", "bias for token %d outside 0..%d", t, vocabulary-1)
		}
		if math.IsNaN(float64(b)) || math.IsInf(float64(b), 1) {
			return fail(op, Invalid, "", "bias %v for token %d", b, t)
		}
	}
	return p.Grammar.validate(vocabulary)
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

// Sampler chooses tokens. One goroutine at a time.
type Sampler struct {
	life
	h     samplerHandle
	model *Model
}

// NewSampler builds a chain. Errors: Invalid, Grammar (with the line at fault), Closed.
func (m *Model) NewSampler(p SamplerParams) (*Sampler, error) {
	if err := m.enter("sampler"); err != nil {
		return nil, err
	}
	defer m.leave()
	if err := p.validate(m.info.Vocabulary); err != nil {
		return nil, err
	}
	h, err := newSampler(m.h, &p)
	if err != nil {
		return nil, err
	}
	m.adopt()
	return &Sampler{h: h, model: m}, nil
}

// Accept tells the chain of a token that it did not choose. generated says whether grammars
// count it as output; a prompt's tokens are not, but penalties see them. A token that leaves the
// grammar is BadGrammar, and so is every later use of the sampler; a grammar is not shown an end
// token.
func (s *Sampler) Accept(token Token, generated bool) error {
	if err := s.enter("accept"); err != nil {
		return err
	}
	defer s.leave()
	if err := s.model.checkToken("accept", token); err != nil {
		return err
	}
	return acceptToken(s.h, token, generated)
}

// Seed is the seed in use, 0 for a greedy sampler.
func (s *Sampler) Seed() uint32 {
	if s.enter("seed") != nil {
		return 0
	}
	defer s.leave()
	return samplerSeed(s.h)
}

// Close frees the sampler.
func (s *Sampler) Close() error {
	return s.close("close sampler", func() {
		freeSampler(s.h)
		s.model.disown()
	})
}
