package bench_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestPlan holds two plans against their loads: the bytes are as predicted, and the table and the
// claims say so.
func TestPlan(t *testing.T) {
	path := storetest.Model(t, "smollm2:135m")
	r, pairs, err := bench.Scenario{
		Method: bench.Method{
			Rounds: 1, Quick: true,
			Resolve: func(context.Context, string) (string, string, error) { return path, "", nil },
		},
		Model: "smollm2:135m", Threads: 1,
	}.Plan(t.Context(), bench.Plans{
		Contexts: []int{256}, Sequences: []int{2}, KVTypes: []string{"f16", "q8_0"},
		NoFlash: []bool{false},
	})
	require.NoError(t, err)
	require.Empty(t, pairs)
	require.Len(t, r.Runs, 2)
	require.Equal(t, "ctx=256 kv=q8_0 sequences=2 flash=true", r.Runs[1].Case)
	for _, run := range r.Runs {
		require.InDelta(t, 0, run.Values["bytes error"], 3, "%+v", run.Values)
		for _, name := range []string{"decode", "decode, all", "prefill"} {
			require.Positive(t, run.Values[name])
			require.Positive(t, run.Values[name+" predicted"])
		}
	}
	require.Greater(t, r.Runs[0].Values["loaded bytes"], r.Runs[1].Values["loaded bytes"])
	require.Len(t, r.Claims, 6)
	for _, c := range r.Claims {
		require.NotNil(t, c.Holds, c.Name)
		require.Equal(t, 2, c.Samples, c.Name)
	}
	require.Equal(t, "smollm2:135m, error of bytes, norion", r.Claims[0].Name)
	require.True(t, *r.Claims[0].Holds)
	var text bytes.Buffer
	require.NoError(t, r.WriteText(&text, pairs))
	require.Contains(t, text.String(), "ctx=256 kv=f16 sequences=2 flash=true")
	require.Contains(t, text.String(), "MiB planned")
}

// TestPlansFill: what is not named gets a default.
func TestPlansFill(t *testing.T) {
	t.Parallel()
	require.Equal(t, bench.DefaultPlans, bench.Plans{}.Fill(false))
	require.Equal(t, []int{7}, bench.Plans{Contexts: []int{7}}.Fill(true).Contexts)
	require.Equal(t, bench.QuickPlans.KVTypes, bench.Plans{Contexts: []int{7}}.Fill(true).KVTypes)
}
