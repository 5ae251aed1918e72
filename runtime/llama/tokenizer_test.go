//go:build cgo

package llama_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/llama"
)

// texts are every width of UTF-8, at and beside its borders, and what tokenisers treat specially.
var texts = []string{
	"", " ", "  ", "\n", "\t\r\n", "a", " a", "a ", "  two  spaces  ", "\x00", "a\x00b",
	"\u007f\u0080\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff",
	"é", "e\u0301", "ﬀ", "日本語", "한국어", "العربية", "עברית", "हिन्दी", "ไทย", "👩‍👩‍👧‍👦🏳️‍🌈", "𝒳𝒴𝒵",
	"<|im_start|>", "<bos>", "</s>", "<0x41>", "▁", "▁▁a", "don't I'LL 12345 1,234.5e-6",
	"func main() {\n\tfmt.Println(\"hi\")\n}\n", strings.Repeat("ab ", 2000),
	strings.Repeat("🙂", 300),
}

// spell is the bytes of tokens, one after the other: what a stream shows.
func spell(t require.TestingT, m *llama.Model, tokens []llama.Token, special bool) string {
	var b []byte
	for _, token := range tokens {
		var err error
		b, err = m.AppendPiece(b, token, special)
		require.NoError(t, err)
	}
	return string(b)
}

// spelled is the bytes that a vocabulary can spell alone. A byte-level vocabulary may lack some
// control characters; upstream leaves those out.
func spelled(t require.TestingT, m *llama.Model) (known [256]bool) {
	for token := range llama.Token(m.Info().Vocabulary) {
		piece, err := m.AppendPiece(nil, token, true)
		require.NoError(t, err)
		if len(piece) == 1 {
			known[piece[0]] = true
		}
	}
	return known
}

// lossless says that the pieces of a text are the text, less the bytes that have no token. A
// vocabulary of the SentencePiece kind writes a space as U+2581, and so cannot tell the two apart.
func lossless(t require.TestingT, m *llama.Model, known [256]bool, text string) {
	var want []byte
	read := text
	if kind, _ := m.Meta("tokenizer.ggml.model"); kind == "llama" {
		read = strings.ReplaceAll(text, "\u2581", " ")
	}
	for _, b := range []byte(read) {
		if known[b] {
			want = append(want, b)
		}
	}
	tokens, err := m.Tokenize(text, false, false)
	require.NoError(t, err)
	require.Equal(t, string(want), spell(t, m, tokens, true), "by pieces: %v", tokens)
	whole, err := m.Detokenize(tokens, false, true)
	require.NoError(t, err)
	require.Equal(t, string(want), whole, "whole: %v", tokens)
	for _, token := range tokens {
		require.Less(t, int(token), m.Info().Vocabulary)
	}
}

func TestTokenizeIsLossless(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		m := model(t, name)
		known := spelled(t, m)
		for b := range 0xf1 {
			usual := b >= ' ' && b != 0x7f && b != 0xc0 && b != 0xc1 || b == '\n' || b == '\t'
			require.True(t, known[b] || !usual, "no token for the byte %#x", b)
		}
		for _, text := range texts {
			lossless(t, m, known, text)
		}
		rapid.Check(t, func(rt *rapid.T) { lossless(rt, m, known, rapid.String().Draw(rt, "text")) })
	}
}

// TestTokenizeSpecial adds what the model expects around a text, and takes it away again.
func TestTokenizeSpecial(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		m := model(t, name)
		plain, err := m.Tokenize("Hello", false, false)
		require.NoError(t, err)
		full, err := m.Tokenize("Hello", true, false)
		require.NoError(t, err)
		if m.Info().AddBOS {
			require.Equal(t, append([]llama.Token{m.Info().BOS}, plain...), full)
		} else {
			require.Equal(t, plain, full)
		}
		text, err := m.Detokenize(full, true, false)
		require.NoError(t, err)
		require.Equal(t, "Hello", text)
		spelling := string(must(m.AppendPiece(nil, m.Info().EOT, true)))
		require.NotEmpty(t, spelling)
		require.Empty(t, must(m.AppendPiece(nil, m.Info().EOT, false)))
		require.Equal(t, []llama.Token{m.Info().EOT}, must(m.Tokenize(spelling, false, true)))
		require.Greater(t, len(must(m.Tokenize(spelling, false, false))), 1, "text is not control")
		require.True(t, m.EOG(m.Info().EOT))
		require.NotZero(t, m.Attr(m.Info().EOT)&llama.AttrControl)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestTokenizeInvalidUTF8 has a replacement character for each run of what is not UTF-8.
func TestTokenizeInvalidUTF8(t *testing.T) {
	bad := []string{
		"\xff", "a\x80b", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xed\xa0\x80",
		"\xc0\xaf", "\xf5\x90\x90\x90", "\xf4\x90\x80\x80", "<\xff|im_start|\xff>",
	}
	for _, name := range []string{smol, gemma} {
		m := model(t, name)
		for _, text := range bad {
			tokens, err := m.Tokenize(text, false, false)
			require.NoError(t, err, "%q", text)
			require.Equal(t, strings.ToValidUTF8(text, "\ufffd"), spell(t, m, tokens, true))
		}
	}
}

// TestG8TokenOutOfRange has a vocabulary asked for what it does not hold.
func TestG8TokenOutOfRange(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		m := model(t, name)
		n := llama.Token(m.Info().Vocabulary)
		for _, token := range []llama.Token{-1, n, n + 1, 1 << 30, -1 << 31} {
			got, err := m.AppendPiece([]byte("kept"), token, true)
			requireCode(t, llama.Invalid, err)
			require.Equal(t, "kept", string(got))
			_, err = m.Detokenize([]llama.Token{1, token}, false, false)
			requireCode(t, llama.Invalid, err)
			require.False(t, m.EOG(token))
			require.Zero(t, m.Attr(token))
		}
		for token := range n { // every piece is bounded, though not every one is UTF-8
			piece, err := m.AppendPiece(nil, token, true)
			require.NoError(t, err)
			require.Less(t, len(piece), 1024)
		}
	}
}

// TestG8VocabularyOnly tokenises without weights, and refuses the rest.
func TestG8VocabularyOnly(t *testing.T) {
	m := load(t, llama.ModelParams{
		Paths: []string{storedPath(t, smol)}, VocabularyOnly: true,
	})
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	require.Equal(t, tokenize(t, model(t, smol), passage), tokenize(t, m, passage))
	_, err := m.NewContext(small())
	requireCode(t, llama.Unsupported, err)
	_, err = m.LoadLora(tinyLora(t))
	requireCode(t, llama.Unsupported, err)
	newSampler(t, m, llama.DefaultSampler())
}

func FuzzTokenize(f *testing.F) {
	m := load(f, llama.ModelParams{Paths: []string{storedPath(f, smol)}, VocabularyOnly: true})
	f.Cleanup(func() { require.NoError(f, m.Close()) })
	known := spelled(f, m)
	for _, text := range texts {
		f.Add(text, true)
	}
	f.Add("\xff\xfe<|im_start|>", false)
	f.Fuzz(func(t *testing.T, text string, special bool) {
		tokens, err := m.Tokenize(text, true, special)
		require.NoError(t, err)
		out, err := m.Detokenize(tokens, false, true)
		require.NoError(t, err)
		require.LessOrEqual(t, len(out), 3*len(text)+64)
		if !special {
			lossless(t, m, known, strings.ToValidUTF8(text, "\ufffd"))
		}
	})
}
