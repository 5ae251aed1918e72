package command

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/norion/norion/runtime/infer"
)

// Version is that of the protocol. A program says which one it speaks.
const Version = 1

// object is a JSON object in the making.
type object map[string]any

// answer is one line of a program. One of the fields besides ID is set.
type answer struct {
	ID      uint64         `json:"id"`
	Info    *hello         `json:"info"`
	Chunk   *chunk         `json:"chunk"`
	Scores  *infer.Scores  `json:"scores"`
	Vectors [][]float32    `json:"vectors"`
	Tokens  *[]infer.Token `json:"tokens"`
	Error   *fault         `json:"error"`

	size int // bytes of its line
}

// last says that nothing may come after it.
func (a *answer) last() bool { return a.Chunk == nil || a.Chunk.Final != nil }

// hello is what a program says of itself.
type hello struct {
	Version int        `json:"version"`
	Info    infer.Info `json:"model"`
	Fields  []string   `json:"fields"`
}

const (
	fieldsMax    = 64
	sequencesMax = 1024
)

func (h *hello) validate() error {
	i := &h.Info
	switch {
	case h.Version != Version:
		return garbage("start", fmt.Errorf("version %d, this norion speaks %d", h.Version, Version))
	case i.Model == "" || i.Engine == "":
		return garbage("start", errors.New("a model or an engine without a name"))
	case i.Sequences < 0 || i.Sequences > sequencesMax:
		return garbage("start", fmt.Errorf("%d sequences, at most %d", i.Sequences, sequencesMax))
	case len(h.Fields) > fieldsMax:
		return garbage("start", fmt.Errorf("%d fields, at most %d", len(h.Fields), fieldsMax))
	case i.ContextTokens < 0 || i.EmbeddingSize < 0 || i.Abilities.Embed && i.EmbeddingSize == 0:
		return garbage("start", errors.New("a size that cannot be"))
	}
	return nil
}

// chunk is infer.Chunk as it is written.
type chunk struct {
	Text      string                `json:"text"`
	Reasoning string                `json:"reasoning"`
	Tokens    int                   `json:"tokens"`
	ToolCalls []infer.ToolCallDelta `json:"tool_calls"`
	Logprobs  []infer.Logprob       `json:"logprobs"`
	Final     *infer.Final          `json:"final"`
}

// validate refuses a chunk that does not fit those before it, which had all but its own of tokens.
func (c *chunk) validate(tokens int) error {
	f := c.Final
	switch {
	case c.Tokens < 0:
		return garbage("generate", errors.New("a negative number of tokens"))
	case f == nil:
		return nil
	case f.Reason != infer.FinishStop && f.Reason != infer.FinishLength &&
		f.Reason != infer.FinishTools:
		return garbage("generate", fmt.Errorf("it ended for %.40q", f.Reason))
	case f.Usage.CompletionTokens != tokens || f.Usage.PromptTokens < 0 || f.Usage.Computed < 0:
		return garbage("generate", errors.New("its usage does not add up"))
	}
	return nil
}

// fault is an error of the program.
type fault struct {
	Kind    infer.Kind `json:"kind"`
	Field   string     `json:"field"`
	Hint    string     `json:"hint"`
	Message string     `json:"message"`
}

// messageMax bounds the words of a program that come into an error.
const messageMax = 500

// kinds are those that a program may give.
var kinds = []infer.Kind{
	infer.KindInvalid, infer.KindTooLong, infer.KindUnsupported, infer.KindNoTemplate,
	infer.KindModel, infer.KindNoMemory, infer.KindBusy, infer.KindDeadline, infer.KindCanceled,
	infer.KindInternal,
}

func (f *fault) err(op string) *infer.Error {
	e := &infer.Error{
		Op: op, Kind: infer.KindInternal, Field: bounded(f.Field), Hint: bounded(f.Hint),
		Err: errors.New("the program says: " + bounded(f.Message)),
	}
	for _, k := range kinds {
		if f.Kind == k {
			e.Kind = k
		}
	}
	return e
}

func bounded(s string) string {
	if len(s) > messageMax {
		s = strings.ToValidUTF8(s[:messageMax], "") + "..."
	}
	return s
}

// parse reads a line strictly: doubled and unknown names are refused.
func parse(line []byte) (*answer, error) {
	var a answer
	err := json.Unmarshal(line, &a, json.RejectUnknownMembers(true),
		jsonv1.FormatDurationAsNano(true))
	if err != nil {
		return nil, garbage("read", err)
	}
	set := 0
	for _, is := range []bool{
		a.Info != nil, a.Chunk != nil, a.Scores != nil, a.Vectors != nil, a.Tokens != nil,
		a.Error != nil,
	} {
		if is {
			set++
		}
	}
	if set != 1 {
		return nil, garbage("read", fmt.Errorf("a line with %d answers", set))
	}
	return &a, nil
}

// garbage is the error of an answer that cannot be used.
func garbage(op string, err error) error {
	return &infer.Error{
		Op: op, Kind: infer.KindInternal, Hint: "see docs/format/command.md for what it must write",
		Err: fmt.Errorf("the program's answer makes no sense: %w", err),
	}
}

func unsupported(op, field string) error {
	return &infer.Error{
		Op: op, Kind: infer.KindUnsupported, Field: field,
		Hint: "leave it out, or ask a model that runs on this machine",
		Err:  errors.New("the program cannot be told this"),
	}
}

// request writes a request, by the names that errors use. What the program does not say that it
// obeys is refused.
func (b *Backend) request(r *infer.Request) (object, error) {
	a, chat := b.info.Abilities, len(r.Messages) > 0
	for _, f := range []struct {
		field  string
		denied bool
	}{
		{"", !a.Generate && !chat},
		{"messages", chat && !a.Chat},
		{"tools", len(r.Tools) > 0 && !a.Tools},
		{"schema", len(r.Constraint.Schema) > 0 && !a.Grammar},
		{"grammar", r.Constraint.Grammar != "" && !a.Grammar},
	} {
		if f.denied {
			return nil, unsupported("generate", f.field)
		}
	}
	o := object{"max_tokens": r.MaxTokens, "temperature": r.Sampling.Temperature}
	switch {
	case chat:
		o["messages"] = r.Messages
	case len(r.Tokens) > 0:
		o["tokens"] = r.Tokens
	default:
		o["prompt"] = r.Prompt
	}
	if len(r.Tools) > 0 {
		o["tools"], o["tool_choice"], o["parallel_tools"] = r.Tools, r.ToolChoice, r.ParallelTools
		if r.ToolChoice == "" {
			o["tool_choice"] = infer.ToolAuto
		}
	}
	if len(r.Constraint.Schema) > 0 {
		o["schema"] = r.Constraint.Schema
	}
	for _, f := range optional(r) {
		switch {
		case !f.set:
		case !b.fields[f.name]:
			return nil, unsupported("generate", f.name)
		default:
			o[f.name] = f.value
		}
	}
	return o, nil
}

// field is a part of a request that a program obeys only if it says so.
type field struct {
	name  string
	value any
	set   bool // to something else than nothing
}

func optional(r *infer.Request) []field {
	s, kv := &r.Sampling, &r.KV
	all := []field{
		{"stop", r.Stop, len(r.Stop) > 0},
		{"grammar", r.Constraint.Grammar, r.Constraint.Grammar != ""},
		{"logprobs", r.TopLogprobs, r.Logprobs},
		{"parse_special", true, r.ParseSpecial},
		{"special_text", true, r.SpecialText},
		{"ignore_eos", true, r.IgnoreEOS},
		{"reasoning", false, r.NoReasoning},
		{"template_args", r.TemplateArgs, len(r.TemplateArgs) > 0},
		{"adapters", r.Adapters, len(r.Adapters) > 0},
		{"speculate", r.Speculate, r.Speculate == infer.SpeculateOn},
		{"priority", r.Priority, r.Priority != 0},
		{"kv.no_reuse", true, kv.NoReuse},
		{"kv.scope", kv.Scope, kv.Scope != ""},
		{"kv.salt", kv.Salt, kv.Salt != ""},
		{"kv.deterministic", true, kv.Deterministic},
		{"kv.evict", kv, kv.Evict != "" && kv.Evict != "refuse"},
		{"kv.reuse_chunks", kv.ReuseChunks, kv.ReuseChunks != 0},
	}
	return append(all, samplers(s)...)
}

// samplers are the fields of Sampling but the temperature, which every program obeys.
func samplers(s *infer.Sampling) []field {
	number := func(name string, x float32, nothing ...float32) field {
		f := field{name, x, x != 0}
		for _, n := range nothing {
			f.set = f.set && x != n
		}
		return f
	}
	whole := func(name string, x int) field { return field{name, x, x != 0} }
	bias := map[string]float32{}
	for id, x := range s.LogitBias {
		bias[strconv.Itoa(int(id))] = max(x, -math.MaxFloat32) // JSON has no infinity
	}
	return []field{
		{"seed", s.Seed, s.Seed != 0 && s.Seed != math.MaxUint32},
		whole("top_k", s.TopK), number("top_p", s.TopP, 1), number("min_p", s.MinP),
		number("typical_p", s.TypicalP, 1), number("top_n_sigma", s.TopSigma),
		number("xtc_probability", s.XTCProbability), number("xtc_threshold", s.XTCThreshold),
		number("dynatemp_range", s.DynatempRange), number("dynatemp_exponent", s.DynatempExponent),
		number("repeat_penalty", s.RepeatPenalty, 1), number("presence_penalty", s.PresencePenalty),
		number("frequency_penalty", s.FrequencyPenalty), whole("repeat_last_n", s.PenaltyLastN),
		number("dry_multiplier", s.DRYMultiplier), number("dry_base", s.DRYBase),
		whole("dry_allowed_length", s.DRYAllowedLength), whole("dry_penalty_last_n", s.DRYLastN),
		{"dry_sequence_breakers", s.DRYBreakers, s.DRYBreakers != nil},
		whole("mirostat", s.Mirostat), number("mirostat_tau", s.MirostatTau),
		number("mirostat_eta", s.MirostatEta), {"logit_bias", bias, len(bias) > 0},
	}
}

// Score implements infer.Backend.
func (b *Backend) Score(ctx context.Context, r infer.ScoreRequest) (out infer.Scores, err error) {
	if err := r.Validate(); err != nil {
		return out, err
	}
	if !b.info.Abilities.Score {
		return out, unsupported("score", "")
	}
	if !r.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
		defer cancel()
	}
	body := object{"context": r.Context, "text": r.Text, "top_logprobs": r.TopLogprobs}
	err = b.ask(ctx, "score", body, func(a *answer) error {
		if a.Scores == nil {
			return garbage("score", errors.New("an answer without scores"))
		}
		out = *a.Scores
		return nil
	})
	return out, err
}

// Embed implements infer.Backend. The program normalises its vectors.
func (b *Backend) Embed(ctx context.Context, texts []string) (out [][]float32, err error) {
	if !b.info.Abilities.Embed {
		return nil, unsupported("embed", "")
	}
	err = b.ask(ctx, "embed", object{"texts": texts}, func(a *answer) error {
		if len(a.Vectors) != len(texts) {
			return garbage("embed", fmt.Errorf("%d vectors for %d texts", len(a.Vectors), len(texts)))
		}
		for _, v := range a.Vectors {
			if len(v) != b.info.EmbeddingSize {
				return garbage("embed", fmt.Errorf("a vector of %d values", len(v)))
			}
		}
		out = a.Vectors
		return nil
	})
	return out, err
}

// Tokenize implements infer.Backend, where the program says that it obeys "tokenize".
func (b *Backend) Tokenize(ctx context.Context, text string, o infer.TokenizeOptions) (
	out []infer.Token, err error,
) {
	if !b.fields["tokenize"] {
		return nil, unsupported("tokenize", "text")
	}
	body := object{"text": text, "add_special": o.AddSpecial, "parse_special": o.ParseSpecial}
	err = b.ask(ctx, "tokenize", body, func(a *answer) error {
		if a.Tokens == nil {
			return garbage("tokenize", errors.New("an answer without tokens"))
		}
		out = *a.Tokens
		return nil
	})
	return out, err
}
