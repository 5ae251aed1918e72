package gguf

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

func TestG2TruncatedHeader(t *testing.T) {
	b := gguftest.Model().Bytes()
	header := gguftest.Model().HeaderBytes()
	for n := range header {
		_, err := read(b[:n])
		if n < 4 {
			require.ErrorIs(t, err, ErrNotGGUF, n)
		} else {
			require.ErrorIs(t, err, ErrTruncated, n)
		}
		var e *Error
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Field, n)
		require.LessOrEqual(t, e.Offset, int64(n))
	}
}

func TestG2TruncatedData(t *testing.T) {
	b := gguftest.Model().Bytes()
	f, err := read(b)
	require.NoError(t, err)
	all := f.Tensors()
	last := all[len(all)-1]
	header, end := int64(gguftest.Model().HeaderBytes()), last.Offset+last.Bytes
	const seed = 2
	random := rand.New(rand.NewPCG(seed, seed))
	for range 1000 {
		n := header + random.Int64N(end-header)
		e := refusal(t, b[:n], ErrTruncated, "data")
		require.Contains(t, e.Field, "tensor", "seed %d", seed)
	}
	_, err = read(b[:end])
	require.NoError(t, err, "padding after the last tensor may be absent, as llama.cpp reads it")
}

// extremes are the values that counts and lengths are set to.
var extremes = [...]uint64{
	0, 1, 1 << 31, 1<<31 - 1, 1 << 32, 1<<32 - 1, 1 << 61, 1 << 63, 1<<63 - 1,
	math.MaxUint64 - 1, math.MaxUint64,
}

func TestG3Counts(t *testing.T) {
	u64 := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	kv := func(typ uint32, b ...[]byte) []byte {
		return fileOf(pair("k", gguftest.Raw{Type: typ, Bytes: bytes.Join(b, nil)})).Bytes()
	}
	array := func(elem byte, n uint64) []byte { return kv(9, []byte{elem, 0, 0, 0}, u64(n)) }
	fields := map[string]struct {
		legal []uint64 // all other values must be refused
		build func(v uint64) []byte
	}{
		"tensor count": {[]uint64{0}, func(v uint64) []byte {
			return gguftest.File{TensorCount: &v}.Bytes()
		}},
		"key count": {[]uint64{0}, func(v uint64) []byte {
			return gguftest.File{KVCount: &v}.Bytes()
		}},
		"key length":   {nil, func(v uint64) []byte { return withKV(nil, v) }},
		"string":       {[]uint64{0}, func(v uint64) []byte { return kv(8, u64(v)) }},
		"u8 array":     {[]uint64{0}, func(v uint64) []byte { return array(0, v) }},
		"u64 array":    {[]uint64{0}, func(v uint64) []byte { return array(10, v) }},
		"string array": {[]uint64{0}, func(v uint64) []byte { return array(8, v) }},
		"dimension": {[]uint64{0, 1}, func(v uint64) []byte {
			return tensorsOf(gguftest.Tensor{Name: "t", Type: 24, Dims: []uint64{v}, Size: 1}).Bytes()
		}},
		"offset": {[]uint64{0}, func(v uint64) []byte {
			x := gguftest.F32("t", 8)
			x.Offset = &v
			return tensorsOf(x).Bytes()
		}},
	}
	for name, field := range fields {
		for _, v := range extremes {
			b, legal := field.build(v), false
			for _, l := range field.legal {
				legal = legal || l == v
			}
			var err error
			used := allocated(func() { _, err = read(b) })
			require.Equal(t, legal, err == nil, "%s = %d: %v", name, v, err)
			require.LessOrEqual(t, used, uint64(allocationMax), "%s = %d", name, v)
		}
	}
}

func TestG3Products(t *testing.T) {
	t.Parallel()
	for _, dims := range [][]uint64{
		{1 << 32, 1 << 32},   // wraps to 0
		{1 << 32, 1<<32 + 1}, // wraps to 2^32
		{1 << 16, 1 << 16, 1 << 16, 1 << 16},
		{1 << 62, 4},
		{3, 6148914691236517206}, // wraps to 2
		{math.MaxInt64, 2},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64},
		{0, math.MaxInt64, math.MaxInt64}, // no elements, yet refused: other code multiplies too
	} {
		for _, typ := range []TensorType{F32, I8, I64} {
			x := gguftest.Tensor{Name: "t", Type: int32(typ), Dims: dims, Size: 64}
			requireRefused(t, tensorsOf(x).Bytes(), ErrCorrupt, `tensor "t"`)
		}
	}
}

func TestG4Overlap(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]uint64{
		"overlap": 0, "inside": 4, "gap": 64, "beyond": 1 << 40,
	} {
		x := gguftest.F32("b", 8)
		x.Offset = &off
		b := tensorsOf(gguftest.F32("a", 8), x).Bytes()
		e := refusal(t, b, ErrCorrupt, `tensor "b" offset`)
		require.NotEmpty(t, e.Hint, name)
	}
}

func TestG4BeyondFile(t *testing.T) {
	t.Parallel()
	x := gguftest.Tensor{Name: "t", Dims: []uint64{1 << 20}, Size: 32}
	requireRefused(t, tensorsOf(x).Bytes(), ErrTruncated, `tensor "t" data`)
}

func TestG4Types(t *testing.T) {
	t.Parallel()
	for typ := int32(-2); typ < 64; typ++ {
		x := gguftest.Tensor{Name: "t", Type: typ, Dims: []uint64{256}, Size: 256 * 8}
		_, err := read(tensorsOf(x).Bytes())
		switch typ {
		case 4, 5, 31, 32, 33, 36, 37, 38: // removed: their block is zero
			require.ErrorIs(t, err, ErrCorrupt, typ)
		default:
			require.Equal(t, typ >= 0 && typ < 43, err == nil, "type %d: %v", typ, err)
		}
	}
	for _, typ := range []int32{math.MinInt32, math.MaxInt32} {
		x := gguftest.Tensor{Name: "t", Type: typ, Dims: []uint64{256}, Size: 2048}
		requireRefused(t, tensorsOf(x).Bytes(), ErrCorrupt, `tensor "t" type`)
	}
}

func TestG5Depth(t *testing.T) {
	t.Parallel()
	level := append([]byte{9, 0, 0, 0}, 1, 0, 0, 0, 0, 0, 0, 0)
	deep := gguftest.Raw{Type: 9, Bytes: bytes.Repeat(level, 10_000)}
	requireRefused(t, fileOf(pair("k", deep)).Bytes(), ErrLimit, `key "k" element type`)
}

// sparse is a file of which only the first bytes are not zero; it counts what is read.
type sparse struct {
	head []byte
	read int
}

func (s *sparse) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(s.head)) {
		copy(b, s.head[off:])
	}
	s.read += len(b)
	return len(b), nil
}

func TestG5Counts(t *testing.T) {
	for name, head := range map[string][]byte{
		"10 million keys": gguftest.File{KVCount: gguftest.Uint64(10_000_000)}.Bytes(),
		"1 GiB string": fileOf(gguftest.KV{Key: "k", Value: gguftest.Raw{
			Type: 8, Bytes: binary.LittleEndian.AppendUint64(nil, 1<<30),
		}}).Bytes(),
		"1 GiB array": fileOf(gguftest.KV{Key: "k", Value: gguftest.Raw{
			Type: 9, Bytes: binary.LittleEndian.AppendUint64([]byte{0, 0, 0, 0}, 1<<30),
		}}).Bytes(),
	} {
		s := &sparse{head: head} // the bytes are all there: only the limits can refuse
		var err error
		used := allocated(func() { _, err = Read(s, 1<<40) })
		require.ErrorIs(t, err, ErrLimit, name)
		require.LessOrEqual(t, s.read, readBufferBytes, name)
		require.LessOrEqual(t, used, uint64(allocationMax), name)
	}
}

func TestG6Archives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	_, err := gz.Write(make([]byte, 16<<20)) // a small bomb
	require.NoError(t, err)
	require.NoError(t, gz.Close())
	var archive bytes.Buffer
	zw := zip.NewWriter(&archive)
	w, err := zw.Create("../escaped.gguf")
	require.NoError(t, err)
	_, err = w.Write(gguftest.Model().Bytes())
	require.NoError(t, err)
	require.NoError(t, zw.Close())

	for name, b := range map[string][]byte{
		"gzip": packed.Bytes(), "zip": archive.Bytes(),
		"git lfs":     []byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
		"web page":    []byte("<!DOCTYPE html><html>"),
		"safetensors": append([]byte{64, 0, 0, 0, 0, 0, 0, 0}, `{"a":{}}`...),
	} {
		path := filepath.Join(dir, "model.gguf")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		_, err := Open(path)
		require.ErrorIs(t, err, ErrNotGGUF, name)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, e.Hint, "this ", name)
		there, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, there, 1, "%s was unpacked", name)
	}
}

// writeModel puts a valid model into a directory of its own.
func writeModel(t *testing.T) (path string, b []byte) {
	t.Helper()
	path, b = filepath.Join(t.TempDir(), "model.gguf"), gguftest.Model().Bytes()
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return path, b
}

func TestG7Changes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, path string, b []byte){
		"shrinks": func(t *testing.T, path string, b []byte) {
			require.NoError(t, os.Truncate(path, int64(len(b)-1)))
		},
		"emptied": func(t *testing.T, path string, _ []byte) { require.NoError(t, os.Truncate(path, 0)) },
		"grows": func(t *testing.T, path string, b []byte) {
			require.NoError(t, os.WriteFile(path, append(b, 0), 0o600))
		},
		"written": func(t *testing.T, path string, _ []byte) {
			later := time.Unix(2e9, 0)
			require.NoError(t, os.Chtimes(path, later, later))
		},
		"swapped": func(t *testing.T, path string, b []byte) {
			require.NoError(t, os.WriteFile(path+".new", b, 0o600))
			require.NoError(t, os.Rename(path+".new", path))
		},
		"removed": func(t *testing.T, path string, _ []byte) { require.NoError(t, os.Remove(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, b := writeModel(t)
			f, err := Open(path)
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			require.NoError(t, f.CheckUnchanged())
			change(t, path, b)
			require.ErrorIs(t, f.CheckUnchanged(), ErrChanged)
			_, err = f.Digest(context.Background(), nil)
			require.ErrorIs(t, err, ErrChanged)
		})
	}
}

func TestG7MetadataAfterShrink(t *testing.T) {
	t.Parallel()
	path, _ := writeModel(t)
	f, err := Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	require.NoError(t, os.Truncate(path, 16))
	_, err = f.String("general.name")
	require.ErrorIs(t, err, ErrChanged)
	_, err = f.Strings(keyTokens)
	require.Error(t, err)
	_, err = f.Summary()
	require.Error(t, err)
}

func TestDigest(t *testing.T) {
	t.Parallel()
	path, b := writeModel(t)
	f, err := Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	var last, total int64
	got, err := f.Digest(context.Background(), func(d, n int64) { last, total = d, n })
	require.NoError(t, err)
	require.Equal(t, sha256Of(b), got)
	require.Equal(t, int64(len(b)), last)
	require.Equal(t, int64(len(b)), total)
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, b, again, "reading changes nothing")

	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = f.Digest(cancelled, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "absent.gguf"))
	require.ErrorIs(t, err, ErrIO)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(dir)
	require.ErrorIs(t, err, ErrIO)
	require.ErrorContains(t, err, "directory")
	empty := filepath.Join(dir, "empty.gguf")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	_, err = Open(empty)
	require.ErrorIs(t, err, ErrNotGGUF)
}
