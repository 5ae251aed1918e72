package engine

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/kv/snapshot"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Memory is what saved state takes in memory, and what the books say it does.
func (e *Engine) Memory(t testing.TB) (taken, booked int64) {
	e.visit(t, func(w *worker) {
		require.NoError(t, w.cells.run(w.cells.cache.Tidy())) // what was to be forgotten, is
		for _, buf := range w.cells.blobs {
			taken += buf.Size()
		}
		booked = w.cells.cache.Stats().RAM.Bytes
	})
	return taken, booked
}

// Buffers reads how much memory for saved state is in use, also after Close.
func (e *Engine) Buffers(t testing.TB) func() int64 {
	var store *snapshot.Store
	e.visit(t, func(w *worker) { store = w.cells.store })
	return func() int64 { return store.Stats().BufferBytes }
}

// After runs operations of which the first cannot be done, on sequence 0, and another on sequence
// 1, which holds one token. It returns what sequence 1 holds then.
func (e *Engine) After(t testing.TB) (held int) {
	err := e.call(context.Background(), "test", time.Time{}, 0, nil,
		func(_ context.Context, w *worker, _ kv.Admission) error {
			_, err := w.c.Batch().Add(3, 0, llama.Seq(1), false)
			require.NoError(t, err)
			require.NoError(t, w.c.Decode())
			err = w.cells.run([]kv.Op{
				{Kind: kv.Restore, Seq: 0, Blob: 99, Place: kv.RAM},
				{Kind: kv.SeqRemove, Seq: 0, P0: 5, P1: kv.End},
				{Kind: kv.SeqRemove, Seq: 1, P1: kv.End},
			})
			require.ErrorContains(t, err, "gone")
			held = int(w.c.PosMax(1)) + 1
			return nil
		})
	require.NoError(t, err)
	return held
}

// Steps begins requests of one answer token in order, and returns how many steps each takes to it.
func (e *Engine) Steps(t testing.TB, requests ...infer.Request) []int {
	steps := make([]int, len(requests))
	for n, step := range e.Turns(t, requests...) {
		for _, i := range step {
			steps[i] = n + 1
		}
	}
	return steps
}

// Turns begins requests in order and runs them to their ends, unread. It returns which of them each
// step computed.
func (e *Engine) Turns(t testing.TB, requests ...infer.Request) (turns [][]int) {
	err := e.call(t.Context(), "test", time.Time{}, 0, nil,
		func(ctx context.Context, w *worker, _ kv.Admission) error {
			all := make([]*generation, len(requests))
			for i := range requests {
				g, err := e.prepare(ctx, &requests[i])
				require.NoError(t, err)
				g.task.ctx = g.ctx
				require.NoError(t, e.queue.push(&g.task))
				require.True(t, g.begin(w))
				all[i] = g
			}
			for len(w.running) > 0 {
				require.True(t, w.advance())
				var step []int
				for _, p := range w.step.parts {
					step = append(step, slices.Index(all, p.g))
				}
				turns = append(turns, step)
			}
			for _, g := range all {
				require.NoError(t, g.err)
			}
			return nil
		})
	require.NoError(t, err)
	return turns
}

// DecodePace is what the engine believes that a step of answers takes, in seconds.
func (e *Engine) DecodePace(t testing.TB) (seconds float64) {
	err := e.call(t.Context(), "test", time.Time{}, 0, nil,
		func(_ context.Context, w *worker, _ kv.Admission) error {
			seconds = w.base.pace.decode
			return nil
		})
	require.NoError(t, err)
	return seconds
}

// PosMin is the first position that the context holds of sequence 0, -1 for none.
func (e *Engine) PosMin(t testing.TB) (first int) {
	err := e.call(t.Context(), "test", time.Time{}, 0, nil,
		func(_ context.Context, w *worker, _ kv.Admission) error {
			first = int(w.c.PosMin(0))
			return nil
		})
	require.NoError(t, err)
	return first
}
