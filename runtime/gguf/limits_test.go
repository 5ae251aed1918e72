package gguf

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

// within requires that build(limit) is accepted and build(limit+1) is refused with ErrLimit.
func within(t *testing.T, name string, limit int, build func(n int) error) {
	t.Helper()
	require.NoError(t, build(limit), "%s at %d", name, limit)
	require.ErrorIs(t, build(limit+1), ErrLimit, "%s at %d", name, limit+1)
}

func TestLimitsOfRecords(t *testing.T) {
	t.Parallel()
	parse := func(f gguftest.File) error { _, err := read(f.Bytes()); return err }
	within(t, "keys", KeysMax, func(n int) error {
		kvs := make([]gguftest.KV, n)
		for i := range kvs {
			kvs[i] = pair(fmt.Sprint("k", i), uint8(1))
		}
		return parse(fileOf(kvs...))
	})
	within(t, "key bytes", KeyBytesMax, func(n int) error {
		return parse(fileOf(pair(strings.Repeat("k", n), uint8(1))))
	})
	within(t, "tensors", TensorsMax, func(n int) error {
		ts := make([]gguftest.Tensor, n)
		for i := range ts {
			ts[i] = gguftest.Tensor{Name: fmt.Sprint("t", i), Dims: []uint64{0}}
		}
		return parse(tensorsOf(ts...))
	})
	within(t, "tensor name", TensorNameMax, func(n int) error {
		return parse(tensorsOf(gguftest.F32(strings.Repeat("n", n), 1)))
	})
	dims := []uint64{1, 1, 1, 1, 1}
	require.NoError(t, parse(tensorsOf(gguftest.F32("t", dims[:DimsMax]...))))
	require.ErrorIs(t, parse(tensorsOf(gguftest.F32("t", dims[:DimsMax+1]...))), ErrCorrupt)
}

// Large values are checked on a sparse file, so that nothing large is built.
func TestLimitsOfSizes(t *testing.T) {
	t.Parallel()
	const plenty = 1 << 40
	u64 := func(v int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }
	within(t, "string", StringBytesMax, func(n int) error {
		head := fileOf(pair("k", gguftest.Raw{Type: 8, Bytes: u64(n)})).Bytes()
		_, err := Read(&sparse{head: head}, plenty)
		return err
	})
	within(t, "array", ArrayElementsMax, func(n int) error {
		raw := gguftest.Raw{Type: 9, Bytes: append([]byte{0, 0, 0, 0}, u64(n)...)}
		_, err := Read(&sparse{head: fileOf(pair("k", raw)).Bytes()}, plenty)
		return err
	})
	within(t, "tokens", VocabularyMax, func(n int) error {
		raw := gguftest.Raw{Type: 9, Bytes: append([]byte{8, 0, 0, 0}, u64(n)...)}
		head := fileOf(pair(keyModel, "test"), pair(keyTokens, raw)).Bytes()
		f, err := Read(&sparse{head: head}, plenty)
		require.NoError(t, err)
		_, err = f.Vocabulary()
		return err
	})
}

// The header limit is met by strings that are each within their own limit.
func TestLimitOfHeader(t *testing.T) {
	t.Parallel()
	build := func(last int) error {
		const strs = HeaderBytesMax / StringBytesMax
		s := &patches{at: map[int64][]byte{}}
		head := gguftest.File{KVCount: gguftest.Uint64(strs)}.Bytes()
		pos := int64(0)
		put := func(b []byte) { s.at[pos] = b; pos += int64(len(b)) }
		put(head)
		for i := range strs {
			n := StringBytesMax
			if i == strs-1 {
				n = last - int(pos) - 8 - 1 - 4 - 8 // what is left after this record's own fields
			}
			b := gguftest.Text(nil, string(rune('a'+i)))
			b = append(b, 8, 0, 0, 0)
			put(binary.LittleEndian.AppendUint64(b, uint64(n)))
			pos += int64(n)
		}
		_, err := Read(s, 1<<40)
		return err
	}
	within(t, "header", HeaderBytesMax, build)
}

// patches is a huge file of zeros with some bytes set.
type patches struct{ at map[int64][]byte }

func (p *patches) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	for at, patch := range p.at {
		if at < off+int64(len(b)) && off < at+int64(len(patch)) {
			if at >= off {
				copy(b[at-off:], patch)
			} else {
				copy(b, patch[off-at:])
			}
		}
	}
	return len(b), nil
}

func TestLimitsOfModel(t *testing.T) {
	t.Parallel()
	check := func(kvs ...gguftest.KV) error { return modelWith(t, kvs...).CheckModel() }
	within(t, "layers", LayersMax, func(n int) error {
		return check(pair("llama.block_count", uint32(n)))
	})
	within(t, "experts", ExpertsMax, func(n int) error {
		return check(pair("llama.expert_count", uint32(n)), pair("llama.expert_used_count", uint32(1)))
	})
	templates := func(kvs ...gguftest.KV) error {
		_, err := modelWith(t, kvs...).Templates()
		return err
	}
	within(t, "template", TemplateBytesMax, func(n int) error {
		return templates(pair(keyTemplate, strings.Repeat("x", n)))
	})
	within(t, "templates", TemplatesMax, func(n int) error {
		var kvs []gguftest.KV
		for i := range n - 1 {
			kvs = append(kvs, pair(fmt.Sprint(keyTemplate, ".", i), "x"))
		}
		return templates(kvs...)
	})
	within(t, "short text", shortBytesMax, func(n int) error {
		_, err := modelWith(t, pair("general.name", strings.Repeat("x", n))).short("general.name")
		return err
	})
}
