package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
)

// TestConforms runs the conformance suite on a model that chats, and on one with neither a template
// nor words.
func TestConforms(t *testing.T) {
	t.Run("smollm2", func(t *testing.T) {
		e := open(t, "smollm2:135m", func(o *engine.Options) { o.Sequences = 4 })
		r := conform.Test(t, e, conform.Options{})
		require.True(t, r.Passed())
	})
	t.Run("no template", func(t *testing.T) {
		e := openFile(t, gguftest.TinyModel(1), func(o *engine.Options) {
			o.Sequences, o.Template = 4, ""
		})
		r := conform.Test(t, e, conform.Options{})
		require.True(t, r.Passed())
	})
}
