package storetest_test

import (
	"os"
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
