package llama

import (
	"encoding/json"
	"slices"
	"strings"
)

// Chat is a chat template, ready to render conversations and to read answers. It is made from a
// model or from a text alone, and is not changed by use; one goroutine uses it at a time.
//
// Templates are programs that strangers wrote. Upstream's engine runs them without any limit, so
// every call is bounded: text and nesting before it starts, memory, time and stack while it runs.
// A template outside the bounds is the error Template, naming which.
type Chat struct {
	life
	h     chatHandle
	model *Model // nil when made from a text
	info  ChatInfo
	guard *controls
}

// ChatTemplate is a template without a model.
type ChatTemplate struct {
	Text     string   // Jinja
	BOS, EOS string   // spellings that the template may use
	Control  []string // spellings of control tokens, never to come from a message
}

// ChatInfo says what a template can do.
type ChatInfo struct {
	Explicit    bool   // false: the model has no template and upstream's ChatML stands in
	Source      string // the template's text
	ToolsSource string // of the variant for requests with tools, or ""

	Tools             bool // it states the tools of a request
	ToolCalls         bool // it states calls made earlier
	ParallelToolCalls bool
	SystemRole        bool // else the system message is joined to the first user message
	StringContent     bool
	TypedContent      bool // content may be a list of parts
	ObjectArguments   bool // calls are stated as objects, so their arguments must be JSON
	Reasoning         bool // it separates reasoning from the answer
	KeepsReasoning    bool // it can state the reasoning of earlier answers
	ReasoningEffort   bool // it reads the variable reasoning_effort
	ReasoningStart    string
	ReasoningEnds     []string
}

// Bounds of chat texts.
const (
	TemplateBytesMax    = 1 << 20 // of a template
	ChatBytesMax        = 8 << 20 // of a request as JSON
	AnswerBytesMax      = 4 << 20 // of an answer to parse
	SchemaBytesMax      = 1 << 20 // of a JSON schema
	jsonDepthMax        = 100     // of any JSON that a request holds
	answerDepthMax      = 5000    // of brackets in an answer
	controlTextBytesMax = 256     // of a control token's spelling
)

// NewChat reads a template for a model: the given text, or with "" the model's own. Where the
// model has none, Info().Explicit is false. Errors: Invalid, Template, Closed, Missing.
func NewChat(m *Model, template string) (*Chat, error) {
	const op = "chat"
	if m == nil {
		return nil, fail(op, Invalid, "NewChatTemplate needs no model", "no model")
	}
	if err := checkTemplate(op, template); err != nil {
		return nil, err
	}
	if err := m.enter(op); err != nil {
		return nil, err
	}
	defer m.leave()
	h, err := newChat(&m.h, template, "", "")
	if err != nil {
		return nil, err
	}
	c := &Chat{h: h, model: m, guard: newControls(m.controlTexts())}
	if err := c.readInfo(); err != nil {
		freeChat(h)
		return nil, err
	}
	m.adopt()
	return c, nil
}

// NewChatTemplate reads a template without a model. Errors: Invalid, Template, Missing.
func NewChatTemplate(t ChatTemplate) (*Chat, error) {
	const op = "chat"
	if t.Text == "" {
		return nil, fail(op, Invalid, "", "an empty template")
	}
	if err := checkTemplate(op, t.Text); err != nil {
		return nil, err
	}
	if strings.ContainsRune(t.BOS+t.EOS, 0) {
		return nil, fail(op, Invalid, "", "a token's spelling holds a NUL byte")
	}
	if logger.Load() == nil {
		if err := Start(nil); err != nil {
			return nil, err
		}
	}
	h, err := newChat(nil, t.Text, t.BOS, t.EOS)
	if err != nil {
		return nil, err
	}
	c := &Chat{h: h, guard: newControls(t.Control)}
	if err := c.readInfo(); err != nil {
		freeChat(h)
		return nil, err
	}
	return c, nil
}

func checkTemplate(op, text string) error {
	switch {
	case len(text) > TemplateBytesMax:
		return fail(op, Template, "", "%d bytes, at most %d", len(text), TemplateBytesMax)
	case strings.ContainsRune(text, 0):
		return fail(op, Template, "", "a NUL byte")
	}
	return nil
}

// controlTexts spells the tokens that text must not become by itself. Only these depend on the
// parse_special argument of the tokeniser: user-defined tokens are matched either way.
func (m *Model) controlTexts() []string {
	var out []string
	for t := range Token(m.info.Vocabulary) {
		if tokenAttr(m.h, t)&(AttrControl|AttrUnknown) == 0 {
			continue
		}
		buf := make([]byte, controlTextBytesMax)
		if n := piece(m.h, t, buf, true); n > 0 {
			out = append(out, string(buf[:n]))
		}
	}
	return out
}

// readInfo asks the handle what its template is and can do.
func (c *Chat) readInfo() error {
	data, err := chatInfo(c.h)
	if err != nil {
		return err
	}
	var in struct {
		Explicit    bool            `json:"explicit"`
		Source      string          `json:"source"`
		ToolsSource string          `json:"tools_source"`
		Caps        map[string]bool `json:"caps"`
		Thinking    bool            `json:"thinking"`
		Start       string          `json:"thinking_start"`
		Ends        []string        `json:"thinking_ends"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return fail("chat", Internal, "", "%w", err)
	}
	c.info = ChatInfo{
		Explicit: in.Explicit, Source: in.Source, ToolsSource: in.ToolsSource,
		Tools:             in.Caps["supports_tools"],
		ToolCalls:         in.Caps["supports_tool_calls"],
		ParallelToolCalls: in.Caps["supports_parallel_tool_calls"],
		SystemRole:        in.Caps["supports_system_role"],
		StringContent:     in.Caps["supports_string_content"],
		TypedContent:      in.Caps["supports_typed_content"],
		ObjectArguments:   in.Caps["supports_object_arguments"],
		KeepsReasoning:    in.Caps["supports_preserve_reasoning"],
		ReasoningEffort:   in.Caps["supports_reasoning_effort"],
		Reasoning:         in.Thinking, ReasoningStart: in.Start, ReasoningEnds: in.Ends,
	}
	return nil
}

// Info says what the template is and can do.
func (c *Chat) Info() ChatInfo {
	info := c.info
	info.ReasoningEnds = slices.Clone(info.ReasoningEnds)
	return info
}

// Close frees the template. Prompts and parsers made from it stay valid.
func (c *Chat) Close() error {
	return c.close("close chat", func() {
		freeChat(c.h)
		if c.model != nil {
			c.model.disown()
		}
	})
}

// PinnedTemplates names the chat templates that ship with the pinned llama.cpp, in order.
func PinnedTemplates() []string {
	names := make([]string, templateCount())
	for i := range names {
		names[i], _ = templateAt(i)
	}
	slices.Sort(names)
	return names
}

// PinnedTemplate is the text of one of them. Errors: Invalid for an unknown name, Missing.
func PinnedTemplate(name string) (string, error) {
	n := templateCount()
	if n == 0 {
		return "", errMissing("template")
	}
	for i := range n {
		if have, text := templateAt(i); have == name {
			return text, nil
		}
	}
	return "", fail("template", Invalid, "PinnedTemplates lists the names",
		"no template named %q", name)
}
