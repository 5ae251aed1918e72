package httpapi

import (
	"encoding/json"
	"math"
	"net/http"
	"unicode/utf8"

	v2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// completionRequest is the body of /v1/completions.
type completionRequest struct {
	Model  string  `json:"model"`
	Prompt prompts `json:"prompt"`
	samplers
	extras
	MaxTokens     *int           `json:"max_tokens"`
	N             *int           `json:"n"`
	BestOf        *int           `json:"best_of"`
	Stop          texts          `json:"stop"`
	Logprobs      *int           `json:"logprobs"`
	Echo          bool           `json:"echo"`
	Schema        jsontext.Value `json:"json_schema"` // llama.cpp's
	ParseSpecial  bool           `json:"parse_special"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options"`
	User          string         `json:"user"`
	Others        others         `json:",embed"`
}

var completionSettings = map[string]setting{
	"suffix": {harmless: []string{`""`}, hint: "models are not asked to fill a gap"},
}

// completionTokens is how long an answer is unless max_tokens says otherwise, as OpenAI has it.
const completionTokens = 16

// prompts are texts, or lists of tokens.
type prompts []prompt

type prompt struct {
	text   string
	tokens []infer.TokenID
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom: a string, a list of strings, a list of tokens,
// or a list of such lists.
func (p *prompts) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		var text string
		err := v2.UnmarshalDecode(dec, &text)
		*p = prompts{{text: text}}
		return err
	}
	var list []jsontext.Value
	if err := v2.UnmarshalDecode(dec, &list); err != nil {
		return err
	}
	if len(list) > ChoicesMax && list[0].Kind() != '0' {
		return refuse(codeInvalidValue, "", "%d prompts, at most %d", len(list), ChoicesMax)
	}
	if len(list) > 0 && list[0].Kind() == '0' {
		tokens, err := tokensOf(list)
		*p = prompts{{tokens: tokens}}
		return err
	}
	for _, v := range list {
		var one prompt
		var err error
		if v.Kind() == '"' {
			err = v2.Unmarshal(v, &one.text, strict)
		} else {
			var ids []jsontext.Value
			if err = v2.Unmarshal(v, &ids, strict); err == nil {
				one.tokens, err = tokensOf(ids)
			}
		}
		if err != nil {
			return refuse(codeInvalidType, "", "expected texts or lists of tokens, all alike")
		}
		*p = append(*p, one)
	}
	return nil
}

func tokensOf(values []jsontext.Value) ([]infer.TokenID, error) {
	if len(values) > infer.TokensMax {
		return nil, refuse(codeInvalidValue, "", "%d tokens, at most %d", len(values), infer.TokensMax)
	}
	out := make([]infer.TokenID, len(values))
	for i, v := range values {
		if err := v2.Unmarshal(v, &out[i], strict); err != nil || out[i] < 0 {
			return nil, refuse(codeInvalidType, "", "expected tokens, which are whole numbers")
		}
	}
	return out, nil
}

func (prompts) openAPI() any {
	numbers := map[string]any{"type": "array", "items": map[string]any{"type": "integer"}}
	return anyOf(schemaString, map[string]any{"type": "array", "items": schemaString}, numbers,
		map[string]any{"type": "array", "items": numbers})
}

// requests gives one request for each answer: those of the first prompt, of the second, and so on.
func (c *completionRequest) requests() ([]infer.Request, error) {
	r := infer.Request{Stop: c.Stop, MaxTokens: completionTokens, ParseSpecial: c.ParseSpecial}
	if err := c.Others.check(completionSettings); err != nil {
		return nil, err
	}
	if err := c.samplers.apply(&r); err != nil {
		return nil, err
	}
	c.extras.apply(&r)
	if len(c.TemplateArgs) > 0 {
		return nil, unsupported("chat_template_kwargs", "a plain prompt has no template")
	}
	if c.MaxTokens != nil {
		if r.MaxTokens = *c.MaxTokens; r.MaxTokens < 1 || r.MaxTokens > infer.TokensMax {
			return nil, refuse(codeInvalidValue, "max_tokens", "'max_tokens' is outside 1..%d",
				infer.TokensMax)
		}
	}
	if n := c.Logprobs; n != nil {
		r.Logprobs, r.TopLogprobs = true, *n
	}
	switch {
	case len(c.Prompt) == 0:
		return nil, missing("prompt")
	case c.Echo && (c.Logprobs != nil || c.Prompt[0].tokens != nil):
		return nil, unsupported("echo", "together with logprobs, or of tokens")
	case c.BestOf != nil && *c.BestOf != 1:
		return nil, unsupported("best_of", "ask for n answers and choose")
	}
	if len(c.Schema) > 0 {
		if r.Constraint.Grammar != "" {
			return nil, refuse(codeInvalidValue, "grammar", "give 'grammar' or 'json_schema', not both")
		}
		r.Constraint.Schema = json.RawMessage(c.Schema)
	}
	if err := checkChoices(c.N, len(c.Prompt)); err != nil {
		return nil, err
	}
	if err := c.StreamOptions.check(c.Stream); err != nil {
		return nil, err
	}
	n := 1
	put(&n, c.N)
	var all []infer.Request
	for _, p := range c.Prompt {
		r.Prompt, r.Tokens = p.text, p.tokens
		all = append(all, choices(r, n)...)
	}
	return all, nil
}

// completion answers POST /v1/completions.
func (x *exchange) completion() error {
	var c completionRequest
	if err := x.readJSON(&c); err != nil {
		return err
	}
	b, err := x.open(x.only(c.Model))
	if err != nil {
		return err
	}
	x.endUser(c.User)
	requests, err := c.requests()
	if err != nil {
		return renamed(err, completionNames)
	}
	for i := range requests {
		if err := x.complete(&requests[i]); err != nil {
			return renamed(err, completionNames)
		}
	}
	x.perPrompt = len(requests) / len(c.Prompt)
	head := x.chatHead(b.Info(), "text_completion")
	head.ID = newID("cmpl-")
	s := &completionStream{x: x, c: &c, head: head, requests: requests}
	s.offsets = make([]int, len(requests))
	if c.Stream {
		return renamed(x.stream(b, requests, s), completionNames)
	}
	answers, err := x.collect(b, requests)
	if err != nil {
		return renamed(err, completionNames)
	}
	out := completionWhole{chatHead: head, Choices: []completionChoice{}}
	for i, a := range answers {
		e := event{choice: i, chunk: infer.Chunk{
			Text: a.final.Answer.Content, Logprobs: a.logprobs, Final: a.final,
		}}
		out.Choices = append(out.Choices, s.choice(&e, s.prefix(i)))
		out.Notes = append(out.Notes, a.final.Notes...)
	}
	t := timingsOf(&x.usage)
	out.Usage, out.Timings = usageOf(&x.usage), &t
	x.writeJSON(http.StatusOK, out)
	return nil
}

var completionNames = map[string]string{
	"tokens": "prompt", "schema": "json_schema", "top_logprobs": "logprobs",
}

type completionWhole struct {
	chatHead
	Choices []completionChoice `json:"choices"`
	Usage   *usage             `json:"usage,omitzero"`
	Timings *timings           `json:"timings,omitzero"`
	Notes   []string           `json:"notes,omitempty"`
}

type completionChoice struct {
	Text     string              `json:"text"`
	Index    int                 `json:"index"`
	Logprobs *completionLogprobs `json:"logprobs"`
	Finish   *infer.Finish       `json:"finish_reason"`
}

// completionLogprobs is the older form of log-probabilities: lists side by side.
type completionLogprobs struct {
	Tokens  []string             `json:"tokens"`
	Values  []float64            `json:"token_logprobs"`
	Top     []map[string]float64 `json:"top_logprobs"`
	Offsets []int                `json:"text_offset"` // characters of the answer before each token
}

// completionStream writes answers as text_completion events.
type completionStream struct {
	x        *exchange
	c        *completionRequest
	head     chatHead
	requests []infer.Request
	offsets  []int // characters told of each choice
}

// prefix is the prompt where it is to be echoed.
func (s *completionStream) prefix(choice int) string {
	if !s.c.Echo {
		return ""
	}
	return s.requests[choice].Prompt
}

func (s *completionStream) choice(e *event, prefix string) completionChoice {
	out := completionChoice{Index: e.choice, Text: prefix + e.chunk.Text}
	if s.c.Logprobs != nil {
		l := &completionLogprobs{}
		for i := range e.chunk.Logprobs {
			t := &e.chunk.Logprobs[i]
			text := validText(t.Token.Text)
			top := map[string]float64{}
			for k := range t.Top {
				top[validText(t.Top[k].Token.Text)] = finite(t.Top[k].Logprob)
			}
			l.Tokens, l.Top = append(l.Tokens, text), append(l.Top, top)
			l.Values = append(l.Values, finite(t.Logprob))
			l.Offsets = append(l.Offsets, s.offsets[e.choice])
			s.offsets[e.choice] += utf8.RuneCountInString(text)
		}
		out.Logprobs = l
	}
	if e.chunk.Final != nil {
		out.Finish = &e.chunk.Final.Reason
	}
	return out
}

func finite(l float32) float64 {
	if math.IsInf(float64(l), -1) {
		return impossible
	}
	return float64(l)
}

func (s *completionStream) begin(w *sse) error {
	if !s.c.Echo {
		return nil
	}
	for i := range s.requests {
		out := completionWhole{chatHead: s.head}
		out.Choices = []completionChoice{{Index: i, Text: s.prefix(i)}}
		if err := w.event("", &out); err != nil {
			return err
		}
	}
	return nil
}

func (s *completionStream) piece(w *sse, e *event) error {
	out := completionWhole{chatHead: s.head, Choices: []completionChoice{s.choice(e, "")}}
	if f := e.chunk.Final; f != nil {
		t := timingsOf(&f.Usage)
		out.Timings, out.Notes = &t, f.Notes
	}
	return w.event("", &out)
}

func (s *completionStream) finish(w *sse) error {
	if s.c.StreamOptions.usage() {
		out := completionWhole{chatHead: s.head, Choices: []completionChoice{}}
		out.Usage = usageOf(&s.x.usage)
		if err := w.event("", &out); err != nil {
			return err
		}
	}
	w.done()
	return nil
}

func (s *completionStream) broken(w *sse, f *fault) error { return w.event("", errorBody(f)) }
