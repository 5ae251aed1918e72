//go:build cgo && linux && !asan

package llama_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// TestLoadReadHuge: weights that are read lie in buffers that the system was asked to keep in huge
// pages, and the model computes what a mapped one computes.
func TestLoadReadHuge(t *testing.T) {
	logits := map[llama.LoadMode][]float32{}
	for _, mode := range []llama.LoadMode{llama.LoadMap, llama.LoadRead} {
		before := llama.HugeBytes()
		m, err := llama.LoadModel(t.Context(), llama.ModelParams{
			Paths: []string{storedPath(t, smol)}, CPUOnly: true, Load: mode,
		})
		require.NoError(t, err)
		if mode == llama.LoadRead {
			require.Greater(t, llama.HugeBytes()-before, uint64(m.Info().Bytes)*9/10)
		}
		c, err := m.NewContext(llama.ContextParams{Tokens: 256, Threads: 1})
		require.NoError(t, err)
		place, err := c.Batch().Add(1, 0, 0, true)
		require.NoError(t, err)
		require.NoError(t, c.Decode())
		row, err := c.Logits(place)
		require.NoError(t, err)
		logits[mode] = slices.Clone(row)
		require.NoError(t, c.Close())
		require.NoError(t, m.Close())
	}
	require.Equal(t, logits[llama.LoadMap], logits[llama.LoadRead])
}
