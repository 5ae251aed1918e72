package gguftest_test

import (
	"fmt"

	"github.com/norion/norion/runtime/gguf/gguftest"
)

func ExampleFile_Bytes() {
	f := gguftest.File{
		KVs:     []gguftest.KV{{Key: "general.name", Value: "mine"}},
		Tensors: []gguftest.Tensor{gguftest.F32("weights", 8)},
	}
	b := f.Bytes()
	fmt.Printf("%s, %d header bytes, %d in all\n", b[:4], f.HeaderBytes(), len(b))
	// Output: GGUF, 128 header bytes, 160 in all
}
