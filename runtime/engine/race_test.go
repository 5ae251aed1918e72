//go:build race

package engine_test

// driftLess divides the text of TestR7Drift: the race detector makes its sums ten times as slow.
const driftLess = 4
