//go:build cgo

package llama_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/llama"
)

// TestPositionTable: llama.cpp ends the process for a token beyond the table of positions.
func TestPositionTable(t *testing.T) {
	const rows = 64 // of gguftest's encoder
	m := load(t, llama.ModelParams{
		Paths: []string{write(t, "encoder.gguf", gguftest.TinyEncoder(1).Bytes())},
	})
	defer func() { require.NoError(t, m.Close()) }()
	require.Equal(t, rows, m.Info().TrainedTokens)
	p := llama.ContextParams{Threads: 1, Embeddings: true}
	for _, tc := range []struct {
		tokens, sequences int
		ok                bool
	}{
		{0, 1, true},
		{rows, 1, true},
		{rows + 1, 1, false},
		{1 << 20, 1, false},
		{4 * rows, 4, true},
		{4*rows + 4, 4, false},
	} {
		p.Tokens, p.Sequences = tc.tokens, tc.sequences
		c, err := m.NewContext(p)
		if !tc.ok {
			requireCode(t, llama.Invalid, err, tc)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, rows, c.Info().Positions)
		require.Equal(t, rows, c.Info().SequenceTokens, "whatever rounding added")
		add(t, c, 0, 0, make([]llama.Token, rows)...)
		_, err = c.Batch().Add(5, rows, 0, false)
		requireCode(t, llama.Invalid, err)
		require.NoError(t, c.Decode())
		require.NoError(t, c.Close())
	}
	c := newContext(t, model(t, smol), small())
	require.Zero(t, c.Info().Positions, "positions that are computed have no end")
	require.Zero(t, c.Info().WindowCells)
}

// TestSequencesBound has the most sequences that the library keeps apart, and one more.
func TestSequencesBound(t *testing.T) {
	m := load(t, tiny(t))
	defer func() { require.NoError(t, m.Close()) }()
	for _, unified := range []bool{true, false} {
		p := llama.ContextParams{
			Tokens: 256, Sequences: llama.SequencesMax, Batch: 256, Threads: 1, Unified: unified,
		}
		c, err := m.NewContext(p)
		require.NoError(t, err)
		for seq := range llama.Seq(llama.SequencesMax) {
			add(t, c, seq, 0, 5)
		}
		require.NoError(t, c.Decode())
		require.Zero(t, c.PosMax(llama.SequencesMax-1))
		require.NoError(t, c.Copy(0, llama.SequencesMax-1, 0, 1))
		require.NoError(t, c.Close())
		p.Sequences++
		_, err = m.NewContext(p)
		requireCode(t, llama.Invalid, err)
	}
}

// TestStateAllocatesNothing parks and restores a sequence in a buffer of the caller.
func TestStateAllocatesNothing(t *testing.T) {
	m := model(t, smol)
	c := newContext(t, m, streams(2))
	feed(t, c, 0, 0, tokenize(t, m, passage)...)
	buf := make([]byte, len(stateOf(t, c, 0))+100)
	want := next(t, c, 0)
	require.Zero(t, testing.AllocsPerRun(20, func() {
		size, err := c.StateSize(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := c.StateGet(0, buf, 0)
		if err != nil || n != size {
			t.Fatal(n, size, err)
		}
		if err := c.Drop(0); err != nil {
			t.Fatal(err)
		}
		if err := c.StateSet(0, buf[:n], 0); err != nil {
			t.Fatal(err)
		}
		if c.PosMin(0) != 0 || c.CutMin(0) != 1 {
			t.Fatal("positions")
		}
	}))
	equalLogits(t, want, next(t, c, 0))
}
