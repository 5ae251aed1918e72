package gguf

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

func TestShape(t *testing.T) {
	t.Parallel()
	s, err := modelWith(t).Shape()
	require.NoError(t, err)
	require.Equal(t, "llama", s.Architecture)
	require.Len(t, s.Layers, 2)
	require.Equal(t, Layer{
		Heads: 4, KVHeads: 2, KeyLength: 8, ValueLength: 8, FeedForward: 64, Cached: true,
		Parameters: 32*32 + 2*32*16 + 32*32 + 3*32*64 + 2*32, LargestBytes: 4 * 32 * 64,
		Bytes: 4 * (32*32 + 2*32*16 + 32*32 + 3*32*64 + 2*32),
	}, s.Layers[1])
	require.Equal(t, 128, s.ContextLength)
	require.Equal(t, 16, s.VocabularySize)
	require.Equal(t, CacheFull, s.Cache)
	require.Equal(t, PoolingUnspecified, s.Pooling)
	require.True(t, s.Causal)
	require.Equal(t, Rope{8, 10000, "linear", 1, 128}, s.Rope)
	require.Equal(t, int64(4*32*16), s.InputBytes)
	require.Equal(t, int64(4*32), s.OtherBytes)
	require.Equal(t, s.TensorBytes, 4*s.Parameters)

	c, err := s.CacheSize(F16, F16)
	require.NoError(t, err)
	require.Equal(t, CacheSize{FullLayers: 2, FullBytes: 2 * 2 * 2 * 8 * 2}, c)
	require.Equal(t, int64(128*128), c.Bytes(128))
	_, err = s.CacheSize(Q8_0, F16) // a head of 8 is no block of 32
	require.ErrorIs(t, err, ErrCacheType)
}

// archModel is a model of n layers of another architecture, with its keys renamed.
func archModel(t *testing.T, arch string, n int, kvs ...gguftest.KV) *File {
	t.Helper()
	m := gguftest.Model()
	for i := range m.KVs {
		if rest, ok := cutArch(m.KVs[i].Key); ok {
			m.KVs[i].Key = arch + rest
		}
	}
	m = m.With(pair("general.architecture", arch), pair(arch+".block_count", uint32(n)))
	for _, kv := range kvs {
		m = m.With(pair(arch+kv.Key, kv.Value))
	}
	f, err := read(m.Bytes())
	require.NoError(t, err)
	return f
}

func cutArch(key string) (string, bool) {
	if len(key) > 6 && key[:6] == "llama." {
		return key[5:], true
	}
	return "", false
}

func TestWindows(t *testing.T) {
	t.Parallel()
	window := pair(".attention.sliding_window", uint32(512))
	for _, c := range []struct {
		arch   string
		layers int
		kvs    []gguftest.KV
		full   []int // the layers without a window
		window int
	}{
		{"gemma3", 18, []gguftest.KV{window}, []int{5, 11, 17}, 512},
		{"gemma3", 6, nil, []int{0, 1, 2, 3, 4, 5}, 0},
		{"gemma2", 4, nil, []int{1, 3}, 4096},
		{"gpt-oss", 4, []gguftest.KV{window}, []int{1, 3}, 512},
		{"cohere2moe", 5, []gguftest.KV{window}, []int{0, 4}, 512},
		{"llama4", 4, nil, []int{3}, 8192},
		{"llama", 2, []gguftest.KV{window}, []int{0, 1}, 0}, // llama.cpp ignores it
		{"phi3", 2, []gguftest.KV{window}, []int{0, 1}, 0},
		{"exaone4", 4, []gguftest.KV{window}, []int{0, 1, 2, 3}, 0},
		{"gemma4", 3, []gguftest.KV{
			window,
			pair(".attention.sliding_window_pattern", []bool{true, false, true}),
			pair(".attention.key_length_swa", uint32(4)),
		}, []int{1}, 512},
		{
			"gemma3", 4,
			[]gguftest.KV{window, pair(".attention.sliding_window_pattern", uint32(2))},
			[]int{1, 3},
			512,
		},
		{"lfm2", 3, []gguftest.KV{window}, nil, 512},
		{"smallthinker", 4, []gguftest.KV{window}, []int{0}, 4096},
		{"exaone-moe", 4, nil, []int{3}, 128},
		{"plamo3", 9, []gguftest.KV{window}, []int{7}, 512},
		{"gemma3n", 5, []gguftest.KV{window}, []int{4}, 512},
		{"olmo2", 5, []gguftest.KV{window}, []int{3}, 512},
		{"mimo2", 2, []gguftest.KV{window}, []int{0, 1}, 0}, // only its array could say
	} {
		s, err := archModel(t, c.arch, c.layers, c.kvs...).Shape()
		require.NoError(t, err, c.arch)
		var full []int
		for i, l := range s.Layers {
			if l.Window == 0 {
				full = append(full, i)
			} else {
				require.Equal(t, c.window, l.Window)
			}
		}
		require.Equal(t, c.full, full, c.arch)
		require.Equal(t, c.window, s.Window, c.arch)
	}
}

func TestCacheKinds(t *testing.T) {
	t.Parallel()
	perLayer := func(v ...uint32) gguftest.KV { return pair(".attention.head_count_kv", v) }
	for _, c := range []struct {
		arch string
		n    int
		kvs  []gguftest.KV
		kind CacheKind
		want CacheSize // f16
	}{
		{"bert", 2, nil, CacheNone, CacheSize{}},
		{
			"mamba", 2,
			[]gguftest.KV{pair(".attention.head_count", uint32(0))},
			CacheRecurrent,
			CacheSize{StateLayers: 2},
		},
		{
			"jamba", 4,
			[]gguftest.KV{perLayer(0, 2, 0, 0)},
			CacheHybrid,
			CacheSize{FullLayers: 1, FullBytes: 64, StateLayers: 3},
		},
		{"qwen3next", 8, nil, CacheHybrid, CacheSize{FullLayers: 2, FullBytes: 128, StateLayers: 6}},
		{"falcon-h1", 2, nil, CacheHybrid, CacheSize{FullLayers: 2, FullBytes: 128, StateLayers: 2}},
		{"gemma4", 4, []gguftest.KV{
			pair(".attention.sliding_window", uint32(16)),
			pair(".attention.sliding_window_pattern", []bool{true, false, true, false}),
			pair(".attention.shared_kv_layers", uint32(2)),
		}, CacheWindow, CacheSize{
			FullLayers: 1, FullBytes: 64, WindowLayers: 1, WindowBytes: 64,
			Window: 16, SharedLayers: 2,
		}},
		{
			"glm4moe", 3,
			[]gguftest.KV{pair(".nextn_predict_layers", uint32(1))},
			CacheFull,
			CacheSize{FullLayers: 2, FullBytes: 128},
		},
		{"deepseek2", 1, []gguftest.KV{
			pair(".attention.head_count_kv", uint32(1)), pair(".attention.key_length", uint32(576)),
			pair(".attention.value_length", uint32(512)),
			pair(".attention.key_length_mla", uint32(192)),
			pair(".attention.value_length_mla", uint32(128)),
		}, CacheFull, CacheSize{FullLayers: 1, FullBytes: 1152}},
		{
			"deepseek32", 1, nil, CacheFull,
			CacheSize{FullLayers: 1, FullBytes: 64, IndexNotKnown: true},
		},
	} {
		s, err := archModel(t, c.arch, c.n, c.kvs...).Shape()
		require.NoError(t, err, c.arch)
		require.Equal(t, c.kind, s.Cache, c.arch)
		got, err := s.CacheSize(F16, F16)
		require.NoError(t, err, c.arch)
		require.Equal(t, c.want, got, c.arch)
	}
}

// TestStates: elements of a recurrent state, after n_embd_r and n_embd_s of llama.cpp.
func TestStates(t *testing.T) {
	t.Parallel()
	u := func(key string, v uint32) gguftest.KV { return pair("."+key, v) }
	for _, c := range []struct {
		arch string
		kvs  []gguftest.KV
		want int64 // elements
	}{
		{"rwkv6", []gguftest.KV{u("wkv.head_size", 8)}, 32 * (2 + 8)},
		{"arwkv7", []gguftest.KV{u("wkv.head_size", 8), u("token_shift_count", 1)}, 32 * (1 + 8)},
		{
			"mamba2", []gguftest.KV{
				u("ssm.conv_kernel", 4), u("ssm.inner_size", 64), u("ssm.state_size", 16),
				u("ssm.group_count", 2),
			}, 3*(64+2*2*16) + 16*64,
		},
		{"lfm2", []gguftest.KV{
			u("shortconv.l_cache", 3), pair(".attention.head_count_kv", []uint32{0, 2}),
		}, 32 * 2},
		{"kimi-linear", []gguftest.KV{
			u("kda.head_dim", 8), pair(".attention.head_count_kv", []uint32{0, 2}),
		}, 3*3*4*8 + 8*8*4},
		{"minimax-01", []gguftest.KV{u("full_attention_interval", 2)}, 8 * 8 * 4},
		{"mamba", nil, 0},
	} {
		s, err := archModel(t, c.arch, 2, c.kvs...).Shape()
		require.NoError(t, err, c.arch)
		require.True(t, s.Layers[0].Recurrent, c.arch)
		require.Equal(t, 4*c.want, s.Layers[0].StateBytes, c.arch)
	}
	s, err := archModel(t, "jamba", 1, u("ssm.conv_kernel", headMax), u("ssm.inner_size", headMax),
		u("ssm.state_size", headMax), u("ssm.group_count", headMax),
		pair(".attention.head_count_kv", []uint32{0})).Shape()
	require.NoError(t, err)
	require.Greater(t, s.Layers[0].StateBytes, int64(1<<62), "it does not wrap")
}

// TestExperts: what of a layer are routed experts, and the tables that are only looked up.
func TestExperts(t *testing.T) {
	t.Parallel()
	m := gguftest.Model().With(pair("llama.expert_count", uint32(4)),
		pair("llama.expert_used_count", uint32(2)))
	m.Tensors = append(m.Tensors, gguftest.F32("blk.1.ffn_up_exps.weight", 32, 64, 4),
		gguftest.F32("position_embd.weight", 32, 128))
	f, err := read(m.Bytes())
	require.NoError(t, err)
	s, err := f.Shape()
	require.NoError(t, err)
	require.Equal(t, 64, s.ExpertLength)
	require.Equal(t, int64(4*32*128), s.TableBytes)
	require.Equal(t, int64(4*32*64*4), s.Layers[1].ExpertBytes)
	require.Equal(t, int64(32*64*4), s.Layers[1].ExpertParameters)
	require.Equal(t, int64(4*32*64*4), s.Layers[1].LargestBytes)
}

func TestShapeRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kv   gguftest.KV
		kind error
	}{
		"no layers":          {pair("llama.block_count", uint32(0)), ErrCorrupt},
		"layers over":        {pair("llama.block_count", uint32(LayersMax+1)), ErrLimit},
		"layers text":        {pair("llama.block_count", "2"), ErrKeyType},
		"negative":           {pair("llama.embedding_length", int32(-1)), ErrKeyType},
		"context zero":       {pair("llama.context_length", uint32(0)), ErrCorrupt},
		"context over":       {pair("llama.context_length", uint64(1<<31)), ErrLimit},
		"experts over":       {pair("llama.expert_count", uint32(ExpertsMax+1)), ErrLimit},
		"experts not used":   {pair("llama.expert_count", uint32(8)), ErrCorrupt},
		"used without any":   {pair("llama.expert_used_count", uint32(8)), ErrCorrupt},
		"heads array short":  {pair("llama.attention.head_count", []uint32{4}), ErrCorrupt},
		"heads array floats": {pair("llama.attention.head_count", []float32{4, 4}), ErrKeyType},
		"heads over":         {pair("llama.attention.head_count", []uint32{4, 1 << 30}), ErrLimit},
		"rope scaling":       {pair("llama.rope.scaling.type", "magic"), ErrCorrupt},
		"rope base":          {pair("llama.rope.freq_base", uint32(1)), ErrKeyType},
		"draft layers":       {pair("llama.nextn_predict_layers", uint32(2)), ErrCorrupt},
		"pooling":            {pair("llama.pooling_type", uint32(9)), ErrLimit},
	} {
		f := modelWith(t, c.kv)
		_, err := f.Shape()
		require.ErrorIs(t, err, c.kind, name)
		require.ErrorIs(t, f.CheckModel(), c.kind, name)
	}
	for _, key := range []string{"block_count", "context_length", "embedding_length"} {
		f, err := read(gguftest.Model().Without("llama." + key).Bytes())
		require.NoError(t, err)
		require.ErrorIs(t, f.CheckModel(), ErrNoKey, key)
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kv   gguftest.KV
		kind Kind
		err  error
		hint string
	}{
		{pair("general.type", "model"), KindModel, nil, ""},
		{pair("general.type", "adapter"), KindAdapter, ErrNotModel, "--lora"},
		{pair("adapter.type", "lora"), KindAdapter, ErrNotModel, "--lora"},
		{pair("general.type", "mmproj"), KindProjector, ErrNotModel, "language model"},
		{pair("general.architecture", "clip"), KindProjector, ErrNotModel, "language model"},
		{pair("clip.has_vision_encoder", true), KindProjector, ErrNotModel, "language model"},
		{pair("general.type", "imatrix"), KindImatrix, ErrNotModel, "quantise"},
		{pair("general.type", "picture"), KindUnknown, ErrNotModel, "model"},
		{pair("general.architecture", "gpt9"), KindModel, ErrUnknownArch, "update"},
	} {
		f := modelWith(t, c.kv)
		require.Equal(t, c.kind, f.Kind(), c.kv)
		err := f.CheckModel()
		require.ErrorIs(t, err, c.err, c.kv)
		var e *Error
		if c.err != nil {
			require.ErrorAs(t, err, &e)
			require.Contains(t, e.Hint, c.hint)
		}
	}
	bare := gguftest.Model()
	bare.Tensors = nil
	f, err := read(bare.Bytes())
	require.NoError(t, err)
	require.Equal(t, KindVocabulary, f.Kind())
	require.ErrorIs(t, f.CheckModel(), ErrNotModel)
}

func TestArchitectures(t *testing.T) {
	t.Parallel()
	all := Architectures()
	require.True(t, slices.IsSorted(all))
	require.Equal(t, slices.Compact(slices.Clone(all)), all)
	for _, a := range all {
		require.True(t, KnownArchitecture(a), a)
	}
	for _, a := range []string{"", "clip", "Llama", "zzz"} {
		require.False(t, KnownArchitecture(a), a)
	}
}

func TestTensorTypes(t *testing.T) {
	t.Parallel()
	for name, bits := range map[string]float64{ // bits per element, from the block layouts of ggml
		"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q4_0": 4.5, "q4_1": 5, "q5_0": 5.5, "q5_1": 6,
		"q2_K": 2.625, "q3_K": 3.4375, "q4_K": 4.5, "q5_K": 5.5, "q6_K": 6.5625, "iq2_xxs": 2.0625,
		"iq2_xs": 2.3125, "iq2_s": 2.5625, "iq3_xxs": 3.0625, "iq3_s": 3.4375, "iq1_s": 1.5625,
		"iq1_m": 1.75, "iq4_nl": 4.5, "iq4_xs": 4.25, "tq1_0": 1.6875, "tq2_0": 2.0625,
		"mxfp4": 4.25, "nvfp4": 4.5, "q1_0": 1.125, "q2_0": 2.25, "i8": 8, "i64": 64, "f64": 64,
	} {
		typ, ok := ParseTensorType(name)
		require.True(t, ok, name)
		require.Equal(t, name, typ.String())
		block, bytes := typ.Block()
		require.InDelta(t, bits, float64(bytes)*8/float64(block), 0, name)
	}
	_, ok := ParseTensorType("q4_2")
	require.False(t, ok)
	require.False(t, TensorType(-1).Valid())
}

// A cache never costs less for more tokens, and never wraps.
func TestCacheMonotone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 1<<62)
		c := CacheSize{
			FullBytes: size.Draw(t, "full"), WindowBytes: size.Draw(t, "window"),
			Window: rapid.IntRange(0, contextMax).Draw(t, "tokens"),
		}
		a := rapid.Int64Range(0, 1<<40).Draw(t, "a")
		b := rapid.Int64Range(a, 1<<41).Draw(t, "b")
		require.GreaterOrEqual(t, c.Bytes(a), int64(0))
		require.LessOrEqual(t, c.Bytes(a), c.Bytes(b))
	})
}
