package llama

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestReservedOutputs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, ContextTokensMax).Draw(t, "outputs")
		got := reservedOutputs(n)
		require.GreaterOrEqual(t, got, n)
		require.Less(t, got, n+16)
		require.Zero(t, got*4%64, "indices end within a cache line")
	})
}
