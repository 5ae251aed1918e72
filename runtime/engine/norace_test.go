//go:build !race

package engine_test

// driftLess divides the text of TestR7Drift.
const driftLess = 1
