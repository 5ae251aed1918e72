// Package measure finds out what a load really takes and how fast it is, and keeps that for the
// next plan. It owns the exercise that a loaded model is put through, the comparison with a plan,
// and the files of measured figures; it must not know how a plan is made, nor flags and terminals.
//
// Its functions may be used concurrently, but what runs beside a measurement is in its figures.
package measure

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// What a loaded model is asked.
const (
	// PromptTokens are those of a prompt, where the context has room.
	PromptTokens = 512
	answerTokens = 48
	warmTokens   = 8
)

// Depth is at which depth of the cache Verify measures a context of so many tokens: a plan that is
// to be compared predicts there.
func Depth(contextTokens int) int {
	return max(1, min(PromptTokens, contextTokens-answerTokens, contextTokens/2))
}

// Result is a plan held against its load.
type Result struct {
	Plan    plan.Plan `json:"plan"`
	Model   string    `json:"model"`
	Digest  string    `json:"digest,omitempty"`
	Machine string    `json:"machine"` // its fingerprint
	Time    time.Time `json:"time"`

	Devices      []Device `json:"devices"`
	LoadSeconds  float64  `json:"load_seconds"`
	PromptTokens int      `json:"prompt_tokens"` // of the measured prompt
	AnswerTokens int      `json:"answer_tokens"` // of each measured answer
	// Tokens a second; measured ones are zero where the model does not generate.
	Decode    Rate     `json:"decode"`
	DecodeAll Rate     `json:"decode_all"`
	Prefill   Rate     `json:"prefill"`
	Notes     []string `json:"notes,omitempty"`

	deep     int     // tokens in the cache, where decoding was measured a second time
	deepRate float64 // tokens a second there
}

// Device is what one device was to hold and holds. Overhead is not measured.
type Device struct {
	Name      string     `json:"name"`
	Predicted plan.Bytes `json:"predicted"`
	Measured  plan.Bytes `json:"measured"`
}

// Rate is a predicted and a measured figure.
type Rate struct {
	Predicted float64     `json:"predicted"`
	Measured  float64     `json:"measured"`
	Source    plan.Source `json:"source"` // of the prediction
}

// Error is how far the prediction lies above the measurement, as a share of it; 0 where nothing was
// measured.
func (r Rate) Error() float64 {
	if r.Measured == 0 {
		return 0
	}
	return r.Predicted/r.Measured - 1
}

// Verify loads a model as a plan says and holds the plan against it: the buffers after prompts,
// answers and scores, and the speed of each. The options name the model; the plan decides the rest.
// Errors: those of engine.Open and of requests.
func Verify(ctx context.Context, p plan.Plan, o engine.Options) (Result, error) {
	return verify(ctx, p, o, 0)
}

// verify measures decoding a second time with deep tokens in the cache, unless that is 0.
func verify(ctx context.Context, p plan.Plan, o engine.Options, deep int) (r Result, err error) {
	o.Apply(p)
	r = Result{
		Plan: p, Model: o.Model, Digest: o.Digest, Time: time.Now().UTC(),
		Decode:    Rate{Predicted: p.Decode.TokensPerSecond, Source: p.Decode.Source},
		DecodeAll: Rate{Predicted: p.DecodeAll.TokensPerSecond, Source: p.DecodeAll.Source},
		Prefill:   Rate{Predicted: p.Prefill.TokensPerSecond, Source: p.Prefill.Source},
		deep:      deep,
	}
	start := time.Now()
	e, err := engine.Open(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() {
		if closed := e.Close(); err == nil {
			err = closed
		}
	}()
	r.LoadSeconds = time.Since(start).Seconds()
	r.Notes = e.Info().Notes
	if err := r.exercise(ctx, e); err != nil {
		return r, err
	}
	all, err := e.MemoryUse(ctx)
	if err != nil {
		return r, err
	}
	r.weigh(all)
	return r, nil
}

// exercise lets the model do what makes its buffers grow, and times it.
func (r *Result) exercise(ctx context.Context, e *engine.Engine) error {
	if !e.Info().Abilities.Generate {
		r.Notes = append(r.Notes, "the model does not generate: no speed is measured")
		return nil
	}
	depth := Depth(r.Plan.ContextTokens)
	if _, err := ask(ctx, e, 1, min(warmTokens, depth), 2); err != nil {
		return err
	}
	one, err := ask(ctx, e, 2, depth, answerTokens)
	if err != nil {
		return err
	}
	r.PromptTokens, r.AnswerTokens = depth, one.tokens
	r.Prefill.Measured, r.Decode.Measured = one.prefill, rate([]answer{one})
	r.DecodeAll.Measured = r.Decode.Measured
	if n := e.Info().Sequences; n > 1 {
		if r.DecodeAll.Measured, err = together(ctx, e, n, depth); err != nil {
			return err
		}
	}
	if r.deep > 0 {
		far, err := ask(ctx, e, 3, r.deep, answerTokens)
		if err != nil {
			return err
		}
		r.deepRate = rate([]answer{far})
	}
	if !e.Info().Abilities.Score {
		return nil
	}
	// A step of scores has as many outputs as the engine ever asks for.
	words := min(80, max(1, r.Plan.ContextTokens/8))
	_, err = e.Score(ctx, infer.ScoreRequest{Text: strings.Repeat("and so ", words/2+1)})
	return err
}

// answer is when the tokens of one came.
type answer struct {
	tokens      int
	first, last time.Time
	at          []time.Time
	prefill     float64 // tokens a second
}

// ask has a prompt of made-up tokens answered greedily.
func ask(ctx context.Context, e *engine.Engine, seed uint64, prompt, most int) (answer, error) {
	var a answer
	q := infer.Request{
		Tokens: text(seed, prompt, e.Info().Vocabulary), MaxTokens: most, IgnoreEOS: true,
		Speculate: infer.SpeculateOff,
	}
	for c, err := range e.Generate(ctx, q) {
		if err != nil {
			return a, err
		}
		now := time.Now()
		for range c.Tokens {
			a.at = append(a.at, now)
		}
		if c.Final != nil {
			a.prefill = c.Final.Usage.PrefillRate()
		}
	}
	a.tokens = len(a.at)
	if a.tokens > 0 {
		a.first, a.last = a.at[0], a.at[a.tokens-1]
	}
	return a, nil
}

// together has all sequences answer the same prompt at once, and gives the tokens a second of all
// while none had ended.
func together(ctx context.Context, e *engine.Engine, n, prompt int) (float64, error) {
	answers, errs := make([]answer, n), make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { answers[i], errs[i] = ask(ctx, e, 2, prompt, answerTokens) })
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return rate(answers), nil
}

// rate is the tokens a second between the last first token and the first last one; over all of the
// time where they do not overlap.
func rate(answers []answer) float64 {
	var from, to, begin, end time.Time
	for _, a := range answers {
		if from.IsZero() || a.first.After(from) {
			from = a.first
		}
		if to.IsZero() || a.last.Before(to) {
			to = a.last
		}
		if begin.IsZero() || a.first.Before(begin) {
			begin = a.first
		}
		if a.last.After(end) {
			end = a.last
		}
	}
	if !to.After(from) {
		from, to = begin, end
	}
	n := 0
	for _, a := range answers {
		for _, t := range a.at {
			if t.After(from) && !t.After(to) {
				n++
			}
		}
	}
	if n == 0 {
		return 0
	}
	return float64(n) / to.Sub(from).Seconds()
}

// text makes up tokens: the same for a seed.
func text(seed uint64, n, vocabulary int) []infer.TokenID {
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // text, no secret
	out := make([]infer.TokenID, n)
	for i := range out {
		out[i] = infer.TokenID(random.IntN(max(1, vocabulary)))
	}
	return out
}

// hostName is what a plan calls the processor.
const hostName = "CPU"

// weigh adds up buffers by device.
func (r *Result) weigh(all []llama.MemoryUse) {
	measured := Bytes(all)
	r.Devices = nil
	for _, d := range r.Plan.Devices {
		r.Devices = append(r.Devices, Device{d.Name, d.Bytes, measured[d.Name]})
		delete(measured, d.Name)
	}
	for name, b := range measured {
		r.Devices = append(r.Devices, Device{Name: name, Measured: b})
	}
}

// Bytes adds up buffers by device, in a plan's names: what lies in the host's memory is the
// processor's, whoever asked for it.
func Bytes(all []llama.MemoryUse) map[string]plan.Bytes {
	out := map[string]plan.Bytes{}
	for _, u := range all {
		name := u.Device
		if u.Host || name == "" {
			name = hostName
		}
		b := out[name]
		b.Weights += int64(u.Model)
		b.KV += int64(u.Context)
		b.Compute += int64(u.Compute)
		b.Output += int64(u.Output)
		out[name] = b
	}
	return out
}
