package httpapi

import (
	"net/http"

	"github.com/norion/norion/runtime/infer"
)

// responses answers POST /v1/responses.
func (x *exchange) responses() error {
	var c responseRequest
	if err := x.readJSON(&c); err != nil {
		return err
	}
	b, err := x.open(c.Model)
	if err != nil {
		return err
	}
	x.endUser(c.User, c.SafetyID)
	r, err := c.request(b.Info())
	if err == nil {
		err = x.complete(&r)
	}
	if err != nil {
		return renamed(err, responseNames)
	}
	head := c.head(x)
	if c.Stream {
		s := &responseStream{x: x, head: head, logprobs: r.Logprobs}
		return renamed(x.stream(b, []infer.Request{r}, s), responseNames)
	}
	answers, err := x.collect(b, []infer.Request{r})
	if err != nil {
		return renamed(err, responseNames)
	}
	x.writeJSON(http.StatusOK, head.whole(answers[0].final, items(&answers[0], r.Logprobs)))
	return nil
}

var responseNames = map[string]string{
	"prompt": "input", "messages": "input", "schema": "text.format", "grammar": "text.format",
	"max_tokens": "max_output_tokens",
}

// responseObject is an answer, in any of its states.
type responseObject struct {
	ID           string            `json:"id"`
	Object       string            `json:"object"`
	CreatedAt    int64             `json:"created_at"` // seconds since 1970
	Status       string            `json:"status"`
	Error        *responseError    `json:"error"`
	Incomplete   *incomplete       `json:"incomplete_details"`
	Instructions *string           `json:"instructions"`
	MaxTokens    *int              `json:"max_output_tokens"`
	Model        string            `json:"model"`
	Output       []any             `json:"output"`
	Parallel     bool              `json:"parallel_tool_calls"`
	Previous     *string           `json:"previous_response_id"`
	Store        bool              `json:"store"`
	Temperature  float32           `json:"temperature"`
	Text         any               `json:"text"`
	ToolChoice   any               `json:"tool_choice"`
	Tools        []any             `json:"tools"`
	TopP         float32           `json:"top_p"`
	Truncation   string            `json:"truncation"`
	Usage        *responseUsage    `json:"usage"`
	Metadata     map[string]string `json:"metadata"`
	Notes        []string          `json:"notes,omitempty"`
}

type responseError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type incomplete struct {
	Reason string `json:"reason"`
}

type responseUsage struct {
	Input   int `json:"input_tokens"`
	Details struct {
		Cached int `json:"cached_tokens"`
	} `json:"input_tokens_details"`
	Output int `json:"output_tokens"`
	Total  int `json:"total_tokens"`
}

// head is what an answer says of its request.
func (c *responseRequest) head(x *exchange) responseObject {
	d := infer.DefaultSampling()
	put(&d.Temperature, c.Temperature)
	put(&d.TopP, c.TopP)
	out := responseObject{
		ID: newID("resp_"), Object: "response", CreatedAt: x.began.Unix(), Status: "in_progress",
		MaxTokens: c.MaxTokens, Model: x.model, Output: []any{}, Parallel: true,
		Temperature: d.Temperature, TopP: d.TopP, Truncation: "disabled", Metadata: c.Metadata,
		Text: map[string]any{"format": map[string]any{"type": "text"}}, ToolChoice: "auto",
	}
	put(&out.Parallel, c.Parallel)
	if c.Instructions != "" {
		out.Instructions = &c.Instructions
	}
	if c.Text != nil && c.Text.Format != nil {
		f := map[string]any{"type": c.Text.Format.Type}
		if c.Text.Format.Type == "json_schema" {
			f["name"], f["schema"] = c.Text.Format.Name, c.Text.Format.Schema
		}
		out.Text = map[string]any{"format": f}
	}
	if c.ToolChoice.mode != "" {
		out.ToolChoice = string(c.ToolChoice.mode)
	}
	for i := range c.Tools {
		t := &c.Tools[i]
		parameters := any(map[string]any{})
		if len(t.Parameters) > 0 {
			parameters = t.Parameters
		}
		out.Tools = append(out.Tools, map[string]any{
			"type": "function", "name": t.Name, "description": t.Description,
			"parameters": parameters, "strict": true,
		})
	}
	return out
}

// whole is the answer at its end.
func (o responseObject) whole(f *infer.Final, output []any) responseObject {
	o.Status, o.Output, o.Notes = "completed", output, f.Notes
	if f.Reason == infer.FinishLength {
		o.Status, o.Incomplete = "incomplete", &incomplete{"max_output_tokens"}
	}
	u := &responseUsage{
		Input: f.Usage.PromptTokens, Output: f.Usage.CompletionTokens,
		Total: f.Usage.PromptTokens + f.Usage.CompletionTokens,
	}
	u.Details.Cached = cachedTokens(&f.Usage)
	o.Usage = u
	return o
}

// messageItem is the text of an answer.
type messageItem struct {
	ID      string     `json:"id"`
	Type    string     `json:"type"`
	Status  string     `json:"status"`
	Role    string     `json:"role"`
	Content []textPart `json:"content"`
}

type textPart struct {
	Type        string         `json:"type"`
	Text        string         `json:"text"`
	Annotations []any          `json:"annotations"`
	Logprobs    []tokenLogprob `json:"logprobs"`
}

// callItem is one call of a function.
type callItem struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Status    string `json:"status"`
	CallID    string `json:"call_id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// reasoningItem is what the model said before its answer.
type reasoningItem struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Status  string          `json:"status"`
	Summary []any           `json:"summary"`
	Content []reasoningPart `json:"content"`
}

type reasoningPart struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

func newMessageItem(status string, content ...textPart) messageItem {
	return messageItem{
		ID: newID("msg_"), Type: "message", Status: status, Role: "assistant", Content: content,
	}
}

func newTextPart(text string, logprobs []tokenLogprob) textPart {
	return textPart{Type: "output_text", Text: text, Logprobs: logprobs}
}

// items are the parts of a whole answer, in the order in which they came.
func items(a *answer, logprobs bool) []any {
	status := "completed"
	if a.final.Reason == infer.FinishLength {
		status = "incomplete"
	}
	var out []any
	m := &a.final.Answer
	if m.Reasoning != "" {
		out = append(out, reasoningItem{
			ID: newID("rs_"), Type: "reasoning", Status: status,
			Content: []reasoningPart{{Type: "reasoning_text", Text: m.Reasoning}},
		})
	}
	if m.Content != "" || len(m.ToolCalls) == 0 {
		var l []tokenLogprob
		if logprobs {
			l = logprobsOf(a.logprobs)
		}
		out = append(out, newMessageItem(status, newTextPart(m.Content, l)))
	}
	for _, call := range m.ToolCalls {
		out = append(out, callItem{
			ID: newID("fc_"), Type: "function_call", Status: status, CallID: call.ID, Name: call.Name,
			Arguments: call.Arguments,
		})
	}
	return out
}
