package llama

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// ChatMessage is one turn of a conversation, or an answer that was parsed.
type ChatMessage struct {
	Role       string     `json:"role"` // system, developer, user, assistant, tool, ...
	Content    string     `json:"content"`
	Parts      []string   `json:"-"` // text parts in place of Content
	Reasoning  string     `json:"reasoning_content,omitempty"`
	ToolCalls  []ToolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"` // of a tool message
	Name       string     `json:"name,omitempty"`         // of the tool
}

// ToolCall is a call that the model made. Arguments is JSON text, complete or as far as it came.
type ToolCall struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Tool is a function that the model may call.
type Tool struct {
	Name        string
	Description string
	Parameters  json.RawMessage // a JSON schema of an object; nil for no parameters
}

// ToolChoice says whether the model may, must or must not call a tool.
type ToolChoice string

const (
	ToolAuto     ToolChoice = "auto" // the default
	ToolRequired ToolChoice = "required"
	ToolNone     ToolChoice = "none"
)

// Continuation says that the last message, of the assistant, is to be written on.
type Continuation string

const (
	ContinueNone      Continuation = ""
	ContinueAuto      Continuation = "auto" // its reasoning when it has nothing else
	ContinueContent   Continuation = "content"
	ContinueReasoning Continuation = "reasoning"
)

// ReasoningFormat says where reasoning goes in the answer.
type ReasoningFormat string

const (
	ReasoningSplit  ReasoningFormat = ""     // into Reasoning
	ReasoningInline ReasoningFormat = "none" // it stays in Content
)

// ChatRequest is what a template renders.
type ChatRequest struct {
	Messages      []ChatMessage
	Tools         []Tool
	ToolChoice    ToolChoice      // "" is auto
	ParallelTools bool            // several calls in one answer
	Schema        json.RawMessage // of the answer; nil for free text
	Continue      Continuation
	NoPrompt      bool // leave out the start of the answer
	Reasoning     ReasoningFormat
	NoThinking    bool // ask the template to leave reasoning out
	// Args are extra variables of the template, each a JSON value.
	Args map[string]json.RawMessage
	// Now is the moment that the template is told, in its location. The zero time leaves it to
	// the clock of the process, and a rendering then depends on the day.
	Now time.Time
}

var (
	roleName = regexp.MustCompile(`^[a-z][a-z_]{0,31}$`)
	toolName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.:/-]{0,127}$`)
	argName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
)

// Validate refuses requests that no template could render.
func (r *ChatRequest) Validate() error {
	const op = "render"
	if len(r.Messages) == 0 {
		return fail(op, Invalid, "", "no messages")
	}
	for i := range r.Messages {
		if err := r.Messages[i].validate(); err != nil {
			return fail(op, Invalid, "", "message %d: %w", i, err)
		}
	}
	switch r.ToolChoice {
	case "", ToolAuto, ToolNone:
	case ToolRequired:
		if len(r.Tools) == 0 {
			return fail(op, Invalid, "", "tool choice required without tools")
		}
	default:
		return fail(op, Invalid, "use auto, required or none", "tool choice %q", r.ToolChoice)
	}
	switch {
	case r.Reasoning != ReasoningSplit && r.Reasoning != ReasoningInline:
		return fail(op, Invalid, "", "reasoning format %q", r.Reasoning)
	case r.Schema != nil && checkJSON(r.Schema) != nil:
		return fail(op, Invalid, "", "schema: %w", checkJSON(r.Schema))
	}
	if err := r.validateContinue(); err != nil {
		return err
	}
	return r.validateTools()
}

func (r *ChatRequest) validateContinue() error {
	const op = "render"
	last := r.Messages[len(r.Messages)-1]
	switch r.Continue {
	case ContinueNone:
		return nil
	case ContinueAuto, ContinueContent, ContinueReasoning:
	default:
		return fail(op, Invalid, "", "continuation %q", r.Continue)
	}
	if last.Role != "assistant" || len(last.ToolCalls) > 0 {
		return fail(op, Invalid, "", "only an assistant message without tool calls is continued")
	}
	return nil
}

func (r *ChatRequest) validateTools() error {
	const op = "render"
	seen := map[string]bool{}
	for i, t := range r.Tools {
		switch {
		case !toolName.MatchString(t.Name):
			return fail(op, Invalid, "letters, digits and _ . : / - only", "tool %d: name %q", i, t.Name)
		case seen[t.Name]:
			return fail(op, Invalid, "", "two tools named %q", t.Name)
		case !utf8.ValidString(t.Description):
			return fail(op, Invalid, "", "tool %q: description is not UTF-8", t.Name)
		case t.Parameters != nil && checkJSON(t.Parameters) != nil:
			return fail(op, Invalid, "", "tool %q: parameters: %w", t.Name, checkJSON(t.Parameters))
		}
		seen[t.Name] = true
	}
	for name, value := range r.Args {
		if !argName.MatchString(name) || strings.HasPrefix(name, "norion_") {
			return fail(op, Invalid, "", "template variable %q", name)
		}
		if err := checkJSON(value); err != nil {
			return fail(op, Invalid, "", "template variable %q: %w", name, err)
		}
	}
	return nil
}

type invalidText string

func (t invalidText) Error() string { return string(t) }

func (m *ChatMessage) validate() error {
	if !roleName.MatchString(m.Role) {
		return invalidText("a role is a lower-case word")
	}
	if m.Content != "" && len(m.Parts) > 0 {
		return invalidText("both content and parts")
	}
	texts := append([]string{m.Content, m.Reasoning, m.ToolCallID, m.Name}, m.Parts...)
	for _, c := range m.ToolCalls {
		if !toolName.MatchString(c.Name) {
			return invalidText("a tool call's name holds more than letters, digits and _ . : / -")
		}
		if err := checkDepth([]byte(c.Arguments)); err != nil {
			return err
		}
		texts = append(texts, c.ID, c.Arguments)
	}
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return invalidText("a text is not UTF-8")
		}
	}
	if m.Role == "tool" {
		return checkDepth([]byte(m.Content))
	}
	return nil
}

// wire is a request in the shape that the shim reads: OpenAI's, with a few keys of our own.
type wire struct {
	Messages   []wireMessage              `json:"messages"`
	Tools      []wireTool                 `json:"tools,omitempty"`
	ToolChoice ToolChoice                 `json:"tool_choice,omitempty"`
	Parallel   bool                       `json:"parallel_tool_calls"`
	Schema     json.RawMessage            `json:"json_schema,omitempty"`
	Continue   Continuation               `json:"continue,omitempty"`
	Prompt     bool                       `json:"add_generation_prompt"`
	Reasoning  ReasoningFormat            `json:"reasoning_format,omitempty"`
	Thinking   *bool                      `json:"enable_thinking,omitempty"`
	Args       map[string]json.RawMessage `json:"kwargs,omitempty"`
	Now        *int64                     `json:"now,omitempty"`
	Offset     int                        `json:"utc_offset,omitempty"` // seconds
}

type wireMessage struct {
	Role       string         `json:"role"`
	Content    any            `json:"content"`
	Reasoning  string         `json:"reasoning_content,omitempty"`
	ToolCalls  []wireToolCall `json:"tool_calls,omitempty"`
	ToolCallID string         `json:"tool_call_id,omitempty"`
	Name       string         `json:"name,omitempty"`
}

type wirePart struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type wireToolCall struct {
	Type     string       `json:"type"`
	ID       string       `json:"id,omitempty"`
	Function wireFunction `json:"function"`
}

type wireFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type wireTool struct {
	Type     string         `json:"type"`
	Function wireDefinition `json:"function"`
}

type wireDefinition struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

// encode writes the request as JSON.
func (r *ChatRequest) encode() (string, error) {
	w := wire{
		ToolChoice: r.ToolChoice, Parallel: r.ParallelTools, Schema: r.Schema,
		Continue: r.Continue, Prompt: !r.NoPrompt,
		Reasoning: r.Reasoning, Args: r.Args,
	}
	if r.NoThinking {
		w.Thinking = new(bool)
	}
	if !r.Now.IsZero() {
		now := r.Now.Unix()
		w.Now = &now
		_, w.Offset = r.Now.Zone()
	}
	for _, m := range r.Messages {
		w.Messages = append(w.Messages, m.wire())
	}
	for _, t := range r.Tools {
		w.Tools = append(w.Tools, wireTool{"function", wireDefinition(t)})
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&w); err != nil {
		return "", fail("render", Invalid, "", "%w", err)
	}
	if b.Len() > ChatBytesMax {
		return "", fail("render", Invalid, "", "%d bytes, at most %d", b.Len(), ChatBytesMax)
	}
	return b.String(), nil
}

func (m *ChatMessage) wire() wireMessage {
	w := wireMessage{
		Role: m.Role, Content: m.Content, Reasoning: m.Reasoning,
		ToolCallID: m.ToolCallID, Name: m.Name,
	}
	if len(m.Parts) > 0 {
		var parts []wirePart
		for _, p := range m.Parts {
			parts = append(parts, wirePart{"text", p})
		}
		w.Content = parts
	}
	for _, c := range m.ToolCalls {
		f := wireFunction{c.Name, c.Arguments}
		w.ToolCalls = append(w.ToolCalls, wireToolCall{"function", c.ID, f})
	}
	return w
}
