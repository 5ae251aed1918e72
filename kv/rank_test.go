package kv_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// computed runs requests one after the other and counts the prompt tokens that were not reused.
func computed(t *testing.T, cfg kv.Config, requests [][]kv.Token) int {
	t.Helper()
	c, err := kv.New(cfg)
	require.NoError(t, err)
	sum := 0
	for _, tokens := range requests {
		a, err := c.Begin(kv.Request{Tokens: tokens, Limit: len(tokens) + 20})
		require.NoError(t, err)
		for _, op := range a.Ops {
			if op.Kind == kv.Save {
				c.Saved(op.Blob, int64(op.P1))
			}
		}
		sum += len(tokens) - a.Reused
		require.NoError(t, c.Append(a.Seq, tokens[a.Reused:]))
		require.NoError(t, c.Append(a.Seq, seqOf(sum%1000, 20)))
		c.End(a.Seq)
	}
	return sum
}

// TestRank: a few system prompts are asked for again and again, between long prompts that never
// come back. LRU gives up the first for the second; cost-benefit ranking does not.
func TestRank(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 7))
	zipf := rand.NewZipf(r, 1.3, 1, 39)
	var requests [][]kv.Token
	fresh, ideal := 0, 0
	seen := map[uint64]bool{}
	for i := range 2000 {
		tail := seqOf(1000+i, 60)
		if i%3 == 0 {
			requests = append(requests, seqOf(5000+i, 700))
			fresh, ideal = fresh+700, ideal+700
			continue
		}
		system := zipf.Uint64()
		if !seen[system] {
			seen[system] = true
			ideal += 300
		}
		requests = append(requests, slices.Concat(seqOf(int(system), 300), tail))
		fresh, ideal = fresh+360, ideal+60
	}
	for _, cfg := range []kv.Config{
		{Sequences: 12, Cells: 4000},
		{Sequences: 12, Cells: 1000, Layout: kv.Streams},
		{Sequences: 2, Cells: 1000, Layout: kv.Streams, RAMBytes: 4000},
	} {
		gdsf := computed(t, cfg, requests)
		cfg.Rank = kv.LRU
		lru := computed(t, cfg, requests)
		t.Logf("layout %d: GDSF computes %d tokens, LRU %d, no reuse %d, all kept %d",
			cfg.Layout, gdsf, lru, fresh, ideal)
		require.Less(t, gdsf, lru)
		require.GreaterOrEqual(t, gdsf, ideal)
	}
}
