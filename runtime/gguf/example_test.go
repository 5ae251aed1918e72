package gguf_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/gguf/gguftest"
)

func ExampleRead() {
	b := gguftest.Model().Bytes()
	f, err := gguf.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		fmt.Println(err)
		return
	}
	name, _ := f.String("general.name")
	shape, err := f.Shape()
	if err != nil {
		fmt.Println(err)
		return
	}
	cache, _ := shape.CacheSize(gguf.F16, gguf.F16)
	fmt.Println(name, len(shape.Layers), "layers,", cache.FullBytes, "bytes of KV cache per token")
	// Output: Tiny Test 2 layers, 128 bytes of KV cache per token
}

func ExampleOpen() {
	_, err := gguf.Open("no-such-model.gguf")
	var e *gguf.Error
	if errors.As(err, &e) && errors.Is(err, os.ErrNotExist) {
		fmt.Println(e.Kind, "-", e.Hint)
	}
	// Output: read failed - check the path and its permissions
}

func ExampleFile_CheckModel() {
	b := gguftest.Model().With(gguftest.KV{Key: "general.type", Value: "adapter"}).Bytes()
	f, err := gguf.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		fmt.Println(err)
		return
	}
	err = f.CheckModel()
	var e *gguf.Error
	if errors.Is(err, gguf.ErrNotModel) && errors.As(err, &e) {
		fmt.Println(e.Hint)
	}
	// Output: load the base model and add this file with --lora
}
