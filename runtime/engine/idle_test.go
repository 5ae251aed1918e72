package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/kv"
)

// TestStay: an idle sequence goes in the step in which it has cost what parking it costs, counted
// from its last use.
func TestStay(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		step, price float64
		goes        int // in which step, 0 for never
	}{
		"at the price":        {10, 50, 5},
		"a little below":      {10, 50.1, 6},
		"dear":                {10, 5, 1},
		"the price not known": {10, 0, 0},
		"the cost not known":  {0, 50, 0},
	} {
		i := idling{}
		for step := 1; step <= 20; step++ {
			require.Equal(t, x.goes > 0 && step >= x.goes, i.stay(1, x.step, x.price), "%s %d", name, step)
		}
	}
	i := idling{}
	for use := range uint64(5) { // it is used again in time
		for range 4 {
			require.False(t, i.stay(use, 10, 50))
		}
	}
}

// TestStayIsTwiceTheBestAtMost: whenever the sequence is wanted again, what was paid is at most
// twice what the best decision in hindsight would have been, and one step more.
func TestStayIsTwiceTheBestAtMost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		price := rapid.Float64Range(1, 100).Draw(t, "price")
		i, idle, paid, parked, largest := idling{}, 0.0, 0.0, false, 0.0
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			step := rapid.Float64Range(0, 20).Draw(t, "step")
			idle, largest = idle+step, max(largest, step)
			if parked {
				continue
			}
			paid += step
			if parked = i.stay(1, step, price); parked {
				paid += price
			}
		}
		require.LessOrEqual(t, paid, 2*min(idle, price)+largest+1e-9)
	})
}

// TestParking: what was measured is taken, the books' proportion for what was not, and nothing is
// said where no time is known.
func TestParking(t *testing.T) {
	t.Parallel()
	fed := func(e *estimate, x, t float64) {
		for range 2 * knownMin {
			e.add(x, 0, t)
		}
	}
	k, books := costs{}, kv.Costs{Restore: 3}
	require.Zero(t, k.parking(100, books))
	fed(&k.save, 10, 50)
	require.Zero(t, k.parking(100, books), "the books have no times yet")
	fed(&k.prompt, 100, 9000)
	require.InDelta(t, 100*(5+3), k.parking(100, books), 1e-9)
	fed(&k.restore, 10, 20)
	require.InDelta(t, 100*(5+2), k.parking(100, books), 1e-9)
	k.prompt = estimate{}
	require.InDelta(t, 100*(5+2), k.parking(100, books), 1e-9)
}

// PriceIdle replaces what the engine measures of idle cells.
func (e *Engine) PriceIdle(t testing.TB, cell, price float64) {
	e.visit(t, func(w *worker) {
		w.idle.cell = func(int) float64 { return cell }
		w.idle.price = func(int) float64 { return price }
	})
}

// Idled is how many steps with one answer were measured, and how many cells were idle in them on
// average.
func (e *Engine) Idled(t testing.TB) (steps, cells float64) {
	e.visit(t, func(w *worker) {
		d := &w.cells.costs.decode[0]
		steps, cells = d.n, d.xy/max(1, d.xx)
	})
	return steps, cells
}
