package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
)

// TestUnstickAfterReading: a request that had no part in a step because its reader was behind is
// not taken for one that finds no cells when the reader has read on since.
func TestUnstickAfterReading(t *testing.T) {
	t.Parallel()
	g := &generation{
		e: &Engine{queue: newQueue(1)}, seq: kv.NoSeq, out: make(chan infer.Chunk, chunksAhead),
	}
	w := &worker{e: g.e, running: []*generation{g}}
	for range chunksAhead {
		g.out <- infer.Chunk{}
	}
	require.True(t, g.full(), "the step goes without it")
	require.False(t, w.unstick(), "its reader wakes the owner")
	for range chunksAhead {
		<-g.out
	}
	require.True(t, w.unstick(), "there is something to compute now")
	require.NoError(t, g.err)
	require.True(t, w.unstick())
	require.ErrorIs(t, g.err, infer.KindBusy, "nobody reads on, and no step came")
}
