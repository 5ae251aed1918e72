package gguf

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRealFiles opens the files named in NORION_GGUF_FILES (separated like PATH): each must pass
// unless it is a vocabulary without weights, which must be refused as that.
func TestRealFiles(t *testing.T) {
	paths := filepathList(os.Getenv("NORION_GGUF_FILES"))
	if len(paths) == 0 {
		t.Skip("NORION_GGUF_FILES names no files")
	}
	for _, path := range paths {
		f, err := Open(path)
		require.NoError(t, err, path)
		s, err := f.Summary()
		require.NoError(t, err, path)
		_, err = s.WriteTo(testWriter{t})
		require.NoError(t, err)
		if f.Kind() == KindVocabulary {
			require.ErrorIs(t, f.CheckModel(), ErrNotModel)
			_, err = f.Vocabulary()
			require.NoError(t, err, path)
		} else {
			require.NoError(t, f.CheckModel(), path)
		}
		_, err = f.Digest(context.Background(), nil)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

func filepathList(s string) []string {
	return slices.DeleteFunc(filepath.SplitList(s), func(p string) bool { return p == "" })
}

// testWriter sends lines to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("\n%s", b)
	return len(b), nil
}
