package bench

import (
	"fmt"
	"math"
	"slices"
)

// Summary describes samples by their middle and their ends. With few samples from a machine that
// drifts, these say more than a mean and a deviation do.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// Summarize describes samples, in any order, which it leaves as they are. Of an even number the
// median is the mean of the two in the middle. No samples give the zero Summary.
func Summarize(samples []float64) Summary {
	n := len(samples)
	if n == 0 {
		return Summary{}
	}
	s := slices.Sorted(slices.Values(samples))
	return Summary{Median: s[(n-1)/2]/2 + s[n/2]/2, Min: s[0], Max: s[n-1], N: n}
}

// String gives "median [min max]" with three decimals.
func (s Summary) String() string {
	if s.N == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f [%.3f %.3f]", s.Median, s.Min, s.Max)
}

// Spread is the larger distance of an end from one, of a Summary of ratios: 0.02 means that all
// lie within 2 % of equal.
func (s Summary) Spread() float64 {
	if s.N == 0 {
		return 0
	}
	return max(math.Abs(s.Max-1), math.Abs(1-s.Min))
}

// Ratios divides a by b round by round: a[i] and b[i] were measured next to each other. Rounds
// that only one side has, and those with a value that is not above zero, are left out.
func Ratios(a, b []float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		if a[i] > 0 && b[i] > 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}

// Consecutive divides each sample by the one before: what a ratio of two equal programs looks
// like on this machine, drift and noise included.
func Consecutive(a []float64) []float64 {
	if len(a) < 2 {
		return nil
	}
	return Ratios(a[1:], a[:len(a)-1])
}
