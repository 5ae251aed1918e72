package llama

import (
	"encoding/json"
	"regexp"
	"strings"
)

// ChatPrompt is a rendered request and how its answer is to be sampled and read. It stays valid
// after its Chat is closed.
type ChatPrompt struct {
	Text  string       // the whole prompt
	Parts []PromptPart // the same, cut for Tokenize

	Grammar        Grammar  // for the sampler; Text "" where nothing is constrained
	Stops          []string // texts that end the answer
	Thinking       bool     // the answer may start with reasoning
	ReasoningStart string
	ReasoningEnds  []string
	Format         string // upstream's name for the shape of the answer

	spec      string // of the parser
	continues bool   // the last message of the request
}

// Render renders a request. Errors: Invalid; Unsupported where the template cannot state the
// request's tools; Template with the template's own reason; Closed.
func (c *Chat) Render(r ChatRequest) (ChatPrompt, error) {
	const op = "render"
	if err := c.enter(op); err != nil {
		return ChatPrompt{}, err
	}
	defer c.leave()
	if err := r.Validate(); err != nil {
		return ChatPrompt{}, err
	}
	if len(r.Tools) > 0 && r.ToolChoice != ToolNone && !c.info.Tools {
		return ChatPrompt{}, fail(op, Unsupported,
			"leave out the tools, or choose a model or template made for tools",
			"the chat template has no place for tools and would drop them")
	}
	p, err := c.render(&r)
	if err != nil {
		return ChatPrompt{}, err
	}
	p.Parts = []PromptPart{{p.Text, true}}
	if v, needed := c.guard.newVeil(&r, &c.info); needed {
		if err := c.guardPrompt(&p, &r, v); err != nil {
			return ChatPrompt{}, err
		}
	}
	return p, nil
}

// guardPrompt renders again with the spellings of control tokens hidden. The first rendering
// keeps deciding about grammar and parser, which need tool schemas as they are.
func (c *Chat) guardPrompt(p *ChatPrompt, r *ChatRequest, v *veil) error {
	veiled := r.eachText(v.cover)
	if v.next > privateLast {
		return fail("render", Invalid, "", "the request uses up the private characters of Unicode")
	}
	again, err := c.render(&veiled)
	if err != nil {
		return err
	}
	p.Parts = v.parts(again.Text)
	var b strings.Builder
	for _, part := range p.Parts {
		b.WriteString(part.Text)
	}
	p.Text = b.String()
	return nil
}

func (c *Chat) render(r *ChatRequest) (ChatPrompt, error) {
	request, err := r.encode()
	if err != nil {
		return ChatPrompt{}, err
	}
	data, err := renderChat(c.h, request)
	if err != nil {
		return ChatPrompt{}, err
	}
	var in struct {
		Prompt    string   `json:"prompt"`
		Grammar   string   `json:"grammar"`
		Lazy      bool     `json:"grammar_lazy"`
		Preserved []string `json:"preserved_tokens"`
		Triggers  []struct {
			Type  TriggerType `json:"type"`
			Value string      `json:"value"`
			Token Token       `json:"token"`
		} `json:"triggers"`
		Stops    []string `json:"stops"`
		Start    string   `json:"generation_prompt"`
		Thinking bool     `json:"thinking"`
		ThinkOn  string   `json:"thinking_start"`
		ThinkOff []string `json:"thinking_ends"`
		Format   string   `json:"format"`
		Parser   string   `json:"parser"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return ChatPrompt{}, fail("render", Internal, "", "%w", err)
	}
	p := ChatPrompt{
		Text: in.Prompt, Stops: in.Stops, Thinking: in.Thinking, ReasoningStart: in.ThinkOn,
		ReasoningEnds: in.ThinkOff, Format: in.Format, spec: in.Parser,
		continues: r.Continue != ContinueNone,
	}
	if in.Grammar == "" {
		return p, nil
	}
	if !r.ParallelTools {
		in.Grammar = oneCall(in.Grammar)
	}
	p.Grammar = Grammar{
		Text: in.Grammar, Lazy: in.Lazy, Prefill: true, GenerationPrompt: in.Start,
	}
	for _, t := range in.Triggers {
		p.Grammar.Triggers = append(p.Grammar.Triggers, Trigger{t.Type, t.Value, t.Token})
	}
	return p, c.resolve(&p.Grammar, in.Preserved)
}

// repeatedCall is the one rule of upstream's that repeats a call whether it may or not: that of
// the formats with a JSON object between tags, such as Hermes' and Qwen's.
var repeatedCall = regexp.MustCompile(`(?m)^(tool-calls ::= )\((tool-call\?? space)\)\+$`)

// oneCall takes the repetition of calls out of a grammar.
func oneCall(grammar string) string {
	return repeatedCall.ReplaceAllString(grammar, "$1$2")
}

// resolve turns preserved words into tokens, and a trigger word that is one token into that token,
// as upstream's server does. Without a model they stay words.
func (c *Chat) resolve(g *Grammar, preserved []string) error {
	if c.model == nil {
		return nil
	}
	for _, word := range preserved {
		tokens, err := c.model.Tokenize(word, false, true)
		if err != nil {
			return err
		}
		if len(tokens) == 1 {
			g.Preserved = append(g.Preserved, tokens[0])
		}
	}
	for i := range g.Triggers {
		t := &g.Triggers[i]
		if t.Type != TriggerWord {
			continue
		}
		tokens, err := c.model.Tokenize(t.Value, false, true)
		if err != nil {
			return err
		}
		if len(tokens) == 1 {
			t.Type, t.Token = TriggerToken, tokens[0]
		}
	}
	return nil
}

// Tokenize splits the prompt for a model. addSpecial adds the tokens that the model expects
// around a text, once for the whole prompt.
func (p *ChatPrompt) Tokenize(m *Model, addSpecial bool) ([]Token, error) {
	if len(p.Parts) == 1 {
		return m.Tokenize(p.Text, addSpecial, p.Parts[0].Special)
	}
	var out []Token
	info := m.Info()
	if addSpecial && info.AddBOS && info.BOS >= 0 {
		out = append(out, info.BOS)
	}
	for _, part := range p.Parts {
		tokens, err := m.Tokenize(part.Text, false, part.Special)
		if err != nil {
			return nil, err
		}
		out = append(out, tokens...)
	}
	if addSpecial && info.AddEOS && info.EOS >= 0 {
		out = append(out, info.EOS)
	}
	return out, nil
}
