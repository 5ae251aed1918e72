package engine_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
)

// A model answers a prompt. The store pulls it once and resolves its name to a file.
func Example() {
	ctx := context.Background()
	models, err := store.Open(store.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := models.Pull(ctx, "smollm2:135m", store.PullOptions{})
	if err = errors.Join(err, models.Close()); err != nil {
		fmt.Println(err)
		return
	}
	e, err := engine.Open(ctx, engine.Options{Paths: []string{m.Path}, Threads: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close()
	for chunk, err := range e.Generate(ctx, infer.Request{Prompt: "One, two, three,", MaxTokens: 4}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(chunk.Text)
	}
	fmt.Println()
	// Output: four, five,
}
