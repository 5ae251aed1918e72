package bench_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestSweep: the planned setting is measured in turns with each other one, once.
func TestSweep(t *testing.T) {
	path := storetest.Model(t, "smollm2:135m")
	r, _, err := bench.Scenario{
		Method: bench.Method{
			Rounds: 1, Quick: true,
			Resolve: func(context.Context, string) (string, string, error) { return path, "", nil },
		},
		Model: "smollm2:135m",
	}.Sweep(t.Context(), bench.Sweep{
		Threads: []int{1, 2}, MicroBatches: []int{32, 64}, Prompt: 64, Gen: 2,
	})
	require.NoError(t, err)
	sides := map[string]map[bench.Side]bool{}
	for _, run := range r.Runs {
		test, _, _ := strings.Cut(run.Subject, " ")
		if sides[test] == nil {
			sides[test] = map[bench.Side]bool{}
		}
		sides[test][run.Side] = true
		require.Positive(t, run.Rate)
	}
	require.Len(t, sides["prefill"], 5, "the plan's micro-batch is none of those")
	require.Contains(t, sides["prefill"], bench.Side("t=1 ub=32"))
	require.Contains(t, sides["decode"], bench.SideNorion)
	require.Len(t, r.Claims, 4+len(sides["decode"])-1)
	for _, c := range r.Claims {
		require.NotNil(t, c.Holds, c.Name)
	}
}
