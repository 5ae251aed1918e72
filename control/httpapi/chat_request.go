package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// chatRequest is the body of /v1/chat/completions.
type chatRequest struct {
	Model    string        `json:"model"`
	Messages []chatMessage `json:"messages"`
	samplers
	extras
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	N                   *int            `json:"n"`
	Stop                texts           `json:"stop"`
	Logprobs            bool            `json:"logprobs"`
	TopLogprobs         *int            `json:"top_logprobs"`
	Stream              bool            `json:"stream"`
	StreamOptions       *streamOptions  `json:"stream_options"`
	Tools               []chatTool      `json:"tools"`
	ToolChoice          toolChoice      `json:"tool_choice"`
	ParallelTools       *bool           `json:"parallel_tool_calls"`
	ResponseFormat      *responseFormat `json:"response_format"`
	ReasoningEffort     string          `json:"reasoning_effort"`
	User                string          `json:"user"`
	SafetyID            string          `json:"safety_identifier"`
	Others              others          `json:",embed"`
}

// chatSettings are the fields of OpenAI's that are not acted on.
var chatSettings = map[string]setting{
	"audio":            {hint: "this server answers with text"},
	"function_call":    {hint: "use tool_choice"},
	"functions":        {hint: "use tools"},
	"metadata":         {harmless: []string{"{}"}, hint: "nothing is stored"},
	"modalities":       {harmless: []string{`["text"]`}, hint: "this server answers with text"},
	"prediction":       {hint: "use speculate"},
	"prompt_cache_key": {harmless: []string{anyText}}, // prefixes are found without it
	"prompt_cache_retention": {
		harmless: []string{`"in_memory"`, `"in-memory"`}, hint: "the operator decides",
	},
	"service_tier":       {harmless: []string{`"auto"`, `"default"`}, hint: "there is one tier"},
	"store":              {harmless: []string{"false"}, hint: "nothing is stored"},
	"verbosity":          {harmless: []string{`"medium"`}, hint: "say it in the prompt"},
	"web_search_options": {hint: "this server does not search"},
}

// chatMessage is one turn as OpenAI writes it.
type chatMessage struct {
	Role       string     `json:"role"`
	Content    content    `json:"content"`
	Name       string     `json:"name"`
	ToolCalls  []toolCall `json:"tool_calls"`
	ToolCallID string     `json:"tool_call_id"`
	Refusal    string     `json:"refusal"`
	Reasoning  string     `json:"reasoning_content"`
	Others     others     `json:",embed"`
}

// messageSettings are the fields of messages that are not acted on. Those of our own answers may
// come back empty.
var messageSettings = map[string]setting{
	"annotations":   {harmless: []string{"[]"}},
	"audio":         {hint: "send text"},
	"function_call": {hint: "use tool_calls"},
}

// toolCall is a call that an assistant made.
type toolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type streamOptions struct {
	IncludeUsage       bool `json:"include_usage"`
	IncludeObfuscation bool `json:"include_obfuscation"`
}

// responseFormat is the form that an answer must have.
type responseFormat struct {
	Type   string `json:"type"`
	Schema *struct {
		Name        string         `json:"name"`
		Description string         `json:"description"`
		Schema      jsontext.Value `json:"schema"`
		Strict      *bool          `json:"strict"`
	} `json:"json_schema"`
}

// request turns the body into what every choice asks for.
func (c *chatRequest) request(info infer.Info) (infer.Request, error) {
	r := infer.Request{Stop: c.Stop, Logprobs: c.Logprobs, ParallelTools: true}
	if err := c.Others.check(chatSettings); err != nil {
		return r, err
	}
	if err := c.samplers.apply(&r); err != nil {
		return r, err
	}
	c.extras.apply(&r)
	if err := c.limits(&r); err != nil {
		return r, err
	}
	var err error
	if r.Messages, err = messages(c.Messages); err != nil {
		return r, err
	}
	put(&r.ParallelTools, c.ParallelTools)
	if err := c.ToolChoice.apply(&r, c.Tools, info); err != nil {
		return r, err
	}
	if err := c.ResponseFormat.apply(&r); err != nil {
		return r, err
	}
	if err := effort(&r, c.ReasoningEffort, "reasoning_effort", info); err != nil {
		return r, err
	}
	return r, templateArgs(&r, c.TemplateArgs)
}

// limits reads how many answers there are, how long, and with what beside.
func (c *chatRequest) limits(r *infer.Request) error {
	if c.MaxTokens != nil && c.MaxCompletionTokens != nil && *c.MaxTokens != *c.MaxCompletionTokens {
		return refuse(codeInvalidValue, "max_tokens", "'max_tokens' and 'max_completion_tokens' differ")
	}
	for param, n := range map[string]*int{
		"max_tokens": c.MaxTokens, "max_completion_tokens": c.MaxCompletionTokens,
	} {
		if n == nil {
			continue
		}
		if *n < 1 || *n > infer.TokensMax {
			return refuse(codeInvalidValue, param, "'%s' is outside 1..%d", param, infer.TokensMax)
		}
		r.MaxTokens = *n
	}
	if n := c.TopLogprobs; n != nil {
		if *n > 0 && !c.Logprobs {
			return refuse(codeInvalidValue, "top_logprobs", "'top_logprobs' needs logprobs: true")
		}
		r.TopLogprobs = *n
	}
	if err := checkChoices(c.N, 1); err != nil {
		return err
	}
	return c.StreamOptions.check(c.Stream)
}

// checkChoices bounds n answers to each of some prompts.
func checkChoices(n *int, prompts int) error {
	if n != nil && (*n < 1 || *n*prompts > ChoicesMax) {
		return refuse(codeInvalidValue, "n", "'n' is outside 1..%d", ChoicesMax/prompts)
	}
	return nil
}

func (o *streamOptions) check(stream bool) error {
	switch {
	case o == nil:
		return nil
	case !stream:
		return refuse(codeInvalidValue, "stream_options", "'stream_options' needs stream: true")
	case o.IncludeObfuscation:
		return unsupported("stream_options.include_obfuscation", "")
	}
	return nil
}

func (o *streamOptions) usage() bool { return o != nil && o.IncludeUsage }

// apply constrains the answer.
func (f *responseFormat) apply(r *infer.Request) error {
	if f == nil || f.Type == "text" {
		return nil
	}
	if r.Constraint.Grammar != "" {
		return refuse(codeInvalidValue, "grammar", "give 'grammar' or 'response_format', not both")
	}
	switch f.Type {
	case "json_object":
		r.Constraint.Schema = json.RawMessage(`{"type":"object"}`)
	case "json_schema":
		switch {
		case f.Schema == nil:
			return missing("response_format.json_schema")
		case f.Schema.Name == "":
			return missing("response_format.json_schema.name")
		}
		return putSchema(r, f.Schema.Schema, "response_format.json_schema.schema")
	case "":
		return missing("response_format.type")
	default:
		return refuse(codeInvalidValue, "response_format.type",
			"'%s' is none of text, json_object and json_schema", clip(f.Type))
	}
	return nil
}

// putSchema takes a schema over. It is never cut or repaired.
func putSchema(r *infer.Request, schema jsontext.Value, param string) error {
	if len(schema) == 0 || schema.Kind() == 'n' {
		return missing(param)
	}
	if schema.Kind() != '{' {
		return refuse(codeInvalidType, param, "'%s' is not an object", param)
	}
	r.Constraint.Schema = json.RawMessage(schema)
	return nil
}

// effort asks for more or less reasoning, as far as the model's template can tell it.
func effort(r *infer.Request, level, param string, info infer.Info) error {
	switch level {
	case "":
		return nil
	case "none":
		r.NoReasoning = true
		return nil
	case "minimal", "low", "medium", "high", "xhigh":
	default:
		return refuse(codeInvalidValue, param, "'%s' is no effort", clip(level))
	}
	if !info.Abilities.Reasoning {
		return unsupported(param, "this model does not reason apart from its answer")
	}
	text, err := json.Marshal(level)
	r.TemplateArgs = map[string]json.RawMessage{"reasoning_effort": text}
	return err
}

// templateArgs are further variables of the template. enable_thinking is the one by which templates
// leave reasoning out.
func templateArgs(r *infer.Request, args map[string]jsontext.Value) error {
	for name, value := range args {
		if name == "enable_thinking" && value.Kind() == 'f' {
			r.NoReasoning = true
			continue
		}
		if r.TemplateArgs == nil {
			r.TemplateArgs = map[string]json.RawMessage{}
		}
		r.TemplateArgs[name] = json.RawMessage(value)
	}
	return nil
}

// endUser keeps a digest of the name that a client gives for its own user: for the log, where it
// lets an operator tell users apart.
func (x *exchange) endUser(names ...string) {
	for _, name := range names {
		if name != "" {
			sum := sha256.Sum256([]byte(x.key.salt() + name))
			x.user = hex.EncodeToString(sum[:8])
		}
	}
}
