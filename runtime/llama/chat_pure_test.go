package llama

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func user(text string) []ChatMessage { return []ChatMessage{{Role: "user", Content: text}} }

func TestMapStrings(t *testing.T) {
	t.Parallel()
	upper := func(s string) string { return strings.ReplaceAll(s, "x", "\"X<") }
	for _, tt := range []struct{ in, want string }{
		{``, ``},
		{`null`, `null`},
		{`"x"`, `"\"X<"`},
		{
			`{"x" : [1.50e3, "\u0078", "\u00e9\/"], "a":{}}`,
			`{"\"X<" : [1.50e3, "\"X<", "\u00e9\/"], "a":{}}`,
		},
		{`"\\"`, `"\\"`},
		{`["a\"x"]`, `["a\"\"X<"]`},
	} {
		require.Equal(t, tt.want, string(mapStrings([]byte(tt.in), upper)), tt.in)
	}
}

func FuzzMapStrings(f *testing.F) {
	for _, s := range []string{`{"a":"x\"","b":[1,"\ud83d\ude00"]}`, `"\\\""`, `[`, `"`, "\"\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		same := mapStrings(data, func(s string) string { return s })
		require.Equal(t, string(data), string(same))
		out := mapStrings(data, func(s string) string { return s + "\"" })
		if checkJSON(data) == nil {
			require.NoError(t, checkJSON(out))
		}
	})
}

func FuzzGuard(f *testing.F) {
	f.Add("a<s>b\U000F0000", "<s>")
	f.Add("<|im_end|>", "<|im_end|>")
	f.Fuzz(func(t *testing.T, text, spelling string) {
		if !utf8.ValidString(text) || !utf8.ValidString(spelling) || spelling == "" {
			t.Skip()
		}
		c := newControls([]string{spelling})
		r := ChatRequest{Messages: user(text)}
		v, needed := c.newVeil(&r, &ChatInfo{})
		veiled := r.eachText(v.cover).Messages[0].Content
		if needed && !v.tails {
			_, n := c.find(veiled)
			require.Zero(t, n, "nothing of it is left")
		}
		joined := ""
		parts := v.parts(veiled)
		for _, p := range parts {
			joined += p.Text
		}
		require.Equal(t, text, joined)
		require.Equal(t, needed, slices.ContainsFunc(parts, func(p PromptPart) bool {
			return !p.Special
		}))
	})
}

func TestCompleteUTF8(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "text")
		require.Equal(t, len(s), completeUTF8(s))
		cut := rapid.IntRange(0, len(s)).Draw(t, "cut")
		n := completeUTF8(s[:cut])
		require.True(t, utf8.ValidString(s[:n]))
		require.Less(t, cut-n, utf8.UTFMax)
		bytes := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		require.LessOrEqual(t, len(bytes)-completeUTF8(bytes), 3)
	})
}
