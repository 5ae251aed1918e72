package snapshot_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/norion/norion/kv/snapshot"
)

// A state is saved, and found again after a restart.
func Example() {
	home, err := os.MkdirTemp("", "norion")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(home) }()
	open := func() *snapshot.Store {
		s, err := snapshot.Open(snapshot.Options{
			BufferBytes: 256 << 20, DiskBytes: 1 << 30, Dir: filepath.Join(home, "kv"),
		})
		if err != nil {
			panic(err)
		}
		return s
	}
	identity := snapshot.Identity{
		Engine: "llama.cpp b1234", Model: "sha256:0123", Context: "f16", Scope: "alice",
	}

	s := open()
	b, err := s.Buffer(11) // the engine says how large the state is
	if err != nil {
		panic(err)
	}
	copy(b.Bytes(), "saved state")
	_, err = s.Put(snapshot.State{
		Identity: identity, Part: snapshot.Full, Tokens: []int32{1, 518, 25580},
	}, b)
	b.Release() // as long as it is held, the state lies in RAM
	if err != nil {
		panic(err)
	}
	_ = s.Flush(context.Background())
	_ = s.Close()

	s = open()
	defer func() { _ = s.Close() }()
	for _, x := range s.Index(identity) {
		b, ok := s.Get(context.Background(), x.ID)
		if !ok {
			continue // a miss: compute it again
		}
		fmt.Println(x.Tokens, x.Scope, string(b.Bytes()))
		b.Release()
	}
	// Output: [1 518 25580] alice saved state
}
