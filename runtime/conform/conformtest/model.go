// Package conformtest owns a made-up model that passes the conformance suite, for tests of what
// lies between a caller and a model. It must not know any other backend.
package conformtest

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"iter"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Model is a backend that conforms: a made-up model whose tokens are bytes. Each token is drawn
// from a distribution that a hash of the text before it gives. Its fields break one promise each,
// and are set before it is used.
type Model struct {
	About infer.Info // what Info gives

	Change    func(*infer.Chunk)                // each chunk
	End       func(*infer.Final)                // the last one
	Before    func(*infer.Request)              // what runs is not what was asked
	Err       func(error) error                 // each error
	Scored    func(*infer.Scores)               // what Score gives
	Embedded  func([][]float32)                 // what Embed gives
	Tokenized func([]infer.Token) []infer.Token // what Tokenize gives
	Closing   func(*Model) error                // what Close does instead
	Deaf      bool                              // ctx and Close end nothing that runs
	Count     int                               // added to CountTokens
	Keeps     bool                              // loops that are left keep their sequence
	Runs      atomic.Int64                      // for Before to count with

	mu   sync.Mutex
	off  chan struct{} // closed by Close; nil until first used
	kept atomic.Int64
}

// Everything is what the model can do.
func Everything() infer.Info {
	return infer.Info{
		Model: "bytes", Engine: "fake 1", Vocabulary: 256, EmbeddingSize: 4, ContextTokens: 1024,
		Sequences: 4, Abilities: infer.Abilities{
			Generate: true, Chat: true, Tools: true, Grammar: true, Score: true, Embed: true,
		},
	}
}

// New gives a model that keeps all promises.
func New() *Model { return &Model{About: Everything()} }

// Info implements infer.Backend.
func (m *Model) Info() infer.Info { return m.About }

// Gone is closed once the model is. Whoever replaces Close closes it.
func (m *Model) Gone() chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off == nil {
		m.off = make(chan struct{})
	}
	return m.off
}

func (m *Model) open() error {
	select {
	case <-m.Gone():
		return &infer.Error{Op: "fake", Kind: infer.KindClosed}
	default:
		return nil
	}
}

// Close implements infer.Backend.
func (m *Model) Close() error {
	if m.Closing != nil {
		return m.Closing(m)
	}
	if m.open() == nil {
		close(m.Gone())
	}
	return nil
}

// fail changes an error as the test says.
func (m *Model) fail(err error) error {
	if err != nil && m.Err != nil {
		return m.Err(err)
	}
	return err
}

// letters are the tokens that have any probability.
const letters = "abcdefghijklmnopqrstuvwxyz ."

// distribution gives the log-probabilities of letters behind a text.
func distribution(text string) []float64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	out, sum := make([]float64, len(letters)), 0.0
	for i := range out {
		out[i] = 3 * r.NormFloat64()
		sum += math.Exp(out[i])
	}
	for i := range out {
		out[i] -= math.Log(sum)
	}
	return out
}

func logprob(dist []float64, letter, top int) infer.Logprob {
	one := func(i int) infer.Logprob {
		return infer.Logprob{
			Token:   infer.Token{ID: infer.TokenID(letters[i]), Text: []byte{letters[i]}},
			Logprob: float32(dist[i]),
		}
	}
	out := one(letter)
	taken := map[int]bool{}
	for range top {
		best := -1
		for i := range dist {
			if !taken[i] && (best < 0 || dist[i] > dist[best]) {
				best = i
			}
		}
		taken[best] = true
		out.Top = append(out.Top, one(best))
	}
	return out
}

// pick chooses a letter.
func pick(dist []float64, s infer.Sampling, r *rand.Rand) int {
	best, worth := 0, math.Inf(-1)
	for i, l := range dist {
		if s.Temperature > 0 { // Gumbel's way to sample from a softmax
			l = l/float64(s.Temperature) - math.Log(-math.Log(r.Float64()))
		}
		if l > worth {
			best, worth = i, l
		}
	}
	return best
}

// Generate implements infer.Backend. A chunk comes for each token.
func (m *Model) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		err := r.Validate()
		if err == nil {
			if m.Before != nil {
				m.Before(&r)
			}
			err = m.run(ctx, &r, func(c infer.Chunk) bool {
				if m.Change != nil {
					m.Change(&c)
				}
				if c.Final != nil && m.End != nil {
					m.End(c.Final)
				}
				return yield(c, nil)
			})
		}
		switch {
		case errors.Is(err, errLeft):
			m.kept.Add(1)
		case err != nil:
			yield(infer.Chunk{}, m.fail(err))
		}
	}
}

var errLeft = errors.New("the loop was left")

// prompt is the text that a request goes on from.
func prompt(r *infer.Request) string {
	text := r.Prompt
	for _, m := range r.Messages {
		text += "<" + string(m.Role) + ">" + m.Content
	}
	return text
}

func (m *Model) refuse(r *infer.Request, text string) error {
	a := m.About.Abilities
	no := func(field string) error {
		return &infer.Error{Op: "generate", Kind: infer.KindUnsupported, Field: field}
	}
	switch {
	case m.open() != nil:
		return m.open()
	case m.Keeps && m.kept.Load() >= 4:
		return &infer.Error{Op: "generate", Kind: infer.KindBusy}
	case !a.Generate:
		return no("")
	case len(r.Messages) > 0 && !a.Chat:
		return &infer.Error{Op: "generate", Kind: infer.KindNoTemplate}
	case len(r.Tools) > 0 && !a.Tools:
		return no("tools")
	case len(r.Constraint.Schema) > 0 && !a.Grammar:
		return no("schema")
	case m.About.ContextTokens > 0 && len(text) >= m.About.ContextTokens:
		return &infer.Error{Op: "generate", Kind: infer.KindTooLong, Field: "prompt"}
	case !r.Deadline.IsZero() && time.Now().After(r.Deadline):
		return &infer.Error{Op: "generate", Kind: infer.KindDeadline}
	case r.KV.NoReuse && m.About.Architecture == "reuses":
		return no("kv.no_reuse")
	case r.Logprobs && m.About.Architecture == "no logprobs":
		return no("logprobs")
	case r.KV.Deterministic && m.About.Architecture == "no determinism":
		return no("kv.deterministic")
	}
	return nil
}

// run computes one answer, a chunk for each token.
func (m *Model) run(ctx context.Context, r *infer.Request, yield func(infer.Chunk) bool) error {
	text := prompt(r)
	if err := m.refuse(r, text); err != nil {
		return err
	}
	u := infer.Usage{PromptTokens: len(text), Computed: len(text)}
	rng := rand.New(rand.NewPCG(uint64(r.Sampling.Seed), 2))
	final := &infer.Final{Reason: infer.FinishLength, Seed: r.Sampling.Seed}
	final.Answer.Role = infer.RoleAssistant
	fixed := ""
	switch {
	case len(r.Tools) > 0 && r.ToolChoice == infer.ToolRequired:
		return m.call(final, u, yield)
	case len(r.Constraint.Schema) > 0:
		fixed = `{"wet":true}`
	}
	for u.CompletionTokens < r.MaxTokens {
		if err := m.ended(ctx); err != nil {
			return err
		}
		dist := distribution(text)
		letter := pick(dist, r.Sampling, rng)
		c := infer.Chunk{Text: letters[letter : letter+1], Tokens: 1}
		if fixed != "" {
			c.Text = fixed[:1]
			fixed = fixed[1:]
		}
		if r.Logprobs {
			c.Logprobs = []infer.Logprob{logprob(dist, letter, r.TopLogprobs)}
		}
		u.CompletionTokens++
		text += c.Text
		answer := final.Answer.Content + c.Text
		if stop := met(answer, r.Stop); stop != "" {
			final.Reason, final.Stop = infer.FinishStop, stop
			final.Answer.Content = strings.TrimSuffix(answer, stop)
			return m.finish(final, u, infer.Chunk{Tokens: 1}, yield)
		}
		final.Answer.Content = answer
		if len(r.Constraint.Schema) > 0 && fixed == "" {
			final.Reason = infer.FinishStop
			return m.finish(final, u, c, yield)
		}
		if len(r.Stop) > 0 { // held back, as the rest may begin a stop text
			c.Text = ""
		}
		if !yield(c) {
			return errLeft
		}
	}
	return m.finish(final, u, infer.Chunk{}, yield)
}

// ended is why a request must end now.
func (m *Model) ended(ctx context.Context) error {
	if m.Deaf {
		return nil
	}
	switch ctx.Err() {
	case nil:
		return m.open()
	case context.DeadlineExceeded:
		return &infer.Error{Op: "generate", Kind: infer.KindDeadline, Err: ctx.Err()}
	}
	return &infer.Error{Op: "generate", Kind: infer.KindCanceled, Err: ctx.Err()}
}

func met(answer string, stops []string) string {
	for _, s := range stops {
		if strings.HasSuffix(answer, s) {
			return s
		}
	}
	return ""
}

// finish gives the last chunk. With stop texts the whole answer comes in it.
func (m *Model) finish(
	final *infer.Final, u infer.Usage, c infer.Chunk, yield func(infer.Chunk) bool,
) error {
	final.Usage, c.Final = u, final
	if final.Reason == infer.FinishStop && final.Stop != "" {
		c.Text = final.Answer.Content
	}
	if !yield(c) {
		return errLeft
	}
	return nil
}

func (m *Model) call(final *infer.Final, u infer.Usage, yield func(infer.Chunk) bool) error {
	call := infer.ToolCall{ID: "1", Name: "weather", Arguments: `{"city":"Rome"}`}
	final.Reason, final.Answer.ToolCalls = infer.FinishTools, []infer.ToolCall{call}
	u.CompletionTokens = 1
	return m.finish(final, u, infer.Chunk{Tokens: 1, ToolCalls: []infer.ToolCallDelta{
		{ID: call.ID, Name: call.Name, Arguments: call.Arguments},
	}}, yield)
}

// Score implements infer.Backend.
func (m *Model) Score(_ context.Context, r infer.ScoreRequest) (out infer.Scores, err error) {
	if err := errors.Join(r.Validate(), m.open()); err != nil {
		return out, m.fail(err)
	}
	if !m.About.Abilities.Score {
		return out, m.fail(&infer.Error{Op: "score", Kind: infer.KindUnsupported})
	}
	for i := range len(r.Text) {
		at := strings.IndexByte(letters, r.Text[i])
		l := logprob(distribution(r.Context+r.Text[:i]), max(at, 0), 0)
		out.Tokens = append(out.Tokens, l)
		out.Sum += float64(l.Logprob)
	}
	if m.Scored != nil {
		m.Scored(&out)
	}
	return out, nil
}

// Embed implements infer.Backend.
func (m *Model) Embed(_ context.Context, texts []string) ([][]float32, error) {
	if err := m.open(); err != nil {
		return nil, m.fail(err)
	}
	if !m.About.Abilities.Embed {
		return nil, m.fail(&infer.Error{Op: "embed", Kind: infer.KindUnsupported})
	}
	out := make([][]float32, len(texts))
	for i, t := range texts {
		v := distribution(t)[:4]
		length := math.Sqrt(v[0]*v[0] + v[1]*v[1] + v[2]*v[2] + v[3]*v[3])
		for _, x := range v {
			out[i] = append(out[i], float32(x/length))
		}
	}
	if m.Embedded != nil {
		m.Embedded(out)
	}
	return out, nil
}

// Tokenize implements infer.Backend: a token is a byte.
func (m *Model) Tokenize(_ context.Context, text string, _ infer.TokenizeOptions) (
	out []infer.Token, err error,
) {
	if err := m.open(); err != nil {
		return nil, m.fail(err)
	}
	for _, b := range []byte(text) {
		out = append(out, infer.Token{ID: infer.TokenID(b), Text: []byte{b}})
	}
	if m.Tokenized != nil {
		out = m.Tokenized(out)
	}
	return out, nil
}

// Detokenize implements infer.Detokenizer.
func (m *Model) Detokenize(_ context.Context, tokens []infer.TokenID) ([]byte, error) {
	var b bytes.Buffer
	for _, t := range tokens {
		b.WriteByte(byte(t))
	}
	return b.Bytes(), nil
}

// CountTokens implements infer.Counter.
func (m *Model) CountTokens(_ context.Context, r infer.Request) (int, error) {
	return len(prompt(&r)) + m.Count, nil
}
