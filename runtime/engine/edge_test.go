package engine_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// TestE1BytesBeforeTokens: a text that cannot fit is refused by its bytes.
func TestE1BytesBeforeTokens(t *testing.T) {
	e := openTiny(t, nil)
	huge := strings.Repeat("word ", 1<<20)
	_, _, err := collect(t.Context(), e, infer.Request{Prompt: huge, MaxTokens: 1})
	tooLong := func(err error) {
		t.Helper()
		require.Equal(t, infer.KindTooLong, infer.KindOf(err), "%v", err)
		require.Contains(t, err.Error(), "bytes")
		require.NotEmpty(t, infer.HintOf(err))
	}
	tooLong(err)
	_, err = e.Score(t.Context(), infer.ScoreRequest{Context: huge, Text: "x"})
	tooLong(err)
	_, err = e.Embed(t.Context(), []string{"x", huge})
	tooLong(err)
	chat := openTiny(t, func(o *engine.Options) { o.Template = chatML })
	_, _, err = collect(t.Context(), chat, infer.Request{
		Messages: []infer.Message{{Role: infer.RoleUser, Content: huge}},
	})
	tooLong(err)
	_, _, err = collect(t.Context(), e, infer.Request{Tokens: make([]infer.TokenID, 1<<20)})
	require.Equal(t, infer.KindTooLong, infer.KindOf(err), "%v", err)
}

// TestE2OddText: no bytes that a caller sends reach the tokenizer unchecked, and what is text
// comes back as it was.
func TestE2OddText(t *testing.T) {
	e := openTiny(t, nil)
	for _, text := range []string{"\xff", "a\xc3", "\xed\xa0\x80"} {
		_, err := e.Tokenize(t.Context(), text, infer.TokenizeOptions{})
		require.Equal(t, infer.KindInvalid, infer.KindOf(err), "tokenize %q", text)
		_, err = e.Embed(t.Context(), []string{text})
		require.Equal(t, infer.KindInvalid, infer.KindOf(err), "embed %q", text)
		_, err = e.Score(t.Context(), infer.ScoreRequest{Text: text})
		require.Equal(t, infer.KindInvalid, infer.KindOf(err), "score %q", text)
		_, _, err = collect(t.Context(), e, infer.Request{Prompt: text})
		require.Equal(t, infer.KindInvalid, infer.KindOf(err), "generate %q", text)
	}
	for _, text := range []string{"a\x00b", "\u202eabc", "é😀\u0000", "<|im_end|></s>"} {
		tokens, err := e.Tokenize(t.Context(), text, infer.TokenizeOptions{})
		require.NoError(t, err)
		back := ""
		for _, tok := range tokens {
			back += string(tok.Text)
		}
		require.Equal(t, text, back)
	}
	tokens, err := e.Tokenize(t.Context(), "", infer.TokenizeOptions{})
	require.NoError(t, err)
	require.Empty(t, tokens)
}

// TestReuse: after any history the reused prefix gives what a cold run gives.
func TestReuse(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.MicroBatch, o.Batch = 16, 16 })
	d := rand.New(rand.NewPCG(7, 7))
	text := "the quick brown fox jumps over the lazy dog and then it runs away again and again"
	for i := range 150 {
		r := infer.Request{
			Prompt: text[d.IntN(3) : 10+d.IntN(len(text)-10)], MaxTokens: 1 + d.IntN(20),
			IgnoreEOS: true,
		}
		switch d.IntN(7) {
		case 0:
			_, err := e.Embed(t.Context(), []string{r.Prompt})
			require.NoError(t, err)
		case 1:
			_, err := e.Score(t.Context(), infer.ScoreRequest{Context: r.Prompt, Text: "fox"})
			require.NoError(t, err)
		case 2:
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Duration(d.IntN(2000))*time.Microsecond, cancel)
			_, _, _ = collect(ctx, e, r)
			cancel()
		case 3:
			bad := r
			bad.Constraint.Grammar = `root ::= "never closed" [\U0010FFFF]{3}`
			_, _, _ = collect(t.Context(), e, bad)
		case 4:
			bad := r
			bad.Deadline = time.Now().Add(time.Duration(d.IntN(1000)) * time.Microsecond)
			_, _, _ = collect(t.Context(), e, bad)
		case 5:
			for range e.Generate(t.Context(), r) {
				break
			}
		}
		warm, f := answer(t, e, r)
		require.Equal(t, infer.FinishLength, f.Reason)
		r.KV.NoReuse = true
		cold, _ := answer(t, e, r)
		require.Equal(t, cold, warm, "round %d", i)
	}
}

// TestE6DeadlineInPrefill: a deadline ends a long prompt's computation between two steps of it.
func TestE6DeadlineInPrefill(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.ContextTokens, o.MicroBatch = 2048, 1 })
	r := infer.Request{Prompt: strings.Repeat("long ", 400), MaxTokens: 1}
	r.Deadline = time.Now().Add(20 * time.Millisecond)
	_, chunks, err := collect(t.Context(), e, r)
	require.Equal(t, infer.KindDeadline, infer.KindOf(err), "%v", err)
	require.Empty(t, chunks)
	r.Deadline = time.Time{}
	warm, f := answer(t, e, r)
	require.Positive(t, f.Usage.Cached.Live, "what was computed is kept")
	r.KV.NoReuse = true
	cold, _ := answer(t, e, r)
	require.Equal(t, cold, warm)
}

func TestCauseOfCancel(t *testing.T) {
	e := openTiny(t, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client went away")
	cancel(gone)
	_, _, err := collect(ctx, e, endless())
	require.Equal(t, infer.KindCanceled, infer.KindOf(err))
	require.ErrorIs(t, err, gone)
	_, err = e.Score(ctx, infer.ScoreRequest{Text: "abc"})
	require.Equal(t, infer.KindCanceled, infer.KindOf(err))
	_, err = e.Embed(ctx, []string{"abc"})
	require.Equal(t, infer.KindCanceled, infer.KindOf(err))
	_, err = e.Tokenize(ctx, "abc", infer.TokenizeOptions{})
	require.Equal(t, infer.KindCanceled, infer.KindOf(err))
}

// TestSeedOfAllOnes: the one value with which llama.cpp draws a seed of its own.
func TestSeedOfAllOnes(t *testing.T) {
	e := openTiny(t, nil)
	r := infer.Request{Prompt: "abc", MaxTokens: 20, IgnoreEOS: true}
	r.Sampling = infer.Sampling{Temperature: 2, Seed: math.MaxUint32}
	first, f := answer(t, e, r)
	r.Sampling.Seed = f.Seed
	again, _ := answer(t, e, r)
	require.Equal(t, first, again, "the seed in Final repeats the answer")
}

// TestSmallBatch: one step may hold fewer tokens than Score and Embed would like.
func TestSmallBatch(t *testing.T) {
	text := strings.Repeat("abcdefg ", 12)
	wide := openTiny(t, nil)
	want, err := wide.Score(t.Context(), infer.ScoreRequest{Text: text})
	require.NoError(t, err)
	vectors, err := wide.Embed(t.Context(), []string{text})
	require.NoError(t, err)
	for _, n := range []int{1, 8, 31, 32, 33} {
		e := openTiny(t, func(o *engine.Options) { o.Batch = n })
		got, err := e.Score(t.Context(), infer.ScoreRequest{Text: text})
		require.NoError(t, err, "batch of %d", n)
		require.InDelta(t, want.Sum, got.Sum, 0.5)
		v, err := e.Embed(t.Context(), []string{text})
		require.NoError(t, err, "batch of %d", n)
		require.InDeltaSlice(t, vectors[0], v[0], 0.05)
		answer(t, e, infer.Request{Prompt: text, MaxTokens: 3, IgnoreEOS: true})
	}
}

// TestAnswers: whatever bytes a model says, the chunks are UTF-8 and add up to the answer, with
// held-back text, log-probabilities, control tokens, limits and stop texts.
func TestAnswers(t *testing.T) {
	e := openTiny(t, nil)
	for seed := range uint32(60) {
		r := infer.Request{
			Prompt: "x", MaxTokens: 1 + int(seed), SpecialText: seed%2 == 0,
			Logprobs: seed%3 == 0, IgnoreEOS: seed%5 == 0,
			Sampling: infer.Sampling{Temperature: 1.5, Seed: seed + 1},
		}
		if seed%4 == 0 {
			r.Stop = []string{"a", "\u00e9b", "zz"}
		}
		text, f := answer(t, e, r)
		require.True(t, utf8.ValidString(text))
		require.LessOrEqual(t, f.Usage.CompletionTokens, r.MaxTokens)
		_, chunks, err := collect(t.Context(), e, r)
		require.NoError(t, err)
		n := 0
		for i, c := range chunks {
			n += len(c.Logprobs)
			require.Equal(t, i == len(chunks)-1, c.Final != nil)
		}
		if r.Logprobs {
			require.Equal(t, f.Usage.CompletionTokens, n)
		}
		switch f.Reason {
		case infer.FinishLength:
			require.Equal(t, r.MaxTokens, f.Usage.CompletionTokens)
		case infer.FinishStop:
			require.False(t, r.IgnoreEOS && f.Stop == "")
		default:
			t.Fatal(f.Reason)
		}
		for _, s := range r.Stop {
			require.NotContains(t, text, s)
		}
	}
}

// TestG8NoEnd: where no end token is named, or none may be chosen, an answer ends at the limit,
// and a grammar ends its own.
func TestG8NoEnd(t *testing.T) {
	e := openFile(t, gguftest.TinyModel(1).Without("tokenizer.ggml.eos_token_id"), nil)
	_, final := answer(t, e, infer.Request{Prompt: "abc"})
	require.LessOrEqual(t, final.Usage.CompletionTokens, e.Info().ContextTokens)
	_, final = answer(t, e, infer.Request{Prompt: "abc", IgnoreEOS: true})
	require.Equal(t, infer.FinishLength, final.Reason)
	for _, ignore := range []bool{false, true} {
		r := infer.Request{Prompt: "abc", IgnoreEOS: ignore}
		r.Constraint.Grammar = `root ::= "yes"`
		text, final := answer(t, e, r)
		require.Equal(t, "yes", text)
		require.Equal(t, infer.FinishStop, final.Reason)
		warm, _ := answer(t, e, infer.Request{Prompt: "abcd", MaxTokens: 9})
		cold, _ := answer(t, e, infer.Request{
			Prompt: "abcd", MaxTokens: 9, KV: infer.KVPolicy{NoReuse: true},
		})
		require.Equal(t, cold, warm)
	}
}

// TestSplitModel: a model in several files is named by its first.
func TestSplitModel(t *testing.T) {
	whole := openTiny(t, nil)
	r := infer.Request{Prompt: "abc", MaxTokens: 20, IgnoreEOS: true}
	want, _ := answer(t, whole, r)
	dir := t.TempDir()
	var paths []string
	for i, shard := range gguftest.TinyModel(1).Split(3) {
		name := []string{"m-00001-of-00003", "m-00002-of-00003", "m-00003-of-00003"}[i]
		paths = append(paths, filepath.Join(dir, name+".gguf"))
		require.NoError(t, os.WriteFile(paths[i], shard.Bytes(), 0o600))
	}
	for _, named := range [][]string{paths[:1], paths} {
		e, err := engine.Open(t.Context(), engine.Options{
			Paths: named, Threads: 1, ContextTokens: 256,
		})
		require.NoError(t, err)
		got, _ := answer(t, e, r)
		require.Equal(t, want, got)
		require.NoError(t, e.Close())
	}
	for name, named := range map[string][]string{
		"not all":     paths[:2],
		"wrong order": {paths[0], paths[2], paths[1]},
	} {
		_, err := engine.Open(t.Context(), engine.Options{Paths: named, ContextTokens: 256})
		require.Equal(t, infer.KindInvalid, infer.KindOf(err), "%s: %v", name, err)
	}
	require.NoError(t, os.Remove(paths[1]))
	_, err := engine.Open(t.Context(), engine.Options{Paths: paths[:1]})
	require.Equal(t, infer.KindModel, infer.KindOf(err))
	require.NotEmpty(t, infer.HintOf(err))
}

// TestOpenRefusesSettings: settings that this model cannot have are named.
func TestOpenRefusesSettings(t *testing.T) {
	tiny, encoder := writeModel(t, gguftest.TinyModel(1)), writeModel(t, gguftest.TinyEncoder(1))
	garbage := filepath.Join(t.TempDir(), "lora.gguf")
	require.NoError(t, os.WriteFile(garbage, []byte("GGUF\x03\x00\x00\x00garbage"), 0o600))
	for name, c := range map[string]struct {
		o     engine.Options
		kind  infer.Kind
		field string
	}{
		"KV type for heads of 8": {
			engine.Options{Paths: []string{tiny}, KVType: "q8_0"}, infer.KindInvalid, "KV type",
		},
		"context beyond the table of positions": {
			engine.Options{Paths: []string{encoder}, ContextTokens: 65}, infer.KindInvalid, "context",
		},
		"adapter that is no GGUF": {
			engine.Options{Paths: []string{tiny}, Loras: []engine.Lora{{Path: garbage}}},
			infer.KindModel, "adapter",
		},
		"adapter that is a model": {
			engine.Options{Paths: []string{tiny}, Loras: []engine.Lora{{Path: tiny}}},
			infer.KindModel, "adapter",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := engine.Open(t.Context(), c.o)
			e, ok := errors.AsType[*infer.Error](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, c.kind, e.Kind, "%v", err)
			require.Equal(t, c.field, e.Field, "%v", err)
			require.NotEmpty(t, e.Hint)
		})
	}
}
