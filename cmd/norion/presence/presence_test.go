package presence

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func fixed(text string) Source {
	return func(context.Context) (figures, file []byte, err error) {
		return []byte(text), []byte(text), nil
	}
}

// living gives the files of living processes by name.
func living(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	bad, err := Read(dir, func(name string, file []byte) error {
		all[name] = string(file)
		return nil
	})
	require.NoError(t, err)
	require.Zero(t, bad)
	return all
}

// TestAsk: a process that listens is told once, and nothing of it stays.
func TestAsk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "running")
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		name := NewName()
		p, err := Publish(dir, name, fixed("a"), func() { asked.Add(1) })
		require.NoError(t, err)
		deaf, err := Publish(dir, NewName(), fixed("b"), nil)
		require.NoError(t, err)
		require.Equal(t, map[string]string{name: "a", deaf.name: "b"}, living(t, dir))
		_, err = Publish(dir, name, fixed("c"), nil)
		require.ErrorContains(t, err, "taken")
		require.NoError(t, Ask(dir, name))
		require.NoError(t, Ask(dir, deaf.name))
		require.Zero(t, asked.Load())
		time.Sleep(3 * Interval)
		synctest.Wait()
		require.EqualValues(t, 1, asked.Load())
		require.NoError(t, p.Close())
		require.NoError(t, deaf.Close())
	})
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
	require.Empty(t, living(t, filepath.Join(dir, "absent")))
}

// TestManyFiles: there is a bound on how much is read.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	for i := range FilesMax + 10 {
		name := filepath.Join(dir, "1-"+string(rune('a'+i/60%6))+strings.Repeat("0", 5)+
			string("0123456789"[i/10%10])+string("0123456789"[i%10])+".json")
		require.NoError(t, os.WriteFile(name, nil, 0o600))
	}
	before, err := os.ReadDir(dir)
	require.NoError(t, err)
	bad, err := Read(dir, func(string, []byte) error { return errors.New("read") })
	require.NoError(t, err)
	require.Zero(t, bad, "none lives")
	after, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, max(0, len(before)-FilesMax), len(after), "dead ones go, as many as are read")
}
