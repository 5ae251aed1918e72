package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// writeModel writes a model file of a test.
func writeModel(t testing.TB, f gguftest.File) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	require.NoError(t, os.WriteFile(path, f.Bytes(), 0o600))
	return path
}

// openFile starts an engine on a model written by the test. It runs in milliseconds.
func openFile(t testing.TB, f gguftest.File, change func(*engine.Options)) *engine.Engine {
	t.Helper()
	o := engine.Options{Paths: []string{writeModel(t, f)}, Threads: 1, ContextTokens: 256}
	if change != nil {
		change(&o)
	}
	e, err := engine.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

func openTiny(t testing.TB, change func(*engine.Options)) *engine.Engine {
	t.Helper()
	return openFile(t, gguftest.TinyModel(1), change)
}

func TestTiny(t *testing.T) {
	e := openTiny(t, nil)
	require.Equal(t, gguftest.TinyVocabulary, e.Info().Vocabulary)
	text, f := answer(t, e, infer.Request{Prompt: "hello", MaxTokens: 50, IgnoreEOS: true})
	t.Logf("%q %+v", text, f)
	enc := openFile(t, gguftest.TinyEncoder(1), func(o *engine.Options) { o.ContextTokens = 0 })
	t.Logf("%+v", enc.Info())
	v, err := enc.Embed(t.Context(), []string{"abc", "abd", "xyz"})
	require.NoError(t, err)
	t.Log(v)
}
