package kv_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// held compares Cache.Held with what the Cache says of each sequence and blob.
func (d *driver) held() error {
	seen := map[string]int64{}
	live, ram, disk := 0, int64(0), int64(0)
	for h := range d.c.Held() {
		name := fmt.Sprint(h.Place, h.Seq, h.Blob)
		if _, twice := seen[name]; twice || h.Tokens == 0 || h.Bytes <= 0 || h.Uses < 1 ||
			h.Leases < 0 || h.LastUse > d.c.Uses() {
			return fmt.Errorf("held: %+v", h)
		}
		seen[name] = h.Bytes
		switch h.Place {
		case kv.Live:
			info := d.c.Sequence(h.Seq)
			if live++; info.Length != h.Tokens || info.State == kv.Busy != (h.Leases > 0) ||
				info.Pinned != h.Pinned {
				return fmt.Errorf("held: %+v, of %+v", h, info)
			}
		case kv.RAM:
			ram += h.Bytes
		case kv.Disk:
			disk += h.Bytes
		}
		if b, ok := d.c.Blob(h.Blob); h.Place != kv.Live && (!ok || len(b.Tokens) != h.Tokens ||
			b.Partial != h.Checkpoint || h.Place == kv.RAM && b.RAM != h.Bytes ||
			h.Place == kv.Disk && b.Disk != h.Bytes) {
			return fmt.Errorf("held: %+v, of %+v", h, b)
		}
	}
	st := d.c.Stats()
	free := st.Sequences[kv.Free]
	for seq := range kv.Seq(d.cfg.Sequences) {
		if s := d.c.Sequence(seq); s.State != kv.Free && s.Length == 0 {
			free++
		}
	}
	if live+free != d.cfg.Sequences || ram != st.RAM.Bytes || disk > st.Disk.Bytes {
		return fmt.Errorf("held: %d sequences, %d and %d bytes, the books say %+v", live, ram, disk, st)
	}
	return nil
}

// TestHeldWorth: what can be had elsewhere, or was used less, goes first.
func TestHeldWorth(t *testing.T) {
	t.Parallel()
	e := newEngine(t, kv.Config{Sequences: 3, Cells: 1000, CellBytes: 4})
	long := seqOf(1, 200)
	for range 3 { // the first computes it, two use it
		e.c.End(e.prompt(long).Seq)
	}
	e.c.End(e.prompt(seqOf(2, 200)).Seq)
	require.NoError(t, e.c.Pin(kv.Key{}, seqOf(2, 200)[:100]))
	all := slices.Collect(e.c.Held())
	require.Len(t, all, 2)
	require.Equal(t, []int{3, 1}, []int{all[0].Uses, all[1].Uses})
	require.Greater(t, all[0].Worth, all[1].Worth)
	require.Equal(t, []bool{false, true}, []bool{all[0].Pinned, all[1].Pinned})
	require.Less(t, all[0].LastUse, all[1].LastUse)
	require.Equal(t, int64(800), all[0].Bytes)
	for range e.c.Held() {
		break // may be left early
	}
}
