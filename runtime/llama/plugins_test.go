//go:build cgo && linux

package llama_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// foreignSource is a library that leaves a file where it is loaded.
const foreignSource = `#include <stdio.h>
__attribute__((constructor)) static void loaded(void) { fclose(fopen("loaded", "w")); }
`

// TestForeignPlugins: no library of the current directory is loaded, whatever its name.
func TestForeignPlugins(t *testing.T) {
	t.Parallel()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("there is no C compiler to make a library with")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "foreign.c")
	require.NoError(t, os.WriteFile(source, []byte(foreignSource), 0o600))
	for _, name := range []string{"libggml-blas.so", "libggml-vulkan-fast.so", "libggml-cpu-best.so"} {
		out, err := exec.CommandContext(
			t.Context(), cc, "-shared", "-fPIC", "-o", filepath.Join(dir, name), source).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	child(t, "foreign plug-ins", dir)
}

func foreignPlugins(args []string) error {
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	if err := llama.Start(nil); err != nil {
		return err
	}
	if _, err := os.Stat("loaded"); !errors.Is(err, os.ErrNotExist) {
		return errors.New("a library of the current directory was loaded")
	}
	return nil
}
