package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/engine"
)

// TestConforms runs the conformance suite with both layouts of the cache.
func TestConforms(t *testing.T) {
	for name, shared := range map[string]bool{"streams": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			e := open(t, "smollm2:135m", func(o *engine.Options) {
				o.Sequences, o.Shared, o.ContextTokens = 4, shared, 1024
			})
			r := conform.Test(t, e, conform.Options{})
			require.True(t, r.Passed())
		})
	}
}
