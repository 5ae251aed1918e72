//go:build !cgo

package llama_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// TestMissing holds a build without cgo to its one answer.
func TestMissing(t *testing.T) {
	require.ErrorIs(t, llama.Start(nil), llama.Missing)
	_, err := llama.LoadModel(t.Context(), llama.ModelParams{Paths: []string{"model.gguf"}})
	require.ErrorIs(t, err, llama.Missing)
	_, err = llama.NewThreads(llama.ThreadsParams{N: 1})
	require.ErrorIs(t, err, llama.Missing)
	_, err = llama.NewDrafter(llama.DrafterParams{})
	require.ErrorIs(t, err, llama.Missing)
	_, _, _, err = llama.Version()
	require.ErrorIs(t, err, llama.Missing)
	_, err = llama.Devices()
	require.ErrorIs(t, err, llama.Missing)
	var typed *llama.Error
	require.ErrorAs(t, err, &typed)
	require.NotEmpty(t, typed.Hint)
}
