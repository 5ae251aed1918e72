//go:build cgo

package llama_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/llama"
)

func embed(t *testing.T, c *llama.Context, text string) []float32 {
	t.Helper()
	require.NoError(t, c.Clear())
	feed(t, c, 0, 0, tokenize(t, c.Model(), text)...)
	vector := make([]float32, c.Model().Info().EmbeddingSize)
	require.NoError(t, c.Embedding(0, vector))
	return vector
}

func TestEmbeddings(t *testing.T) {
	p := small()
	p.Embeddings, p.Pooling = true, llama.PoolingMean
	c := newContext(t, model(t, smol), p)
	require.Equal(t, 576, c.Model().Info().EmbeddingSize)
	ship, again := embed(t, c, "A ship on the sea"), embed(t, c, "A ship on the sea")
	require.Equal(t, ship, again)
	require.NotEqual(t, ship, embed(t, c, "Tax law in the ninth century"))
	requireCode(t, llama.Invalid, c.Embedding(0, make([]float32, 575)))
	requireCode(t, llama.Invalid, c.Embedding(1, ship))
	requireCode(t, llama.Unsupported, c.EmbeddingAt(0, ship), "pooled: no vector of a place")

	p.Pooling = llama.PoolingNone
	each := newContext(t, model(t, smol), p)
	tokens := tokenize(t, each.Model(), "A ship on the sea")
	feed(t, each, 0, 0, tokens...)
	mean, one := make([]float32, 576), make([]float32, 576)
	for place := range tokens {
		require.NoError(t, each.EmbeddingAt(place, one))
		for i, v := range one {
			mean[i] += v / float32(len(tokens))
		}
	}
	require.InDeltaSlice(t, ship, mean, 1e-3, "the mean is the mean")
	requireCode(t, llama.Unsupported, each.Embedding(0, one))
	requireCode(t, llama.Invalid, each.EmbeddingAt(len(tokens), one))
}

// TestEmbeddingsSwitch changes between vectors and logits on one context.
func TestEmbeddingsSwitch(t *testing.T) {
	p := small()
	p.Outputs, p.Pooling = 4, llama.PoolingNone
	c := newContext(t, model(t, smol), p)
	vector := make([]float32, 576)
	requireCode(t, llama.Unsupported, c.Embedding(0, vector))
	want := logitsOf(t, c, feed(t, c, 0, 0, 5, 6, 7))
	require.NoError(t, c.SetEmbeddings(true))
	_, err := c.Logits(2)
	requireCode(t, llama.Invalid, err, "the last outputs are gone")
	require.NoError(t, c.Clear())
	feed(t, c, 0, 0, 5, 6, 7, 8)
	require.NoError(t, c.EmbeddingAt(0, vector), "every place has a vector")
	add(t, c, 0, 4, 5, 6, 7, 8, 9)
	requireCode(t, llama.Invalid, c.Decode(), "more places than Outputs")
	place := add(t, c, 0, 4, 5, 6, 7, 8, 9)
	s := newSampler(t, c.Model(), llama.DefaultSampler())
	requireCode(t, llama.Invalid, c.Step([]llama.Pick{{Sampler: s, Place: place}}))
	require.NoError(t, c.SetEmbeddings(false))
	require.NoError(t, c.Clear())
	equalLogits(t, want, logitsOf(t, c, feed(t, c, 0, 0, 5, 6, 7)))
}

func TestLora(t *testing.T) {
	m := model(t, smol)
	path := write(t, "adapter.gguf", adapter("llama", "blk.3.attn_q.weight", 576, 576, 0.2).Bytes())
	l, err := m.LoadLora(path)
	require.NoError(t, err)
	c := newContext(t, m, small())
	run := func(scale float32, loras ...*llama.Lora) []float32 {
		scales := make([]float32, len(loras))
		for i := range scales {
			scales[i] = scale
		}
		require.NoError(t, c.SetLoras(loras, scales))
		require.NoError(t, c.Clear())
		return logitsOf(t, c, feed(t, c, 0, 0, tokenize(t, m, passage)...))
	}
	plain := run(0)
	require.NotZero(t, widest(plain, run(1, l)))
	require.NotZero(t, widest(run(1, l), run(4, l)), "the scale counts")
	equalLogits(t, plain, run(0, l), "scale 0")
	equalLogits(t, plain, run(0), "cleared")
	require.NoError(t, l.Close())
}

func TestLoraRefusals(t *testing.T) {
	m := model(t, smol)
	good := adapter("llama", "blk.3.attn_q.weight", 576, 576, 0.2)
	for name, data := range map[string][]byte{
		"another architecture": adapter("gemma3", "blk.3.attn_q.weight", 576, 576, 0.2).Bytes(),
		"another shape":        adapter("llama", "blk.3.attn_q.weight", 64, 64, 0.2).Bytes(),
		"an unknown tensor":    adapter("llama", "blk.99.attn_q.weight", 576, 576, 0.2).Bytes(),
		"a model":              gguftest.Model().Bytes(),
		"garbage":              []byte("not an adapter"),
		"truncated":            good.Bytes()[:200],
		"cut data":             good.Bytes()[:len(good.Bytes())-64],
		"not lora":             good.With(gguftest.KV{Key: "adapter.type", Value: "ia3"}).Bytes(),
	} {
		_, err := m.LoadLora(write(t, "bad.gguf", data))
		requireCode(t, llama.Load, err, name)
	}
	_, err := m.LoadLora("no-such-file")
	requireCode(t, llama.Load, err)
	for _, path := range []string{"", "a\x00b"} {
		_, err = m.LoadLora(path)
		requireCode(t, llama.Invalid, err)
	}
}

// TestMemoryUse counts a dry load and a real one: the bytes are the same. A mapped file counts what
// lies between its first and last tensor in use, so it may be more.
func TestMemoryUse(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		p := llama.ModelParams{Paths: []string{storedPath(t, name)}}
		read, dry := p, p
		read.Load, dry.Dry = llama.LoadRead, true
		want, mapped := memoryUse(t, read), memoryUse(t, p)
		require.Equal(t, want, memoryUse(t, dry))
		require.GreaterOrEqual(t, mapped.Model, want.Model)
		mapped.Model = want.Model
		require.Equal(t, want, mapped)
		require.Positive(t, want.Model)
		require.Positive(t, want.Compute)
		if name == smol {
			// 30 layers, keys and values of 3 heads of 64, 2 bytes each.
			require.EqualValues(t, 256*30*2*3*64*2, want.Context)
			require.EqualValues(t, 49152*4, want.Output)
		}
	}
}

// TestOutputGrows: the buffer of logits has what the largest Decode asked for.
func TestOutputGrows(t *testing.T) {
	p := small()
	p.Outputs = 5
	c := newContext(t, model(t, smol), p)
	for i := range 5 {
		_, err := c.Batch().Add(5, llama.Pos(i), 0, true)
		require.NoError(t, err)
	}
	require.NoError(t, c.Decode())
	all, err := c.MemoryUse()
	require.NoError(t, err)
	var output uint64
	for _, u := range all {
		output += u.Output
	}
	require.EqualValues(t, 5*49152*4, output)
}

// memoryUse is the sum over the buffers of a small context.
func memoryUse(t *testing.T, p llama.ModelParams) (sum llama.MemoryUse) {
	m := load(t, p)
	defer func() { require.NoError(t, m.Close()) }()
	c, err := m.NewContext(small())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	all, err := c.MemoryUse()
	require.NoError(t, err)
	for _, u := range all {
		require.NotEmpty(t, u.Buffer)
		sum.Model, sum.Context = sum.Model+u.Model, sum.Context+u.Context
		sum.Compute, sum.Output = sum.Compute+u.Compute, sum.Output+u.Output
	}
	return sum
}

// TestDryModel refuses what needs weights.
func TestDryModel(t *testing.T) {
	m := load(t, llama.ModelParams{Paths: []string{storedPath(t, smol)}, Dry: true})
	defer func() { require.NoError(t, m.Close()) }()
	c, err := m.NewContext(small())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	add(t, c, 0, 0, 5)
	requireCode(t, llama.Unsupported, c.Decode())
	require.Zero(t, c.Batch().Len())
	s, err := m.NewSampler(llama.DefaultSampler())
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	place := add(t, c, 0, 0, 5)
	requireCode(t, llama.Unsupported, c.Step([]llama.Pick{{Sampler: s, Place: place}}))
	requireCode(t, llama.Unsupported, c.StateSet(0, []byte{1, 2, 3}, 0))
	_, err = m.LoadLora(tinyLora(t))
	requireCode(t, llama.Unsupported, err)
	require.NoError(t, c.Shift(0, 0, 4, 1))
	require.NoError(t, c.Clear())
	require.NotEmpty(t, tokenize(t, m, passage))
}

// TestStepAllocatesNothing holds for a greedy choice and for a full chain.
func TestStepAllocatesNothing(t *testing.T) {
	m := model(t, smol)
	full := random(1)
	full.TopK, full.TopP, full.MinP, full.PenaltyRepeat = 40, 0.9, 0.05, 1.1
	for name, p := range map[string]llama.SamplerParams{
		"greedy": llama.DefaultSampler(), "chain": full,
	} {
		c := newContext(t, m, small())
		picks := []llama.Pick{{Sampler: newSampler(t, m, p)}}
		token, pos := llama.Token(5), llama.Pos(0)
		step := func() {
			place, err := c.Batch().Add(token, pos, 0, true)
			if err != nil {
				t.Fatal(err)
			}
			picks[0].Place = place
			if err := c.Step(picks); err != nil {
				t.Fatal(err)
			}
			token, pos = picks[0].Token, pos+1
		}
		require.Zero(t, testing.AllocsPerRun(50, step), name)
	}
}
