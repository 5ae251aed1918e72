package gguf

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func pair(key string, value any) gguftest.KV { return gguftest.KV{Key: key, Value: value} }

// modelWith is the small valid model with some pairs replaced.
func modelWith(t *testing.T, kvs ...gguftest.KV) *File {
	t.Helper()
	f, err := read(gguftest.Model().With(kvs...).Bytes())
	require.NoError(t, err)
	return f
}

func TestG8Refused(t *testing.T) {
	t.Parallel()
	tokens := make([]string, 16)
	for i := range tokens {
		tokens[i] = strings.Repeat("x", i+1)
	}
	twice := append([]string(nil), tokens...)
	twice[9] = twice[3]
	collides := append([]string(nil), tokens...)
	collides[5], collides[6] = "", "[EMPTY_5]" // llama.cpp gives an empty token this text
	for name, c := range map[string]struct {
		kv   gguftest.KV
		kind error
	}{
		"eos out of range":   {pair("tokenizer.ggml.eos_token_id", uint32(16)), ErrCorrupt},
		"bos out of range":   {pair("tokenizer.ggml.bos_token_id", uint32(1<<31)), ErrCorrupt},
		"eos negative":       {pair("tokenizer.ggml.eos_token_id", int32(-1)), ErrKeyType},
		"eos is text":        {pair("tokenizer.ggml.eos_token_id", "</s>"), ErrKeyType},
		"no tokens":          {pair(keyTokens, []string{}), ErrCorrupt},
		"tokens are numbers": {pair(keyTokens, []uint32{1, 2}), ErrKeyType},
		"token twice":        {pair(keyTokens, twice), ErrCorrupt},
		"empty token twice":  {pair(keyTokens, collides), ErrCorrupt},
		"too few scores":     {pair(keyScores, make([]float32, 15)), ErrCorrupt},
		"scores are text":    {pair(keyScores, tokens), ErrKeyType},
		"too few types":      {pair(keyTypes, make([]int32, 15)), ErrCorrupt},
		"types are unsigned": {pair(keyTypes, make([]uint32, 16)), ErrKeyType},
		"unknown tokenizer":  {pair(keyModel, "zip"), ErrCorrupt},
		"BPE without merges": {pair(keyModel, "gpt2"), ErrNoKey},
		"merges are numbers": {pair(keyMerges, []uint32{1}), ErrKeyType},
	} {
		f := modelWith(t, c.kv)
		_, err := f.Vocabulary()
		require.ErrorIs(t, err, c.kind, name)
		require.ErrorIs(t, f.CheckModel(), c.kind, name)
		s, err := f.Summary()
		require.NoError(t, err, name)
		require.False(t, s.Supported, name)
		require.NotEmpty(t, s.Problem, name)
	}
}

func TestG8Reported(t *testing.T) {
	t.Parallel()
	tokens := make([]string, 16)
	for i := range tokens {
		tokens[i] = strings.Repeat("x", i+1)
	}
	tokens[7], tokens[8], tokens[9], tokens[10] = "\xff\xfe", "a\xc3", "", "\xed\xa0\x80"
	f, err := read(gguftest.Model().Without("tokenizer.ggml.eos_token_id").With(
		pair(keyTokens, tokens),
		pair("tokenizer.ggml.padding_token_id", uint32(99)),
		pair(keyScores, make([]float32, 20)),
	).Bytes())
	require.NoError(t, err)
	v, err := f.Vocabulary()
	require.NoError(t, err)
	require.Equal(t, 16, v.Tokens)
	require.Equal(t, 3, v.InvalidUTF8)
	require.Equal(t, 1, v.Empty)
	require.Equal(t, 1, v.ByteTokens)
	require.Equal(t, 2, v.Control)
	require.Len(t, v.Notes, 3) // scores, padding, no end of sequence
	require.Equal(t, []SpecialToken{{"bos", 1, "xx"}, {"unk", 0, "x"}}, v.Special)
	require.NoError(t, f.CheckModel())
}

func TestNoVocabulary(t *testing.T) {
	t.Parallel()
	f, err := read(gguftest.Model().Without(keyTokens).With(
		pair(keyModel, "none"), pair("llama.vocab_size", uint32(77))).Bytes())
	require.NoError(t, err)
	require.NoError(t, f.CheckModel())
	s, err := f.Shape()
	require.NoError(t, err)
	require.Equal(t, 77, s.VocabularySize)
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	f := modelWith(t,
		pair("tokenizer.chat_template.tool_use", "{{ tools }}{{ message.tool_calls }}<think>"),
		pair("tokenizer.chat_template.rag", "{{ documents }}"))
	all, err := f.Templates()
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, []string{"", "tool_use", "rag"}, []string{all[0].Name, all[1].Name, all[2].Name})
	require.Empty(t, all[0].Mentions())
	require.Equal(t, []string{"tools", "tool calls", "reasoning"}, all[1].Mentions())

	_, err = modelWith(t, pair(keyTemplate, uint32(1))).Templates()
	require.ErrorIs(t, err, ErrKeyType)
}
