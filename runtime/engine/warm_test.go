package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestWarm: after it, a context is as new: empty, and with the same logits for the same token.
func TestWarm(t *testing.T) {
	m, err := llama.LoadModel(t.Context(), llama.ModelParams{
		Paths: []string{storetest.Model(t, "smollm2:135m")}, CPUOnly: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	rows := make([][]float32, 2)
	for i := range rows {
		c, err := m.NewContext(llama.ContextParams{Tokens: 256, Threads: 1})
		require.NoError(t, err)
		if i == 1 {
			require.NoError(t, warm(c))
		}
		require.EqualValues(t, -1, c.PosMax(0))
		require.Zero(t, c.Batch().Len())
		place, err := c.Batch().Add(5, 0, 0, true)
		require.NoError(t, err)
		require.NoError(t, c.Decode())
		row, err := c.Logits(place)
		require.NoError(t, err)
		rows[i] = append(rows[i], row...)
		require.NoError(t, c.Close())
	}
	require.Equal(t, rows[0], rows[1])
}
