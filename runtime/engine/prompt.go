package engine

import (
	"errors"
	"slices"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// readPrompt turns the request's input into tokens, and adds to the sampler and the stop texts
// what the input's form asks for.
func (g *generation) readPrompt(p *llama.SamplerParams, stops *[]string) error {
	r, m := g.r, g.e.model
	if err := g.noteGaps(); err != nil {
		return err
	}
	if len(r.Messages) > 0 {
		return g.readMessages(p, stops)
	}
	if err := setConstraint(p, &r.Constraint); err != nil {
		return err
	}
	if len(r.Tokens) == 0 {
		if err := g.e.fits("generate", "prompt", len(r.Prompt)); err != nil {
			return err
		}
		tokens, err := m.Tokenize(r.Prompt, true, r.ParseSpecial)
		g.tokens = booked(tokens)
		return fail("generate", err)
	}
	if len(r.Tokens) > g.e.bounded {
		return g.tooLong(len(r.Tokens))
	}
	for _, t := range r.Tokens {
		if int(t) >= g.e.info.Vocabulary || t < 0 {
			return &infer.Error{
				Op: "generate", Kind: infer.KindInvalid, Field: "tokens",
				Err: errors.New("a token is outside the vocabulary"),
			}
		}
		g.tokens = append(g.tokens, kv.Token(t))
	}
	return nil
}

// noteGaps tells what the schema demands and no grammar can enforce.
func (g *generation) noteGaps() error {
	if len(g.r.Constraint.Schema) == 0 {
		return nil
	}
	gaps, err := llama.SchemaGaps(g.r.Constraint.Schema)
	if err != nil {
		return schemaError(err)
	}
	for _, gap := range gaps {
		g.notes = append(g.notes, "the schema's "+gap+" is not enforced: validate the answer")
	}
	return nil
}

// schemaError names the field that a failure to read a schema is about.
func schemaError(err error) error {
	out := fail("generate", err)
	if e, ok := errors.AsType[*infer.Error](out); ok {
		e.Field = "schema"
	}
	return out
}

// setConstraint makes a grammar or schema the sampler's grammar.
func setConstraint(p *llama.SamplerParams, c *infer.Constraint) error {
	p.Grammar = llama.Grammar{Text: c.Grammar}
	if len(c.Schema) == 0 {
		return nil
	}
	text, err := llama.SchemaToGrammar(c.Schema)
	if err != nil {
		return schemaError(err)
	}
	p.Grammar.Text = text
	return nil
}

// readMessages renders the conversation with the chat template.
func (g *generation) readMessages(p *llama.SamplerParams, stops *[]string) error {
	size := 0
	for i := range g.r.Messages {
		size += len(g.r.Messages[i].Content)
	}
	if err := g.e.fits("generate", "messages", size); err != nil {
		return err
	}
	prompt, err := g.e.render(g.r)
	if err != nil {
		return err
	}
	if g.tokens, err = g.e.chatTokens(&prompt); err != nil {
		return fail("generate", err)
	}
	*stops = append(*stops, prompt.Stops...)
	p.Grammar = prompt.Grammar
	if p.Grammar.Text == "" || g.r.Constraint.Grammar != "" {
		if err := setConstraint(p, &g.r.Constraint); err != nil {
			return err
		}
	}
	if !g.e.formatted(g.r) {
		return nil
	}
	g.shown = make(map[llama.Token]bool)
	for _, t := range prompt.Grammar.Preserved {
		g.shown[t] = true
	}
	g.parser, err = prompt.NewParser(nil)
	return fail("generate", err)
}

// chatTokens are the tokens of a rendered conversation. A BOS that the template already wrote is
// not added again.
func (e *Engine) chatTokens(prompt *llama.ChatPrompt) ([]kv.Token, error) {
	tokens, err := prompt.Tokenize(e.model, false)
	if err != nil {
		return nil, err
	}
	m := e.model.Info()
	if m.AddBOS && m.BOS >= 0 && (len(tokens) == 0 || tokens[0] != m.BOS) {
		tokens = slices.Insert(tokens, 0, m.BOS)
	}
	return booked(tokens), nil
}

// systemTokens counts the tokens of the system prompt: what the conversation has in common with
// others that begin with the same messages of the system, whatever the next one says.
func (g *generation) systemTokens() (int, error) {
	all := g.r.Messages
	n := slices.IndexFunc(all, func(m infer.Message) bool { return m.Role != infer.RoleSystem })
	if n <= 0 {
		return 0, nil
	}
	same := len(g.tokens)
	for _, text := range []string{"?", "!"} { // the conversation's own may begin like one of them
		other := *g.r
		other.Messages = append(slices.Clone(all[:n]), infer.Message{Role: all[n].Role, Content: text})
		prompt, err := g.e.render(&other)
		if err != nil {
			return 0, err
		}
		tokens, err := g.e.chatTokens(&prompt)
		if err != nil {
			return 0, fail("generate", err)
		}
		at := 0
		for at < min(len(tokens), same) && tokens[at] == g.tokens[at] {
			at++
		}
		same = at
	}
	return same, nil
}

// formatted reports whether an answer is more than plain text, so that it needs the template's
// own grammar and parser.
func (e *Engine) formatted(r *infer.Request) bool {
	return (len(r.Tools) > 0 && r.ToolChoice != infer.ToolNone) || e.info.Abilities.Reasoning
}

// render asks the chat template, one request at a time.
func (e *Engine) render(r *infer.Request) (llama.ChatPrompt, error) {
	e.chatMu.Lock()
	defer e.chatMu.Unlock()
	if e.chat == nil {
		return llama.ChatPrompt{}, &infer.Error{
			Op: "generate", Kind: infer.KindNoTemplate, Field: "messages",
			Hint: "name one with --template, or send a plain prompt (--raw)",
			Err:  errors.New("this model file carries no chat template"),
		}
	}
	c := llama.ChatRequest{
		ToolChoice: llama.ToolChoice(r.ToolChoice), ParallelTools: r.ParallelTools,
		NoThinking: r.NoReasoning, Args: r.TemplateArgs, Now: time.Now(),
	}
	if e.formatted(r) {
		c.Schema = r.Constraint.Schema
	}
	for _, m := range r.Messages {
		out := llama.ChatMessage{
			Role: string(m.Role), Content: m.Content, Reasoning: m.Reasoning,
			ToolCallID: m.ToolCallID, Name: m.Name,
		}
		for _, call := range m.ToolCalls {
			out.ToolCalls = append(out.ToolCalls, llama.ToolCall(call))
		}
		c.Messages = append(c.Messages, out)
	}
	for _, t := range r.Tools {
		c.Tools = append(c.Tools, llama.Tool(t))
	}
	prompt, err := e.chat.Render(c)
	return prompt, fail("generate", err)
}
