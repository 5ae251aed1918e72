package infer

import (
	"encoding/json"
	"fmt"
	"math"
	"unicode/utf8"
)

// Bounds of a request. They protect the engine from input that could never be meant; the
// context length of the model is checked on top of them.
const (
	PromptBytesMax     = 64 << 20
	MessagesMax        = 16384
	ToolsMax           = 512
	StopsMax           = 64
	StopBytesMax       = 1024
	TopLogprobsMax     = 128
	LogitBiasMax       = 65536
	ConstraintBytesMax = 1 << 20
	DRYBreakersMax     = 64
	PriorityMax        = 1000
	TokensMax          = 1 << 24 // tokens in a prompt, and in an answer
	AdaptersMax        = 16      // of a request
	AdapterScaleMax    = 100     // and its negative
	ScopeBytesMax      = 256     // of a scope, and of a salt
	historyTokensMax   = 1 << 20
)

// Validate refuses a request that no model could run. The error names the field.
func (r *Request) Validate() error {
	if err := r.validateInput(); err != nil {
		return err
	}
	if err := r.validateTools(); err != nil {
		return err
	}
	switch {
	case r.MaxTokens < 0 || r.MaxTokens > TokensMax:
		return invalid("max_tokens", "use 0 for as many as fit", "%d is outside 0..%d",
			r.MaxTokens, TokensMax)
	case len(r.Stop) > StopsMax:
		return invalid("stop", "", "%d texts, at most %d", len(r.Stop), StopsMax)
	case r.TopLogprobs < 0 || r.TopLogprobs > TopLogprobsMax:
		return invalid("top_logprobs", "", "%d is outside 0..%d", r.TopLogprobs, TopLogprobsMax)
	case r.TopLogprobs > 0 && !r.Logprobs:
		return invalid("top_logprobs", "set logprobs too", "logprobs is off")
	case r.Priority < -PriorityMax || r.Priority > PriorityMax:
		return invalid("priority", "", "%d is outside -%d..%d", r.Priority, PriorityMax, PriorityMax)
	}
	for _, s := range r.Stop {
		if s == "" || len(s) > StopBytesMax {
			return invalid("stop", "", "a text of %d bytes, want 1..%d", len(s), StopBytesMax)
		}
	}
	switch r.Speculate {
	case "", SpeculateOff, SpeculateOn, SpeculateAdaptive:
	default:
		return invalid("speculate", "use off, on or adaptive", "unknown %.40q", r.Speculate)
	}
	if err := validateAdapters(r.Adapters); err != nil {
		return err
	}
	if err := r.Constraint.validate(); err != nil {
		return err
	}
	if err := r.KV.Validate(); err != nil {
		return err
	}
	if r.KV.PublicSystem && len(r.Messages) == 0 {
		return invalid("kv.public_system", "count its tokens, and name them in public_tokens",
			"without messages nothing tells where the system prompt ends")
	}
	return r.Sampling.Validate()
}

// Validate refuses what no backend could follow. What each policy takes, its backend checks.
func (p *KVPolicy) Validate() error {
	switch {
	case len(p.Scope) > ScopeBytesMax:
		return invalid("kv.scope", "use a digest of it", "%d bytes, at most %d", len(p.Scope),
			ScopeBytesMax)
	case len(p.Salt) > ScopeBytesMax:
		return invalid("kv.salt", "use a digest of it", "%d bytes, at most %d", len(p.Salt),
			ScopeBytesMax)
	case p.PublicTokens < 0 || p.PublicTokens > TokensMax:
		return invalid("kv.public_tokens", "0 keeps all apart", "%d is outside 0..%d",
			p.PublicTokens, TokensMax)
	case p.PublicTokens > 0 && p.PublicSystem:
		return invalid("kv.public_tokens", "leave one of them out",
			"public_system counts the tokens itself")
	case (p.PublicTokens > 0 || p.PublicSystem) && p.Salt == "":
		field := "kv.public_tokens"
		if p.PublicSystem {
			field = "kv.public_system"
		}
		return invalid(field, "set a salt, or leave it out", "without a salt all of it is public")
	case p.ReuseChunks < 0 || p.ReuseChunks > TokensMax:
		return invalid("kv.reuse_chunks", "0 moves nothing", "%d is outside 0..%d", p.ReuseChunks,
			TokensMax)
	case p.ReuseChunks > 0 && p.NoReuse:
		return invalid("kv.reuse_chunks", "leave one of them out", "no_reuse computes everything")
	}
	return nil
}

func (r *Request) validateInput() error {
	set, size := 0, len(r.Prompt)
	if len(r.Messages) > 0 {
		set++
	}
	if r.Prompt != "" {
		set++
	}
	if len(r.Tokens) > 0 {
		set++
	}
	if set != 1 {
		return invalid("prompt", "give exactly one of messages, prompt and tokens",
			"%d of them are set", set)
	}
	if len(r.Messages) > MessagesMax {
		return invalid("messages", "", "%d messages, at most %d", len(r.Messages), MessagesMax)
	}
	if len(r.Tokens) > TokensMax {
		return invalid("tokens", "", "%d tokens, at most %d", len(r.Tokens), TokensMax)
	}
	if !utf8.ValidString(r.Prompt) {
		return invalid("prompt", "send UTF-8 text", "not valid UTF-8")
	}
	for i, m := range r.Messages {
		switch m.Role {
		case RoleSystem, RoleUser, RoleAssistant, RoleTool:
		default:
			return invalid(fmt.Sprintf("messages[%d].role", i),
				"use system, user, assistant or tool", "unknown role %q", m.Role)
		}
		if !utf8.ValidString(m.Content) || !utf8.ValidString(m.Reasoning) {
			return invalid(fmt.Sprintf("messages[%d].content", i), "send UTF-8 text",
				"not valid UTF-8")
		}
		size += len(m.Content) + len(m.Reasoning)
	}
	if size > PromptBytesMax {
		return &Error{
			Op: "validate", Kind: KindTooLong, Field: "prompt",
			Hint: "send less text", Err: fmt.Errorf("%d bytes, at most %d", size, PromptBytesMax),
		}
	}
	return nil
}

// validateAdapters leaves to the backend which names there are.
func validateAdapters(adapters []Adapter) error {
	if len(adapters) > AdaptersMax {
		return invalid("adapters", "name fewer", "%d of them, at most %d", len(adapters), AdaptersMax)
	}
	named := map[string]bool{}
	for _, a := range adapters {
		switch scale := float64(a.Scale); {
		case a.Name == "":
			return invalid("adapters", "name each", "a name is empty")
		case named[a.Name]:
			return invalid("adapters", "name each once", "%.40q comes twice", a.Name)
		case !(math.Abs(scale) <= AdapterScaleMax): // written so that NaN fails
			return invalid("adapters", "use 0 for the default", "scale %v of %.40q is outside -%d..%d",
				a.Scale, a.Name, AdapterScaleMax, AdapterScaleMax)
		}
		named[a.Name] = true
	}
	return nil
}

func (r *Request) validateTools() error {
	switch r.ToolChoice {
	case "", ToolAuto, ToolNone:
	case ToolRequired:
		if len(r.Tools) == 0 {
			return invalid("tool_choice", "", "required, but no tools are given")
		}
	default:
		return invalid("tool_choice", "use auto, required or none", "unknown %q", r.ToolChoice)
	}
	if len(r.Tools) == 0 {
		return nil
	}
	if len(r.Messages) == 0 {
		return invalid("tools", "send messages", "tools need a chat template")
	}
	if r.ToolChoice != ToolNone && r.Constraint.Grammar != "" {
		return invalid("grammar", "leave out the tools, or choose none of them",
			"calls of tools have a grammar of their own")
	}
	if len(r.Tools) > ToolsMax {
		return invalid("tools", "", "%d tools, at most %d", len(r.Tools), ToolsMax)
	}
	for i, t := range r.Tools {
		if t.Name == "" {
			return invalid(fmt.Sprintf("tools[%d].name", i), "", "empty")
		}
		if len(t.Parameters) > 0 && !json.Valid(t.Parameters) {
			return invalid(fmt.Sprintf("tools[%d].parameters", i), "", "not valid JSON")
		}
	}
	return nil
}

func (c Constraint) validate() error {
	switch {
	case c.Grammar != "" && len(c.Schema) > 0:
		return invalid("grammar", "give a grammar or a schema", "both are set")
	case len(c.Grammar) > ConstraintBytesMax:
		return invalid("grammar", "", "%d bytes, at most %d", len(c.Grammar), ConstraintBytesMax)
	case len(c.Schema) > ConstraintBytesMax:
		return invalid("schema", "", "%d bytes, at most %d", len(c.Schema), ConstraintBytesMax)
	case len(c.Schema) > 0 && !json.Valid(c.Schema):
		return invalid("schema", "", "not valid JSON")
	}
	return nil
}

// floatRange is the accepted range of one sampling field.
type floatRange struct {
	field    string
	value    float32
	min, max float32
}

// Validate refuses values outside the range of the named sampler, NaN and infinities included.
func (s *Sampling) Validate() error {
	for _, f := range []floatRange{
		{"temperature", s.Temperature, 0, 100},
		{"top_p", s.TopP, 0, 1},
		{"min_p", s.MinP, 0, 1},
		{"typical_p", s.TypicalP, 0, 1},
		{"top_n_sigma", s.TopSigma, 0, 1000},
		{"xtc_probability", s.XTCProbability, 0, 1},
		{"xtc_threshold", s.XTCThreshold, 0, 1},
		{"dynatemp_range", s.DynatempRange, 0, 100},
		{"dynatemp_exponent", s.DynatempExponent, 0, 100},
		{"repeat_penalty", s.RepeatPenalty, 0, 100},
		{"presence_penalty", s.PresencePenalty, -100, 100},
		{"frequency_penalty", s.FrequencyPenalty, -100, 100},
		{"dry_multiplier", s.DRYMultiplier, 0, 100},
		{"dry_base", s.DRYBase, 0, 100},
		{"mirostat_tau", s.MirostatTau, 0, 100},
		{"mirostat_eta", s.MirostatEta, 0, 100},
	} {
		if !(f.value >= f.min && f.value <= f.max) { // written so that NaN fails
			return invalid(f.field, "", "%v is outside %v..%v", f.value, f.min, f.max)
		}
	}
	for _, f := range []struct {
		field           string
		value, min, max int
	}{
		{"top_k", s.TopK, 0, math.MaxInt32},
		{"repeat_last_n", s.PenaltyLastN, -1, historyTokensMax},
		{"dry_allowed_length", s.DRYAllowedLength, 0, historyTokensMax},
		{"dry_penalty_last_n", s.DRYLastN, 0, historyTokensMax},
		{"mirostat", s.Mirostat, 0, 2},
		{"logit_bias", len(s.LogitBias), 0, LogitBiasMax},
		{"dry_sequence_breakers", len(s.DRYBreakers), 0, DRYBreakersMax},
	} {
		if f.value < f.min || f.value > f.max {
			return invalid(f.field, "", "%d is outside %d..%d", f.value, f.min, f.max)
		}
	}
	for id, bias := range s.LogitBias {
		if math.IsNaN(float64(bias)) || math.IsInf(float64(bias), 1) || id < 0 {
			return invalid("logit_bias", "", "token %d has bias %v", id, bias)
		}
	}
	return nil
}

// Validate refuses a score request that no model could run.
func (r *ScoreRequest) Validate() error {
	switch {
	case r.Text == "":
		return invalid("text", "", "empty")
	case !utf8.ValidString(r.Text) || !utf8.ValidString(r.Context):
		return invalid("text", "send UTF-8 text", "not valid UTF-8")
	case len(r.Text)+len(r.Context) > PromptBytesMax:
		return &Error{Op: "validate", Kind: KindTooLong, Field: "text"}
	case r.TopLogprobs < 0 || r.TopLogprobs > TopLogprobsMax:
		return invalid("top_logprobs", "", "%d is outside 0..%d", r.TopLogprobs, TopLogprobsMax)
	}
	return nil
}
