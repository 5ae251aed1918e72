package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/norion/norion/runtime/infer"
)

// Generate implements infer.Backend. An endpoint does not say how many tokens are behind a piece of
// text: unless log-probabilities tell, the last chunk counts them all.
func (b *Backend) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		if err := b.generate(ctx, r, yield); err != nil && !errors.Is(err, errLeft) {
			yield(infer.Chunk{}, err)
		}
	}
}

var errLeft = errors.New("the loop was left")

func (b *Backend) generate(
	ctx context.Context, r infer.Request, yield func(infer.Chunk, error) bool,
) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if err := b.refuse(&r); err != nil {
		return err
	}
	if !r.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
		defer cancel()
	}
	drawSeed(&r.Sampling)
	a := &answer{began: time.Now(), r: &r}
	path, body, err := b.body(ctx, &r)
	if err != nil {
		return err
	}
	c, err := b.begin(ctx, "generate", "POST", path, body)
	if err != nil {
		return err
	}
	err = a.read(c, yield)
	if errors.Is(err, errLeft) {
		_ = c.end(nil)
		return err
	}
	return c.end(err)
}

// answer gathers what a stream tells.
type answer struct {
	r     *infer.Request
	began time.Time
	first time.Time // the first piece
	last  time.Time
	final infer.Final
	told  int // tokens that chunks told of
	usage *usage
}

// read passes a stream on, event by event.
func (a *answer) read(c *call, yield func(infer.Chunk, error) bool) error {
	a.final.Seed, a.final.Answer.Role = a.r.Sampling.Seed, infer.RoleAssistant
	lines := bufio.NewScanner(c)
	lines.Buffer(make([]byte, 0, 4096), LineBytesMax)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue // a comment, or another field of the event
		}
		if c.ctx.Err() != nil { // what is still in the buffer is not wanted
			return c.ctx.Err()
		}
		if data = bytes.TrimSpace(data); string(data) == "[DONE]" {
			return a.finish(yield)
		}
		var e event
		if err := json.Unmarshal(data, &e); err != nil {
			return garbage("generate", err)
		}
		chunk, err := a.take(&e)
		if err != nil {
			return err
		}
		if chunk.Text == "" && chunk.Reasoning == "" && chunk.Tokens == 0 && chunk.ToolCalls == nil {
			continue
		}
		if !yield(chunk, nil) {
			return errLeft
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return garbage("generate", fmt.Errorf("a line of more than %d bytes", LineBytesMax))
	case err != nil:
		return err
	}
	return io.ErrUnexpectedEOF // without [DONE] it is not whole
}

// event is one event of a stream, of text completions or of chats.
type event struct {
	Choices []struct {
		Text  string `json:"text"`
		Delta struct {
			Content   string     `json:"content"`
			Reasoning string     `json:"reasoning_content"`
			ToolCalls []toolCall `json:"tool_calls"`
		} `json:"delta"`
		Logprobs *logprobs `json:"logprobs"`
		Finish   string    `json:"finish_reason"`
	} `json:"choices"`
	Usage *usage    `json:"usage"`
	Notes []string  `json:"notes"`
	Error *apiError `json:"error"`
}

type toolCall struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Details    struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// logprobs are llama-server's, with the tokens' ids and bytes.
type logprobs struct {
	Content []logprob `json:"content"`
}

type logprob struct {
	ID      infer.TokenID `json:"id"`
	Bytes   []int         `json:"bytes"`
	Logprob float32       `json:"logprob"`
	Top     []logprob     `json:"top_logprobs"`
}

// toolCallsMax bounds the calls of one answer.
const toolCallsMax = 256

// take turns an event into a chunk, and remembers what the last one needs.
func (a *answer) take(e *event) (chunk infer.Chunk, err error) {
	if e.Error != nil {
		return chunk, e.Error.typed("generate", 0)
	}
	if e.Usage != nil {
		a.usage = e.Usage
	}
	a.final.Notes = append(a.final.Notes, e.Notes...)
	if len(e.Choices) == 0 {
		return chunk, nil
	}
	c := &e.Choices[0]
	chunk.Text, chunk.Reasoning = c.Text+c.Delta.Content, c.Delta.Reasoning
	a.final.Answer.Content += chunk.Text
	a.final.Answer.Reasoning += chunk.Reasoning
	for _, t := range c.Delta.ToolCalls {
		d := infer.ToolCallDelta{
			Index: t.Index, ID: t.ID, Name: t.Function.Name, Arguments: t.Function.Arguments,
		}
		if err := a.call(&d); err != nil {
			return chunk, err
		}
		chunk.ToolCalls = append(chunk.ToolCalls, d)
	}
	if a.r.Logprobs && c.Logprobs != nil {
		for i := range c.Logprobs.Content {
			chunk.Logprobs = append(chunk.Logprobs, c.Logprobs.Content[i].typed(a.r.TopLogprobs))
		}
		chunk.Tokens = len(chunk.Logprobs)
		a.told += chunk.Tokens
	}
	if c.Finish != "" {
		a.final.Reason = infer.Finish(c.Finish)
	}
	a.last = time.Now()
	if a.first.IsZero() {
		a.first = a.last
	}
	return chunk, nil
}

// call adds a piece to the calls of the answer.
func (a *answer) call(d *infer.ToolCallDelta) error {
	calls := a.final.Answer.ToolCalls
	if d.Index < 0 || d.Index > len(calls) || d.Index >= toolCallsMax {
		return garbage("generate", fmt.Errorf("a tool call of index %d after %d", d.Index, len(calls)))
	}
	if d.Index == len(calls) {
		calls = append(calls, infer.ToolCall{})
	}
	c := &calls[d.Index]
	c.ID, c.Name, c.Arguments = c.ID+d.ID, c.Name+d.Name, c.Arguments+d.Arguments
	a.final.Answer.ToolCalls = calls
	return nil
}

// typed gives a log-probability with at most top alternatives.
func (l *logprob) typed(top int) infer.Logprob {
	out := infer.Logprob{Token: infer.Token{ID: l.ID}, Logprob: l.Logprob}
	for _, x := range l.Bytes {
		out.Token.Text = append(out.Token.Text, byte(x))
	}
	for i := range l.Top[:min(top, len(l.Top))] {
		out.Top = append(out.Top, l.Top[i].typed(0))
	}
	return out
}

// finish gives the last chunk.
func (a *answer) finish(yield func(infer.Chunk, error) bool) error {
	switch a.final.Reason {
	case infer.FinishStop, infer.FinishLength, infer.FinishTools:
	default:
		return garbage("generate", fmt.Errorf("it ended for %.40q", a.final.Reason))
	}
	u := a.usage
	switch {
	case u == nil:
		return garbage("generate", errors.New("it does not tell its usage"))
	case u.Prompt < 0 || u.Completion < a.told || u.Details.Cached < 0 || u.Details.Cached > u.Prompt:
		return garbage("generate", errors.New("its usage does not add up"))
	}
	a.final.Usage = infer.Usage{
		PromptTokens: u.Prompt, CompletionTokens: u.Completion,
		Cached: infer.Cached{Live: u.Details.Cached}, Computed: u.Prompt - u.Details.Cached,
	}
	if !a.first.IsZero() { // as seen from here
		a.final.Usage.Timings = infer.Timings{
			TTFT: a.first.Sub(a.began), Decode: a.last.Sub(a.first),
		}
	}
	if !yield(infer.Chunk{Tokens: u.Completion - a.told, Final: &a.final}, nil) {
		return errLeft
	}
	return nil
}
