package remote

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strconv"

	"github.com/norion/norion/runtime/infer"
)

// dialect is whose endpoint it is: it decides which fields beyond OpenAI's can be sent.
type dialect string

const (
	openAI dialect = "openai" // and all that are not told apart: vLLM, ...
	llama  dialect = "llama.cpp"
	norion dialect = "norion"
)

// refuse names the first field of a request that the endpoint cannot be told.
func (b *Backend) refuse(r *infer.Request) error {
	a, d, chat := b.info.Abilities, b.dialect, len(r.Messages) > 0
	s, kv := &r.Sampling, &r.KV
	for _, f := range []struct {
		field string
		asked bool
	}{
		{"", !a.Generate && !chat},
		{"messages", chat && !a.Chat},
		{"tools", len(r.Tools) > 0 && !a.Tools},
		{"schema", len(r.Constraint.Schema) > 0 && (!a.Grammar || d == openAI && !chat)},
		{"grammar", r.Constraint.Grammar != "" && (!a.Grammar || d == openAI)},
		{"logprobs", r.Logprobs && !chat && d != llama}, // others do not tell the tokens' ids
		{"logprobs", r.Logprobs && chat},
		{"ignore_eos", r.IgnoreEOS && d == openAI},
		{"special_text", r.SpecialText},
		{"template_args", len(r.TemplateArgs) > 0 && d == openAI},
		{"reasoning", r.NoReasoning && d == openAI},
		{"adapters", len(r.Adapters) > 0 && d != norion},
		{"speculate", r.Speculate == infer.SpeculateOn && d != norion},
		{"priority", r.Priority != 0},
		{"kv.no_reuse", kv.NoReuse && d == openAI},
		{"kv.scope", kv.Scope != ""}, // the endpoint decides by its own keys
		{"kv.salt", kv.Salt != ""},
		{"kv.deterministic", kv.Deterministic && d != norion},
		{"kv.evict", kv.Evict != "" && kv.Evict != "refuse" && d != norion},
		{"kv.reuse_chunks", kv.ReuseChunks != 0 && d != norion},
		{"max_tokens", r.MaxTokens == 0 && !chat && d == openAI},
	} {
		if f.asked {
			return unsupported("generate", f.field)
		}
	}
	if d == openAI {
		return refuseSamplers(s)
	}
	return refuseBias(s)
}

// refuseSamplers names the first sampler that OpenAI's interface has no field for.
func refuseSamplers(s *infer.Sampling) error {
	off := func(x float32) bool { return x == 0 || x == 1 }
	for _, f := range []struct {
		field string
		asked bool
	}{
		{"top_k", s.TopK != 0},
		{"min_p", s.MinP != 0},
		{"typical_p", !off(s.TypicalP)},
		{"top_n_sigma", s.TopSigma != 0},
		{"xtc_probability", s.XTCProbability != 0},
		{"dynatemp_range", s.DynatempRange != 0},
		{"repeat_penalty", !off(s.RepeatPenalty)},
		{"dry_multiplier", s.DRYMultiplier != 0},
		{"mirostat", s.Mirostat != 0},
	} {
		if f.asked {
			return unsupported("generate", f.field)
		}
	}
	return refuseBias(s)
}

// biasMax is OpenAI's bound of logit_bias.
const biasMax = 100

func refuseBias(s *infer.Sampling) error {
	for _, bias := range s.LogitBias {
		if bias < -biasMax || bias > biasMax {
			return unsupported("generate", "logit_bias")
		}
	}
	return nil
}

// object is a JSON object in the making.
type object map[string]any

// body is what is sent, and the path it is sent to. The request was not refused. Its seed is set.
func (b *Backend) body(ctx context.Context, r *infer.Request) (path string, o object, err error) {
	o = object{
		"model": b.info.Model, "stream": true,
		"stream_options": object{"include_usage": true},
		"temperature":    r.Sampling.Temperature, "top_p": orOne(r.Sampling.TopP),
		"presence_penalty": r.Sampling.PresencePenalty, "seed": r.Sampling.Seed,
		"frequency_penalty": r.Sampling.FrequencyPenalty,
	}
	if len(r.Stop) > 0 {
		o["stop"] = r.Stop
	}
	if len(r.Sampling.LogitBias) > 0 {
		bias := object{}
		for id, x := range r.Sampling.LogitBias {
			bias[strconv.Itoa(int(id))] = x
		}
		o["logit_bias"] = bias
	}
	if b.dialect != openAI {
		b.extend(r, o)
	}
	if len(r.Messages) > 0 {
		chat(r, o)
		return "/v1/chat/completions", o, nil
	}
	return "/v1/completions", o, b.prompt(ctx, r, o)
}

// extend adds the fields that llama-server and norion have in common, and norion's own.
func (b *Backend) extend(r *infer.Request, o object) {
	s := &r.Sampling
	look := or(s.PenaltyLastN, 64)
	if look < 0 { // llama-server takes no number for the whole context
		look = b.info.ContextTokens
	}
	for name, value := range map[string]any{
		"top_k": s.TopK, "min_p": s.MinP, "typical_p": orOne(s.TypicalP),
		"xtc_probability": s.XTCProbability, "xtc_threshold": s.XTCThreshold,
		"dynatemp_range": s.DynatempRange, "dynatemp_exponent": orOne(s.DynatempExponent),
		"repeat_penalty": orOne(s.RepeatPenalty), "repeat_last_n": look,
		"dry_multiplier": s.DRYMultiplier, "dry_base": or(s.DRYBase, 1.75),
		"dry_allowed_length": or(s.DRYAllowedLength, 2),
		"dry_penalty_last_n": or(s.DRYLastN, b.info.ContextTokens),
		"mirostat":           s.Mirostat, "mirostat_tau": or(s.MirostatTau, 5),
		"mirostat_eta": or(s.MirostatEta, 0.1), "top_n_sigma": or(s.TopSigma, -1),
		"ignore_eos": r.IgnoreEOS, "cache_prompt": !r.KV.NoReuse,
	} {
		o[name] = value
	}
	if s.DRYBreakers != nil {
		o["dry_sequence_breakers"] = s.DRYBreakers
	}
	if r.Constraint.Grammar != "" {
		o["grammar"] = r.Constraint.Grammar
	}
	args := map[string]json.RawMessage{}
	for name, value := range r.TemplateArgs {
		args[name] = value
	}
	if r.NoReasoning {
		args["enable_thinking"] = json.RawMessage("false")
	}
	if len(args) > 0 {
		o["chat_template_kwargs"] = args
	}
	if b.dialect != norion {
		return
	}
	if len(r.Adapters) > 0 {
		o["adapters"] = r.Adapters
	}
	if r.Speculate != "" {
		o["speculate"] = r.Speculate
	}
	if r.KV != (infer.KVPolicy{}) {
		o["kv"] = object{
			"no_reuse": r.KV.NoReuse, "deterministic": r.KV.Deterministic, "evict": r.KV.Evict,
			"sinks": r.KV.Sinks, "window": r.KV.Window, "block": r.KV.Block,
			"recompute": r.KV.Recompute, "reuse_chunks": r.KV.ReuseChunks,
		}
	}
}

func or[T comparable](x, def T) T {
	var zero T
	if x == zero {
		return def
	}
	return x
}

func orOne(x float32) float32 { return or(x, 1) }

// prompt adds what a request of raw text or tokens has.
func (b *Backend) prompt(ctx context.Context, r *infer.Request, o object) error {
	o["prompt"] = r.Prompt
	if len(r.Tokens) > 0 {
		o["prompt"] = r.Tokens
	}
	known := len(r.Tokens)
	switch {
	case b.dialect == norion:
		o["parse_special"] = r.ParseSpecial
	case b.dialect == llama && r.Prompt != "" && !r.ParseSpecial:
		// It would read the spelling of a control token as that token.
		tokens, err := b.Tokenize(ctx, r.Prompt, infer.TokenizeOptions{AddSpecial: true})
		if err != nil {
			return err
		}
		ids := make([]infer.TokenID, len(tokens))
		for i, t := range tokens {
			ids[i] = t.ID
		}
		o["prompt"] = ids
	}
	switch {
	case r.MaxTokens > 0:
		o["max_tokens"] = r.MaxTokens
	case b.dialect == llama:
		o["max_tokens"] = -1
	default: // norion has 16 where nothing is said
		if known == 0 {
			tokens, err := b.Tokenize(ctx, r.Prompt, infer.TokenizeOptions{
				AddSpecial: true, ParseSpecial: r.ParseSpecial,
			})
			if err != nil {
				return err
			}
			known = len(tokens)
		}
		o["max_tokens"] = max(b.info.ContextTokens-known, 1)
	}
	if len(r.Constraint.Schema) > 0 {
		o["json_schema"] = r.Constraint.Schema
	}
	if r.Logprobs {
		o["logprobs"] = max(r.TopLogprobs, 1) // 0 is none to llama-server
	}
	return nil
}

// chat adds what a conversation has.
func chat(r *infer.Request, o object) {
	o["messages"] = messages(r.Messages)
	if r.MaxTokens > 0 {
		o["max_tokens"] = r.MaxTokens
	}
	if len(r.Constraint.Schema) > 0 {
		o["response_format"] = object{
			"type": "json_schema",
			"json_schema": object{
				"name": "answer", "strict": true, "schema": r.Constraint.Schema,
			},
		}
	}
	if len(r.Tools) == 0 {
		return
	}
	tools := make([]object, len(r.Tools))
	for i, t := range r.Tools {
		f := object{"name": t.Name, "description": t.Description}
		if len(t.Parameters) > 0 {
			f["parameters"] = t.Parameters
		}
		tools[i] = object{"type": "function", "function": f}
	}
	o["tools"], o["parallel_tool_calls"] = tools, r.ParallelTools
	o["tool_choice"] = or(r.ToolChoice, infer.ToolAuto)
}

func messages(all []infer.Message) []object {
	out := make([]object, len(all))
	for i, m := range all {
		o := object{"role": m.Role, "content": m.Content}
		if m.Reasoning != "" {
			o["reasoning_content"] = m.Reasoning
		}
		if m.Name != "" {
			o["name"] = m.Name
		}
		if m.ToolCallID != "" {
			o["tool_call_id"] = m.ToolCallID
		}
		var calls []object
		for _, c := range m.ToolCalls {
			calls = append(calls, object{
				"id": c.ID, "type": "function",
				"function": object{"name": c.Name, "arguments": c.Arguments},
			})
		}
		if calls != nil {
			o["tool_calls"] = calls
		}
		out[i] = o
	}
	return out
}

// drawSeed sets a seed where the request leaves it open, so that the answer can be repeated.
func drawSeed(s *infer.Sampling) {
	for s.Seed == 0 || s.Seed == ^uint32(0) {
		s.Seed = rand.Uint32()
	}
}
