package plan

import "github.com/norion/norion/runtime/gguf"

// shape adds up the tensors of a model, as convert_hf_to_gguf.py names them and llama-quantize
// encodes them.
func (m *modelFile) shape() gguf.Shape {
	s := gguf.Shape{
		Architecture: m.Architecture, Layers: make([]gguf.Layer, m.Layers), ContextLength: m.Context,
		EmbeddingLength: m.Embedding, VocabularySize: m.Vocabulary, Experts: m.Experts,
		ExpertsUsed: m.ExpertsUsed, ExpertsShared: m.ExpertsShared, ExpertLength: m.ExpertLength,
		Window: m.Window, Cache: gguf.CacheFull, Pooling: gguf.PoolingUnspecified, Causal: true,
	}
	if m.Window > 0 {
		s.Cache = gguf.CacheWindow
	}
	table := int64(m.Embedding) * int64(m.Vocabulary)
	s.Parameters = table
	s.InputBytes = encoded(m.typeOf(embedding, 0), m.Embedding, table)
	if !m.Tied {
		s.Parameters += table
		s.OutputBytes = encoded(m.typeOf(output, 0), m.Embedding, table)
	}
	s.OtherBytes = 4 * int64(m.Embedding)
	s.Parameters += int64(m.Embedding)
	s.TensorBytes = s.InputBytes + s.OutputBytes + s.OtherBytes
	for i := range s.Layers {
		s.Layers[i] = m.layer(i)
		s.Parameters += s.Layers[i].Parameters
		s.TensorBytes += s.Layers[i].Bytes
	}
	return s
}

// layer adds up one layer.
func (m *modelFile) layer(i int) gguf.Layer {
	l := gguf.Layer{
		Heads: m.Heads, KVHeads: m.KVHeads, KeyLength: m.Head, ValueLength: m.Head,
		FeedForward: m.FeedForward, Cached: true,
	}
	if m.Window > 0 && (i+1)%m.WindowEvery != 0 {
		l.Window = m.Window
	}
	width := m.Embedding
	add := func(kind tensorKind, row, rows, experts int) {
		n := int64(row) * int64(rows) * int64(experts)
		bytes := encoded(m.typeOf(kind, i), row, n)
		l.Parameters += n
		l.Bytes += bytes
		l.LargestBytes = max(l.LargestBytes, bytes)
		if experts > 1 {
			l.ExpertParameters += n
			l.ExpertBytes += bytes
			l.ExpertTensors++
		}
	}
	add(norm, 2*width+m.Norms, 1, 1)
	if a := m.Latent; a != nil {
		l.KVHeads, l.KeyLength, l.ValueLength = 1, a.KVRank+a.Rotary, 0
		add(other, width, a.QueryRank, 1)
		add(other, a.QueryRank, m.Heads*(a.Plain+a.Rotary), 1)
		add(other, width, a.KVRank+a.Rotary, 1)
		add(other, a.Plain, a.KVRank*m.Heads, 1)
		add(other, a.KVRank, a.Value*m.Heads, 1)
		add(attentionOutput, m.Heads*a.Value, width, 1)
	} else {
		add(other, width, m.Heads*m.Head, 1)
		add(attentionKey, width, m.KVHeads*m.Head, 1)
		add(attentionValue, width, m.KVHeads*m.Head, 1)
		add(attentionOutput, m.Heads*m.Head, width, 1)
	}
	forward := m.FeedForward
	if m.Experts > 0 && i >= m.DenseLayers {
		add(norm, width, m.Experts, 1) // the router is not quantised
		add(other, width, m.ExpertLength, m.Experts)
		add(other, width, m.ExpertLength, m.Experts)
		add(feedForwardDown, m.ExpertLength, width, m.Experts)
		forward = m.ExpertsShared * m.ExpertLength
	}
	if forward > 0 {
		add(other, width, forward, 1)
		add(other, width, forward, 1)
		add(feedForwardDown, forward, width, 1)
	}
	return l
}

// tensorKind is what llama-quantize tells tensors apart by.
type tensorKind int

const (
	other tensorKind = iota
	norm             // kept in f32
	embedding
	output
	attentionKey
	attentionValue
	attentionOutput
	feedForwardDown
)

// typeOf is the type that llama-quantize gives to a tensor of layer i.
func (m *modelFile) typeOf(kind tensorKind, i int) gguf.TensorType {
	if kind == norm {
		return gguf.F32
	}
	if m.Quantisation == "Q8_0" {
		return gguf.Q8_0
	}
	more := i < m.Layers/8 || i >= 7*m.Layers/8 || (i-m.Layers/8)%3 == 2
	more = more && !m.PlainExperts
	eight := m.Experts == 8
	switch {
	case kind == output, kind == embedding && m.Tied:
		return gguf.Q6K
	case eight && (kind == attentionValue || kind == attentionKey):
		return gguf.Q8_0
	case eight && kind == attentionOutput:
		return gguf.Q5K
	case more && (kind == attentionValue || kind == feedForwardDown):
		return gguf.Q6K
	case kind == attentionValue && m.Layers == 80: // llama.cpp's 70B
		return gguf.Q5K
	}
	return gguf.Q4K
}

// encoded is the size of n elements in rows. A row that no block of 256 divides takes a type with
// smaller blocks.
func encoded(t gguf.TensorType, row int, n int64) int64 {
	block, bytes := t.Block()
	if int64(row)%block != 0 {
		t = map[gguf.TensorType]gguf.TensorType{
			gguf.Q4K: gguf.Q5_0, gguf.Q5K: gguf.Q5_1, gguf.Q6K: gguf.Q8_0,
		}[t]
		block, bytes = t.Block()
	}
	return n / block * bytes
}
