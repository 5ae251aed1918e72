package gguf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

func TestAccessors(t *testing.T) {
	t.Parallel()
	f, err := read(fileOf(
		pair("u8", uint8(200)), pair("i8", int8(-1)), pair("u16", uint16(60000)),
		pair("i16", int16(7)), pair("u32", uint32(1<<31)), pair("i32", int32(-5)),
		pair("f32", float32(1.5)), pair("bool", true), pair("str", "text"),
		pair("u64", uint64(math.MaxUint64)), pair("i64", int64(9)), pair("f64", 2.25),
		pair("list", []string{"a", "", "ccc"}), pair("ints", []int32{1, 2}),
		pair("below", []int32{1, -2}), pair("flags", []bool{true, false}),
		pair("odd", gguftest.Raw{Type: 7, Bytes: []byte{2}}),
	).Bytes())
	require.NoError(t, err)
	for key, want := range map[string]uint64{
		"u8": 200, "u16": 60000, "i16": 7, "u32": 1 << 31, "u64": math.MaxUint64, "i64": 9, "bool": 1,
	} {
		got, err := f.Uint(key)
		require.NoError(t, err, key)
		require.Equal(t, want, got, key)
	}
	for _, key := range []string{"i8", "i32", "f32", "str", "list"} {
		_, err := f.Uint(key)
		require.ErrorIs(t, err, ErrKeyType, key)
	}
	_, err = f.Uint("absent")
	require.ErrorIs(t, err, ErrNoKey)
	for key, want := range map[string]float64{"f32": 1.5, "f64": 2.25} {
		got, err := f.Float(key)
		require.NoError(t, err)
		require.InDelta(t, want, got, 0)
	}
	for _, key := range []string{"bool", "odd"} {
		got, err := f.Bool(key)
		require.NoError(t, err)
		require.True(t, got)
	}
	text, err := f.String("str")
	require.NoError(t, err)
	require.Equal(t, "text", text)
	list, err := f.Strings("list")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "", "ccc"}, list)
	for key, want := range map[string][]uint64{"ints": {1, 2}, "flags": {1, 0}} {
		got, err := f.Uints(key)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err = f.Uints("below")
	require.ErrorIs(t, err, ErrKeyType)
	for key, want := range map[string]int{"list": 3, "str": 4, "u8": 1} {
		n, err := f.Len(key)
		require.NoError(t, err)
		require.Equal(t, want, n, key)
	}
	typ, elem, ok := f.Type("list")
	require.True(t, ok && typ == TypeArray && elem == TypeString)
	require.Equal(t, "arr of str", fmt.Sprintf("%v of %v", typ, elem))
}

// A string longer than the read buffer, between short ones, comes back whole.
func TestLongElement(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", readBufferBytes)
	want := []string{"a", long + long, "b", long}
	f, err := read(fileOf(pair("k", want)).Bytes())
	require.NoError(t, err)
	got, err := f.Strings("k")
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// What the writer writes, the reader reads.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 20).Draw(t, "pairs")
		var kvs []gguftest.KV
		for i := range n {
			kvs = append(kvs, pair(fmt.Sprint(i, rapid.StringN(0, 9, 20).Draw(t, "key")), rapid.OneOf(
				rapid.Uint64().AsAny(), rapid.Int32().AsAny(), rapid.Bool().AsAny(), rapid.Float32().AsAny(),
				rapid.StringN(0, 30, 90).AsAny(), rapid.SliceOfN(rapid.Uint16(), 0, 9).AsAny(),
				rapid.SliceOfN(rapid.StringN(0, 5, 20), 0, 9).AsAny(),
			).Draw(t, "value")))
		}
		for i := range kvs {
			kvs[i].Key = strings.ReplaceAll(kvs[i].Key, "\x00", "0")
		}
		b := fileOf(kvs...).Bytes()
		f, err := read(b)
		require.NoError(t, err)
		for _, kv := range kvs {
			switch want := kv.Value.(type) {
			case uint64:
				got, err := f.Uint(kv.Key)
				require.True(t, err == nil && got == want)
			case string:
				got, err := f.String(kv.Key)
				require.True(t, err == nil && got == want)
			case []string:
				got, err := f.Strings(kv.Key)
				require.NoError(t, err)
				require.Equal(t, len(want), len(got))
				require.Equal(t, strings.Join(want, "|"), strings.Join(got, "|"))
			}
		}
		_, err = read(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")])
		require.Error(t, err)
	})
}

func TestText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		999: "999", 134_515_008: "134.52 M", 7_000_000_000: "7.00 B", 2_800_000_000_000: "2.80 T",
	} {
		require.Equal(t, want, millions(n))
	}
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 23040: "22.50 KiB", 1 << 30: "1.00 GiB", math.MaxInt64: "8.00 EiB",
	} {
		require.Equal(t, want, size(n))
	}
	require.Equal(t, "2 to 8", Range{2, 8}.String())
	require.Equal(t, "cls", PoolingCLS.String())
	require.Equal(t, "unspecified", PoolingUnspecified.String())
	require.Len(t, clip(strings.Repeat("\n", 500)), 64*2+2+3)
}

func TestSummary(t *testing.T) {
	t.Parallel()
	f := modelWith(t, pair("general.name", "Evil \x1b[31m\r\nname\u202e"),
		pair("general.file_type", uint32(15)))
	s, err := f.Summary()
	require.NoError(t, err)
	require.True(t, s.Supported, s.Problem)
	require.Equal(t, "Q4_K - Medium", s.FileType)
	require.Equal(t, int64(32), s.Cache[0].FullTokenBytes*2/8)
	require.Len(t, s.Notes, 1) // q8_0 does not divide a head of 8
	var out bytes.Buffer
	n, err := s.WriteTo(&out)
	require.NoError(t, err)
	require.Equal(t, int64(out.Len()), n)
	require.NotContains(t, out.String(), "\x1b")
	require.NotContains(t, out.String(), "\r")
	require.NotContains(t, out.String(), "\u202e")
	require.Contains(t, out.String(), "parameters     19104 in 20 tensors, 32.00 bits each")
	require.Contains(t, out.String(), "4 heads, 2 KV heads")
	b, err := json.Marshal(s)
	require.NoError(t, err)
	require.Contains(t, string(b), `"vocabulary_size":16`)
}

// Facts that a model lacks leave a summary that says so, not an error.
func TestSummaryOfOthers(t *testing.T) {
	t.Parallel()
	for problem, kv := range map[string]gguftest.KV{
		"not a language model: general.type: is an adapter":   pair("general.type", "adapter"),
		`unknown architecture: general.architecture: "gpt9"`:  pair("general.architecture", "gpt9"),
		`invalid model file: key "llama.block_count" at byte`: pair("llama.block_count", uint32(0)),
	} {
		s, err := modelWith(t, kv).Summary()
		require.NoError(t, err, problem)
		require.False(t, s.Supported, problem)
		require.Contains(t, s.Problem, problem)
		require.NotEmpty(t, s.Hint, problem)
		var out bytes.Buffer
		_, err = s.WriteTo(&out)
		require.NoError(t, err, problem)
		require.Contains(t, out.String(), "\nhint           "+s.Hint)
		_, err = json.Marshal(s)
		require.NoError(t, err, problem)
	}
}
