package gguftest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// TinyVocabulary is the number of tokens of TinyModel.
const TinyVocabulary = 3 + 256 + 95 + 6

// TinyModel returns a llama model that runs: about 250 KiB of f32 weights drawn from a seed, two
// layers of 32 values, a trained context of 2048 and a vocabulary that spells every byte. What it
// says means nothing, but it is the same each time. It knows the control tokens of ChatML, the
// tags of tool calls and reasoning, and ends at </s> or <|im_end|>. It carries no chat template.
func TinyModel(seed uint64) File {
	const embd, ff, layers = 32, 64, 2
	draw := drawer{rand.New(rand.NewPCG(seed, 1))}
	f := Model().Without("tokenizer.chat_template").With(tinyTokenizer()...).
		With(KV{"llama.context_length", uint32(2048)})
	f.Tensors = []Tensor{
		draw.normal("token_embd.weight", 1, embd, TinyVocabulary),
		draw.normal("output.weight", 0.5, embd, TinyVocabulary),
		ones("output_norm.weight", embd),
	}
	for i := range layers {
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s.weight", i, part) }
		f.Tensors = append(f.Tensors,
			ones(name("attn_norm"), embd), draw.normal(name("attn_q"), 0.3, embd, 32),
			draw.normal(name("attn_k"), 0.3, embd, 16), draw.normal(name("attn_v"), 0.3, embd, 16),
			draw.normal(name("attn_output"), 0.3, 32, embd), ones(name("ffn_norm"), embd),
			draw.normal(name("ffn_gate"), 0.3, embd, ff), draw.normal(name("ffn_up"), 0.3, embd, ff),
			draw.normal(name("ffn_down"), 0.3, ff, embd))
	}
	return f
}

// tinyTokenizer spells every byte, and printable ASCII with one token a character.
func tinyTokenizer() []KV {
	const normal, unknown, control, userDefined, byteToken = 1, 2, 3, 4, 6
	var tokens []string
	var types []int32
	add := func(kind int32, text string) {
		tokens, types = append(tokens, text), append(types, kind)
	}
	add(unknown, "<unk>")
	add(control, "<s>")
	add(control, "</s>")
	for b := range 256 {
		add(byteToken, fmt.Sprintf("<0x%02X>", b))
	}
	add(normal, "\u2581") // a space
	for c := '!'; c <= '~'; c++ {
		add(normal, string(c))
	}
	add(control, "<|im_start|>")
	add(control, "<|im_end|>")
	add(userDefined, "<tool_call>")
	add(userDefined, "</tool_call>")
	add(userDefined, "<think>")
	add(userDefined, "</think>")
	return []KV{
		{"tokenizer.ggml.tokens", tokens},
		{"tokenizer.ggml.scores", make([]float32, len(tokens))},
		{"tokenizer.ggml.token_type", types},
		{"tokenizer.ggml.add_space_prefix", false},
	}
}

// TinyEncoder returns a BERT model that runs: two layers of 32 values, a trained context of 64,
// mean pooling, and a vocabulary of the lower-case letters at the start of a word and inside it.
func TinyEncoder(seed uint64) File {
	const embd, ff, layers, context = 32, 64, 2, 64
	draw := drawer{rand.New(rand.NewPCG(seed, 2))}
	tokens := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	types := []int32{3, 2, 3, 3, 3}
	for c := 'a'; c <= 'z'; c++ {
		tokens, types = append(tokens, "\u2581"+string(c), string(c)), append(types, 1, 1)
	}
	f := File{KVs: []KV{
		{"general.architecture", "bert"},
		{"general.type", "model"},
		{"general.name", "Tiny Encoder"},
		{"general.file_type", uint32(0)},
		{"bert.block_count", uint32(layers)},
		{"bert.context_length", uint32(context)},
		{"bert.embedding_length", uint32(embd)},
		{"bert.feed_forward_length", uint32(ff)},
		{"bert.attention.head_count", uint32(4)},
		{"bert.attention.layer_norm_epsilon", float32(1e-5)},
		{"bert.attention.causal", false},
		{"bert.pooling_type", uint32(1)},
		{"tokenizer.ggml.model", "bert"},
		{"tokenizer.ggml.tokens", tokens},
		{"tokenizer.ggml.scores", make([]float32, len(tokens))},
		{"tokenizer.ggml.token_type", types},
		{"tokenizer.ggml.token_type_count", uint32(2)},
		{"tokenizer.ggml.padding_token_id", uint32(0)},
		{"tokenizer.ggml.unknown_token_id", uint32(1)},
		{"tokenizer.ggml.bos_token_id", uint32(2)},
		{"tokenizer.ggml.cls_token_id", uint32(2)},
		{"tokenizer.ggml.eos_token_id", uint32(3)},
		{"tokenizer.ggml.seperator_token_id", uint32(3)},
		{"tokenizer.ggml.mask_token_id", uint32(4)},
	}}
	f.Tensors = []Tensor{
		draw.normal("token_embd.weight", 1, embd, uint64(len(tokens))),
		draw.normal("token_types.weight", 0.1, embd, 2),
		draw.normal("position_embd.weight", 0.3, embd, context),
		ones("token_embd_norm.weight", embd), F32("token_embd_norm.bias", embd),
	}
	for i := range layers {
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s", i, part) }
		for _, part := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
			f.Tensors = append(f.Tensors, draw.normal(name(part)+".weight", 0.3, embd, embd),
				F32(name(part)+".bias", embd))
		}
		f.Tensors = append(f.Tensors,
			draw.normal(name("ffn_up.weight"), 0.3, embd, ff), F32(name("ffn_up.bias"), ff),
			draw.normal(name("ffn_down.weight"), 0.3, ff, embd), F32(name("ffn_down.bias"), embd))
		for _, part := range []string{"attn_output_norm", "layer_output_norm"} {
			f.Tensors = append(f.Tensors, ones(name(part)+".weight", embd),
				F32(name(part)+".bias", embd))
		}
	}
	return f
}

// drawer draws weights.
type drawer struct{ *rand.Rand }

// normal is a tensor of normally distributed values.
func (d drawer) normal(name string, deviation float64, dims ...uint64) Tensor {
	t := F32(name, dims...)
	t.Data = make([]byte, 0, t.Size)
	for range t.Size / 4 {
		v := math.Float32bits(float32(d.NormFloat64() * deviation))
		t.Data = binary.LittleEndian.AppendUint32(t.Data, v)
	}
	return t
}

// ones is a tensor of ones, as of a norm that changes nothing.
func ones(name string, dims ...uint64) Tensor {
	t := F32(name, dims...)
	t.Data = make([]byte, 0, t.Size)
	for range t.Size / 4 {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(1))
	}
	return t
}
