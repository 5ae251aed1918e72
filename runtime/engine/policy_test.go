package engine_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// TestKeepSystem: however long the answer gets, the policies that keep the system prompt keep all
// of it, and the next conversation with the same one does not compute it again.
func TestKeepSystem(t *testing.T) {
	const plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
	system := "Answer in " + strings.Repeat("very ", 8) + "few words."
	e := openTiny(t, func(o *engine.Options) { o.ContextTokens, o.Template = 128, plain })
	for _, c := range []struct {
		evict string
		kept  int // tokens at least: one for each letter
	}{
		{"keep-system", len("system: " + system)},
		{"middle-out", len("system: " + system)},
		{"sink-window", 4},
	} {
		t.Run(c.evict, func(t *testing.T) {
			ask := func(text string, tokens int) *infer.Final {
				_, f := answer(t, e, infer.Request{
					Messages: []infer.Message{
						{Role: infer.RoleSystem, Content: system}, {Role: infer.RoleUser, Content: text},
					},
					MaxTokens: tokens, IgnoreEOS: true,
					KV: infer.KVPolicy{Evict: c.evict, Window: 100, Sinks: 4, Salt: c.evict},
				})
				return f
			}
			f := ask("Why?", 500)
			require.Equal(t, f.Usage.PromptTokens+499, f.Usage.Evicted+f.Usage.Cells)
			cached := ask("How so?", 1).Usage.Cached.Live
			require.GreaterOrEqual(t, cached, c.kept)
			require.Less(t, cached, c.kept+20)
		})
	}
}
