package storetest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store/storetest"
)

func TestModelIsAFile(t *testing.T) {
	for _, name := range []string{"smollm2:135m", "gemma3:270m"} {
		fi, err := os.Stat(storetest.Model(t, name))
		require.NoError(t, err)
		require.True(t, fi.Mode().IsRegular())
		again := storetest.Model(t, name)
		require.Equal(t, storetest.Model(t, name), again)
	}
}

func TestObeyModes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	t.Run("alone", func(t *testing.T) {
		storetest.ObeyModes(t)
		_, err := os.ReadFile(path)
		require.NoError(t, err, "the owner may read")
		require.NoError(t, os.Chmod(path, 0))
		_, err = os.ReadFile(path)
		require.ErrorIs(t, err, fs.ErrPermission)
	})
	if os.Geteuid() == 0 {
		_, err := os.ReadFile(path)
		require.NoError(t, err, "other goroutines keep their power")
	}
}
