package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestChunk: prompts come in whole tiles as far as stall allows. A few tokens at a time come where
// a tile is too much, unless the prompt would then hardly advance.
func TestChunk(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	measured := func(few, fewPair, tile, tilePair float64) *pace {
		p := &pace{stall: 2}
		for i := range 40 {
			p.note(20*ms, 4, 0, 0, 0)
			n, depth := 1+i%9, float64(100*i)
			took := few*float64(n) + fewPair*float64(n)*depth
			p.note(20*ms+time.Duration(took*float64(ms)), 4, n, 0, float64(n)*depth)
			took = chunkTile * (tile + tilePair*depth)
			p.note(20*ms+time.Duration(took*float64(ms)), 4, chunkTile, 0, chunkTile*depth)
		}
		return p
	}
	for _, c := range []struct {
		name                         string
		few, fewPair, tile, tilePair float64 // ms
		depth, want                  int
	}{
		{"three tiles in the time of a step", 1, 0, 0.1, 0, 0, 3 * chunkTile},
		{"just one", 1, 0, 20.0 / 65, 0, 0, chunkTile},
		{"a tile is too much, few advance well", 1, 0, 0.9, 0, 0, 20},
		{"few are slow, but not too slow", 4, 0, 2, 0, 0, 5},
		{"even one is too much", 25, 0, 16, 0, 0, chunkTile},
		{"few would take for ever", 4, 0, 0.4, 0, 0, chunkTile},
		{"deep in a prompt they do", 1, 0.02, 0.9, 0.0001, 4000, chunkTile},
		{"but not at its start", 1, 0.02, 0.9, 0.0001, 0, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := measured(c.few, c.fewPair, c.tile, c.tilePair).chunk(c.depth)
			require.InDelta(t, c.want, got, 1)
		})
	}
}

// TestChunkUnknown: what is not known yet is tried.
func TestChunkUnknown(t *testing.T) {
	t.Parallel()
	p := &pace{stall: 2}
	require.Zero(t, p.chunk(0), "no answer has had a step of its own")
	p.note(20*time.Millisecond, 4, 0, 0, 0)
	require.Equal(t, chunkTile, p.chunk(0))
	for range 10 {
		p.note(100*time.Millisecond, 4, chunkTile, 0, 0)
	}
	require.Equal(t, chunkTry, p.chunk(0))
	for range chunksMost - 10 {
		require.NotZero(t, p.chunk(0))
		p.note(30*time.Millisecond, 4, chunkTry, 0, 0)
	}
	require.Zero(t, p.chunk(0), "a step without prompts was long ago")
	p.note(20*time.Millisecond, 4, 0, 0, 0)
	require.NotZero(t, p.chunk(0))
}

// TestChunkBesideDrafts: answers that guess in every step do not keep prompts waiting for a step
// without guesses.
func TestChunkBesideDrafts(t *testing.T) {
	t.Parallel()
	p := &pace{stall: 2}
	p.note(20*time.Millisecond, 4, 0, 8, 0)
	require.NotZero(t, p.chunk(0))
	for range chunksMost {
		p.note(100*time.Millisecond, 4, chunkTile, 0, 0)
	}
	require.Zero(t, p.chunk(0))
	p.note(20*time.Millisecond, 4, 0, 8, 0)
	require.NotZero(t, p.chunk(0))
}
