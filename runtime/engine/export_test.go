package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/llama"
)

// CheckpointEvery is the distance of the checkpoints of a long prompt.
var CheckpointEvery = checkpointEvery

// Waiting is the number of requests in the queue.
func (e *Engine) Waiting() int { return e.queue.length() }

// Served is how many weighted tokens a tenant got.
func (e *Engine) Served(scope, salt string) int64 {
	e.queue.mu.Lock()
	defer e.queue.mu.Unlock()
	return e.queue.fair.shares[tenant{scope, salt}].served
}

// Books are the cells that requests have, and those promised to them. The problem is a sequence of
// which the context holds something else than the books say.
func (e *Engine) Books() (busy, promised int, problem error) {
	_ = e.call(context.Background(), "books", time.Time{}, 0, nil,
		func(_ context.Context, w *worker, _ kv.Admission) error {
			s := w.cells.cache.Stats()
			busy, promised = s.CellsBusy, s.CellsPromised
			for i := range w.c.Info().Sequences {
				held := int(w.c.PosMax(llama.Seq(i))) + 1
				if want := w.cells.cache.Length(kv.Seq(i)); held != want {
					problem = fmt.Errorf("sequence %d holds %d tokens, not %d", i, held, want)
				}
			}
			return nil
		})
	return busy, promised, problem
}
