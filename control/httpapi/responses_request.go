package httpapi

import (
	"fmt"

	v2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// responseRequest is the body of /v1/responses.
type responseRequest struct {
	Model        string            `json:"model"`
	Input        responseInput     `json:"input"`
	Instructions string            `json:"instructions"`
	MaxTokens    *int              `json:"max_output_tokens"`
	Temperature  *float32          `json:"temperature"`
	TopP         *float32          `json:"top_p"`
	TopLogprobs  *int              `json:"top_logprobs"`
	Include      []string          `json:"include"`
	Stream       bool              `json:"stream"`
	Tools        []responseTool    `json:"tools"`
	ToolChoice   toolChoice        `json:"tool_choice"`
	Parallel     *bool             `json:"parallel_tool_calls"`
	Text         *responseText     `json:"text"`
	Reasoning    *responseEffort   `json:"reasoning"`
	Metadata     map[string]string `json:"metadata"` // comes back with the answer
	User         string            `json:"user"`
	SafetyID     string            `json:"safety_identifier"`
	Others       others            `json:",embed"`
}

var responseSettings = map[string]setting{
	"background":           {harmless: []string{"false"}, hint: "wait for the answer, or stream it"},
	"conversation":         {hint: "nothing is stored: send the whole conversation"},
	"max_tool_calls":       {hint: "there are no built-in tools"},
	"previous_response_id": {hint: "nothing is stored: send the whole conversation"},
	"prompt":               {hint: "nothing is stored: send the text"},
	"prompt_cache_key":     {harmless: []string{anyText}}, // prefixes are found without it
	"prompt_cache_retention": {
		harmless: []string{`"in_memory"`, `"in-memory"`}, hint: "the operator decides",
	},
	"service_tier": {harmless: []string{`"auto"`, `"default"`}, hint: "there is one tier"},
	"store":        {harmless: []string{"false"}, hint: "nothing is stored"},
	"stream_options": {
		harmless: []string{"{}", `{"include_obfuscation":false}`}, hint: "events are not padded",
	},
	"truncation": {harmless: []string{`"disabled"`}, hint: "nothing is cut silently"},
}

// responseTool is a function as this interface writes it: flat.
type responseTool struct {
	Type string `json:"type"`
	toolFunction
	Others others `json:",embed"`
}

type responseText struct {
	Format *struct {
		Type        string         `json:"type"`
		Name        string         `json:"name"`
		Description string         `json:"description"`
		Schema      jsontext.Value `json:"schema"`
		Strict      *bool          `json:"strict"`
	} `json:"format"`
	Verbosity string `json:"verbosity"`
}

type responseEffort struct {
	Effort  string `json:"effort"`
	Summary string `json:"summary"`
}

// responseInput is a text, or a list of items.
type responseInput []responseItem

// responseItem is a message, a call or its output, or reasoning.
type responseItem struct {
	Type      string         `json:"type"`
	ID        string         `json:"id"`
	Status    string         `json:"status"`
	Role      string         `json:"role"`
	Content   jsontext.Value `json:"content"` // of a message: text or parts; of reasoning: parts
	CallID    string         `json:"call_id"`
	Name      string         `json:"name"`
	Arguments string         `json:"arguments"`
	Output    content        `json:"output"`
	Summary   []part         `json:"summary"`
	Others    others         `json:",embed"`
}

var itemSettings = map[string]setting{
	"encrypted_content": {hint: "reasoning is not stored encrypted: send its content"},
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (in *responseInput) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		text, err := dec.ReadValue()
		*in = responseInput{{Role: "user", Content: text.Clone()}}
		return err
	}
	return v2.UnmarshalDecode(dec, (*[]responseItem)(in))
}

func (responseInput) openAPI() any {
	return anyOf(schemaString, map[string]any{
		"type": "array", "items": map[string]any{"type": "object"},
	})
}

// messages turns the items into a conversation. Calls that follow each other, and the text and
// reasoning before them, are one turn of the assistant.
func (c *responseRequest) messages() ([]infer.Message, error) {
	var turns []chatMessage
	if c.Instructions != "" {
		turns = append(turns, chatMessage{
			Role: "system", Content: content{text: c.Instructions, set: true},
		})
	}
	if len(c.Input) == 0 {
		return nil, missing("input")
	}
	open := false // the last turn is the assistant's, and may go on
	for i := range c.Input {
		if err := c.Input[i].add(&turns, &open); err != nil {
			f := faultOf(err)
			f.param = joinParams(fmt.Sprintf("input[%d]", i), f.param)
			return nil, f
		}
	}
	return messages(turns)
}

// add appends an item to the turns.
func (it *responseItem) add(turns *[]chatMessage, open *bool) error {
	if err := it.Others.check(itemSettings); err != nil {
		return err
	}
	assistant := func() *chatMessage {
		if !*open {
			*turns, *open = append(*turns, chatMessage{Role: "assistant"}), true
		}
		return &(*turns)[len(*turns)-1]
	}
	switch it.Type {
	case "message", "":
		text := content{}
		if err := decode(it.Content, &text); err != nil {
			return joinFault("content", err)
		}
		if it.Role == "assistant" {
			m := assistant()
			m.Content.text, m.Content.set = m.Content.text+text.text, true
			return nil
		}
		*turns, *open = append(*turns, chatMessage{Role: it.Role, Content: text}), false
	case "function_call":
		call := toolCall{ID: it.CallID, Type: "function"}
		call.Function.Name, call.Function.Arguments = it.Name, it.Arguments
		m := assistant()
		m.ToolCalls = append(m.ToolCalls, call)
	case "function_call_output":
		*turns, *open = append(*turns, chatMessage{
			Role: "tool", ToolCallID: it.CallID, Content: it.Output,
		}), false
	case "reasoning":
		text, err := it.reasoning()
		if err != nil {
			return err
		}
		assistant().Reasoning += text
	default:
		return refuse(codeUnsupported, "type", "items of type '%s' are not supported", clip(it.Type))
	}
	return nil
}

// reasoning is the text of a reasoning item. A summary is not what the model said.
func (it *responseItem) reasoning() (string, error) {
	if len(it.Content) == 0 || it.Content.Kind() == 'n' {
		return "", nil
	}
	var parts []part
	if err := decode(it.Content, &parts); err != nil {
		return "", joinFault("content", err)
	}
	text := ""
	for i := range parts {
		if parts[i].Type != "reasoning_text" {
			return "", refuse(codeUnsupported, fmt.Sprintf("content[%d].type", i),
				"reasoning has parts of type reasoning_text")
		}
		text += parts[i].Text
	}
	return text, nil
}

// joinFault puts an outer name before the field of a fault.
func joinFault(outer string, err error) error {
	out := *faultOf(err)
	out.param = joinParams(outer, out.param)
	return &out
}

// request turns the body into what the backend is asked.
func (c *responseRequest) request(info infer.Info) (infer.Request, error) {
	r := infer.Request{ParallelTools: true}
	if err := c.Others.check(responseSettings); err != nil {
		return r, err
	}
	s := samplers{Temperature: c.Temperature, TopP: c.TopP}
	if err := s.apply(&r); err != nil {
		return r, err
	}
	if n := c.MaxTokens; n != nil {
		if r.MaxTokens = *n; *n < 1 || *n > infer.TokensMax {
			return r, refuse(codeInvalidValue, "max_output_tokens", "it is outside 1..%d",
				infer.TokensMax)
		}
	}
	if err := c.extra(&r); err != nil {
		return r, err
	}
	var err error
	if r.Messages, err = c.messages(); err != nil {
		return r, err
	}
	put(&r.ParallelTools, c.Parallel)
	tools, err := c.tools()
	if err != nil {
		return r, err
	}
	if err := c.ToolChoice.choose(&r, tools, info); err != nil {
		return r, err
	}
	if c.Reasoning == nil {
		return r, nil
	}
	if c.Reasoning.Summary != "" {
		return r, unsupported("reasoning.summary", "the reasoning itself is told")
	}
	return r, effort(&r, c.Reasoning.Effort, "reasoning.effort", info)
}

// extra reads what is told beside the answer, and its form.
func (c *responseRequest) extra(r *infer.Request) error {
	for i, name := range c.Include {
		if name != "message.output_text.logprobs" {
			return unsupported(fmt.Sprintf("include[%d]", i), "'"+clip(name)+"' is not there")
		}
		r.Logprobs = true
	}
	if n := c.TopLogprobs; n != nil && *n != 0 {
		if !r.Logprobs {
			return refuse(codeInvalidValue, "top_logprobs",
				"'top_logprobs' needs message.output_text.logprobs in 'include'")
		}
		r.TopLogprobs = *n
	}
	if c.Text == nil {
		return nil
	}
	if c.Text.Verbosity != "" && c.Text.Verbosity != "medium" {
		return unsupported("text.verbosity", "say it in the prompt")
	}
	f := c.Text.Format
	if f == nil || f.Type == "text" {
		return nil
	}
	switch f.Type {
	case "json_object":
		r.Constraint.Schema = []byte(`{"type":"object"}`)
		return nil
	case "json_schema":
		if f.Name == "" {
			return missing("text.format.name")
		}
		return putSchema(r, f.Schema, "text.format.schema")
	}
	return refuse(codeInvalidValue, "text.format.type",
		"'%s' is none of text, json_object and json_schema", clip(f.Type))
}

func (c *responseRequest) tools() ([]infer.Tool, error) {
	var all []infer.Tool
	for i := range c.Tools {
		at := fmt.Sprintf("tools[%d]", i)
		if c.Tools[i].Type != "function" {
			return nil, refuse(codeUnsupported, at+".type", "'%s' is not supported: only functions are",
				clip(c.Tools[i].Type))
		}
		if err := c.Tools[i].Others.check(nil); err != nil {
			return nil, joinFault(at, err)
		}
		t, err := c.Tools[i].tool()
		if err != nil {
			return nil, joinFault(at, err)
		}
		all = append(all, t)
	}
	return all, nil
}
