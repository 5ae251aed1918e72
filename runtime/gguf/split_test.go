package gguf

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

// writeShards writes the shards under their proper names and returns the paths.
func writeShards(t *testing.T, shards []gguftest.File) (paths []string, all []byte) {
	t.Helper()
	dir := t.TempDir()
	for i, s := range shards {
		path := filepath.Join(dir, "tiny"+splitSuffix(i, len(shards)))
		require.NoError(t, os.WriteFile(path, s.Bytes(), 0o600))
		paths, all = append(paths, path), append(all, s.Bytes()...)
	}
	return paths, all
}

func TestSplitModel(t *testing.T) {
	t.Parallel()
	paths, all := writeShards(t, gguftest.Model().Split(3))
	whole, err := read(gguftest.Model().Bytes())
	require.NoError(t, err)
	want, err := whole.Shape()
	require.NoError(t, err)
	for _, path := range paths { // any shard will do
		f, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, paths, f.Paths())
		require.Len(t, f.Files(), 3)
		require.Equal(t, int64(len(all)), f.Size())
		require.Equal(t, Split{No: 0, Count: 3, Tensors: 20}, f.Split())
		require.Len(t, f.Tensors(), 20)
		last, ok := f.Tensor("output_norm.weight")
		require.True(t, ok)
		require.Equal(t, 2, last.Shard)
		require.NoError(t, f.CheckModel())
		got, err := f.Shape()
		require.NoError(t, err)
		require.Equal(t, want, got)
		digest, err := f.Digest(context.Background(), nil)
		require.NoError(t, err)
		require.Equal(t, sha256Of(all), digest)
		require.NoError(t, f.Close())
		require.NoError(t, f.Close(), "closing twice is fine")
		require.Empty(t, f.Files())
	}
}

func TestSplitRefused(t *testing.T) {
	t.Parallel()
	shards := func() []gguftest.File { return gguftest.Model().Split(3) }
	for name, c := range map[string]struct {
		change func(s []gguftest.File) []gguftest.File
		names  string // the shard that the error must name
	}{
		"number of another": {func(s []gguftest.File) []gguftest.File {
			s[1] = s[1].With(pair(keySplitNo, uint16(2)))
			return s
		}, "tiny-00002-of-00003.gguf"},
		"count of another": {func(s []gguftest.File) []gguftest.File {
			s[2] = s[2].With(pair(keySplitCount, uint16(4)))
			return s
		}, "tiny-00003-of-00003.gguf"},
		"not a shard": {func(s []gguftest.File) []gguftest.File {
			s[2] = s[2].Without(keySplitNo, keySplitCount)
			return s
		}, "tiny-00003-of-00003.gguf"},
		"number type": {func(s []gguftest.File) []gguftest.File {
			s[1] = s[1].With(pair(keySplitNo, uint32(1))) // llama.cpp aborts on it
			return s
		}, "tiny-00002-of-00003.gguf"},
		"number too large": {func(s []gguftest.File) []gguftest.File {
			s[0] = s[0].With(pair(keySplitNo, uint16(3)))
			return s
		}, "tiny-00001-of-00003.gguf"},
		"tensor twice": {func(s []gguftest.File) []gguftest.File {
			s[1].Tensors = append(s[1].Tensors, gguftest.F32("token_embd.weight", 8))
			return s
		}, "tiny-00002-of-00003.gguf"},
		"tensor missing": {func(s []gguftest.File) []gguftest.File {
			s[2].Tensors = s[2].Tensors[1:]
			return s
		}, "tiny-00001-of-00003.gguf"},
		"no total": {func(s []gguftest.File) []gguftest.File {
			s[0] = s[0].Without(keySplitTensors)
			return s
		}, "tiny-00001-of-00003.gguf"},
	} {
		paths, _ := writeShards(t, c.change(shards()))
		_, err := Open(paths[0])
		require.ErrorIs(t, err, ErrSplit, name)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, c.names, filepath.Base(e.Path), name)
		require.NotEmpty(t, e.Hint, name)
	}
}

func TestSplitMissingAndBroken(t *testing.T) {
	t.Parallel()
	paths, _ := writeShards(t, gguftest.Model().Split(3))
	require.NoError(t, os.Truncate(paths[2], 40))
	_, err := Open(paths[0])
	require.ErrorIs(t, err, ErrTruncated)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, paths[2], e.Path)

	require.NoError(t, os.Remove(paths[1]))
	_, err = Open(paths[0])
	require.ErrorIs(t, err, ErrSplit)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorAs(t, err, &e)
	require.Equal(t, paths[1], e.Path)
	require.Contains(t, e.Hint, "shard 2 of 3")

	renamed := filepath.Join(t.TempDir(), "model.gguf")
	require.NoError(t, os.Rename(paths[0], renamed))
	_, err = Open(renamed)
	require.ErrorIs(t, err, ErrSplit)
	require.True(t, errors.As(err, &e) && e.Field == "file name")
}

func TestSplitLimits(t *testing.T) {
	t.Parallel()
	for count, kind := range map[int]error{ShardsMax: ErrSplit, ShardsMax + 1: ErrLimit} {
		path := filepath.Join(t.TempDir(), "tiny"+splitSuffix(0, count))
		f := gguftest.Model().Split(1)[0].With(pair(keySplitCount, uint16(count)))
		require.NoError(t, os.WriteFile(path, f.Bytes(), 0o600))
		_, err := Open(path)
		require.ErrorIs(t, err, kind, count) // at the limit only the other shards are missing
	}
	f, err := read(gguftest.Model().Split(1)[0].Bytes())
	require.NoError(t, err)
	require.Equal(t, 1, f.Split().Count)
}
