package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// stormCase is an engine that a storm goes over.
type stormCase struct {
	name  string
	model gguftest.File
	o     engine.Options
}

func stormCases() []stormCase {
	llama, window := gguftest.TinyModel(1), tinyWindowModel()
	return []stormCase{
		{"streams", llama, engine.Options{Sequences: 3, RAM: 1 << 20}},
		{"streams without memory", llama, engine.Options{Sequences: 2}},
		{"shared", llama, engine.Options{Sequences: 6, Shared: true, Cells: 500, RAM: 1 << 19}},
		{"shared without memory", llama, engine.Options{Sequences: 6, Shared: true, Cells: 300}},
		{"disk", llama, engine.Options{Sequences: 3, CacheDir: "here", RAM: 1 << 18}},
		{"window", window, engine.Options{Sequences: 3, RAM: 1 << 20}},
		{"small window", window, engine.Options{Sequences: 3, SmallWindow: true, RAM: 1 << 20}},
		{"small shared window", window, engine.Options{
			Sequences: 4, SmallWindow: true, Shared: true, Cells: 600, RAM: 1 << 20,
		}},
		{"shared window", window, engine.Options{
			Sequences: 4, Shared: true, Cells: 500, RAM: 1 << 18, CacheDir: "here",
		}},
	}
}

// stormRequest draws a request of any kind.
func stormRequest(d *rand.Rand, base []infer.TokenID, o *engine.Options) infer.Request {
	n := 1 + d.IntN(len(base))
	r := infer.Request{
		Tokens:    append(base[:n:n], draw(d, d.IntN(12))...),
		MaxTokens: 1 + d.IntN(16), IgnoreEOS: true, Priority: d.IntN(3) - 1,
	}
	switch d.IntN(8) {
	case 0:
		r.KV.Scope = fmt.Sprint(d.IntN(3))
	case 1:
		r.KV.Salt = fmt.Sprint(d.IntN(3))
	case 2:
		r.KV.NoReuse = true
	case 3:
		r.KV.Deterministic = !o.Shared
	case 4:
		r.KV.Evict, r.KV.Recompute = "sink-window", true
		r.KV.Sinks, r.KV.Window, r.KV.Block = 1+d.IntN(4), 30+d.IntN(40), 1+d.IntN(20)
		r.MaxTokens = 1 + d.IntN(60)
	case 5:
		r.KV.Evict, r.KV.Recompute = []string{"middle-out", "keep-system"}[d.IntN(2)], true
	case 6:
		r.Deadline = time.Now().Add(time.Duration(d.IntN(4000)) * time.Microsecond)
	}
	return r
}

// TestE6StormOfAllKinds: thousands of requests of all kinds that come and go leave every cell free
// and the books right, and nothing but what their callers wanted has ended them.
func TestE6StormOfAllKinds(t *testing.T) {
	cases := stormCases()
	const clients = 12
	each := 4_000/len(cases)/clients + 1
	if testing.Short() {
		each = 10
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.o.CacheDir != "" {
				c.o.CacheDir = t.TempDir() + "/cache"
			}
			e := openFile(t, c.model, func(o *engine.Options) {
				paths := o.Paths
				*o = c.o
				o.Paths, o.Threads, o.ContextTokens, o.QueueMax = paths, 1, 256, clients
			})
			seed := rand.Uint64()
			t.Log("seed", seed)
			base := draw(rand.New(rand.NewPCG(seed, 1)), 90)
			var answers atomic.Int64
			var wg sync.WaitGroup
			for client := range clients {
				wg.Go(func() {
					d := rand.New(rand.NewPCG(seed, 2+uint64(client)))
					for range each {
						if gone(t, e, d, stormRequest(d, base, &c.o)) {
							answers.Add(1)
						}
					}
				})
			}
			calm(t, e, &wg)
			require.Positive(t, answers.Load())
			busy, promised, problem := e.Books()
			require.NoError(t, problem)
			require.Zero(t, busy)
			require.Zero(t, promised)
		})
	}
}

// gone runs a request whose caller may leave at any moment, and says whether it was answered.
func gone(t *testing.T, e *engine.Engine, d *rand.Rand, r infer.Request) bool {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	left := d.IntN(20)
	if d.IntN(6) == 0 { // at once, or in the queue, or in the prompt
		delay := d.IntN(3)
		go func() {
			for range delay {
				_, _ = e.Tokenize(t.Context(), "a delay", infer.TokenizeOptions{})
			}
			cancel(errors.New("left"))
		}()
		left = 1000
	}
	leaves := d.IntN(2) == 0
	for c, err := range e.Generate(ctx, r) {
		if err != nil {
			assert.Contains(t, []infer.Kind{
				infer.KindCanceled, infer.KindBusy, infer.KindDeadline,
			}, infer.KindOf(err), "%+v: %v", r.KV, err)
			return false
		}
		if left -= c.Tokens; left < 0 && leaves {
			return false
		} else if left < 0 {
			cancel(nil)
		}
		if c.Final != nil {
			return true
		}
	}
	return false
}

// calm waits for the storm's end, or says where everybody is when there is none.
func calm(t *testing.T, e *engine.Engine, wg *sync.WaitGroup) {
	t.Helper()
	over := make(chan struct{})
	go func() {
		wg.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(2 * time.Minute):
		t.Fatalf("some requests neither go on nor end, %d wait", e.Waiting())
	}
}
