//go:build cgo

package llama_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

// write puts data into a file of the test's own directory.
func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// f32 is a tensor of ones times a value, so that a model made of it computes something.
func f32(name string, value float32, dims ...uint64) gguftest.Tensor {
	tensor := gguftest.F32(name, dims...)
	tensor.Data = make([]byte, 0, tensor.Size)
	for i := range tensor.Size / 4 {
		v := value * float32(i%7-3)
		tensor.Data = binary.LittleEndian.AppendUint32(tensor.Data, math.Float32bits(v))
	}
	return tensor
}

// adapter is a LoRA file of rank 1 over one tensor of a model.
func adapter(architecture, tensor string, in, out uint64, value float32) gguftest.File {
	return gguftest.File{
		KVs: []gguftest.KV{
			{Key: "general.architecture", Value: architecture},
			{Key: "general.type", Value: "adapter"},
			{Key: "adapter.type", Value: "lora"},
			{Key: "adapter.lora.alpha", Value: float32(1)},
		},
		Tensors: []gguftest.Tensor{
			f32(tensor+".lora_a", value, in, 1),
			f32(tensor+".lora_b", value, 1, out),
		},
	}
}

func tinyLora(t testing.TB) string {
	return write(t, "lora.gguf", adapter("llama", "blk.0.attn_q.weight", 32, 32, 1).Bytes())
}
