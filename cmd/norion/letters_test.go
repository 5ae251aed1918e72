package main

import (
	"fmt"
	"time"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

var testEpoch = time.Unix(1700000000, 0)

// letters is a model that knows single bytes and whose weights are zero: each token is as probable
// as any other, the greedy answer is "aaa...", and a logit bias decides what comes. Token 0..25
// are the letters a to z, 26 is the end of an answer; the context is 128 tokens.
func letters() gguftest.File {
	var tokens []string
	var types []int32
	for c := 'a'; c <= 'z'; c++ {
		tokens, types = append(tokens, string(c)), append(types, 1)
	}
	tokens, types = append(tokens, "</s>", "<s>", "<unk>"), append(types, 3, 3, 2)
	for b := range 256 {
		tokens, types = append(tokens, fmt.Sprintf("<0x%02X>", b)), append(types, 6)
	}
	f := gguftest.Model().With(
		gguftest.KV{Key: "tokenizer.ggml.tokens", Value: tokens},
		gguftest.KV{Key: "tokenizer.ggml.scores", Value: make([]float32, len(tokens))},
		gguftest.KV{Key: "tokenizer.ggml.token_type", Value: types},
		gguftest.KV{Key: "tokenizer.ggml.eos_token_id", Value: uint32(26)},
		gguftest.KV{Key: "tokenizer.ggml.bos_token_id", Value: uint32(27)},
		gguftest.KV{Key: "tokenizer.ggml.unknown_token_id", Value: uint32(28)},
		gguftest.KV{Key: "tokenizer.ggml.add_space_prefix", Value: false},
	)
	for i, t := range f.Tensors {
		if t.Name == "token_embd.weight" {
			f.Tensors[i] = gguftest.F32(t.Name, t.Dims[0], uint64(len(tokens)))
		}
	}
	return f
}
