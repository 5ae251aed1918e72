package kv_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/kv"
)

// worlds are the kinds of model and layout that the long runs go through.
func worlds() map[string]kv.Config {
	base := kv.Config{
		Sequences: 6, Cells: 900, CellBytes: 4, CanShift: true,
		Costs: kv.Costs{Copy: 1e-9, Restore: 1e-9, RestoreDisk: 2e-9},
	}
	saving := base
	saving.RAMBytes, saving.DiskBytes = 6000, 9000
	worlds := map[string]kv.Config{"shared": base, "saving": saving}
	streams := saving
	streams.Layout, streams.Cells, streams.WriteThrough = kv.Streams, 250, true
	worlds["streams"] = streams
	streams.CopyByState, streams.Rank = true, kv.LRU
	worlds["by state"] = streams
	window := saving
	window.Window = 24
	worlds["window"] = window
	window.Layout, window.Cells = kv.Streams, 250
	worlds["window streams"] = window
	window.SmallWindow, window.CanShift = true, false
	worlds["small window streams"] = window
	window.CopyByState, window.CheckpointEvery = true, 40
	worlds["small window by state"] = window
	window.Layout, window.Cells = kv.Shared, 900
	worlds["small window"] = window
	recurrent := saving
	recurrent.Recurrent, recurrent.CanShift, recurrent.CheckpointEvery = true, false, 30
	worlds["recurrent"] = recurrent
	recurrent.Layout, recurrent.Cells = kv.Streams, 250
	worlds["recurrent streams"] = recurrent
	return worlds
}

// roll chooses a policy, right or wrong.
func roll(choose func(int) int, shifts bool) kv.Policy {
	policies := []kv.Policy{
		{},
		{Evict: kv.Refuse{}},
		{NoReuse: true},
		{Evict: kv.SinkWindow{Sinks: 4, Window: 40, Block: 8}},
		{Evict: kv.SinkWindow{Window: 60}},
		{Evict: kv.KeepSystem{}},
		{Evict: kv.MiddleOut{Block: 5}},
		{Reuse: kv.ChunkReuse{MinTokens: 6}},
		{Evict: kv.KeepSystem{Block: 9}, Reuse: kv.ChunkReuse{MinTokens: 3}},
		{Evict: wild{choose}},
		{Reuse: wild{choose}},
	}
	p := policies[choose(len(policies))]
	p.Recompute = p.Evict != nil && p.Evict != kv.Evictor(kv.Refuse{}) && !shifts
	return p
}

// wild is a policy that is often wrong.
type wild struct{ choose func(int) int }

func (w wild) spans(n int) []kv.Span {
	if w.choose(6) == 0 {
		panic("wild")
	}
	var spans []kv.Span
	for at := w.choose(4) - 1; at < n && len(spans) < 5; {
		to := at + w.choose(n/2+2)
		spans = append(spans, kv.Span{P0: kv.Pos(at), P1: kv.Pos(to)})
		at = to + w.choose(4)
	}
	return spans
}

func (w wild) Evict(v kv.View) ([]kv.Span, error) { return w.spans(v.Length), nil }

// Reuse finds pieces in any order.
func (w wild) Reuse(v kv.ReuseView) ([]kv.Span, error) {
	if w.choose(4) == 0 {
		return w.spans(len(v.Held)), nil
	}
	var spans []kv.Span
	for at := v.Prefix; at < len(v.Prompt) && len(spans) < 6; {
		from := v.Prefix + w.choose(len(v.Held)-v.Prefix+1)
		n := 0
		for from+n < len(v.Held) && at+n < len(v.Prompt) && v.Held[from+n] == v.Prompt[at+n] {
			n++
		}
		for _, s := range spans {
			if from < int(s.P1) && int(s.P0) < from+n {
				n = max(0, int(s.P0)-from)
			}
		}
		if n == 0 {
			break
		}
		spans = append(spans, kv.Span{P0: kv.Pos(from), P1: kv.Pos(from + n)})
		at += n
	}
	return spans, nil
}

// TestCacheModel lets rapid search for the shortest way to a difference between the books and the
// cells.
func TestCacheModel(t *testing.T) {
	t.Parallel()
	for name, cfg := range worlds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
				d, err := newDriver(cfg, choose)
				require.NoError(t, err)
				d.policy = func() kv.Policy { return roll(choose, cfg.CanShift) }
				for range rapid.IntRange(1, 60).Draw(t, "steps") {
					require.NoError(t, d.step())
					require.NoError(t, d.check())
				}
			})
		})
	}
}

// TestCacheLong does 10^6 operations, half of them with faults and policies; a tenth of that under
// the race detector, which there is nothing to find for.
func TestCacheLong(t *testing.T) {
	t.Parallel()
	steps := 1_000_000
	switch {
	case testing.Short():
		steps = 10_000
	case raceEnabled:
		steps = 100_000
	}
	all := worlds()
	for name, cfg := range all {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprint(name, map[bool]string{true: "", false: " with faults"}[clean]),
				func(t *testing.T) {
					t.Parallel()
					long(t, cfg, clean, steps/len(all)/2)
				})
		}
	}
}

// seedFlag repeats a run.
var seedFlag = flag.Uint64("seed", 0, "seed of the long run; 0 draws one")

func long(t *testing.T, cfg kv.Config, clean bool, steps int) {
	seed := cmp.Or(*seedFlag, rand.Uint64())
	r := rand.New(rand.NewPCG(seed, 0))
	d, err := newDriver(cfg, r.IntN)
	require.NoError(t, err)
	d.clean = clean && cfg.Window == 0 && !cfg.Recurrent
	if !clean {
		d.policy = func() kv.Policy { return roll(r.IntN, cfg.CanShift) }
		d.m.fault = func(op kv.Op) bool { return r.IntN(100) == 0 }
	}
	for i := range steps {
		err := d.step()
		if err == nil && i%500 == 0 {
			err = d.check()
		}
		require.NoError(t, err, "seed %d, step %d", seed, i)
	}
	require.NoError(t, d.check(), "seed %d", seed)
	t.Logf("seed %d: %v", seed, d.counts)
}
