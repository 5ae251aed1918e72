package gguf

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

// allocationMax is what reading a small hostile file may allocate in all.
const allocationMax = 1 << 20

func read(b []byte) (*File, error) { return Read(bytes.NewReader(b), int64(len(b))) }

// fileOf is a file with these pairs and no tensors.
func fileOf(kvs ...gguftest.KV) gguftest.File { return gguftest.File{KVs: kvs} }

// tensorsOf is a file with these tensors.
func tensorsOf(ts ...gguftest.Tensor) gguftest.File { return gguftest.File{Tensors: ts} }

// requireRefused checks that b is refused with that kind and field, and a sane offset.
func requireRefused(t *testing.T, b []byte, kind error, field string) {
	t.Helper()
	require.NotNil(t, refusal(t, b, kind, field))
}

// refusal is requireRefused for a test that looks further.
func refusal(t *testing.T, b []byte, kind error, field string) *Error {
	t.Helper()
	_, err := read(b)
	require.ErrorIs(t, err, kind)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Field, field, e)
	require.LessOrEqual(t, e.Offset, int64(len(b)), e)
	require.NotContains(t, e.Error(), "\x00")
	return e
}

// allocated returns the bytes that do allocates. Parallel tests are paused meanwhile.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// a hand-made file that must be refused.
type handmade struct {
	name  string
	file  gguftest.File
	bytes []byte // used instead of file when set
	kind  error
	field string
}

func (h handmade) encode() []byte {
	if h.bytes != nil {
		return h.bytes
	}
	return h.file.Bytes()
}

// handmadeFiles are the fault classes of llama.cpp's own test, and those it does not have.
func handmadeFiles() []handmade {
	const max64 = ^uint64(0)
	u32 := func(v uint32) gguftest.KV { return gguftest.KV{Key: "general.alignment", Value: v} }
	big := func(ty int32, dims ...uint64) gguftest.File {
		return tensorsOf(gguftest.Tensor{Name: "t", Type: ty, Dims: dims, Size: 32})
	}
	at := func(off uint64) gguftest.File {
		x := gguftest.F32("t", 8)
		x.Offset = &off
		return tensorsOf(x)
	}
	f, one := gguftest.File{}, gguftest.F32("my_tensor", 8)
	long := strings.Repeat("n", 64)
	return []handmade{
		{"bad magic", gguftest.File{Magic: "FUGG"}, nil, ErrNotGGUF, "header magic"},
		{"version 1", gguftest.File{Version: 1}, nil, ErrVersion, "header version"},
		{"version future", gguftest.File{Version: 4}, nil, ErrVersion, "header version"},
		{"version big-endian", gguftest.File{Version: 3 << 24}, nil, ErrVersion, "header version"},
		{"version 0", f, append([]byte("GGUF"), make([]byte, 20)...), ErrVersion, "header version"},
		{
			"tensor count",
			gguftest.File{TensorCount: gguftest.Uint64(max64)},
			nil, ErrLimit,
			"header tensor count",
		},
		{"key count", gguftest.File{KVCount: gguftest.Uint64(max64)}, nil, ErrLimit, "header key count"},
		{"key size", f, withKV(gguftest.Text(nil, "")[:0], max64), ErrLimit, "key 0 name"},
		{"empty key", fileOf(gguftest.KV{Key: "", Value: "text"}), nil, ErrCorrupt, "key 0 name"},
		{"NUL in key", fileOf(gguftest.KV{Key: "a\x00b", Value: true}), nil, ErrCorrupt, "name"},
		{
			"value type", fileOf(gguftest.KV{Key: "k", Value: gguftest.Raw{Type: 13, Bytes: []byte{0}}}),
			nil, ErrCorrupt, `key "k" type`,
		},
		{"element type", fileOf(gguftest.KV{Key: "k", Value: gguftest.Raw{
			Type: 9, Bytes: append([]byte{13, 0, 0, 0}, make([]byte, 8)...),
		}}), nil, ErrCorrupt, `key "k" element type`},
		{
			"duplicate key", fileOf(gguftest.KV{Key: "k", Value: true}, gguftest.KV{Key: "k", Value: false}),
			nil, ErrCorrupt, `key "k" name`,
		},
		{"alignment 13", fileOf(u32(13)), nil, ErrCorrupt, "general.alignment"},
		{"alignment 0", fileOf(u32(0)), nil, ErrCorrupt, "general.alignment"},
		{
			"alignment type", fileOf(gguftest.KV{Key: "general.alignment", Value: int32(32)}), nil,
			ErrCorrupt, "general.alignment",
		},
		{"tensor name size", tensorsOf(gguftest.F32(long, 8)), nil, ErrLimit, "tensor 0 name"},
		{"NUL in tensor name", tensorsOf(gguftest.F32("a\x00b", 8)), nil, ErrCorrupt, "name"},
		{"dimension count", big(0, 1, 1, 1, 1, 1), nil, ErrCorrupt, `tensor "t" dimension count`},
		{"negative dimension", big(0, max64), nil, ErrCorrupt, `tensor "t" dimensions`},
		{"too many elements", big(0, 4<<31, 4<<31), nil, ErrCorrupt, `tensor "t" dimensions`},
		{"too many bytes", big(27, 1<<31, 1<<31), nil, ErrCorrupt, `tensor "t" type`},
		{"padding wraps", big(0, 4, 1<<30-1, 1<<30+1), nil, ErrCorrupt, `tensor "t" type`},
		{"sum overflows", tensorsOf(
			gguftest.Tensor{Name: "a", Type: 24, Dims: []uint64{1<<63 - 64}},
			gguftest.Tensor{Name: "b", Type: 24, Dims: []uint64{1<<63 - 64}}), nil, ErrCorrupt, `"a" type`},
		{"tensor type", big(43, 8), nil, ErrCorrupt, `tensor "t" type`},
		{"row and block", big(2, 33), nil, ErrCorrupt, `tensor "t" type`},
		{"offset", at(max64), nil, ErrCorrupt, `tensor "t" offset`},
		{"duplicate tensor", tensorsOf(one, one), nil, ErrCorrupt, `tensor "my_tensor" name`},
		{"inconsistent alignment", gguftest.File{Alignment: 1, Tensors: []gguftest.Tensor{
			gguftest.F32("a", 9), gguftest.F32("b", 32),
		}}, nil, ErrCorrupt, `tensor "b" offset`},
		{"not enough data", f, cut(tensorsOf(one).Bytes(), 1), ErrTruncated, `tensor "my_tensor" data`},
	}
}

// withKV is a header that promises one key whose name has length n, then body.
func withKV(body []byte, n uint64) []byte {
	b := gguftest.File{KVCount: gguftest.Uint64(1)}.Bytes()
	b = append(b, gguftest.File{TensorCount: &n}.Bytes()[8:16]...) // n as 8 bytes
	return append(append(b, body...), make([]byte, 64)...)
}

func cut(b []byte, n int) []byte { return b[:len(b)-n] }

func TestG1Handcrafted(t *testing.T) {
	for _, h := range handmadeFiles() {
		t.Run(h.name, func(t *testing.T) {
			b := h.encode()
			requireRefused(t, b, h.kind, h.field)
			used := allocated(func() { _, _ = read(b) })
			require.LessOrEqual(t, used, uint64(allocationMax))
		})
	}
}

func TestG1Accepted(t *testing.T) {
	align := gguftest.KV{Key: "general.alignment", Value: uint32(1)}
	for name, file := range map[string]gguftest.File{
		"empty":     {},
		"version 2": {Version: 2},
		"custom alignment": {Alignment: 1, KVs: []gguftest.KV{align}, Tensors: []gguftest.Tensor{
			gguftest.F32("a", 1), gguftest.F32("b", 3),
		}},
		"zero dimension": tensorsOf(gguftest.F32("a", 8, 0), gguftest.F32("b", 2)),
		"scalar":         tensorsOf(gguftest.F32("a")),
		"empty array":    fileOf(gguftest.KV{Key: "k", Value: []string{}}),
		"model":          gguftest.Model(),
	} {
		f, err := read(file.Bytes())
		require.NoError(t, err, name)
		require.Len(t, f.Keys(), len(file.KVs), name)
		require.Len(t, f.Tensors(), len(file.Tensors), name)
	}
}

// A reader that fails is not a truncated file.
func TestReadFailure(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	_, err := Read(readerAt(func([]byte, int64) (int, error) { return 0, broken }), 100)
	require.ErrorIs(t, err, ErrIO)
	require.ErrorIs(t, err, broken)
	_, err = Read(readerAt(func([]byte, int64) (int, error) { return 0, io.EOF }), 100)
	require.ErrorIs(t, err, ErrTruncated)
}

type readerAt func(b []byte, off int64) (int, error)

func (r readerAt) ReadAt(b []byte, off int64) (int, error) { return r(b, off) }
