package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// anthropicRequest is the body of /v1/messages and, without the fields of the answer, of
// /v1/messages/count_tokens.
type anthropicRequest struct {
	Model       string             `json:"model"`
	MaxTokens   *int               `json:"max_tokens"`
	Messages    []anthropicMessage `json:"messages"`
	System      content            `json:"system"`
	Stop        []string           `json:"stop_sequences"`
	Stream      bool               `json:"stream"`
	Temperature *float32           `json:"temperature"`
	TopK        *int               `json:"top_k"`
	TopP        *float32           `json:"top_p"`
	Tools       []anthropicTool    `json:"tools"`
	ToolChoice  *anthropicChoice   `json:"tool_choice"`
	Thinking    *anthropicThinking `json:"thinking"`
	Metadata    struct {
		UserID string `json:"user_id"`
	} `json:"metadata"`
	Others others `json:",embed"`
}

var anthropicSettings = map[string]setting{
	"cache_control": {harmless: []string{`{"type":"ephemeral"}`}, hint: "every prefix is kept"},
	"container":     {hint: "there are no containers"},
	"mcp_servers":   {harmless: []string{"[]"}, hint: "this server calls no others"},
	"service_tier":  {harmless: []string{`"auto"`, `"standard_only"`}, hint: "there is one tier"},
	"betas":         {harmless: []string{"[]"}},
}

type anthropicMessage struct {
	Role    string           `json:"role"`
	Content anthropicContent `json:"content"`
}

type anthropicTool struct {
	Type         string         `json:"type"`
	Name         string         `json:"name"`
	Description  string         `json:"description"`
	Schema       jsontext.Value `json:"input_schema"`
	CacheControl jsontext.Value `json:"cache_control"` // every prefix is kept
	Strict       *bool          `json:"strict"`        // arguments follow the schema in any case
}

type anthropicChoice struct {
	Type            string `json:"type"`
	Name            string `json:"name"`
	DisableParallel bool   `json:"disable_parallel_tool_use"`
}

type anthropicThinking struct {
	Type   string `json:"type"`
	Budget *int   `json:"budget_tokens"`
}

// anthropicContent is a text, or a list of blocks.
type anthropicContent []anthropicBlock

// anthropicBlock is one piece of a message.
type anthropicBlock struct {
	Type         string         `json:"type"`
	Text         string         `json:"text"`
	ID           string         `json:"id"`
	Name         string         `json:"name"`
	Input        jsontext.Value `json:"input"`
	ToolUseID    string         `json:"tool_use_id"`
	Content      content        `json:"content"`
	IsError      bool           `json:"is_error"`
	Thinking     string         `json:"thinking"`
	Signature    string         `json:"signature"`
	CacheControl jsontext.Value `json:"cache_control"` // every prefix is kept
	Others       others         `json:",embed"`
}

// blockSettings are the fields of blocks that come back empty from our own answers.
var blockSettings = map[string]setting{"citations": {harmless: []string{"[]"}}}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *anthropicContent) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		var text string
		err := v2.UnmarshalDecode(dec, &text)
		*c = anthropicContent{{Type: "text", Text: text}}
		return err
	}
	*c = anthropicContent{}
	return v2.UnmarshalDecode(dec, (*[]anthropicBlock)(c))
}

func (anthropicContent) openAPI() any {
	return anyOf(schemaString, map[string]any{
		"type": "array", "items": map[string]any{"type": "object"},
	})
}

// request turns the body into what the backend is asked.
func (c *anthropicRequest) request(info infer.Info) (infer.Request, error) {
	r := infer.Request{Stop: c.Stop, ParallelTools: true}
	if err := c.Others.check(anthropicSettings); err != nil {
		return r, err
	}
	s := samplers{Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP}
	if err := s.apply(&r); err != nil {
		return r, err
	}
	var err error
	if r.Messages, err = c.messages(); err != nil {
		return r, err
	}
	if err := c.tools(&r, info); err != nil {
		return r, err
	}
	return r, c.think(&r, info)
}

// limit reads how long the answer may be, which only a request for one needs.
func (c *anthropicRequest) limit(r *infer.Request) error {
	if c.MaxTokens == nil {
		return missing("max_tokens")
	}
	if r.MaxTokens = *c.MaxTokens; r.MaxTokens < 1 || r.MaxTokens > infer.TokensMax {
		return refuse(codeInvalidValue, "max_tokens", "it is outside 1..%d", infer.TokensMax)
	}
	return nil
}

func (c *anthropicRequest) think(r *infer.Request, info infer.Info) error {
	if !info.Abilities.Reasoning && (c.Thinking == nil || c.Thinking.Type == "disabled") {
		return nil
	}
	switch t := c.Thinking; {
	case t == nil || t.Type == "disabled":
		r.NoReasoning = true
	case t.Type != "enabled" && t.Type != "adaptive":
		return refuse(codeInvalidValue, "thinking.type", "'%s' is none of enabled, adaptive, disabled",
			clip(t.Type))
	case !info.Abilities.Reasoning:
		return unsupported("thinking", "this model does not reason apart from its answer")
	case t.Budget != nil:
		return unsupported("thinking.budget_tokens", "leave it out; max_tokens counts reasoning too")
	}
	return nil
}

// tools reads the tools and the choice among them.
func (c *anthropicRequest) tools(r *infer.Request, info infer.Info) error {
	var all []infer.Tool
	for i := range c.Tools {
		t := &c.Tools[i]
		at := fmt.Sprintf("tools[%d]", i)
		if t.Type != "" && t.Type != "custom" {
			return refuse(codeUnsupported, at+".type", "tools of type '%s' are not supported",
				clip(t.Type))
		}
		f := toolFunction{Name: t.Name, Description: t.Description, Parameters: t.Schema}
		tool, err := f.tool()
		if err != nil {
			return joinFault(at, err)
		}
		all = append(all, tool)
	}
	choice := toolChoice{}
	if o := c.ToolChoice; o != nil {
		r.ParallelTools = !o.DisableParallel
		switch o.Type {
		case "auto":
		case "none":
			choice.mode = infer.ToolNone
		case "any":
			choice.mode = infer.ToolRequired
		case "tool":
			choice.mode, choice.names = infer.ToolRequired, []string{o.Name}
		default:
			return refuse(codeInvalidValue, "tool_choice.type", "'%s' is none of auto, any, tool, none",
				clip(o.Type))
		}
	}
	return choice.choose(r, all, info)
}

// messages turns the conversation into that of package infer. Results of tools, which a user's turn
// holds here, become turns of their own.
func (c *anthropicRequest) messages() ([]infer.Message, error) {
	var turns []chatMessage
	if c.System.set && c.System.text != "" {
		turns = append(turns, chatMessage{Role: "system", Content: c.System})
	}
	if len(c.Messages) == 0 {
		return nil, missing("messages")
	}
	for i := range c.Messages {
		m := &c.Messages[i]
		var add []chatMessage
		var err error
		switch m.Role {
		case "user":
			add, err = m.user()
		case "assistant":
			add, err = m.assistant()
		default:
			err = refuse(codeInvalidValue, "role", "'%s' is neither user nor assistant", clip(m.Role))
		}
		if err != nil {
			return nil, joinFault(fmt.Sprintf("messages[%d]", i), err)
		}
		turns = append(turns, add...)
	}
	return messages(turns)
}

// check refuses a block of another type than those that its turn may have. Unknown fields come
// second, since a block of an unknown type has them in any case.
func (b *anthropicBlock) check(types ...string) error {
	if !slices.Contains(types, b.Type) {
		return refuse(codeUnsupported, "type", "blocks of type '%s' are not supported: send text",
			clip(b.Type))
	}
	return b.Others.check(blockSettings)
}

// user gives the turns of a user's message.
func (m *anthropicMessage) user() ([]chatMessage, error) {
	var results []chatMessage
	var text strings.Builder
	said := false
	for i, b := range m.Content {
		err := b.check("text", "tool_result")
		switch {
		case err != nil:
		case b.Type == "text":
			text.WriteString(b.Text)
			said = true
		case said:
			err = refuse(codeInvalidValue, "type", "results of tools come before the text")
		default:
			out := b.Content
			if out.set = true; b.IsError {
				out.text = "Error: " + out.text
			}
			results = append(results, chatMessage{
				Role: "tool", ToolCallID: b.ToolUseID, Content: out,
			})
		}
		if err != nil {
			return nil, joinFault(fmt.Sprintf("content[%d]", i), err)
		}
	}
	if said || len(results) == 0 {
		results = append(results, chatMessage{
			Role: "user", Content: content{text: text.String(), set: m.Content != nil},
		})
	}
	return results, nil
}

// assistant gives the turn of a model's message.
func (m *anthropicMessage) assistant() ([]chatMessage, error) {
	out := chatMessage{Role: "assistant", Content: content{set: m.Content != nil}}
	for i, b := range m.Content {
		err := b.check("text", "thinking", "tool_use")
		switch {
		case err != nil:
		case b.Type == "text":
			out.Content.text += b.Text
		case b.Type == "thinking":
			out.Reasoning += b.Thinking
		default:
			if len(b.Input) == 0 {
				b.Input = jsontext.Value("{}")
			}
			call := toolCall{ID: b.ID, Type: "function"}
			call.Function.Name, call.Function.Arguments = b.Name, string(b.Input)
			out.ToolCalls = append(out.ToolCalls, call)
		}
		if err != nil {
			return nil, joinFault(fmt.Sprintf("content[%d]", i), err)
		}
	}
	return []chatMessage{out}, nil
}

// arguments gives the input of a call as JSON. What a cut answer left unfinished becomes {}.
func arguments(text string) json.RawMessage {
	if json.Valid([]byte(text)) && strings.HasPrefix(strings.TrimSpace(text), "{") {
		return slices.Clone(json.RawMessage(text))
	}
	return json.RawMessage("{}")
}
