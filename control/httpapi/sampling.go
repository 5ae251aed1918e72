package httpapi

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// samplers are the fields that choose tokens, with the names of OpenAI and of llama.cpp. What is
// absent has llama.cpp's default.
type samplers struct {
	Temperature      *float32           `json:"temperature"`
	TopP             *float32           `json:"top_p"`
	Seed             *int64             `json:"seed"`
	FrequencyPenalty *float32           `json:"frequency_penalty"`
	PresencePenalty  *float32           `json:"presence_penalty"`
	LogitBias        map[string]float32 `json:"logit_bias"`

	TopK             *int     `json:"top_k"`
	MinP             *float32 `json:"min_p"`
	TypicalP         *float32 `json:"typical_p"`
	TopSigma         *float32 `json:"top_n_sigma"`
	XTCProbability   *float32 `json:"xtc_probability"`
	XTCThreshold     *float32 `json:"xtc_threshold"`
	DynatempRange    *float32 `json:"dynatemp_range"`
	DynatempExponent *float32 `json:"dynatemp_exponent"`
	RepeatPenalty    *float32 `json:"repeat_penalty"`
	RepeatLastN      *int     `json:"repeat_last_n"`
	DRYMultiplier    *float32 `json:"dry_multiplier"`
	DRYBase          *float32 `json:"dry_base"`
	DRYAllowedLength *int     `json:"dry_allowed_length"`
	DRYLastN         *int     `json:"dry_penalty_last_n"`
	DRYBreakers      []string `json:"dry_sequence_breakers"`
	Mirostat         *int     `json:"mirostat"`
	MirostatTau      *float32 `json:"mirostat_tau"`
	MirostatEta      *float32 `json:"mirostat_eta"`
	IgnoreEOS        bool     `json:"ignore_eos"`
}

// Bounds of OpenAI's fields.
const (
	temperatureMax = 2
	biasMax        = 100
)

// put replaces a default where a field is there.
func put[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// apply puts the fields into a request. Where 0 means the default in package infer, a literal 0 is
// refused rather than changed silently.
func (f *samplers) apply(r *infer.Request) error {
	for _, v := range []struct {
		param, hint string
		value       *float32
	}{
		{"top_p", "1 keeps all tokens; temperature 0 takes the most probable one", f.TopP},
		{"typical_p", "1 is off", f.TypicalP},
		{"repeat_penalty", "1 is off", f.RepeatPenalty},
		{"dynatemp_exponent", "1 is the default", f.DynatempExponent},
		{"dry_base", "1.75 is the default; dry_multiplier 0 is off", f.DRYBase},
		{"mirostat_tau", "5 is the default", f.MirostatTau},
		{"mirostat_eta", "0.1 is the default", f.MirostatEta},
	} {
		if v.value != nil && *v.value == 0 {
			return refuse(codeInvalidValue, v.param, "'%s' cannot be 0: %s", v.param, v.hint)
		}
	}
	if f.Temperature != nil && !(*f.Temperature >= 0 && *f.Temperature <= temperatureMax) {
		return refuse(codeInvalidValue, "temperature", "'temperature' is outside 0..%d",
			temperatureMax)
	}
	s := infer.DefaultSampling()
	put(&s.Temperature, f.Temperature)
	put(&s.TopP, f.TopP)
	put(&s.FrequencyPenalty, f.FrequencyPenalty)
	put(&s.PresencePenalty, f.PresencePenalty)
	put(&s.TopK, f.TopK)
	put(&s.MinP, f.MinP)
	put(&s.TypicalP, f.TypicalP)
	put(&s.XTCProbability, f.XTCProbability)
	s.XTCThreshold = 0.1
	put(&s.XTCThreshold, f.XTCThreshold)
	put(&s.DynatempRange, f.DynatempRange)
	put(&s.DynatempExponent, f.DynatempExponent)
	put(&s.RepeatPenalty, f.RepeatPenalty)
	put(&s.DRYMultiplier, f.DRYMultiplier)
	put(&s.DRYBase, f.DRYBase)
	put(&s.Mirostat, f.Mirostat)
	put(&s.MirostatTau, f.MirostatTau)
	put(&s.MirostatEta, f.MirostatEta)
	s.DRYBreakers = f.DRYBreakers
	if f.TopSigma != nil && *f.TopSigma != -1 {
		s.TopSigma = *f.TopSigma
	}
	if f.Seed != nil && *f.Seed != -1 { // llama.cpp's way to draw one
		s.Seed = foldSeed(*f.Seed)
	}
	if err := f.applyHistory(&s); err != nil {
		return err
	}
	if err := f.applyBias(&s); err != nil {
		return err
	}
	r.Sampling, r.IgnoreEOS = s, f.IgnoreEOS
	return s.Validate()
}

// applyHistory sets how far penalties look back: llama.cpp has 0 for nothing and -1 for all.
func (f *samplers) applyHistory(s *infer.Sampling) error {
	if n := f.RepeatLastN; n != nil {
		if s.PenaltyLastN = *n; *n == 0 {
			s.RepeatPenalty, s.PresencePenalty, s.FrequencyPenalty = 1, 0, 0
		}
	}
	if n := f.DRYAllowedLength; n != nil {
		if *n == 0 {
			return refuse(codeInvalidValue, "dry_allowed_length", "1 is the least")
		}
		s.DRYAllowedLength = *n
	}
	if n := f.DRYLastN; n != nil {
		switch {
		case *n < -1:
			return refuse(codeInvalidValue, "dry_penalty_last_n", "%d is below -1", *n)
		case *n == 0:
			s.DRYMultiplier = 0
		}
		s.DRYLastN = max(*n, 0)
	}
	return nil
}

func (f *samplers) applyBias(s *infer.Sampling) error {
	if len(f.LogitBias) == 0 {
		return nil
	}
	s.LogitBias = make(map[infer.TokenID]float32, len(f.LogitBias))
	for text, bias := range f.LogitBias {
		id, err := strconv.ParseUint(text, 10, 31)
		if err != nil || strconv.FormatUint(id, 10) != text {
			return refuse(codeInvalidValue, "logit_bias", "'%s' is no token id", clip(text))
		}
		if !(bias >= -biasMax && bias <= biasMax) {
			return refuse(codeInvalidValue, "logit_bias", "the bias of token %d is outside -%d..%d", id,
				biasMax, biasMax)
		}
		s.LogitBias[infer.TokenID(id)] = bias
	}
	return nil
}

// extras are llama.cpp's fields and norion's own that are about no single interface.
type extras struct {
	Grammar      string                    `json:"grammar"`      // GBNF
	CachePrompt  *bool                     `json:"cache_prompt"` // false computes the whole prompt
	TemplateArgs map[string]jsontext.Value `json:"chat_template_kwargs"`
	Adapters     []infer.Adapter           `json:"adapters"`
	KV           *kvFields                 `json:"kv"`
	Speculate    infer.Speculation         `json:"speculate"`
}

// kvFields are what a client may say of its cache: not whose entries it shares, which its key does.
type kvFields struct {
	NoReuse       bool   `json:"no_reuse"`
	Deterministic bool   `json:"deterministic"`
	Evict         string `json:"evict"`
	Sinks         int    `json:"sinks"`
	Window        int    `json:"window"`
	Block         int    `json:"block"`
	Recompute     bool   `json:"recompute"`
	ReuseChunks   int    `json:"reuse_chunks"`
}

func (f *extras) apply(r *infer.Request) {
	r.Adapters, r.Speculate = f.Adapters, f.Speculate
	if f.Grammar != "" {
		r.Constraint.Grammar = f.Grammar
	}
	if k := f.KV; k != nil {
		r.KV = infer.KVPolicy{
			NoReuse: k.NoReuse, Deterministic: k.Deterministic, Evict: k.Evict, Sinks: k.Sinks,
			Window: k.Window, Block: k.Block, Recompute: k.Recompute, ReuseChunks: k.ReuseChunks,
		}
	}
	if f.CachePrompt != nil && !*f.CachePrompt {
		r.KV.NoReuse = true
	}
}

// setting is a field that this server knows and does not act on: any value but the harmless ones
// is refused.
type setting struct {
	harmless []string // JSON texts besides null; the value has its effect anyway, or none is asked
	hint     string
}

// others catches what a request type has no field for.
type others map[string]jsontext.Value

// check refuses by name what is not harmless.
func (o others) check(known map[string]setting) error {
	for name, value := range o {
		s, ok := known[name]
		if !ok {
			return refuse(codeUnknown, clip(name), "unknown parameter: '%s'", clip(name))
		}
		if !s.takes(value) {
			return unsupported(name, s.hint)
		}
	}
	return nil
}

func (s setting) takes(value jsontext.Value) bool {
	if value.Kind() == 'n' {
		return true
	}
	v := value.Clone()
	if v.Canonicalize() != nil {
		return false
	}
	for _, h := range s.harmless {
		if h == string(v) || h == anyText && v.Kind() == '"' {
			return true
		}
	}
	return false
}

// anyText lets any string pass as harmless.
const anyText = "*"
