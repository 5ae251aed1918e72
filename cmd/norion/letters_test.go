package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

var testEpoch = time.Unix(1700000000, 0)

// letters is a model that knows single bytes and whose layers do nothing: "a" is a little more
// probable than all else, which is equal. So the greedy answer is "aaa...", and a logit bias
// decides what comes. Token 0..25 are the letters a to z, 26 is the end of an answer; the context
// is 128 tokens.
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
		switch t.Name {
		case "token_embd.weight": // its first column is what the model sees of a token, and says
			column := slices.Repeat([]float32{1}, len(tokens))
			column[0] = 2
			f.Tensors[i] = firstColumn(gguftest.F32(t.Name, t.Dims[0], uint64(len(tokens))), column)
		case "output_norm.weight":
			f.Tensors[i] = firstColumn(t, []float32{0.001})
		}
	}
	return f
}

// firstColumn fills the first value of each row of t, and zeros the rest.
func firstColumn(t gguftest.Tensor, values []float32) gguftest.Tensor {
	t.Data = make([]byte, t.Size)
	rowBytes := int(t.Size) / len(values)
	for i, v := range values {
		binary.LittleEndian.PutUint32(t.Data[i*rowBytes:], math.Float32bits(v))
	}
	return t
}
