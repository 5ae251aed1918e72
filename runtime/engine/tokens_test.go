package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
)

// TestCountTokens: the count is what Generate reports, tools included, and nothing is computed.
func TestCountTokens(t *testing.T) {
	e := openChat(t, "Qwen-Qwen2.5-7B-Instruct")
	for _, r := range []infer.Request{
		{Prompt: "hello"},
		{Tokens: []infer.TokenID{1, 2, 3}},
		{Messages: ask("How is it in Bern?")},
		{Messages: ask("How is it in Bern?"), Tools: []infer.Tool{weather}},
	} {
		r.MaxTokens = 1
		before, err := e.Stats(t.Context())
		require.NoError(t, err)
		n, err := e.CountTokens(t.Context(), r)
		require.NoError(t, err)
		after, err := e.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, before.Totals, after.Totals)
		_, chunks, err := collect(t.Context(), e, r)
		require.NoError(t, err)
		require.Equal(t, chunks[len(chunks)-1].Final.Usage.PromptTokens, n)
	}
	_, err := e.CountTokens(t.Context(), infer.Request{Tokens: make([]infer.TokenID, 5000)})
	require.ErrorIs(t, err, infer.KindTooLong)
	_, err = e.CountTokens(t.Context(), infer.Request{})
	require.ErrorIs(t, err, infer.KindInvalid)
}

// TestDetokenize gives a text back, and refuses what is no token.
func TestDetokenize(t *testing.T) {
	e := openTiny(t, nil)
	tokens, err := e.Tokenize(t.Context(), "hello wörld", infer.TokenizeOptions{})
	require.NoError(t, err)
	var ids []infer.TokenID
	var want []byte
	for _, token := range tokens {
		ids, want = append(ids, token.ID), append(want, token.Text...)
	}
	text, err := e.Detokenize(t.Context(), ids)
	require.NoError(t, err)
	require.Equal(t, want, text)
	for _, bad := range []infer.TokenID{-1, infer.TokenID(e.Info().Vocabulary)} {
		_, err := e.Detokenize(t.Context(), []infer.TokenID{bad})
		require.ErrorIs(t, err, infer.KindInvalid)
	}
	require.NoError(t, e.Close())
	_, err = e.Detokenize(t.Context(), ids)
	require.ErrorIs(t, err, infer.KindClosed)
	_, err = e.CountTokens(t.Context(), infer.Request{Prompt: "a"})
	require.ErrorIs(t, err, infer.KindClosed)
}
