package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// TestIdleIsParked: in a shared buffer an idle sequence is moved to memory once it has cost the
// answers beside it what moving costs, not before, and serves a later request from there. In
// streams, without memory, and where nothing was measured, it stays.
func TestIdleIsParked(t *testing.T) {
	idle := infer.Request{Tokens: someTokens(1, 100), MaxTokens: 1, IgnoreEOS: true}
	for name, x := range map[string]struct {
		o     engine.Options
		cell  float64
		steps int // of an answer beside it
		ram   bool
	}{
		"not yet":          {engine.Options{Shared: true, RAM: 1 << 20}, 1, 5, false},
		"at the price":     {engine.Options{Shared: true, RAM: 1 << 20}, 1, 6, true},
		"streams":          {engine.Options{RAM: 1 << 20}, 1, 60, false},
		"without memory":   {engine.Options{Shared: true}, 1, 60, false},
		"nothing measured": {engine.Options{Shared: true, RAM: 1 << 20}, 0, 60, false},
	} {
		t.Run(name, func(t *testing.T) {
			x.o.Sequences = 3
			e := start(t, x.o)
			e.PriceIdle(t, x.cell, 600) // 100 cells: after 6 steps
			answer(t, e, idle)
			answer(t, e, infer.Request{ // the first token comes with the prompt
				Tokens: someTokens(2, 10), MaxTokens: x.steps + 1, IgnoreEOS: true,
			})
			_, f := answer(t, e, idle)
			want := infer.Cached{Live: 99}
			if x.ram {
				want = infer.Cached{RAM: 99}
			}
			require.Equal(t, want, f.Usage.Cached)
			_, _, problem := e.Books()
			require.NoError(t, problem)
		})
	}
}

// TestIdleCellsAreMeasured: in a shared buffer the steps of answers are timed beside the idle cells
// there are, in streams they are not.
func TestIdleCellsAreMeasured(t *testing.T) {
	for _, shared := range []bool{true, false} {
		e := start(t, engine.Options{Shared: shared, Sequences: 2})
		answer(t, e, infer.Request{Tokens: someTokens(1, 100), MaxTokens: 1, IgnoreEOS: true})
		answer(t, e, infer.Request{Tokens: someTokens(2, 10), MaxTokens: 41, IgnoreEOS: true})
		steps, cells := e.Idled(t)
		if !shared {
			require.Zero(t, steps)
			continue
		}
		require.InDelta(t, 40, steps, 25, "those that took far too long count less")
		require.InDelta(t, 100, cells, 1e-6)
	}
}
