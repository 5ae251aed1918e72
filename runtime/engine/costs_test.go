package engine

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// TestRecompute: the prediction for a prompt is the sum of that for its parts, and the books get
// the same.
func TestRecompute(t *testing.T) {
	t.Parallel()
	k := costs{}
	require.Zero(t, k.recompute(100))
	for i := range 100 {
		at, n := float64(i%20*100), 100.0
		k.prompt.add(n, n*(at+n/2), 2000*n+3*n*(at+n/2))
	}
	require.InEpsilon(t, 2000*500+3*500*250, float64(k.recompute(500)), 1e-6)
	b := k.books()
	require.InEpsilon(t, 2000, b.Compute, 1e-6)
	require.InEpsilon(t, 3, b.ComputePair, 1e-6)
	require.Zero(t, b.Restore)
}

// Costs are those that the books decide by.
func (e *Engine) Costs(t testing.TB) (c kv.Costs) {
	e.visit(t, func(w *worker) { c = w.cells.cache.Costs() })
	return c
}

// visit runs on the owner goroutine.
func (e *Engine) visit(t testing.TB, run func(*worker)) {
	require.NoError(t, e.call(context.Background(), "test", time.Time{}, 0, nil,
		func(_ context.Context, w *worker, _ kv.Admission) error {
			run(w)
			return nil
		}))
}
