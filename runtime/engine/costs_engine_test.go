package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv/snapshot"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// TestCostsAreMeasured: after some prompts the books decide by times, and what goes to disk says
// how long it takes to compute again.
func TestCostsAreMeasured(t *testing.T) {
	dir := t.TempDir() + "/cache"
	e := start(t, engine.Options{MicroBatch: 16, Batch: 16, CacheDir: dir, CachePlain: true})
	before := e.Costs(t)
	require.InDelta(t, 1, before.Compute, 0, "proportions only")
	for i := range 6 {
		answer(t, e, infer.Request{
			Tokens: someTokens(uint64(i), 150), MaxTokens: 40, IgnoreEOS: true,
		})
	}
	after := e.Costs(t)
	require.Greater(t, after.Compute, 100.0, "a token takes more than 100 ns")
	require.NoError(t, e.Close())
	store, err := snapshot.Open(snapshot.Options{DiskBytes: 1 << 30, Dir: dir, Plain: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	predicted := 0
	for _, item := range store.List() {
		if item.Recompute > 0 {
			predicted++
		}
	}
	require.Positive(t, predicted)
}
