package bench_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/bench"
)

func TestSummarize(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		samples []float64
		want    bench.Summary
		text    string
		spread  float64
	}{
		{nil, bench.Summary{}, "-", 0},
		{[]float64{2}, bench.Summary{Median: 2, Min: 2, Max: 2, N: 1}, "2.000 [2.000 2.000]", 1},
		{
			[]float64{1.1, 0.9},
			bench.Summary{Median: 1, Min: 0.9, Max: 1.1, N: 2},
			"1.000 [0.900 1.100]", 0.1,
		},
		{
			[]float64{0.99, 0.7, 1.02},
			bench.Summary{Median: 0.99, Min: 0.7, Max: 1.02, N: 3},
			"0.990 [0.700 1.020]", 0.3,
		},
		{
			[]float64{4, 1, 3, 2},
			bench.Summary{Median: 2.5, Min: 1, Max: 4, N: 4},
			"2.500 [1.000 4.000]", 3,
		},
		{
			[]float64{math.MaxFloat64, math.MaxFloat64},
			bench.Summary{Median: math.MaxFloat64, Min: math.MaxFloat64, Max: math.MaxFloat64, N: 2},
			"", math.MaxFloat64,
		},
	} {
		before := slices.Clone(tt.samples)
		got := bench.Summarize(tt.samples)
		require.InDelta(t, tt.want.Median, got.Median, 1e-12)
		got.Median = tt.want.Median
		require.Equal(t, tt.want, got)
		require.Equal(t, before, tt.samples, "the samples were changed")
		if tt.text != "" {
			require.Equal(t, tt.text, got.String())
		}
		require.InDelta(t, tt.spread, got.Spread(), 1e-12)
	}
}

func TestRatios(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name              string
		a, b              []float64
		want, consecutive []float64
	}{
		{name: "none"},
		{name: "one", a: []float64{3}, b: []float64{2}, want: []float64{1.5}},
		{
			name: "per round", a: []float64{1, 4, 9}, b: []float64{1, 2, 3},
			want: []float64{1, 2, 3}, consecutive: []float64{4, 2.25},
		},
		{
			name: "a side that stopped early", a: []float64{1, 2}, b: []float64{2},
			want: []float64{0.5}, consecutive: []float64{2},
		},
		{
			name: "a failed sample", a: []float64{1, 0, 3}, b: []float64{1, 1, 1},
			want: []float64{1, 3}, consecutive: nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, bench.Ratios(tt.a, tt.b))
			require.Equal(t, tt.consecutive, bench.Consecutive(tt.a))
		})
	}
}

// TestSummarizeProperties: the median lies between the ends, half the samples on either side, and
// scaling the samples scales the summary.
func TestSummarizeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.SliceOfN(rapid.Float64Range(1e-3, 1e6), 1, 50).Draw(t, "samples")
		s := bench.Summarize(samples)
		below, above := 0, 0
		for _, v := range samples {
			if v < s.Median {
				below++
			}
			if v > s.Median {
				above++
			}
			require.GreaterOrEqual(t, v, s.Min)
			require.LessOrEqual(t, v, s.Max)
		}
		require.LessOrEqual(t, below, len(samples)/2)
		require.LessOrEqual(t, above, len(samples)/2)
		twice := slices.Clone(samples)
		for i := range twice {
			twice[i] *= 2
		}
		require.Equal(t, s.Median*2, bench.Summarize(twice).Median)
		for _, r := range bench.Ratios(twice, samples) {
			require.Equal(t, 2.0, r)
		}
	})
}
