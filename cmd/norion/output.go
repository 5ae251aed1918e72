package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/infer"
)

// printer writes one answer: text as it comes, or one JSON object at the end.
type printer struct {
	a           *app
	f           *runFlags
	b           *loaded
	outTerminal bool
	errTerminal bool

	text, reasoning strings.Builder
	logprobs        []infer.Logprob
	final           *infer.Final
	thinking        bool // the last thing shown was reasoning
	broken          bool // standard output takes no more
}

func newPrinter(a *app, f *runFlags, b *loaded) *printer {
	return &printer{a: a, f: f, b: b, outTerminal: isTerminal(a.out), errTerminal: isTerminal(a.err)}
}

// chunk takes the next piece of the answer.
func (p *printer) chunk(c infer.Chunk) error {
	p.logprobs = append(p.logprobs, c.Logprobs...)
	if c.Final != nil {
		p.final = c.Final
	}
	p.text.WriteString(c.Text)
	if p.f.json {
		p.reasoning.WriteString(c.Reasoning)
		return nil
	}
	if c.Reasoning != "" && p.errTerminal {
		fmt.Fprintf(p.a.err, "\x1b[2m%s\x1b[m", printable(c.Reasoning))
		p.thinking = true
	}
	if c.Text == "" {
		return nil
	}
	if p.thinking {
		fmt.Fprint(p.a.err, "\n")
		p.thinking = false
	}
	text := c.Text
	if p.outTerminal {
		text = printable(text)
	}
	_, err := io.WriteString(p.a.out, text)
	p.broken = err != nil
	return err
}

// end closes the output. failed is what ended the answer early, or nil.
func (p *printer) end(failed error) error {
	if p.f.json {
		if p.final == nil && !errors.Is(failed, errInterrupted) {
			return nil // the error says it all
		}
		return p.json(failed)
	}
	if t := p.text.String(); t != "" && !strings.HasSuffix(t, "\n") && !p.broken {
		if _, err := io.WriteString(p.a.out, "\n"); err != nil {
			return err
		}
	}
	if p.final != nil && p.final.Reason == infer.FinishLength && p.errTerminal {
		fmt.Fprintln(p.a.err, "note: the answer ends here because of its length")
	}
	if p.final != nil {
		for _, note := range p.final.Notes {
			fmt.Fprintln(p.a.err, "note:", note)
		}
	}
	p.table()
	if p.f.stats && p.final != nil {
		writeStats(p.a.err, *p.final, p.b.took)
	}
	return nil
}

// table shows log-probabilities, one token a line.
func (p *printer) table() {
	for _, l := range p.logprobs {
		fmt.Fprintf(p.a.err, "%9.4f  %-16s", l.Logprob, quoted(l.Token))
		for _, t := range l.Top {
			fmt.Fprintf(p.a.err, "  %s %.4f", quoted(t.Token), t.Logprob)
		}
		fmt.Fprintln(p.a.err)
	}
}

func quoted(t infer.Token) string { return fmt.Sprintf("%q", t.Text) }

// writeStats says what an answer cost.
func writeStats(w io.Writer, f infer.Final, load time.Duration) {
	u := f.Usage
	cached := u.Cached.Live + u.Cached.RAM + u.Cached.Disk
	fmt.Fprintf(w, "prompt       %d tokens, %d of them cached, %.1f tokens/s\n",
		u.PromptTokens, cached, u.PrefillRate())
	fmt.Fprintln(w, cacheLine(u))
	fmt.Fprintf(w, "answer       %d tokens, %.1f tokens/s, ended by %s\n",
		u.CompletionTokens, u.DecodeRate(), f.Reason)
	if u.Drafted > 0 {
		fmt.Fprintf(w, "guessed      %d tokens, %d of them right\n", u.Drafted, u.Accepted)
	}
	fmt.Fprintf(w, "first token  %s after the request, longest wait %s\n",
		u.Timings.TTFT.Round(time.Millisecond), u.Timings.ITLMax.Round(time.Millisecond))
	if load > 0 {
		fmt.Fprintf(w, "load         %s\n", load.Round(time.Millisecond))
	}
	fmt.Fprintf(w, "seed         %d\n", f.Seed)
}

// answerJSON is what --json prints. Durations are in seconds.
type answerJSON struct {
	Model     string        `json:"model"`
	Digest    string        `json:"digest,omitempty"`
	Text      string        `json:"text"`
	Reasoning string        `json:"reasoning,omitempty"`
	Finish    string        `json:"finish_reason"` // stop, length or interrupted
	Stop      string        `json:"stop,omitempty"`
	Seed      uint32        `json:"seed,omitempty"` // not of an interrupted answer
	Usage     *usageJSON    `json:"usage,omitempty"`
	Logprobs  []logprobJSON `json:"logprobs,omitempty"`
	Notes     []string      `json:"notes,omitempty"`
	Plan      *plan.Plan    `json:"plan,omitempty"` // of the load
}

type usageJSON struct {
	PromptTokens     int          `json:"prompt_tokens"`
	CompletionTokens int          `json:"completion_tokens"`
	Cached           infer.Cached `json:"cached"`
	Computed         int          `json:"computed"`
	Evicted          int          `json:"evicted"`
	Drafted          int          `json:"drafted,omitempty"`
	Accepted         int          `json:"accepted,omitempty"`
	LoadSeconds      float64      `json:"load_s"`
	QueueSeconds     float64      `json:"queue_s"`
	PrefillSeconds   float64      `json:"prefill_s"`
	TTFTSeconds      float64      `json:"ttft_s"`
	DecodeSeconds    float64      `json:"decode_s"`
	ITLMaxSeconds    float64      `json:"itl_max_s"`
	PrefillRate      float64      `json:"prefill_tokens_per_s"`
	DecodeRate       float64      `json:"decode_tokens_per_s"`
}

type logprobJSON struct {
	ID      infer.TokenID `json:"id"`
	Text    string        `json:"text"`
	Bytes   []byte        `json:"bytes,omitempty"` // where Text cannot show them: not UTF-8
	Logprob *float32      `json:"logprob"`         // null for a token of probability 0
	Top     []logprobJSON `json:"top,omitempty"`
}

func (p *printer) json(failed error) error {
	info := p.b.Info()
	out := answerJSON{
		Model: info.Model, Digest: info.Digest, Text: p.text.String(),
		Reasoning: p.reasoning.String(), Logprobs: logprobsJSON(p.logprobs),
		Plan: p.b.plan,
	}
	if failed != nil {
		out.Finish = "interrupted"
	}
	if f := p.final; f != nil {
		u, t := f.Usage, f.Usage.Timings
		out.Finish, out.Stop, out.Seed = string(f.Reason), f.Stop, f.Seed
		out.Notes = f.Notes
		out.Usage = &usageJSON{
			PromptTokens: u.PromptTokens, CompletionTokens: u.CompletionTokens, Cached: u.Cached,
			Computed: u.Computed, Evicted: u.Evicted, Drafted: u.Drafted, Accepted: u.Accepted,
			LoadSeconds: p.b.took.Seconds(), QueueSeconds: t.Queue.Seconds(),
			PrefillSeconds: t.Prefill.Seconds(), TTFTSeconds: t.TTFT.Seconds(),
			DecodeSeconds: t.Decode.Seconds(), ITLMaxSeconds: t.ITLMax.Seconds(),
			PrefillRate: u.PrefillRate(), DecodeRate: u.DecodeRate(),
		}
	}
	return writeJSON(p.a.out, out)
}

func logprobsJSON(all []infer.Logprob) []logprobJSON {
	var out []logprobJSON
	for _, l := range all {
		j := logprobJSON{
			ID: l.Token.ID, Text: strings.ToValidUTF8(string(l.Token.Text), "\uFFFD"),
			Logprob: jsonNumber(l.Logprob), Top: logprobsJSON(l.Top),
		}
		if !utf8.Valid(l.Token.Text) {
			j.Bytes = l.Token.Text
		}
		out = append(out, j)
	}
	return out
}

// writeJSON writes a value for people and programs.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
