package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/norion/norion/runtime/store"
)

// A name is looked up in the store and the catalogue; an error says what to do next.
func ExampleStore_Resolve() {
	root, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(root) }()
	s, err := store.Open(store.Options{Root: root})
	if err != nil {
		panic(err)
	}
	defer func() { _ = s.Close() }()

	for _, ref := range []string{"smollm2", "smolm2"} {
		_, err := s.Resolve(context.Background(), ref)
		var e *store.Error
		if errors.As(err, &e) {
			fmt.Printf("%v\n  %s\n", e, e.Hint)
		}
	}
	// Output:
	// resolve: model not pulled: smollm2
	//   pull it first: norion pull smollm2:135m
	// resolve: unknown model: smolm2
	//   did you mean smollm2? A path to a .gguf file works too
}
