package httpapi

import (
	"net/http"

	"github.com/norion/norion/runtime/infer"
)

// anthropicAnswer is a whole answer of /v1/messages.
type anthropicAnswer struct {
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Role       infer.Role     `json:"role"`
	Model      string         `json:"model"`
	Content    []any          `json:"content"`
	StopReason *string        `json:"stop_reason"`
	StopText   *string        `json:"stop_sequence"`
	Usage      anthropicUsage `json:"usage"`
	Notes      []string       `json:"notes,omitempty"`
}

type anthropicUsage struct {
	Input  int `json:"input_tokens"` // without those read from the cache
	Create int `json:"cache_creation_input_tokens"`
	Cached int `json:"cache_read_input_tokens"`
	Output int `json:"output_tokens"`
}

type textBlock struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type thinkingBlock struct {
	Type      string `json:"type"`
	Thinking  string `json:"thinking"`
	Signature string `json:"signature"` // always "": nothing is signed
}

type toolBlock struct {
	Type  string `json:"type"`
	ID    string `json:"id"`
	Name  string `json:"name"`
	Input any    `json:"input"`
}

func anthropicUsageOf(u *infer.Usage) anthropicUsage {
	cached := cachedTokens(u)
	return anthropicUsage{Input: u.PromptTokens - cached, Cached: cached, Output: u.CompletionTokens}
}

// stopReason names why an answer ended, and by which text.
func stopReason(f *infer.Final) (reason string, text *string) {
	switch {
	case f.Reason == infer.FinishTools:
		return "tool_use", nil
	case f.Reason == infer.FinishLength:
		return "max_tokens", nil
	case f.Stop != "":
		return "stop_sequence", &f.Stop
	}
	return "end_turn", nil
}

// anthropicAsk reads a body and finds its backend.
func (x *exchange) anthropicAsk(c *anthropicRequest) (infer.Backend, infer.Request, error) {
	if err := x.readJSON(c); err != nil {
		return nil, infer.Request{}, err
	}
	b, err := x.open(c.Model)
	if err != nil {
		return nil, infer.Request{}, err
	}
	x.endUser(c.Metadata.UserID)
	r, err := c.request(b.Info())
	if err != nil {
		return nil, r, err
	}
	return b, r, renamed(x.complete(&r), anthropicNames)
}

var anthropicNames = map[string]string{"prompt": "messages", "stop": "stop_sequences"}

// anthropicMessages answers POST /v1/messages.
func (x *exchange) anthropicMessages() error {
	var c anthropicRequest
	b, r, err := x.anthropicAsk(&c)
	if err != nil {
		return err
	}
	if err := c.limit(&r); err != nil {
		return err
	}
	head := anthropicAnswer{
		ID: newID("msg_"), Type: "message", Role: infer.RoleAssistant, Model: x.model,
	}
	if c.Stream {
		if n, ok := b.(infer.Counter); ok { // the first event has the prompt's tokens
			if head.Usage.Input, err = n.CountTokens(x.r.Context(), r); err != nil {
				return renamed(err, anthropicNames)
			}
		}
		return renamed(x.stream(b, []infer.Request{r}, &anthropicStream{head: head}), anthropicNames)
	}
	answers, err := x.collect(b, []infer.Request{r})
	if err != nil {
		return renamed(err, anthropicNames)
	}
	f := answers[0].final
	if f.Answer.Reasoning != "" {
		head.Content = append(head.Content, thinkingBlock{"thinking", f.Answer.Reasoning, ""})
	}
	if f.Answer.Content != "" {
		head.Content = append(head.Content, textBlock{"text", f.Answer.Content})
	}
	for _, call := range f.Answer.ToolCalls {
		head.Content = append(head.Content, toolBlock{
			"tool_use", call.ID, call.Name, arguments(call.Arguments),
		})
	}
	reason, text := stopReason(f)
	head.StopReason, head.StopText = &reason, text
	head.Usage, head.Notes = anthropicUsageOf(&f.Usage), f.Notes
	x.writeJSON(http.StatusOK, head)
	return nil
}

// countTokens answers POST /v1/messages/count_tokens.
func (x *exchange) countTokens() error {
	var c anthropicRequest
	b, r, err := x.anthropicAsk(&c)
	if err != nil {
		return err
	}
	n, ok := b.(infer.Counter)
	if !ok {
		return unsupported("model", "its backend cannot count tokens")
	}
	tokens, err := n.CountTokens(x.r.Context(), r)
	if err != nil {
		return renamed(err, anthropicNames)
	}
	x.writeJSON(http.StatusOK, map[string]int{"input_tokens": tokens})
	return nil
}
