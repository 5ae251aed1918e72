package gguftest

import "fmt"

// Model returns a small llama model that passes every check: two layers, four heads of 8 (two
// of them KV heads), 16 tokens, f32 weights. It has the right shape; its weights are zeros.
func Model() File {
	const embd, ff, layers = 32, 64, 2
	f := File{
		KVs: append([]KV{
			{"general.architecture", "llama"},
			{"general.type", "model"},
			{"general.name", "Tiny Test"},
			{"general.license", "apache-2.0"},
			{"general.file_type", uint32(0)},
			{"llama.block_count", uint32(layers)},
			{"llama.context_length", uint32(128)},
			{"llama.embedding_length", uint32(embd)},
			{"llama.feed_forward_length", uint32(ff)},
			{"llama.attention.head_count", uint32(4)},
			{"llama.attention.head_count_kv", uint32(2)},
			{"llama.attention.layer_norm_rms_epsilon", float32(1e-5)},
			{"llama.rope.dimension_count", uint32(8)},
			{"llama.rope.freq_base", float32(10000)},
		}, Tokenizer()...),
		Tensors: []Tensor{F32("token_embd.weight", embd, 16)},
	}
	for i := range layers {
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s.weight", i, part) }
		f.Tensors = append(f.Tensors,
			F32(name("attn_norm"), embd), F32(name("attn_q"), embd, 32),
			F32(name("attn_k"), embd, 16), F32(name("attn_v"), embd, 16),
			F32(name("attn_output"), 32, embd), F32(name("ffn_norm"), embd),
			F32(name("ffn_gate"), embd, ff), F32(name("ffn_up"), embd, ff),
			F32(name("ffn_down"), ff, embd))
	}
	f.Tensors = append(f.Tensors, F32("output_norm.weight", embd))
	return f
}

// Tokenizer returns the metadata of a vocabulary of 16 tokens with a chat template.
func Tokenizer() []KV {
	tokens := []string{"<unk>", "<s>", "</s>", "<0x0A>"}
	types := []int32{2, 3, 3, 6}
	scores := make([]float32, 16)
	for c := 'a'; len(tokens) < 16; c++ {
		tokens = append(tokens, string(c))
		types = append(types, 1)
	}
	return []KV{
		{"tokenizer.ggml.model", "llama"},
		{"tokenizer.ggml.tokens", tokens},
		{"tokenizer.ggml.scores", scores},
		{"tokenizer.ggml.token_type", types},
		{"tokenizer.ggml.bos_token_id", uint32(1)},
		{"tokenizer.ggml.eos_token_id", uint32(2)},
		{"tokenizer.ggml.unknown_token_id", uint32(0)},
		{"tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}"},
	}
}

// With returns a copy of f in which the pairs replace those of the same key, or are added.
func (f File) With(kvs ...KV) File {
	all := append([]KV(nil), f.KVs...)
next:
	for _, kv := range kvs {
		for i := range all {
			if all[i].Key == kv.Key {
				all[i] = kv
				continue next
			}
		}
		all = append(all, kv)
	}
	f.KVs = all
	return f
}

// Without returns a copy of f that lacks the keys.
func (f File) Without(keys ...string) File {
	var kept []KV
next:
	for _, kv := range f.KVs {
		for _, k := range keys {
			if kv.Key == k {
				continue next
			}
		}
		kept = append(kept, kv)
	}
	f.KVs = kept
	return f
}

// Split distributes the tensors of f over count shards: the first keeps the metadata.
func (f File) Split(count int) []File {
	shards := make([]File, count)
	per := (len(f.Tensors) + count - 1) / count
	for i := range shards {
		keys := []KV{
			{"split.no", uint16(i)},
			{"split.count", uint16(count)},
			{"split.tensors.count", int32(len(f.Tensors))},
		}
		if i == 0 {
			shards[i] = f.With(keys...)
		} else {
			shards[i] = File{KVs: keys}
		}
		lo, hi := min(i*per, len(f.Tensors)), min((i+1)*per, len(f.Tensors))
		shards[i].Tensors = f.Tensors[lo:hi]
	}
	return shards
}
