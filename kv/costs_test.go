package kv_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// TestSetCosts: saved state is restored where that is cheaper than computing its tokens again, and
// left where it is dearer, on each side of the border.
func TestSetCosts(t *testing.T) {
	t.Parallel()
	cfg := kv.Config{
		Layout: kv.Streams, Sequences: 2, Cells: 1000, RAMBytes: 1 << 20, DiskBytes: 1 << 20,
	}
	const tokens, prompt = 400, 301 // a state of 400 tokens, of which 300 are reused
	for _, x := range []struct {
		name   string
		costs  kv.Costs
		place  kv.Place
		reused int
	}{
		{"defaults", kv.Costs{}, kv.Disk, 300},
		{"quick disk", kv.Costs{Compute: 1e6, RestoreDisk: 0.74e6}, kv.Disk, 300},
		{"slow disk", kv.Costs{Compute: 1e6, RestoreDisk: 0.76e6}, kv.Nowhere, 0},
		{
			"slow disk, dear attention",
			kv.Costs{Compute: 1e6, ComputePair: 1e4, RestoreDisk: 0.76e6},
			kv.Disk, 300,
		},
		{"quick memory", kv.Costs{Compute: 1e6, Restore: 0.74e6}, kv.RAM, 300},
		{"slow memory", kv.Costs{Compute: 1e6, Restore: 0.76e6}, kv.Nowhere, 0},
	} {
		c, err := kv.New(cfg)
		require.NoError(t, err)
		if x.place == kv.RAM || x.costs.Restore > 0 {
			a, err := c.Begin(kv.Request{Tokens: seqOf(1, tokens)})
			require.NoError(t, err)
			require.NoError(t, c.Append(a.Seq, seqOf(1, tokens)))
			c.End(a.Seq)
			id, _, err := c.Park(a.Seq)
			require.NoError(t, err)
			c.Saved(id, tokens)
		} else {
			_, _, err = c.Adopt(kv.Snapshot{Tokens: seqOf(1, tokens), Bytes: tokens})
			require.NoError(t, err)
		}
		require.NoError(t, c.SetCosts(x.costs))
		a, err := c.Begin(kv.Request{Tokens: append(seqOf(1, prompt-1), 7)})
		require.NoError(t, err)
		require.Equal(t, x.place, a.Source, x.name)
		require.Equal(t, x.reused, a.Reused, x.name)
		require.NoError(t, c.Check())
	}
}

// TestSetCostsRefused: what is no cost changes nothing.
func TestSetCostsRefused(t *testing.T) {
	t.Parallel()
	c, err := kv.New(shared)
	require.NoError(t, err)
	for _, costs := range []kv.Costs{
		{Compute: -1}, {ComputePair: math.NaN()}, {Restore: math.Inf(1)}, {RestoreDisk: -0.1},
	} {
		requireKind(t, c.SetCosts(costs), kv.ErrInvalid, "Costs")
	}
}

// TestSetCostsKeepsRanks: another unit of time changes nothing in what is given up, also where
// some of it has aged already.
func TestSetCostsKeepsRanks(t *testing.T) {
	t.Parallel()
	evicted := func(scale float64) (order []kv.Seq) {
		cfg := shared
		cfg.Hooks.Evict = func(e kv.EvictEvent) { order = append(order, e.Seq) }
		c, err := kv.New(cfg)
		require.NoError(t, err)
		for i := range 30 {
			if i == 11 {
				require.NoError(t, c.SetCosts(kv.Costs{Compute: scale}))
			}
			a, err := c.Begin(kv.Request{Tokens: seqOf(i*i%23, 100+17*(i%5))})
			require.NoError(t, err)
			require.NoError(t, c.Append(a.Seq, seqOf(i*i%23, 100+17*(i%5))[a.Reused:]))
			c.End(a.Seq)
		}
		return order
	}
	want := evicted(1)
	require.NotEmpty(t, want)
	require.True(t, slices.Equal(want, evicted(1<<20)))
	require.True(t, slices.Equal(want, evicted(1.0/(1<<20))))
}
