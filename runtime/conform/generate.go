package conform

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/norion/norion/runtime/infer"
)

// checkInfo wants a backend that says what it is, and says the same again. It also learns whether
// prompts can be computed anew.
func checkInfo(ctx context.Context, s *subject) error {
	i := s.info
	switch {
	case i.Model == "":
		return errors.New("Model is empty")
	case i.Engine == "":
		return errors.New("Engine is empty")
	case i.ContextTokens < 0 || i.Vocabulary < 0 || i.EmbeddingSize < 0 || i.Sequences < 0 ||
		i.Parameters < 0 || i.Bytes < 0:
		return errors.New("a count is negative")
	case i.Abilities == (infer.Abilities{}):
		return errors.New("Abilities is empty")
	case i.Abilities.Tools && !i.Abilities.Chat:
		return errors.New("Abilities has tools without chat")
	case !reflect.DeepEqual(i, s.Info()):
		return errors.New("it changes from one call to the next")
	case !i.Abilities.Generate:
		return nil
	}
	e, _ := errors.AsType[*infer.Error](s.lastError(ctx, s.plain()))
	s.reuses = e != nil && e.Kind == infer.KindUnsupported && e.Field == "kv.no_reuse"
	return nil
}

// generates skips a check of generation for a backend that only embeds.
func (s *subject) generates(ctx context.Context) error {
	if s.info.Abilities.Generate {
		return nil
	}
	return denied("generation", s.lastError(ctx, s.plain()), infer.KindUnsupported)
}

func checkUsage(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	a, err := s.ask(ctx, s.plain())
	if err != nil {
		return err
	}
	u := a.final.Usage
	reused := u.Cached.Live + u.Cached.RAM + u.Cached.Disk
	switch {
	case a.tokens != u.CompletionTokens:
		return fmt.Errorf("chunks tell of %d tokens, usage of %d", a.tokens, u.CompletionTokens)
	case u.CompletionTokens < 1 || u.PromptTokens < 1:
		return fmt.Errorf("%d tokens of prompt, %d of answer", u.PromptTokens, u.CompletionTokens)
	case reused < 0 || reused > u.PromptTokens:
		return fmt.Errorf("%d of %d prompt tokens are cached", reused, u.PromptTokens)
	}
	again, err := s.ask(ctx, s.plain())
	if err != nil {
		return err
	}
	if again.final.Usage.PromptTokens != u.PromptTokens {
		return fmt.Errorf("the same prompt has %d tokens, and then %d", u.PromptTokens,
			again.final.Usage.PromptTokens)
	}
	return nil
}

func checkStream(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	a, err := s.ask(ctx, s.plain())
	if err != nil {
		return err
	}
	if a.final.Answer.Role != infer.RoleAssistant {
		return fmt.Errorf("the answer's role is %q", a.final.Answer.Role)
	}
	return sameText("chunks and whole", a.text, a.final.Answer.Content)
}

func checkMaxTokens(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	for _, n := range []int{1, s.o.Tokens} {
		r := s.plain()
		r.MaxTokens = n
		a, err := s.ask(ctx, r)
		if err != nil {
			return err
		}
		switch f := a.final; {
		case a.tokens > n:
			return fmt.Errorf("%d tokens, at most %d were asked for", a.tokens, n)
		case f.Reason == infer.FinishLength && a.tokens != n:
			return fmt.Errorf("it ended for its length at %d of %d tokens", a.tokens, n)
		case f.Reason != infer.FinishLength && f.Reason != infer.FinishStop:
			return fmt.Errorf("it ended for %q", f.Reason)
		}
	}
	return nil
}

// checkStop asks for an answer, and again with a part of its middle as stop text.
func checkStop(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	whole, err := s.ask(ctx, s.plain())
	if err != nil {
		return err
	}
	runes := []rune(whole.text)
	if len(runes) < 4 || !utf8.ValidString(whole.text) {
		return fmt.Errorf("an answer of %d characters is too short to stop in", len(runes))
	}
	from := len(runes) / 2
	stop := string(runes[from:min(from+4, len(runes))])
	r := s.plain()
	r.Stop = []string{"\x01never", stop}
	a, err := s.ask(ctx, r)
	if err != nil {
		return err
	}
	want, _, _ := strings.Cut(whole.text, stop)
	switch {
	case a.text != want:
		return fmt.Errorf("it does not end before the stop text: %d bytes, want %d", len(a.text),
			len(want))
	case a.final.Reason != infer.FinishStop:
		return fmt.Errorf("it ended for %q", a.final.Reason)
	case a.final.Stop != "" && a.final.Stop != stop:
		return fmt.Errorf("it names another stop text: %q", a.final.Stop)
	}
	return nil
}

func checkGreedy(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	first, err := s.ask(ctx, s.plain())
	for range 2 {
		if err != nil {
			return err
		}
		var again *answer
		if again, err = s.ask(ctx, s.plain()); err == nil {
			err = sameText("greedy", first.text, again.text)
		}
	}
	return err
}

// checkSeed wants equal answers for equal seeds, and for some seeds different ones.
func checkSeed(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	texts := map[string]bool{}
	for seed := uint32(1); seed <= 4; seed++ {
		r := s.plain()
		r.Sampling = infer.Sampling{Temperature: 2, Seed: seed}
		first, err := s.ask(ctx, r, "seed")
		if err != nil {
			return err
		}
		if first.final.Seed != seed {
			return fmt.Errorf("seed %d is reported as %d", seed, first.final.Seed)
		}
		again, err := s.ask(ctx, r)
		if err != nil {
			return err
		}
		if err := sameText(fmt.Sprintf("seed %d", seed), first.text, again.text); err != nil {
			return err
		}
		texts[first.text] = true
	}
	if len(texts) == 1 {
		return errors.New("four seeds at temperature 2 give one and the same answer")
	}
	return nil
}

// checkBreak leaves loops early: the backend must go on to serve.
func checkBreak(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	for range 2 * s.o.Parallel {
		for _, err := range s.Generate(ctx, s.long()) {
			if err != nil {
				return err
			}
			break
		}
	}
	_, err := s.ask(ctx, s.plain())
	return err
}

// late is how many tokens may still come once an answer was canceled.
const late = 16

func checkCancel(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	before, cancel := context.WithCancel(ctx)
	cancel()
	if err := fails(s.lastError(before, s.plain()), infer.KindCanceled); err != nil {
		return fmt.Errorf("canceled before: %w", err)
	}
	during, cancel := context.WithCancel(ctx)
	defer cancel()
	tokens, canceled := 0, false
	for c, err := range s.Generate(during, s.long()) {
		if err != nil {
			return fails(err, infer.KindCanceled)
		}
		if canceled {
			tokens += c.Tokens
		}
		cancel()
		canceled = true
	}
	if tokens > late {
		return fmt.Errorf("%d tokens came after it was canceled, at most %d may", tokens, late)
	}
	return nil
}

func checkDeadline(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	r := s.plain()
	r.Deadline = time.Now().Add(-time.Second)
	return fails(s.lastError(ctx, r), infer.KindDeadline)
}

func checkTooLong(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	if s.info.ContextTokens == 0 {
		return skip{"Info declares no context length"}
	}
	r := s.plain()
	r.Prompt = strings.Repeat("zebra ", s.info.ContextTokens+1)
	return fails(s.lastError(ctx, r), infer.KindTooLong)
}

// badField is a request that no backend may run, and the field at fault.
type badField struct {
	field  string
	change func(*infer.Request)
}

var badFields = []badField{
	{"prompt", func(r *infer.Request) { r.Prompt = "" }},
	{"prompt", func(r *infer.Request) { r.Tokens = []infer.TokenID{1} }},
	{"prompt", func(r *infer.Request) { r.Prompt = "a\xff" }},
	{"max_tokens", func(r *infer.Request) { r.MaxTokens = -1 }},
	{"max_tokens", func(r *infer.Request) { r.MaxTokens = math.MaxInt32 }},
	{"stop", func(r *infer.Request) { r.Stop = []string{""} }},
	{"top_logprobs", func(r *infer.Request) { r.TopLogprobs = 3 }},
	{"temperature", func(r *infer.Request) { r.Sampling.Temperature = -1 }},
	{"temperature", func(r *infer.Request) { r.Sampling.Temperature = float32(math.NaN()) }},
	{"top_p", func(r *infer.Request) { r.Sampling.TopP = 2 }},
	{"presence_penalty", func(r *infer.Request) {
		r.Sampling.PresencePenalty = float32(math.Inf(1))
	}},
	{"logit_bias", func(r *infer.Request) {
		r.Sampling.LogitBias = map[infer.TokenID]float32{-1: 1}
	}},
	{"messages[0].role", func(r *infer.Request) {
		r.Prompt, r.Messages = "", []infer.Message{{Role: "robot", Content: "hi"}}
	}},
}

func checkBadFields(ctx context.Context, s *subject) error {
	for _, b := range badFields {
		r := s.plain()
		b.change(&r)
		err := s.lastError(ctx, r)
		if wrong := fails(err, infer.KindInvalid); wrong != nil {
			return fmt.Errorf("%s: %w", b.field, wrong)
		}
		if e, _ := errors.AsType[*infer.Error](err); e.Field != b.field {
			return fmt.Errorf("the error names %q, not %q", e.Field, b.field)
		}
	}
	return nil
}

// checkParallel runs requests at once. With kv.deterministic each must answer as it does alone.
// Where that is refused, a batch of several may round otherwise and the texts may differ: then the
// answers must only be whole.
func checkParallel(ctx context.Context, s *subject) error {
	if err := s.generates(ctx); err != nil {
		return err
	}
	r := s.plain()
	r.KV.Deterministic = true
	alone, err := s.ask(ctx, r, "kv.deterministic")
	_, loose := errors.AsType[skip](err)
	if err != nil && !loose {
		return err
	}
	r.KV.Deterministic = !loose
	wrong := make([]error, s.o.Parallel)
	var all sync.WaitGroup
	for i := range wrong {
		all.Go(func() {
			a, err := s.ask(ctx, r)
			switch {
			case err != nil:
				wrong[i] = err
			case loose && a.text != a.final.Answer.Content:
				wrong[i] = errors.New("the chunks are not those of the answer")
			case !loose:
				wrong[i] = sameText("alone and beside others", alone.text, a.text)
			}
		})
	}
	all.Wait()
	return errors.Join(wrong...)
}
