package engine

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// chunks feeds an estimate with chunks of prompts that cost a token a and a pair of tokens b.
func chunks(e *estimate, d *rand.Rand, n int, a, b float64, spoil func(float64) float64) {
	for range n {
		x := float64(32 + d.IntN(481))
		y := x * (float64(d.IntN(7000)) + x/2)
		e.add(x, y, spoil(a*x+b*y))
	}
}

// TestEstimateRecovers: from times with noise, and with some that are far off, the costs come out;
// after they have changed, the new ones do.
func TestEstimateRecovers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		noise := rapid.Float64Range(0, 0.1).Draw(t, "noise")
		outliers := rapid.Float64Range(0, 0.05).Draw(t, "outliers")
		spoil := func(v float64) float64 {
			if d.Float64() < outliers {
				return v * 20
			}
			return v * (1 + noise*(2*d.Float64()-1))
		}
		e := estimate{}
		a := math.Exp(rapid.Float64Range(math.Log(1e3), math.Log(1e8)).Draw(t, "log a"))
		for range 2 {
			a *= rapid.Float64Range(0.25, 4).Draw(t, "change")
			b := a * rapid.Float64Range(1e-4, 1e-3).Draw(t, "share")
			chunks(&e, d, 400, a, b, spoil)
			require.True(t, e.known())
			for _, x := range []float64{100, 500} {
				for _, m := range []float64{1500, 3500, 6000} {
					want := a*x + b*x*m
					require.InEpsilon(t, want, e.at(x, x*m), 0.3)
				}
			}
			require.InEpsilon(t, b, e.b, 0.5)
			require.LessOrEqual(t, e.sure(), e.b)
		}
	})
}

// TestEstimateOfAnything: whatever is fed, no cost is negative, infinite or no number.
func TestEstimateOfAnything(t *testing.T) {
	t.Parallel()
	value := rapid.OneOf(rapid.Float64(), rapid.Float64Range(0, 10), rapid.Just(0.0),
		rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 1e38}))
	rapid.Check(t, func(t *rapid.T) {
		e := estimate{keep: rapid.SampledFrom([]float64{0, 0.5, 0.999}).Draw(t, "keep")}
		for range rapid.IntRange(1, 60).Draw(t, "measurements") {
			e.add(value.Draw(t, "x"), value.Draw(t, "y"), value.Draw(t, "t"))
			for _, v := range []float64{e.a, e.b, e.at(3, 4), e.sure(), e.spread} {
				require.True(t, v >= 0 && v <= math.MaxFloat64, "%+v", e)
			}
		}
	})
}

// TestEstimateOfOneKind: with x and y in one proportion the whole cost is x's, and nothing is sure
// of y; with too few measurements nothing is said.
func TestEstimateOfOneKind(t *testing.T) {
	t.Parallel()
	e := estimate{}
	for range knownMin - 1 {
		e.add(10, 20, 30)
		require.Zero(t, e.at(10, 20))
	}
	for range 20 {
		e.add(10, 20, 30)
	}
	require.InDelta(t, 30, e.at(10, 20), 1e-9)
	require.InDelta(t, 3, e.a, 1e-9)
	require.Zero(t, e.sure())
	rate := estimate{}
	for range 20 {
		rate.add(100, 0, 7)
	}
	require.InDelta(t, 0.07, rate.a, 1e-9)
}

// TestEstimateIsSureOfEffects: a cost per y is found where there is one, and hardly ever where
// there is none.
func TestEstimateIsSureOfEffects(t *testing.T) {
	t.Parallel()
	d := rand.New(rand.NewPCG(1, 2))
	found := func(b float64) (sure int) {
		for range 200 {
			e := estimate{keep: 0.999}
			for i := range 400 {
				y := float64(i / 40 % 4 * 1000)
				e.add(1, y, (100+b*y)*(1+0.1*d.NormFloat64()))
			}
			if e.sure() > 0 {
				sure++
			}
		}
		return sure
	}
	require.LessOrEqual(t, found(0), 12)
	require.GreaterOrEqual(t, found(0.01), 195)
}
