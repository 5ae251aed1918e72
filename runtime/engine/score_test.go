package engine_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// TestScoreUsage: what of a scored text was computed and what was there already is counted, by
// where it lay. Nobody asks what follows the last token, so that is never computed.
func TestScoreUsage(t *testing.T) {
	for _, shared := range []bool{false, true} {
		o := engine.Options{
			Paths:    []string{writeModel(t, gguftest.TinyModel(1))},
			CacheDir: t.TempDir() + "/cache", Shared: shared,
		}
		e := start(t, o)
		context, text := strings.Repeat("many words ", 8), "and the end"
		prompt, tokens := len(context), 1+len(context)+len(text) // BOS, and a token for each byte
		score := func() infer.Usage {
			s, err := e.Score(t.Context(), infer.ScoreRequest{Context: context, Text: text})
			require.NoError(t, err)
			require.Len(t, s.Tokens, len(text))
			require.Equal(t, tokens, s.Usage.PromptTokens)
			return s.Usage
		}
		check := func(want infer.Cached) {
			t.Helper()
			u := score()
			require.Equal(t, want, u.Cached)
			require.Equal(t, tokens-1-want.Live-want.RAM-want.Disk, u.Computed)
		}
		check(infer.Cached{})
		check(infer.Cached{Live: prompt})
		answer(t, e, infer.Request{Tokens: someTokens(1, 50), MaxTokens: 1})
		check(infer.Cached{RAM: prompt})
		require.NoError(t, e.Close())
		e = start(t, o)
		check(infer.Cached{Disk: prompt})
	}
}

// TestEmbedKeepsApart: Embed computes whole texts, whatever is there of them, and leaves nothing
// of its own; what it takes the sequence from is found in memory again.
func TestEmbedKeepsApart(t *testing.T) {
	text := strings.Repeat("many words ", 8)
	want, err := openTiny(t, nil).Embed(t.Context(), []string{text})
	require.NoError(t, err)
	for _, shared := range []bool{false, true} {
		e := start(t, engine.Options{RAM: 1 << 20, Shared: shared})
		r := infer.Request{Prompt: text, MaxTokens: 1}
		for _, before := range []infer.Cached{{}, {RAM: len(text)}} {
			got, err := e.Embed(t.Context(), []string{text})
			require.NoError(t, err)
			require.Equal(t, want, got)
			_, f := answer(t, e, r)
			require.Equal(t, before, f.Usage.Cached)
		}
		busy, promised, problem := e.Books()
		require.NoError(t, problem)
		require.Zero(t, busy+promised)
	}
}
