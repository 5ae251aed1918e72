package kv_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// TestSameTokensSpilledOnce: state whose tokens are on disk already, in whatever blob, is saved to
// memory again where that pays, but not written again: both would have one file, and the end of one
// would take it from the other.
func TestSameTokensSpilledOnce(t *testing.T) {
	t.Parallel()
	e := newEngine(t, kv.Config{
		Sequences: 1, Cells: 1000, RAMBytes: 1000, DiskBytes: 10_000, WriteThrough: true,
	})
	tokens := seqOf(1, 100)
	id, ops, err := e.c.Adopt(kv.Snapshot{Tokens: tokens, Bytes: 100})
	require.NoError(t, err)
	require.Empty(t, ops)
	a, err := e.c.Begin(kv.Request{Tokens: append(tokens, 7)})
	require.NoError(t, err)
	require.Equal(t, kv.Disk, a.Source)
	require.Equal(t, id, a.Blob)
	e.c.End(a.Seq)
	other, err := e.c.Begin(kv.Request{Tokens: seqOf(2, 100)})
	require.NoError(t, err)
	require.Equal(t, []kv.OpKind{kv.Save, kv.SeqRemove}, kinds(other.Ops))
	require.Empty(t, e.c.Saved(other.Ops[0].Blob, 100), "it is on disk")
	require.Empty(t, e.c.Tidy())
}
