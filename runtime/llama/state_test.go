//go:build cgo

package llama_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// stateOf is a copy of the state of a sequence.
func stateOf(t testing.TB, c *llama.Context, seq llama.Seq) []byte {
	t.Helper()
	size, err := c.StateSize(seq, 0)
	require.NoError(t, err)
	state := make([]byte, size)
	n, err := c.StateGet(seq, state, 0)
	require.NoError(t, err)
	require.Equal(t, size, n)
	return state
}

const passage = "The lighthouse stood on the rocks, " +
	"and every evening its keeper climbed the stairs."

// equalLogits compares without printing a vocabulary.
func equalLogits(t testing.TB, want, got []float32, about ...any) {
	t.Helper()
	require.Zero(t, widest(want, got), about...)
}

// widest is the largest difference between two rows of logits.
func widest(a, b []float32) (most float64) {
	for i := range a {
		most = max(most, math.Abs(float64(a[i]-b[i])))
	}
	return most
}

// next is the logits of a probe token after what a sequence holds; the probe is taken out again.
func next(t testing.TB, c *llama.Context, seq llama.Seq) []float32 {
	t.Helper()
	end := c.PosMax(seq) + 1
	logits := logitsOf(t, c, feed(t, c, seq, end, 100))
	require.NoError(t, c.Truncate(seq, end))
	return logits
}

// streams is a context of n separate sequences of 256 tokens.
func streams(n int) llama.ContextParams {
	return llama.ContextParams{
		Tokens: 256 * n, Sequences: n, Batch: 256, MicroBatch: 256, Threads: 1,
	}
}

func TestStateRoundTrip(t *testing.T) {
	for _, kind := range []string{"f16", "q8_0"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := model(t, smol)
			p := streams(3)
			p.TypeK, p.TypeV = kind, kind
			c := newContext(t, m, p)
			feed(t, c, 0, 0, tokenize(t, m, passage)...)
			state, want, end := stateOf(t, c, 0), next(t, c, 0), c.PosMax(0)
			require.NoError(t, c.StateSet(2, state, 0))
			require.Equal(t, end, c.PosMax(2))
			equalLogits(t, want, next(t, c, 2), "into another stream")
			require.NoError(t, c.Drop(0))
			require.NoError(t, c.StateSet(0, state, 0))
			equalLogits(t, want, next(t, c, 0), "into the stream it came from")
			fresh := newContext(t, m, p)
			require.NoError(t, fresh.StateSet(1, state, 0))
			equalLogits(t, want, next(t, fresh, 1), "into another context")
		})
	}
}

// TestStateOfMovedCells takes and puts states while a copy or a shift still waits to be done.
func TestStateOfMovedCells(t *testing.T) {
	m := model(t, smol)
	text := tokenize(t, m, passage)
	other := tokenize(t, m, "Something else altogether: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12.")
	c := newContext(t, m, streams(4))
	feed(t, c, 0, 0, text...)
	feed(t, c, 3, 0, other...)
	want, wantOther, otherState := next(t, c, 0), next(t, c, 3), stateOf(t, c, 3)
	reset := func() {
		require.NoError(t, c.Clear())
		feed(t, c, 0, 0, text...)
	}
	t.Run("copy then get", func(t *testing.T) {
		reset()
		require.NoError(t, c.Copy(0, 1, 0, 1000))
		state := stateOf(t, c, 1)
		require.NoError(t, c.StateSet(2, state, 0))
		equalLogits(t, want, next(t, c, 2))
	})
	t.Run("copy then set the source", func(t *testing.T) {
		reset()
		require.NoError(t, c.Copy(0, 1, 0, 1000))
		require.NoError(t, c.StateSet(0, otherState, 0))
		equalLogits(t, wantOther, next(t, c, 0))
		equalLogits(t, want, next(t, c, 1))
	})
	t.Run("copy then set the target", func(t *testing.T) {
		reset()
		require.NoError(t, c.Copy(0, 1, 0, 1000))
		require.NoError(t, c.StateSet(1, otherState, 0))
		equalLogits(t, want, next(t, c, 0))
		equalLogits(t, wantOther, next(t, c, 1))
	})
	t.Run("shift then get", func(t *testing.T) {
		reset()
		require.NoError(t, c.Shift(0, 0, llama.Pos(len(text)), 4))
		state := stateOf(t, c, 0)
		shifted := next(t, c, 0)
		require.NoError(t, c.StateSet(1, state, 0))
		equalLogits(t, shifted, next(t, c, 1))
		require.NotZero(t, widest(want, shifted))
	})
	t.Run("set, shift, then get", func(t *testing.T) {
		fresh := newContext(t, m, streams(4))
		require.NoError(t, fresh.StateSet(0, otherState, 0))
		require.NoError(t, fresh.Shift(0, 0, 1000, 3))
		state := stateOf(t, fresh, 0)
		require.NoError(t, fresh.StateSet(1, state, 0))
		equalLogits(t, next(t, fresh, 0), next(t, fresh, 1))
	})
	t.Run("shift while aborted", func(t *testing.T) {
		reset()
		require.NoError(t, c.Shift(0, 0, 1000, 3))
		shifted := next(t, c, 0)
		reset()
		require.NoError(t, c.Shift(0, 0, 1000, 3))
		c.Abort()
		add(t, c, 0, c.PosMax(0)+1, 9)
		requireCode(t, llama.Canceled, c.Decode())
		c.Resume()
		equalLogits(t, shifted, next(t, c, 0))
	})
}

// TestUnifiedCopySharesAPrefix continues a prefix from two sequences of one buffer.
func TestUnifiedCopySharesAPrefix(t *testing.T) {
	m := model(t, smol)
	p := llama.ContextParams{
		Tokens: 512, Sequences: 2, Batch: 256, MicroBatch: 256, Threads: 1, Unified: true,
	}
	c := newContext(t, m, p)
	text := tokenize(t, m, passage)
	feed(t, c, 0, 0, text...)
	want := next(t, c, 0)
	require.NoError(t, c.Copy(0, 1, 0, llama.Pos(len(text))))
	require.NoError(t, c.Drop(0))
	equalLogits(t, want, next(t, c, 1), "alone in the buffer it computes the same")
	require.NoError(t, c.Copy(1, 0, 0, 5))
	require.EqualValues(t, 4, c.PosMax(0), "a part is shared")
	require.Equal(t, llama.Pos(len(text)-1), c.PosMax(1))
}

func TestStateRefusals(t *testing.T) {
	m := model(t, smol)
	c := newContext(t, m, streams(2))
	feed(t, c, 0, 0, tokenize(t, m, passage)...)
	feed(t, c, 1, 0, 5, 6, 7)
	state, want, neighbour := stateOf(t, c, 0), next(t, c, 0), next(t, c, 1)
	g := newContext(t, model(t, gemma), streams(2))
	feed(t, g, 0, 0, 5, 6, 7)
	q := streams(2)
	q.TypeK, q.TypeV = "q8_0", "q8_0"
	quantised := newContext(t, m, q)
	feed(t, quantised, 0, 0, 5, 6, 7)
	one := newContext(t, m, streams(1))
	feed(t, one, 0, 0, 5, 6, 7)
	for name, bytes := range map[string][]byte{
		"another model": stateOf(t, g, 0), "another type": stateOf(t, quantised, 0),
		"another number of streams": stateOf(t, one, 0),
		"truncated":                 state[:len(state)/2], "one byte short": state[:len(state)-1],
		"one byte long": append(append([]byte(nil), state...), 0),
		"one byte":      {1}, "zeros": make([]byte, 64), "text": []byte("not a state at all"),
	} {
		t.Run(name, func(t *testing.T) {
			requireCode(t, llama.State, c.StateSet(0, bytes, 0))
			require.EqualValues(t, -1, c.PosMax(0), "the sequence is empty")
			equalLogits(t, neighbour, next(t, c, 1), "the other sequence is as it was")
			require.NoError(t, c.StateSet(0, state, 0))
			equalLogits(t, want, next(t, c, 0))
		})
	}
	t.Run("arguments", func(t *testing.T) {
		_, err := c.StateGet(0, make([]byte, len(state)-1), 0)
		requireCode(t, llama.Invalid, err)
		_, err = c.StateGet(0, state, 2)
		requireCode(t, llama.Invalid, err)
		_, err = c.StateSize(0, 7)
		requireCode(t, llama.Invalid, err)
		requireCode(t, llama.Invalid, c.StateSet(0, state, 2))
		requireCode(t, llama.Invalid, c.StateSet(0, nil, 0))
		for _, seq := range []llama.Seq{-2, -1, 2, 1 << 30} {
			requireCode(t, llama.Invalid, c.StateSet(seq, state, 0))
			_, err = c.StateSize(seq, 0)
			requireCode(t, llama.Invalid, err)
			_, err = c.StateGet(seq, state, 0)
			requireCode(t, llama.Invalid, err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		require.NoError(t, c.Drop(0))
		size, err := c.StateSize(0, 0)
		require.NoError(t, err)
		require.Zero(t, size)
		_, err = c.StateGet(0, make([]byte, 1024), 0)
		requireCode(t, llama.Invalid, err)
	})
}

// TestForgedStates sets damaged states, and decodes after each, in a process of its own.
func TestForgedStates(t *testing.T) {
	for _, unified := range []bool{false, true} {
		child(t, "forged states", tinyFile(t), strconv.FormatBool(unified))
	}
}

func forgedStates(args []string) error {
	m, err := llama.LoadModel(background, llama.ModelParams{Paths: args[:1], CPUOnly: true})
	if err != nil {
		return err
	}
	defer m.Close()
	p := streams(2)
	p.Unified = args[1] == "true"
	c, err := m.NewContext(p)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := compute(c, 0, 0, 5, 6, 7, 8); err != nil {
		return err
	}
	size, err := c.StateSize(0, 0)
	if err != nil {
		return err
	}
	state := make([]byte, size)
	if _, err := c.StateGet(0, state, 0); err != nil {
		return err
	}
	// The head: magic, sequence, streams, cells, then position, count and id of each cell, then
	// the layout. Every word of it is forged with values that upstream may trust.
	random := rand.New(rand.NewPCG(1, 2))
	for at := 0; at+4 <= 160; at += 4 {
		for _, v := range []uint32{
			0, 1, 3, 4, 5, 255, 256, 257, 1 << 16, 1<<31 - 1, 1 << 31, 1<<32 - 1, random.Uint32(),
		} {
			forged := append([]byte(nil), state...)
			binary.LittleEndian.PutUint32(forged[at:], v)
			if err := setAndStep(c, forged); err != nil {
				return fmt.Errorf("word %d = %d: %w", at/4, v, err)
			}
		}
	}
	return nil
}

// setAndStep puts a state and computes after it; only a wrong kind of failure is an error.
func setAndStep(c *llama.Context, state []byte) error {
	for _, flags := range []llama.StateFlags{0, llama.StatePartial} {
		_ = c.StateSet(1, state, flags)
		_ = compute(c, 1, max(c.PosMax(1), -1)+1, 5)
		if err := c.Drop(1); err != nil {
			return err
		}
		if err := compute(c, 1, 0, 9); err != nil {
			return fmt.Errorf("the context no longer computes: %w", err)
		}
		if err := c.Drop(1); err != nil {
			return err
		}
	}
	return nil
}

// compute is feed for a child.
func compute(c *llama.Context, seq llama.Seq, from llama.Pos, tokens ...llama.Token) error {
	c.Batch().Reset()
	for i, token := range tokens {
		if _, err := c.Batch().Add(token, from+llama.Pos(i), seq, i == len(tokens)-1); err != nil {
			return err
		}
	}
	return c.Decode()
}
