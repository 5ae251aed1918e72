//go:build unix

package worker_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
	"github.com/norion/norion/runtime/worker"
)

// tiny are options of a model that runs in milliseconds.
func tiny(t testing.TB) engine.Options {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	require.NoError(t, os.WriteFile(path, gguftest.TinyModel(1).Bytes(), 0o600))
	return engine.Options{
		Paths: []string{path}, Model: "real", Threads: 1, ContextTokens: 256, CPUOnly: true,
		Template: "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" +
			"{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
	}
}

// both opens a model in this process and in a child.
func both(t testing.TB, o engine.Options) (here *engine.Engine, there *worker.Worker) {
	t.Helper()
	here, err := engine.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, here.Close()) })
	there, err = worker.Open(context.Background(), worker.Options{Engine: o})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, there.Close()) })
	return here, there
}

// timeless takes out of chunks what differs from run to run.
func timeless(chunks []infer.Chunk) []infer.Chunk {
	for i := range chunks {
		if f := chunks[i].Final; f != nil {
			f.Usage.Timings = infer.Timings{}
		}
	}
	return chunks
}

// TestR7Same: the same chunks, scores, vectors, tokens and errors, in a child or not.
func TestR7Same(t *testing.T) {
	t.Parallel()
	here, there := both(t, tiny(t))
	info := there.Info()
	info.Notes = here.Info().Notes
	require.Equal(t, here.Info(), info)
	say := []infer.Message{{Role: infer.RoleUser, Content: "hello"}}
	for name, r := range map[string]infer.Request{
		"greedy":      {Prompt: "hello", MaxTokens: 40},
		"sampled":     {Prompt: "hello", MaxTokens: 40, Sampling: infer.DefaultSampling()},
		"chat":        {Messages: say, MaxTokens: 20},
		"logprobs":    {Prompt: "abc", MaxTokens: 8, Logprobs: true, TopLogprobs: 3},
		"schema":      {Prompt: "x", MaxTokens: 60, Constraint: infer.Constraint{Schema: boolean}},
		"tokens":      {Tokens: []infer.TokenID{5, 6, 7}, MaxTokens: 5},
		"evicting":    {Prompt: "abc", MaxTokens: 300, KV: infer.KVPolicy{Evict: "middle-out"}},
		"invalid":     {Prompt: "x", MaxTokens: -1},
		"too long":    {Tokens: make([]infer.TokenID, 999)},
		"no adapter":  {Prompt: "x", Adapters: []infer.Adapter{{Name: "none"}}},
		"bad grammar": {Prompt: "x", Constraint: infer.Constraint{Grammar: "root ::= ("}},
	} {
		r.KV.NoReuse, r.Sampling.Seed = true, 7
		text, chunks, err := collect(t.Context(), here, r)
		gotText, got, gotErr := collect(t.Context(), there, r)
		sameError(t, err, gotErr)
		require.Equal(t, text, gotText, name)
		require.Equal(t, timeless(chunks), timeless(got), name)
		n, err := here.CountTokens(t.Context(), r)
		m, gotErr := there.CountTokens(t.Context(), r)
		sameError(t, err, gotErr)
		require.Equal(t, n, m, name)
	}
	ask := infer.ScoreRequest{Context: "ab", Text: "cdef", TopLogprobs: 2}
	scores, err := here.Score(t.Context(), ask)
	require.NoError(t, err)
	gotScores, err := there.Score(t.Context(), ask)
	require.NoError(t, err)
	scores.Usage.Timings, gotScores.Usage.Timings = infer.Timings{}, infer.Timings{}
	require.Equal(t, scores, gotScores)
	vectors, err := here.Embed(t.Context(), []string{"abc", "xyz"})
	require.NoError(t, err)
	gotVectors, err := there.Embed(t.Context(), []string{"abc", "xyz"})
	require.NoError(t, err)
	require.Equal(t, vectors, gotVectors)
	tokens, err := here.Tokenize(t.Context(), "caf\u00e9", infer.TokenizeOptions{AddSpecial: true})
	require.NoError(t, err)
	gotTokens, err := there.Tokenize(t.Context(), "caf\u00e9", infer.TokenizeOptions{AddSpecial: true})
	require.NoError(t, err)
	require.Equal(t, tokens, gotTokens)
	bytes, err := there.Detokenize(t.Context(), []infer.TokenID{tokens[4].ID})
	require.NoError(t, err)
	require.Equal(t, tokens[4].Text, bytes)
	stats, err := there.Stats(t.Context())
	require.NoError(t, err)
	require.Positive(t, stats.Totals.Answered)
}

var boolean = json.RawMessage(`{"type": "boolean"}`)

// sameError compares errors by what crosses the wire.
func sameError(t *testing.T, want, got error) {
	t.Helper()
	require.Equal(t, infer.KindOf(want), infer.KindOf(got))
	require.Equal(t, infer.HintOf(want), infer.HintOf(got))
	if want != nil {
		require.Equal(t, want.Error(), got.Error())
	}
}

// TestRealErrors: what the engine refuses to load, it refuses in a child, too; a confined child can
// keep prefixes on disk.
func TestRealErrors(t *testing.T) {
	t.Parallel()
	o := tiny(t)
	o.Paths = []string{filepath.Join(t.TempDir(), "none.gguf")}
	_, want := engine.Open(t.Context(), o)
	_, got := worker.Open(t.Context(), worker.Options{Engine: o})
	require.Error(t, want)
	sameError(t, want, got)

	o = tiny(t)
	o.CacheDir, o.Sequences = filepath.Join(t.TempDir(), "cache"), 2
	for _, kept := range []int{0, 1} {
		w, err := worker.Open(t.Context(), worker.Options{Engine: o})
		require.NoError(t, err)
		for _, n := range w.Info().Notes {
			require.NotContains(t, n, "disk", "it could not use its directory")
		}
		_, chunks, err := collect(t.Context(), w, infer.Request{
			Prompt: "a prefix that is long enough to be kept: ", MaxTokens: 2,
		})
		require.NoError(t, err)
		cached := chunks[len(chunks)-1].Final.Usage.Cached
		require.Equal(t, kept == 1, cached.Disk > 0, "%+v", cached)
		require.NoError(t, w.Close())
	}
}

// TestR7SmolLM2: a real model streams the same text from a child.
func TestR7SmolLM2(t *testing.T) {
	o := engine.Options{
		Paths: []string{storetest.Model(t, "smollm2:135m")}, Model: "real", Threads: 1,
		ContextTokens: 256, CPUOnly: true,
	}
	here, there := both(t, o)
	r := infer.Request{
		Messages:  []infer.Message{{Role: infer.RoleUser, Content: "Name a colour."}},
		MaxTokens: 24, Sampling: infer.Sampling{Seed: 7},
	}
	_, want, err := collect(t.Context(), here, r)
	require.NoError(t, err)
	_, got, err := collect(t.Context(), there, r)
	require.NoError(t, err)
	require.Equal(t, timeless(want), timeless(got))
}

// BenchmarkHop compares answers from this process with those from a child: the time to the first
// token of a short prompt, and that of a token.
func BenchmarkHop(b *testing.B) {
	here, there := both(b, tiny(b))
	for name, m := range map[string]infer.Backend{"in-process": here, "worker": there} {
		run := func(b *testing.B, tokens int) {
			r := infer.Request{Prompt: "a", MaxTokens: tokens, IgnoreEOS: true, Logprobs: true}
			for b.Loop() {
				if _, _, err := collect(b.Context(), m, r); err != nil {
					b.Fatal(err)
				}
			}
			perToken := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(tokens)
			b.ReportMetric(perToken, "ns/token")
		}
		b.Run(name+"/first", func(b *testing.B) { run(b, 1) })
		b.Run(name+"/200", func(b *testing.B) { run(b, 200) })
	}
}
