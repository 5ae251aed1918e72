package chat

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
)

// fake answers a question with the texts it is given, word by word. It blocks after the words when
// hold is set, until the request is cancelled.
type fake struct {
	mu       sync.Mutex
	answers  []string
	requests []infer.Request
	fail     error
	hold     bool
	reason   infer.Finish
	thought  string
	notes    []string
}

func (f *fake) Info() infer.Info {
	return infer.Info{
		Model: "fake:1", Description: "fake 1M", ContextTokens: 1000, Notes: f.notes,
		Abilities: infer.Abilities{Generate: true, Chat: true},
	}
}

func (f *fake) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		f.mu.Lock()
		f.requests = append(f.requests, r)
		fail, answer := f.fail, "ok"
		if len(f.answers) > 0 {
			answer, f.answers = f.answers[0], f.answers[1:]
		}
		f.mu.Unlock()
		if fail != nil {
			yield(infer.Chunk{}, fail)
			return
		}
		if f.thought != "" && !yield(infer.Chunk{Reasoning: f.thought, Tokens: 1}, nil) {
			return
		}
		words := strings.SplitAfter(answer, " ")
		for _, w := range words {
			if !yield(infer.Chunk{Text: w, Tokens: 1}, nil) {
				return
			}
		}
		if f.hold {
			<-ctx.Done()
			yield(infer.Chunk{}, &infer.Error{Kind: infer.KindCanceled, Err: ctx.Err()})
			return
		}
		reason := f.reason
		if reason == "" {
			reason = infer.FinishStop
		}
		yield(infer.Chunk{Final: &infer.Final{
			Reason: reason, Seed: 7,
			Answer: infer.Message{Role: infer.RoleAssistant, Content: answer},
			Usage: infer.Usage{
				PromptTokens: 10, CompletionTokens: len(words),
				Timings: infer.Timings{Decode: time.Second, TTFT: time.Millisecond},
			},
		}}, nil)
	}
}

func (f *fake) Score(context.Context, infer.ScoreRequest) (infer.Scores, error) {
	return infer.Scores{}, errors.New("not here")
}

func (f *fake) Embed(context.Context, []string) ([][]float32, error) {
	return nil, errors.New("not here")
}

func (f *fake) Tokenize(context.Context, string, infer.TokenizeOptions) ([]infer.Token, error) {
	return nil, errors.New("not here")
}

func (f *fake) Close() error { return nil }

// asked gives the messages of request i as "role: content".
func (f *fake) asked(i int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, m := range f.requests[i].Messages {
		out = append(out, string(m.Role)+": "+m.Content)
	}
	return out
}

func testSession(t *testing.T, f *fake) *session {
	t.Helper()
	s, err := newSession(Options{Backend: f, Out: &bytes.Buffer{}, Err: &bytes.Buffer{}})
	require.NoError(t, err)
	return s
}

// turnOf runs one question to its end.
func (s *session) turnOf(t *testing.T, text string) {
	t.Helper()
	got, err := generate(t.Context(), s.o.Backend, s.request(text),
		func(infer.Chunk) error { return nil })
	require.NoError(t, err)
	s.accept(got)
}
