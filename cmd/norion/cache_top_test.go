package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/cmd/norion/top"
	"github.com/norion/norion/runtime/infer"
)

// nothing is what a backend shows that did nothing.
type nothing struct{}

func (nothing) Stats(context.Context) (infer.Stats, error) { return infer.Stats{}, nil }

// TestCacheTopIdle: while nothing runs, looking again does not open the disk again.
func TestCacheTopIdle(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	running := filepath.Join(home, "running")
	dir := filepath.Join(home, "cache")
	require.NoError(t, os.Mkdir(dir, 0o700))
	look := newApp(home, io.Discard, io.Discard).cacheLook(&cacheFlags{dir: dir}, running)
	idle, err := look()
	require.NoError(t, err)
	require.Contains(t, idle, "nothing runs")
	require.NoError(t, os.Remove(dir)) // to open it fails now
	again, err := look()
	require.NoError(t, err)
	require.Equal(t, idle, again)
	p, err := top.Publish(running, "m", nothing{})
	require.NoError(t, err)
	text, err := look()
	require.NoError(t, err)
	require.Contains(t, text, "PID")
	require.NoError(t, p.Close())
	_, err = look()
	require.ErrorContains(t, err, "no such file", "something has run: it is opened again")
}
