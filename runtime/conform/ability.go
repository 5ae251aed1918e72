package conform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/norion/norion/runtime/infer"
)

// rounding is how far a sum of probabilities, or the length of a vector, may be from 1.
const rounding = 1e-3

// topLogprobs are the alternatives that checks ask for.
const topLogprobs = 5

func checkLogprobs(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	r := s.plain()
	r.Logprobs, r.TopLogprobs = true, topLogprobs
	a, err := s.ask(ctx, r, "logprobs", "top_logprobs")
	if err != nil {
		return err
	}
	if len(a.logprobs) != a.tokens {
		return fmt.Errorf("%d log-probabilities for %d tokens", len(a.logprobs), a.tokens)
	}
	for i := range a.logprobs {
		if err := checkLogprob(&a.logprobs[i]); err != nil {
			return fmt.Errorf("token %d: %w", i, err)
		}
	}
	if !strings.HasPrefix(spelled(a.logprobs), a.text) {
		return errors.New("the tokens do not spell the text")
	}
	return nil
}

// checkLogprob checks one token of a greedy answer.
func checkLogprob(l *infer.Logprob) error {
	switch {
	case !finite(float64(l.Logprob)) || l.Logprob > rounding:
		return fmt.Errorf("%v is no log-probability", l.Logprob)
	case len(l.Top) == 0 || len(l.Top) > topLogprobs:
		return fmt.Errorf("%d alternatives, %d were asked for", len(l.Top), topLogprobs)
	}
	sum, last := 0.0, math.Inf(1)
	for _, t := range l.Top {
		v := float64(t.Logprob)
		if math.IsNaN(v) || v > last {
			return errors.New("the alternatives are not ordered")
		}
		last = v
		sum += math.Exp(v)
	}
	switch {
	case sum > 1+rounding:
		return fmt.Errorf("the probabilities of alternatives add up to %v", sum)
	case math.Abs(float64(l.Logprob-l.Top[0].Logprob)) > rounding:
		return fmt.Errorf("greedy took one of %v, the first alternative has %v", l.Logprob,
			l.Top[0].Logprob)
	}
	return nil
}

// checkScore compares Score with the log-probabilities of an answer.
func checkScore(ctx context.Context, s *subject) error {
	if !s.info.Abilities.Score {
		_, err := s.Score(ctx, infer.ScoreRequest{Text: s.o.Prompt})
		return denied("score", err, infer.KindUnsupported)
	}
	r := s.plain()
	r.Logprobs = true
	a, err := s.ask(ctx, r, "logprobs")
	if err != nil {
		return err
	}
	got, err := s.Score(ctx, infer.ScoreRequest{Context: s.o.Prompt, Text: a.text})
	if err != nil {
		return err
	}
	sum, distance, n := 0.0, 0.0, 0
	for i, t := range got.Tokens {
		if !finite(float64(t.Logprob)) || t.Logprob > rounding {
			return fmt.Errorf("token %d: %v is no log-probability", i, t.Logprob)
		}
		sum += float64(t.Logprob)
		if n == i && i < len(a.logprobs) && a.logprobs[i].Token.ID == t.Token.ID {
			distance += math.Abs(float64(t.Logprob - a.logprobs[i].Logprob))
			n++
		}
	}
	switch {
	case math.Abs(sum-got.Sum) > rounding*float64(1+len(got.Tokens)):
		return fmt.Errorf("the sum is %v, the tokens give %v", got.Sum, sum)
	case n == 0:
		return errors.New("the text's first token is not the one that was generated")
	case !(distance/float64(n) <= s.o.ScoreDistance): // NaN fails
		return fmt.Errorf("%v nats from those of the answer on average, at most %v",
			distance/float64(n), s.o.ScoreDistance)
	}
	return nil
}

// checkTokenize splits texts and spells them again. A model may put one space before a text.
func checkTokenize(ctx context.Context, s *subject) error {
	for _, text := range []string{s.o.Prompt, "a b  c\n", s.o.Prompt + s.o.Prompt} {
		tokens, err := s.Tokenize(ctx, text, infer.TokenizeOptions{})
		if err != nil {
			return declared(err, "text")
		}
		var joined strings.Builder
		ids := make([]infer.TokenID, len(tokens))
		for i, t := range tokens {
			if t.ID < 0 || s.info.Vocabulary > 0 && int(t.ID) >= s.info.Vocabulary {
				return fmt.Errorf("token %d is outside the vocabulary", t.ID)
			}
			joined.Write(t.Text)
			ids[i] = t.ID
		}
		if got := joined.String(); got != text && got != " "+text {
			return fmt.Errorf("the tokens of a text of %d bytes spell another one", len(text))
		}
		d, ok := s.Backend.(infer.Detokenizer)
		if !ok {
			continue
		}
		back, err := d.Detokenize(ctx, ids)
		if err != nil {
			return declared(err, "tokens")
		}
		if got := string(back); got != text && got != " "+text {
			return fmt.Errorf("a text of %d bytes comes back as another one", len(text))
		}
	}
	return nil
}

func checkCount(ctx context.Context, s *subject) error {
	counter, ok := s.Backend.(infer.Counter)
	if !ok || !s.info.Abilities.Generate {
		return skip{"it does not implement infer.Counter, or does not generate"}
	}
	n, err := counter.CountTokens(ctx, s.plain())
	if err != nil {
		return declared(err, "prompt")
	}
	a, err := s.ask(ctx, s.plain())
	if err != nil {
		return err
	}
	if n != a.final.Usage.PromptTokens {
		return fmt.Errorf("it counts %d tokens, the request had %d", n, a.final.Usage.PromptTokens)
	}
	return nil
}

func checkEmbed(ctx context.Context, s *subject) error {
	texts := []string{"A cat sleeps.", "Prices rose in March.", "A cat sleeps."}
	all, err := s.Embed(ctx, texts)
	if !s.info.Abilities.Embed {
		return denied("embeddings", err, infer.KindUnsupported)
	}
	if err != nil {
		return err
	}
	if len(all) != len(texts) {
		return fmt.Errorf("%d vectors for %d texts", len(all), len(texts))
	}
	for i, v := range all {
		if len(v) != s.info.EmbeddingSize {
			return fmt.Errorf("vector %d has %d values, Info says %d", i, len(v), s.info.EmbeddingSize)
		}
		if length := math.Sqrt(dot(v, v)); !(math.Abs(length-1) <= rounding) { // NaN fails
			return fmt.Errorf("vector %d has length %v", i, length)
		}
	}
	switch {
	case dot(all[0], all[2]) < 1-rounding:
		return errors.New("one text has two vectors")
	case dot(all[0], all[1]) > 1-rounding*rounding:
		return errors.New("two texts have one vector")
	}
	return nil
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// turn is a conversation of one message.
func (s *subject) turn(text string) infer.Request {
	r := s.plain()
	r.Prompt, r.Messages = "", []infer.Message{{Role: infer.RoleUser, Content: text}}
	return r
}

func checkChat(ctx context.Context, s *subject) error {
	r := s.turn("Say hello.")
	if !s.info.Abilities.Chat {
		return denied("chat", s.lastError(ctx, r), infer.KindNoTemplate, infer.KindUnsupported)
	}
	a, err := s.ask(ctx, r)
	if err != nil {
		return err
	}
	if m := a.final.Answer; m.Content == "" && m.Reasoning == "" {
		return errors.New("the answer is empty")
	}
	return sameText("chunks and whole", a.text, a.final.Answer.Content)
}

// schemaTokens are enough for the object below.
const schemaTokens = 64

func checkSchema(ctx context.Context, s *subject) error {
	r := s.turn("Is water wet? Answer as JSON.")
	if !s.info.Abilities.Chat {
		r = s.plain()
	}
	r.MaxTokens = schemaTokens
	r.Constraint.Schema = json.RawMessage(`{"type":"object","properties":{"wet":{"type":"boolean"}},` +
		`"required":["wet"],"additionalProperties":false}`)
	if !s.info.Abilities.Grammar {
		return denied("constrained output", s.lastError(ctx, r), infer.KindUnsupported)
	}
	a, err := s.ask(ctx, r)
	if err != nil {
		return err
	}
	var got map[string]bool
	if err := json.Unmarshal([]byte(a.text), &got); err != nil {
		return fmt.Errorf("the answer does not obey the schema: %w", err)
	}
	if _, ok := got["wet"]; !ok || len(got) != 1 {
		return errors.New("the answer does not obey the schema: its names are others")
	}
	return nil
}

func checkTools(ctx context.Context, s *subject) error {
	r := s.turn("What is the weather in Rome?")
	r.MaxTokens = 4 * schemaTokens
	r.ToolChoice = infer.ToolRequired
	r.Tools = []infer.Tool{{
		Name: "weather", Description: "Tells the weather of a city.",
		Parameters: json.RawMessage(`{"type":"object","properties":{"city":{"enum":["Rome","Oslo"]}},` +
			`"required":["city"],"additionalProperties":false}`),
	}}
	if !s.info.Abilities.Tools {
		return denied("tools", s.lastError(ctx, r), infer.KindUnsupported, infer.KindNoTemplate)
	}
	a, err := s.ask(ctx, r)
	if err != nil {
		return err
	}
	calls := a.final.Answer.ToolCalls
	switch {
	case len(calls) == 0 || a.calls == 0:
		return errors.New("a call was required, and none came")
	case a.final.Reason != infer.FinishTools:
		return fmt.Errorf("an answer with calls ended for %q", a.final.Reason)
	}
	for _, c := range calls {
		if c.Name != "weather" || !json.Valid([]byte(c.Arguments)) {
			return fmt.Errorf("the call %q has unusable arguments or an unknown name", c.Name)
		}
	}
	return nil
}
