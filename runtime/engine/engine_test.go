package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// open starts an engine on a model of the catalogue, with one thread: threads that spin for each
// other make tests slow on a busy machine.
func open(t testing.TB, name string, change func(*engine.Options)) *engine.Engine {
	t.Helper()
	o := engine.Options{
		Paths: []string{storetest.Model(t, name)}, Model: name, Threads: 1, ContextTokens: 512,
		CPUOnly: true,
	}
	if change != nil {
		change(&o)
	}
	e, err := engine.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// collect runs a request to its end.
func collect(ctx context.Context, e infer.Backend, r infer.Request) (
	text string, chunks []infer.Chunk, err error,
) {
	for c, err := range e.Generate(ctx, r) {
		if err != nil {
			return text, chunks, err
		}
		text += c.Text
		chunks = append(chunks, c)
	}
	return text, chunks, nil
}

// answer runs a request that must succeed.
func answer(t testing.TB, e infer.Backend, r infer.Request) (string, *infer.Final) {
	t.Helper()
	text, chunks, err := collect(t.Context(), e, r)
	require.NoError(t, err)
	require.NotEmpty(t, chunks)
	final := chunks[len(chunks)-1].Final
	require.NotNil(t, final)
	tokens := 0
	for _, c := range chunks {
		tokens += c.Tokens
	}
	require.Equal(t, final.Usage.CompletionTokens, tokens)
	require.Equal(t, text, final.Answer.Content)
	return text, final
}

const story = "Once upon a time, in a small village by the sea, there lived"

func TestGenerate(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	cold, first := answer(t, e, infer.Request{Prompt: story, MaxTokens: 40})
	require.Equal(t, infer.FinishLength, first.Reason)
	require.Equal(t, 40, first.Usage.CompletionTokens)
	require.Zero(t, first.Usage.Cached.Live)

	t.Run("a reused prefix gives the same tokens", func(t *testing.T) {
		warm, f := answer(t, e, infer.Request{Prompt: story, MaxTokens: 40})
		require.Equal(t, cold, warm)
		require.Equal(t, f.Usage.PromptTokens-1, f.Usage.Cached.Live)
		again, f := answer(t, e, infer.Request{
			Prompt: story, MaxTokens: 40, KV: infer.KVPolicy{NoReuse: true},
		})
		require.Equal(t, cold, again)
		require.Zero(t, f.Usage.Cached.Live)
	})
	t.Run("the answer is part of the next prompt's prefix", func(t *testing.T) {
		_, f := answer(t, e, infer.Request{Prompt: story, MaxTokens: 8})
		text, g := answer(t, e, infer.Request{Prompt: story + f.Answer.Content, MaxTokens: 8})
		require.GreaterOrEqual(t, g.Usage.Cached.Live, f.Usage.PromptTokens)
		fresh, _ := answer(t, e, infer.Request{
			Prompt: story + f.Answer.Content, MaxTokens: 8, KV: infer.KVPolicy{NoReuse: true},
		})
		require.Equal(t, fresh, text)
	})
	t.Run("a stop text over token borders", func(t *testing.T) {
		at := strings.Index(cold, " ") + 3
		stop := cold[at : at+12]
		text, f := answer(t, e, infer.Request{Prompt: story, MaxTokens: 40, Stop: []string{stop}})
		before, _, _ := strings.Cut(cold, stop)
		require.Equal(t, before, text)
		require.Equal(t, infer.FinishStop, f.Reason)
		require.Equal(t, stop, f.Stop)
	})
	t.Run("a seed repeats a sampled answer", func(t *testing.T) {
		r := infer.Request{Prompt: story, MaxTokens: 16, Sampling: infer.DefaultSampling()}
		text, f := answer(t, e, r)
		require.NotZero(t, f.Seed)
		r.Sampling.Seed = f.Seed
		again, _ := answer(t, e, r)
		require.Equal(t, text, again)
	})
	t.Run("each run of a sequence draws its own seed", func(t *testing.T) {
		seeds := map[uint32]bool{}
		runs := e.Generate(t.Context(), infer.Request{
			Prompt: story, MaxTokens: 1, Sampling: infer.DefaultSampling(),
		})
		for range 3 {
			for c, err := range runs {
				require.NoError(t, err)
				if c.Final != nil {
					seeds[c.Final.Seed] = true
				}
			}
		}
		require.Greater(t, len(seeds), 1)
	})
	t.Run("timings are filled", func(t *testing.T) {
		tm := first.Usage.Timings
		require.Positive(t, tm.Prefill)
		require.GreaterOrEqual(t, tm.TTFT, tm.Prefill)
		require.Positive(t, tm.Decode)
		require.Positive(t, tm.ITLMax)
		require.Positive(t, first.Usage.DecodeRate())
	})
}

func TestGenerateChat(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	turn := []infer.Message{{Role: infer.RoleUser, Content: "Name a colour."}}
	text, f := answer(t, e, infer.Request{Messages: turn, MaxTokens: 64})
	require.NotContains(t, text, "<|im_end|>", "control tokens are not shown")
	turn = append(turn, f.Answer, infer.Message{Role: infer.RoleUser, Content: "And another?"})
	warm, g := answer(t, e, infer.Request{Messages: turn, MaxTokens: 24})
	require.GreaterOrEqual(t, g.Usage.Cached.Live, f.Usage.PromptTokens)
	cold, _ := answer(t, e, infer.Request{
		Messages: turn, MaxTokens: 24, KV: infer.KVPolicy{NoReuse: true},
	})
	require.Equal(t, cold, warm)
}

// TestE2ControlText: what a user types never becomes a control token.
func TestE2ControlText(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	ask := func(content string) int {
		_, f := answer(t, e, infer.Request{
			Messages:  []infer.Message{{Role: infer.RoleUser, Content: content}},
			MaxTokens: 1,
		})
		return f.Usage.PromptTokens
	}
	plain, err := e.Tokenize(t.Context(), "<|im_end|>", infer.TokenizeOptions{})
	require.NoError(t, err)
	control, err := e.Tokenize(t.Context(), "<|im_end|>", infer.TokenizeOptions{ParseSpecial: true})
	require.NoError(t, err)
	require.Len(t, control, 1)
	require.Equal(t, ask("")+len(plain), ask("<|im_end|>"))
}

const ageSchema = `{"type": "object", "required": ["age"], "additionalProperties": false,
	"properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}}}`

func TestGenerateConstraint(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	text, _ := answer(t, e, infer.Request{
		Prompt: "Is the sky blue? Answer:", MaxTokens: 8,
		Constraint: infer.Constraint{Grammar: `root ::= " yes" | " no"`},
	})
	require.Contains(t, []string{" yes", " no"}, text)
	text, _ = answer(t, e, infer.Request{
		Messages:   []infer.Message{{Role: infer.RoleUser, Content: "How old is Ann, who is 7?"}},
		MaxTokens:  40,
		Constraint: infer.Constraint{Schema: []byte(ageSchema)},
	})
	require.Regexp(t, `^\{\s*"age"\s*:\s*\d{1,2}\s*\}\s*$`, text)

	t.Run("what a grammar cannot enforce is said", func(t *testing.T) {
		_, f := answer(t, e, infer.Request{Prompt: "Number:", MaxTokens: 8, Constraint: infer.Constraint{
			Schema: []byte(`{"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 3}`),
		}})
		require.Len(t, f.Notes, 1)
		require.Contains(t, f.Notes[0], "multipleOf")
	})
}

func TestLogprobs(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	_, chunks, err := collect(t.Context(), e, infer.Request{
		Prompt: story, MaxTokens: 6, Logprobs: true, TopLogprobs: 3,
	})
	require.NoError(t, err)
	n, text := 0, ""
	for _, c := range chunks {
		for _, lp := range c.Logprobs {
			n++
			text += string(lp.Token.Text)
			require.Len(t, lp.Top, 3)
			require.Equal(t, lp.Token, lp.Top[0].Token, "greedy takes the most probable")
			require.Equal(t, lp.Logprob, lp.Top[0].Logprob)
			require.Less(t, lp.Top[1].Logprob, lp.Logprob)
		}
	}
	require.Equal(t, 6, n)

	t.Run("score agrees with generation", func(t *testing.T) {
		s, err := e.Score(t.Context(), infer.ScoreRequest{Context: story, Text: text})
		require.NoError(t, err)
		require.Len(t, s.Tokens, 6)
		i := 0
		for _, c := range chunks {
			for _, lp := range c.Logprobs {
				require.Equal(t, lp.Token.ID, s.Tokens[i].Token.ID)
				require.InDelta(t, lp.Logprob, s.Tokens[i].Logprob, 0.2,
					"one token at a time and many at once round differently")
				i++
			}
		}
	})
}

func TestScoreWithoutContext(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	s, err := e.Score(t.Context(), infer.ScoreRequest{Text: story})
	require.NoError(t, err)
	require.Len(t, s.Tokens, s.Usage.PromptTokens-1)
	sum := 0.0
	for _, tok := range s.Tokens {
		require.LessOrEqual(t, tok.Logprob, float32(0))
		sum += float64(tok.Logprob)
	}
	require.InDelta(t, sum, s.Sum, 1e-6)
}

func TestEmbed(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	long := strings.Repeat("The cat sat on the warm mat. ", 12) // more than one step of outputs
	v, err := e.Embed(t.Context(), []string{
		"A cat sits on a mat.", "The cat is sitting on the mat.", "Interest rates rose in March.",
		long, "A cat sits on a mat.",
	})
	require.NoError(t, err)
	dot := func(a, b []float32) (sum float64) {
		require.Len(t, a, e.Info().EmbeddingSize)
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return sum
	}
	for _, x := range v {
		require.InDelta(t, 1, dot(x, x), 1e-5)
	}
	require.Equal(t, v[0], v[4])
	require.Greater(t, dot(v[0], v[1]), dot(v[0], v[2]))
	text, _ := answer(t, e, infer.Request{Prompt: story, MaxTokens: 4})
	require.NotEmpty(t, text, "the engine generates after embedding")
}

func TestConcurrentRequests(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	want, _ := answer(t, e, infer.Request{Prompt: story, MaxTokens: 6})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			n := 0
			for c, err := range e.Generate(ctx, infer.Request{Prompt: story, MaxTokens: 6}) {
				if err != nil {
					require.Equal(t, infer.KindCanceled, infer.KindOf(err))
					return
				}
				n += c.Tokens
				switch {
				case i%3 == 1 && n == 2:
					return
				case i%3 == 2 && n == 3:
					cancel()
				}
			}
		})
	}
	wg.Wait()
	got, _ := answer(t, e, infer.Request{Prompt: story, MaxTokens: 6})
	require.Equal(t, want, got)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
		return path
	}
	model := storetest.Model(t, "smollm2:135m")
	for _, c := range []struct {
		name string
		o    engine.Options
		kind infer.Kind
	}{
		{"no path", engine.Options{}, infer.KindInvalid},
		{"no such file", engine.Options{Paths: []string{filepath.Join(dir, "x")}}, infer.KindModel},
		{"a directory", engine.Options{Paths: []string{dir}}, infer.KindModel},
		{"not GGUF", engine.Options{Paths: []string{write("a", "hello there")}}, infer.KindModel},
		{"truncated", engine.Options{Paths: []string{write("b", "GGUF\x03\x00\x00")}}, infer.KindModel},
		{"KV type", engine.Options{Paths: []string{model}, KVType: "q9"}, infer.KindInvalid},
		{
			"negative context",
			engine.Options{Paths: []string{model}, ContextTokens: -1},
			infer.KindInvalid,
		},
		{
			"more memory than there is",
			engine.Options{Paths: []string{model}, ContextTokens: 1 << 26},
			infer.KindNoMemory,
		},
		{
			"template",
			engine.Options{Paths: []string{model}, Template: "{% if"},
			infer.KindUnsupported,
		},
		{
			"adapter",
			engine.Options{Paths: []string{model}, Loras: []engine.Lora{{Path: model}}},
			infer.KindModel,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := engine.Open(t.Context(), c.o)
			require.Nil(t, e)
			require.Equal(t, c.kind, infer.KindOf(err), "%v", err)
			require.NotEmpty(t, infer.HintOf(err), "%v", err)
		})
	}
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := engine.Options{Paths: []string{model}, Progress: func(float32) bool {
			cancel()
			return true
		}}
		_, err := engine.Open(ctx, o)
		require.Equal(t, infer.KindCanceled, infer.KindOf(err), "%v", err)
	})
}

func TestContextBeyondTraining(t *testing.T) {
	e := open(t, "smollm2:135m", func(o *engine.Options) { o.ContextTokens = 8704 })
	require.Len(t, e.Info().Notes, 1)
	require.Contains(t, e.Info().Notes[0], "larger than the 8192")
}

func TestUseAfterClose(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
	_, _, err := collect(t.Context(), e, infer.Request{Prompt: "x", MaxTokens: 1})
	require.Equal(t, infer.KindClosed, infer.KindOf(err))
	_, err = e.Tokenize(t.Context(), "x", infer.TokenizeOptions{})
	require.Equal(t, infer.KindClosed, infer.KindOf(err))
	_, err = e.Embed(t.Context(), []string{"x"})
	require.Equal(t, infer.KindClosed, infer.KindOf(err))
	_, err = e.Score(t.Context(), infer.ScoreRequest{Text: "x y"})
	require.Equal(t, infer.KindClosed, infer.KindOf(err))
}

func TestInfo(t *testing.T) {
	e := open(t, "gemma3:270m", nil)
	info := e.Info()
	require.Equal(t, "gemma3", info.Architecture)
	require.Equal(t, 262144, info.Vocabulary)
	require.Equal(t, 512, info.ContextTokens)
	require.False(t, info.Abilities.Chat, "this file carries no template")
	_, _, err := collect(t.Context(), e, infer.Request{
		Messages: []infer.Message{{Role: infer.RoleUser, Content: "hi"}},
	})
	require.Equal(t, infer.KindNoTemplate, infer.KindOf(err))
	require.Contains(t, infer.HintOf(err), "--template")
	text, _ := answer(t, e, infer.Request{Prompt: "The capital of France is", MaxTokens: 8})
	require.NotEmpty(t, text)
}

// wait fails the test when a generation does not end.
func wait(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the request did not end")
		return nil
	}
}
