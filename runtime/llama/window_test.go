//go:build cgo

package llama_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

const (
	windowFed  = 2000
	windowCut  = 1488 // the lowest cut that leaves a whole window before it
	windowSize = 512
)

// windowed is Gemma with a small window cache and 2000 tokens of one sequence in it.
func windowed(t *testing.T, small bool) (*llama.Context, []llama.Token) {
	m := model(t, gemma)
	require.Equal(t, windowSize, m.Info().Window)
	c := newContext(t, m, llama.ContextParams{
		Tokens: 2560, Batch: 512, MicroBatch: 512, Threads: 1, SmallWindow: small,
	})
	text := strings.Repeat(passage+" Then the fog came, and nobody saw a thing for days. ", 100)
	tokens := tokenize(t, m, text)[:windowFed]
	for at := 0; at < windowFed; at += 400 {
		feed(t, c, 0, llama.Pos(at), tokens[at:at+400]...)
	}
	return c, tokens
}

// TestWindowCuts cuts a sequence whose window has moved on, on each side of the border.
func TestWindowCuts(t *testing.T) {
	t.Parallel()
	c, tokens := windowed(t, true)
	first := c.PosMin(0)
	require.Positive(t, first, "the small cache has let go of the beginning")
	lowest := c.CutMin(0)
	require.EqualValues(t, windowCut, lowest)
	require.Equal(t, first+windowSize, lowest)
	require.Equal(t, 1024, c.Info().WindowCells)
	require.EqualValues(t, windowFed-c.Info().WindowCells, first, "it kept as much as it has cells")

	requireCode(t, llama.State, c.Remove(0, lowest-1, windowFed))
	require.EqualValues(t, windowFed-1, c.PosMax(0), "a refused removal changes nothing")
	require.NoError(t, c.Truncate(0, windowFed), "nothing to cut")

	whole, _ := windowed(t, false)
	require.NoError(t, c.Truncate(0, lowest))
	require.NoError(t, whole.Truncate(0, lowest))
	require.Equal(t, lowest-1, c.PosMax(0))
	want := next(t, whole, 0)
	cut := distance(want, next(t, c, 0))
	require.LessOrEqual(t, windowFed-int(lowest), 512)
	feed(t, c, 0, lowest, tokens[lowest:]...)
	feed(t, whole, 0, lowest, tokens[lowest:]...)
	// The cells lie in another order in the small cache, so the sums are rounded otherwise. That
	// much is no more than where nothing was cut, and far less than a hole in the window does.
	rounding := distance(next(t, whole, 0), next(t, c, 0))
	require.NoError(t, whole.Truncate(0, lowest))
	require.NoError(t, whole.Remove(0, lowest-windowSize, lowest-200))
	hole := distance(want, next(t, whole, 0))
	t.Logf("mean difference: cut %.3f, rounding %.3f, a hole %.3f", cut, rounding, hole)
	require.Less(t, cut, 3*rounding)
	require.Greater(t, hole, 3*rounding)

	require.EqualValues(t, 1, whole.CutMin(0), "a whole cache can be cut anywhere")
	require.Equal(t, whole.Info().Tokens, whole.Info().WindowCells)
	lowest = c.CutMin(0)
	requireCode(t, llama.State, c.Truncate(0, lowest-1))
	require.EqualValues(t, -1, c.PosMax(0), "what cannot be continued is emptied")
	require.EqualValues(t, 1, c.CutMin(0))
	feed(t, c, 0, 0, tokens[:5]...)
	require.NoError(t, c.Truncate(0, 2), "a short sequence has all of its window")
	require.EqualValues(t, 1, c.PosMax(0))
	require.NoError(t, whole.Truncate(0, 500), "a whole cache can be cut anywhere")
	require.EqualValues(t, 499, whole.PosMax(0))
}

// TestWindowPutBack puts the window of an earlier time under a sequence that has gone on, and cuts
// the sequence there: it is what it was at that time.
func TestWindowPutBack(t *testing.T) {
	t.Parallel()
	c, tokens := windowed(t, true)
	const then = 1000
	require.NoError(t, c.Drop(0))
	for at := 0; at < then; at += 500 {
		feed(t, c, 0, llama.Pos(at), tokens[at:at+500]...)
	}
	state := func(flags llama.StateFlags) []byte {
		n, err := c.StateSize(0, flags)
		require.NoError(t, err)
		buf := make([]byte, n)
		n, err = c.StateGet(0, buf, flags)
		require.NoError(t, err)
		return buf[:n]
	}
	window, whole := state(llama.StatePartial), state(0)
	feed(t, c, 0, then, tokens[then:then+300]...)
	require.NoError(t, c.StateSet(0, window, llama.StatePartial))
	require.EqualValues(t, then-1, c.PosMax(0), "the last position is that of the window")
	require.NoError(t, c.Remove(0, then, math.MaxInt32))
	require.Len(t, state(0), len(whole), "nothing is left of what came later")
	got := next(t, c, 0)
	require.NoError(t, c.StateSet(0, whole, 0))
	equalLogits(t, next(t, c, 0), got)
}

// distance is the mean difference between two rows of logits.
func distance(a, b []float32) (mean float64) {
	for i := range a {
		mean += math.Abs(float64(a[i]-b[i])) / float64(len(a))
	}
	return mean
}
