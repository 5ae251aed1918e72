package engine_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// TestBuffers: the memory of saved state is what the books say, after requests of all kinds that
// came, were parked, and went. After Close none is in use, although answers were running, parked
// and on their way to disk.
func TestBuffers(t *testing.T) {
	for _, c := range stormCases() {
		t.Run(c.name, func(t *testing.T) {
			if c.o.CacheDir != "" {
				c.o.CacheDir = t.TempDir() + "/cache"
			}
			e := openFile(t, c.model, func(o *engine.Options) {
				paths := o.Paths
				*o = c.o
				o.Paths, o.Threads, o.ContextTokens = paths, 1, 256
			})
			used := e.Buffers(t)
			seed := rand.Uint64()
			t.Log("seed", seed)
			base := draw(rand.New(rand.NewPCG(seed, 1)), 90)
			var wg sync.WaitGroup
			for client := range 8 {
				wg.Go(func() {
					d := rand.New(rand.NewPCG(seed, 2+uint64(client)))
					for range 15 {
						gone(t, e, d, stormRequest(d, base, &c.o))
					}
				})
			}
			calm(t, e, &wg)
			taken, booked := e.Memory(t)
			require.Equal(t, booked, taken)

			var held []func()
			var results []<-chan error
			hold := func(priority int) {
				r := endless()
				r.Priority, r.MaxTokens = priority, 50 // all have room, and none is at its end
				release, result := stuck(t.Context(), e, r)
				held, results = append(held, release), append(results, result)
			}
			for range min(c.o.Sequences, 4) {
				hold(0)
			}
			if c.o.RAM > 0 {
				hold(1) // parks one of them, where no sequence is left
				require.Positive(t, used())
			}
			require.NoError(t, e.Close())
			require.Zero(t, used())
			for i, release := range held {
				release()
				require.Equal(t, infer.KindClosed, infer.KindOf(wait(t, results[i])))
			}
		})
	}
}
