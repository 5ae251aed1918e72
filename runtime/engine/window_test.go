package engine_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// TestSmallWindow: a cache of the window only reuses a prefix that it still has, and computes
// again one that it has left behind; either way the answer is that of a cold run.
func TestSmallWindow(t *testing.T) {
	e := open(t, "gemma3:270m", func(o *engine.Options) {
		o.SmallWindow, o.ContextTokens = true, 2048
	})
	long := strings.Repeat("The cat sat on the warm mat and looked at the sea. ", 100)
	ask := func(prompt string, cold bool) (string, int) {
		text, f := answer(t, e, infer.Request{
			Prompt: prompt, MaxTokens: 6, KV: infer.KVPolicy{NoReuse: cold},
		})
		return text, f.Usage.Cached.Live
	}
	cold, n := ask(long+"Then", true)
	require.Zero(t, n)
	warm, n := ask(long+"Then", false)
	require.Positive(t, n, "the end of the prompt is inside the window")
	require.Equal(t, cold, warm)
	short := long[:len(long)/4]
	coldShort, _ := ask(short, true)
	_, _ = ask(long+"Then", true)
	warmShort, n := ask(short, false)
	require.Zero(t, n, "the window has moved on")
	require.Equal(t, coldShort, warmShort)
}

// TestSmallWindowOfNone: a model without windows takes the option and has nothing to save by it.
func TestSmallWindowOfNone(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.SmallWindow = true })
	_, f := answer(t, e, infer.Request{Prompt: "hello", MaxTokens: 2, IgnoreEOS: true})
	require.Equal(t, 2, f.Usage.CompletionTokens)
}
