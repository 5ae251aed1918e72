package conform

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/norion/norion/runtime/infer"
)

// answer is what a whole generation gave.
type answer struct {
	text     string
	tokens   int // that chunks told of
	logprobs []infer.Logprob
	calls    int // deltas of tool calls
	final    *infer.Final
}

// ask runs a request that must succeed. A refusal with KindUnsupported of one of the named fields
// is a skip.
func (s *subject) ask(ctx context.Context, r infer.Request, fields ...string) (*answer, error) {
	a := &answer{}
	for c, err := range s.Generate(ctx, r) {
		if err != nil {
			return nil, declared(err, fields...)
		}
		if a.final != nil {
			return nil, errors.New("a chunk comes after the last one")
		}
		a.text += c.Text
		a.tokens += c.Tokens
		a.calls += len(c.ToolCalls)
		a.logprobs = append(a.logprobs, c.Logprobs...)
		a.final = c.Final
	}
	if a.final == nil {
		return nil, errors.New("the answer has no last chunk")
	}
	return a, nil
}

// declared turns the refusal of a field into a skip.
func declared(err error, fields ...string) error {
	e, ok := errors.AsType[*infer.Error](err)
	if !ok || e.Kind != infer.KindUnsupported {
		return err
	}
	for _, f := range fields {
		if e.Field == f {
			return skip{"refused as unsupported: " + f}
		}
	}
	return err
}

// denied is for what Info denies: the refusal must be typed, and then it is a skip.
func denied(what string, err error, kinds ...infer.Kind) error {
	for _, k := range kinds {
		if infer.KindOf(err) == k && err != nil {
			return skip{"Info declares no " + what}
		}
	}
	return fmt.Errorf("Info declares no %s, so it must be refused as %q: got %v", what, kinds[0], err)
}

// plain is the greedy request that most checks vary. Where it can, it computes the whole prompt, so
// that the answer does not depend on what was asked before.
func (s *subject) plain() infer.Request {
	return infer.Request{
		Prompt: s.o.Prompt, MaxTokens: s.o.Tokens, KV: infer.KVPolicy{NoReuse: !s.reuses},
	}
}

// long is a request whose answer takes a while: it is for checks that end it early.
func (s *subject) long() infer.Request {
	r := s.plain()
	r.MaxTokens = 8 * s.o.Tokens
	if half := s.info.ContextTokens / 2; half > 0 {
		r.MaxTokens = min(r.MaxTokens, half)
	}
	return r
}

// fails wants an error of a kind.
func fails(err error, kind infer.Kind) error {
	if err == nil {
		return fmt.Errorf("no error: want %q", kind)
	}
	e, ok := errors.AsType[*infer.Error](err)
	if !ok {
		return fmt.Errorf("the error is no *infer.Error: %w", err)
	}
	if e.Kind != kind {
		return fmt.Errorf("the error is of another kind than %q: %w", kind, err)
	}
	return nil
}

// lastError runs a request and gives the error that ended it.
func (s *subject) lastError(ctx context.Context, r infer.Request) (last error) {
	for _, err := range s.Generate(ctx, r) {
		if last != nil {
			return fmt.Errorf("something comes after the error %w", last)
		}
		last = err
	}
	return last
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// sameText compares two answers that must be equal.
func sameText(what, a, b string) error {
	if a == b {
		return nil
	}
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return fmt.Errorf("%s: two answers differ from byte %d on", what, n)
}

// spelled joins the bytes of tokens.
func spelled(all []infer.Logprob) string {
	var b strings.Builder
	for i := range all {
		b.Write(all[i].Token.Text)
	}
	return b.String()
}
