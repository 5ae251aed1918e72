package engine_test

import (
	"context"
	"fmt"
	"log"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
)

// A model answers a prompt. The store pulls it once and resolves its name to a file.
func Example() {
	ctx := context.Background()
	models, err := store.Open(store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer models.Close()
	m, err := models.Pull(ctx, "smollm2:135m", store.PullOptions{})
	if err != nil {
		log.Fatal(err)
	}
	e, err := engine.Open(ctx, engine.Options{Paths: []string{m.Path}, Threads: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	for chunk, err := range e.Generate(ctx, infer.Request{Prompt: "One, two, three,", MaxTokens: 4}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(chunk.Text)
	}
	fmt.Println()
	// Output: four, five,
}
