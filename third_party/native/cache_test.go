package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// signalWriter closes itself at the first write.
type signalWriter chan struct{}

func (w signalWriter) Write(p []byte) (int, error) {
	close(w)
	return len(p), nil
}

func TestLockWaits(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	unlock, err := lock(t.Context(), cache, "a", io.Discard)
	require.NoError(t, err)
	other, err := lock(t.Context(), cache, "b", io.Discard)
	require.NoError(t, err, "another name is another lock")
	other()

	waiting, got := make(signalWriter), make(chan error)
	go func() {
		unlock, err := lock(t.Context(), cache, "a", waiting)
		if err == nil {
			unlock()
		}
		got <- err
	}()
	<-waiting // it said that it waits
	unlock()
	require.NoError(t, <-got)
}

func TestLockStopsWhenCanceled(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	unlock, err := lock(t.Context(), cache, "a", io.Discard)
	require.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = lock(ctx, cache, "a", io.Discard)
	require.ErrorIs(t, err, context.Canceled)
}

func TestLockNeedsACache(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := lock(t.Context(), file, "a", io.Discard)
	require.ErrorIs(t, err, KindOption)
	require.ErrorContains(t, err, "NORION_CACHE")
}

func TestFillDirIsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	fill := func(name string, err error) error {
		return fillDir(dir, func(tmp string) error {
			plant(t, tmp, map[string]string{name: name})
			return err
		})
	}
	failed := errors.New("interrupted")
	require.ErrorIs(t, fill("a", failed), failed)
	require.NoDirExists(t, dir)
	plant(t, dir+".part-1", map[string]string{"left": "by a process that was killed"})
	require.NoError(t, fill("b", nil))
	require.ErrorIs(t, fill("c", failed), failed)
	require.FileExists(t, filepath.Join(dir, "b"))
	require.NoError(t, fill("d", nil))
	require.NoFileExists(t, filepath.Join(dir, "b"))
	entries, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left beside it")
}
