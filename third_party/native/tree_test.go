package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// plant writes files, named with slashes, below a directory.
func plant(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
}

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestTreeDigest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plant(t, dir, map[string]string{"b/z": "1", "b.h": "2", "a": "3", "other/x": "4"})
	want := hexSum(hexSum("3") + "  a\n" + hexSum("2") + "  b.h\n" + hexSum("1") + "  b/z\n")
	for _, paths := range [][]string{{"a", "b", "b.h"}, {"b.h", "b", "a"}, {"a", "a", "b", "b.h"}} {
		got, err := treeDigest(dir, paths)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := treeDigest(dir, []string{"a", "missing"})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestTreeDigestRefusesLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plant(t, dir, map[string]string{"a/x": "1"})
	require.NoError(t, os.Symlink("x", filepath.Join(dir, "a", "y")))
	_, err := treeDigest(dir, []string{"a"})
	require.ErrorContains(t, err, "not a regular file")
}

// TestTreeDigestSeesEverything: a change of any name or content changes the digest.
func TestTreeDigestSeesEverything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir() // a new one at each call
		name := rapid.StringMatching(`[a-z]{1,8}`)
		files := rapid.MapOfN(name, rapid.String(), 1, 5).Draw(rt, "files")
		digest := func() string {
			sum, err := treeDigest(dir, []string{"."})
			require.NoError(rt, err)
			return sum
		}
		plant(t, dir, files)
		before := digest()
		require.Equal(rt, before, digest())
		var names []string
		for n := range files {
			names = append(names, n)
		}
		victim := filepath.Join(dir, rapid.SampledFrom(names).Draw(rt, "victim"))
		if rapid.Bool().Draw(rt, "rename") {
			require.NoError(rt, os.Rename(victim, victim+".new"))
		} else {
			f, err := os.OpenFile(victim, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(rt, err)
			_, err = f.WriteString("x")
			require.NoError(rt, err)
			require.NoError(rt, f.Close())
		}
		require.NotEqual(rt, before, digest())
	})
}

func TestWriteFileLeavesEqualFilesAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "d", "f")
	require.NoError(t, writeFile(file, []byte("a"), 0o644))
	old := time.Unix(1_000_000_000, 0)
	require.NoError(t, os.Chtimes(file, old, old))
	require.NoError(t, writeFile(file, []byte("a"), 0o644))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.True(t, info.ModTime().Equal(old))
	require.NoError(t, writeFile(file, []byte("b"), 0o755))
	info, err = os.Stat(file)
	require.NoError(t, err)
	require.False(t, info.ModTime().Equal(old))
	require.Equal(t, os.FileMode(0o755), info.Mode())
	left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".new-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestSafeRelative(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "a/b.c": true, "..a": true,
		"": false, ".": false, "..": false, "../a": false, "a/../b": false, "/a": false,
		"a//b": false, "a/": false, `a\b`: false, "c:a": false, "a\x00": false,
	} {
		require.Equal(t, want, safeRelative(name), "%q", name)
	}
}
