package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAccount: whatever comes true, guessing loses no more than the stake and its share of the
// tokens; and when all comes true, drafts soon have their full length.
func TestAccount(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		a := account(accountStake)
		cost := rapid.Float64Range(draftCostMin, draftCostMax).Draw(rt, "cost")
		tokens, spent := 0, 0.0
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			n := a.length(cost)
			require.LessOrEqual(rt, n, draftMax)
			n = rapid.IntRange(0, n).Draw(rt, "drafted")
			accepted := rapid.IntRange(0, n).Draw(rt, "accepted")
			a.settle(n, accepted, cost)
			tokens += 1 + accepted
			spent += cost*float64(n) - float64(accepted)
			require.GreaterOrEqual(rt, float64(a), -1e-9)
			require.LessOrEqual(rt, spent, accountStake+accountShare*float64(tokens)+1e-9)
		}
	})
	for _, cost := range []float64{draftCostMin, 0.3, 0.6} {
		a, steps := account(accountStake), 0
		for ; a.length(cost) < draftMax && steps < 100; steps++ {
			n := a.length(cost)
			a.settle(n, n, cost)
		}
		require.Less(t, steps, 12, "cost %v", cost)
	}
	a := account(accountStake)
	for range 1000 {
		a.settle(a.length(1), 0, 1)
		require.Less(t, a.length(1), 3)
	}
}

// TestDraftCost: a guess costs what was measured, and the more the more answers share a step.
func TestDraftCost(t *testing.T) {
	t.Parallel()
	p := pace{}
	require.InDelta(t, draftCostDefault, p.draftCost(1), 0)
	p.note(10e6, 1, 0, 0, 0)
	require.InDelta(t, draftCostDefault, p.draftCost(1), 0)
	p.note(40e6, 0, 10, 0, 0) // a prompt of 10 tokens
	require.InDelta(t, 0.4, p.draftCost(1), 1e-9)
	p.note(12e6, 1, 0, 8, 0)
	require.InDelta(t, 0.025, p.draftCost(1), 1e-9)
	require.InDelta(t, 0.1, p.draftCost(4), 1e-9)
	require.InDelta(t, 10e-3, p.decode, 1e-9, "steps with guesses are not those without")
	p.note(30e6, 1, 8, 8, 0)
	require.InDelta(t, 0.025, p.draftCost(1), 1e-9, "of two causes neither is known")
	p.draft = 1
	require.InDelta(t, draftCostMax, p.draftCost(1), 0)
	p.draft = 1e-9
	require.InDelta(t, draftCostMin, p.draftCost(1), 0)
}
