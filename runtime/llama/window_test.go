//go:build cgo

package llama_test

import (
	"math"
	"os"
	"slices"
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
	text, err := os.ReadFile("../../docs/adr/0003-the-pin.md")
	require.NoError(t, err)
	more, err := os.ReadFile("../../docs/adr/0004-huge-pages.md")
	require.NoError(t, err)
	tokens := tokenize(t, m, string(text)+string(more))[:windowFed]
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
	require.LessOrEqual(t, windowFed-int(lowest), 512)
	// The cells lie in another order in the small cache, so the sums are rounded otherwise. That
	// is far less than what a hole in the window does.
	follow := tokens[lowest : lowest+32]
	want := following(t, whole, follow)
	cut := divergence(want, following(t, c, follow))
	require.NoError(t, whole.Remove(0, lowest-windowSize, lowest-200))
	hole := divergence(want, following(t, whole, follow))
	t.Logf("mean KL in nats: cut %.5f, a hole %.5f", cut, hole)
	require.Less(t, cut, hole/5)

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

// following returns the logits after each of some tokens that go on with sequence 0, one after
// another, and cuts them off again.
func following(t *testing.T, c *llama.Context, tokens []llama.Token) (logits [][]float32) {
	end := c.PosMax(0) + 1
	for i, token := range tokens {
		logits = append(logits, logitsOf(t, c, feed(t, c, 0, end+llama.Pos(i), token)))
	}
	require.NoError(t, c.Truncate(0, end))
	return logits
}

// divergence is the mean of KL(p || q) in nats over the rows of logits.
func divergence(p, q [][]float32) (mean float64) {
	for row := range p {
		a, b := logSum(p[row]), logSum(q[row])
		for i := range p[row] {
			logP, logQ := float64(p[row][i])-a, float64(q[row][i])-b
			mean += math.Exp(logP) * (logP - logQ) / float64(len(p))
		}
	}
	return mean
}

// logSum is the logarithm of the sum of the exponentials.
func logSum(logits []float32) float64 {
	most := float64(slices.Max(logits))
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - most)
	}
	return most + math.Log(sum)
}
