package httpapi

import (
	"math"
	"net/http"
	"unicode/utf8"

	"github.com/norion/norion/runtime/infer"
)

// chat answers POST /v1/chat/completions.
func (x *exchange) chat() error {
	var c chatRequest
	if err := x.readJSON(&c); err != nil {
		return err
	}
	b, err := x.open(c.Model)
	if err != nil {
		return err
	}
	x.endUser(c.User, c.SafetyID)
	info := b.Info()
	r, err := c.request(info)
	if err == nil {
		err = x.complete(&r)
	}
	if err != nil {
		return faultOf(err).named(chatNames)
	}
	n := 1
	put(&n, c.N)
	x.perPrompt = n
	head := x.chatHead(info, "chat.completion")
	if c.Stream {
		head.Object = "chat.completion.chunk"
		return renamed(x.stream(b, choices(r, n), &chatStream{
			x: x, head: head, usage: c.StreamOptions.usage(), logprobs: c.Logprobs,
			said: make([]bool, n),
		}), chatNames)
	}
	answers, err := x.collect(b, choices(r, n))
	if err != nil {
		return faultOf(err).named(chatNames)
	}
	x.writeJSON(http.StatusOK, chatAnswer(head, x.usage, answers, c.Logprobs))
	return nil
}

// chatNames are the fields of infer.Request whose name here differs.
var chatNames = map[string]string{
	"prompt": "messages", "schema": "response_format",
}

// renamed gives the field of an error the name of a dialect.
func renamed(err error, names map[string]string) error {
	if err == nil {
		return nil
	}
	return faultOf(err).named(names)
}

// chatHead is what every object of an answer begins with.
type chatHead struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"` // seconds since 1970
	Model   string `json:"model"`
	// Fingerprint changes when the same seed may give another answer.
	Fingerprint string `json:"system_fingerprint"`
}

func (x *exchange) chatHead(info infer.Info, object string) chatHead {
	return chatHead{
		ID: newID("chatcmpl-"), Object: object, Created: x.began.Unix(), Model: x.model,
		Fingerprint: fingerprint(info),
	}
}

// chatWhole is a whole answer.
type chatWhole struct {
	chatHead
	Choices []chatChoice `json:"choices"`
	Usage   *usage       `json:"usage"`
	Timings timings      `json:"timings"`
	// Notes name, a line each, where the answer may fall short of the request.
	Notes []string `json:"notes,omitempty"`
}

type chatChoice struct {
	Index    int           `json:"index"`
	Message  chatTold      `json:"message"`
	Logprobs *chatLogprobs `json:"logprobs"`
	Finish   infer.Finish  `json:"finish_reason"`
}

// chatTold is the message of an answer.
type chatTold struct {
	Role      infer.Role `json:"role"`
	Content   *string    `json:"content"` // null beside calls without text
	Refusal   *string    `json:"refusal"` // always null
	Reasoning string     `json:"reasoning_content,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

func chatAnswer(head chatHead, total infer.Usage, answers []answer, logprobs bool) chatWhole {
	out := chatWhole{chatHead: head, Usage: usageOf(&total), Timings: timingsOf(&total)}
	for i, a := range answers {
		c := chatChoice{Index: i, Finish: a.final.Reason, Message: chatTold{
			Role: infer.RoleAssistant, Reasoning: a.final.Answer.Reasoning,
		}}
		for _, call := range a.final.Answer.ToolCalls {
			t := toolCall{ID: call.ID, Type: "function"}
			t.Function.Name, t.Function.Arguments = call.Name, call.Arguments
			c.Message.ToolCalls = append(c.Message.ToolCalls, t)
		}
		if text := a.final.Answer.Content; text != "" || len(c.Message.ToolCalls) == 0 {
			c.Message.Content = &text
		}
		if logprobs {
			c.Logprobs = &chatLogprobs{Content: logprobsOf(a.logprobs)}
		}
		out.Choices = append(out.Choices, c)
		out.Notes = append(out.Notes, a.final.Notes...)
	}
	return out
}

// chatLogprobs are the log-probabilities of an answer's tokens.
type chatLogprobs struct {
	Content []tokenLogprob  `json:"content"`
	Refusal *[]tokenLogprob `json:"refusal"` // always null
}

type tokenLogprob struct {
	tokenChoice
	Top []tokenChoice `json:"top_logprobs"`
}

type tokenChoice struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"` // the exact ones, where Token has U+FFFD
}

// impossible stands for the logarithm of 0, as OpenAI writes it.
const impossible = -9999.0

func tokenOf(l *infer.Logprob) tokenChoice {
	t := tokenChoice{Token: string(l.Token.Text), Logprob: float64(l.Logprob), Bytes: []int{}}
	if math.IsInf(t.Logprob, -1) {
		t.Logprob = impossible
	}
	for _, b := range l.Token.Text {
		t.Bytes = append(t.Bytes, int(b))
	}
	if !utf8.Valid(l.Token.Text) {
		t.Token = validText(l.Token.Text)
	}
	return t
}

func logprobsOf(all []infer.Logprob) []tokenLogprob {
	out := make([]tokenLogprob, 0, len(all))
	for i := range all {
		t := tokenLogprob{tokenChoice: tokenOf(&all[i]), Top: []tokenChoice{}}
		for k := range all[i].Top {
			t.Top = append(t.Top, tokenOf(&all[i].Top[k]))
		}
		out = append(out, t)
	}
	return out
}
