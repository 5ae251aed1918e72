package kv_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// TestNoRoomForSavedState: what is saved already is not given up for state that finds no room all
// the same. Of a pinned prefix the largest state may have to stay.
func TestNoRoomForSavedState(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		saved  []int // lengths of what is saved, all of one prompt
		parked int   // length of a request that waits
		pin    int   // so many tokens of what is saved are pinned
		last   int   // length of what finds no room, or does
		room   bool
	}{
		"beside a parked one":           {[]int{39}, 51, 0, 60, false},
		"what is saved goes":            {[]int{39}, 51, 0, 48, true},
		"larger than all":               {[]int{39}, 0, 0, 102, false},
		"as large as all":               {[]int{39, 30}, 0, 0, 99, true},
		"beside a pinned prefix":        {[]int{30, 51}, 0, 20, 60, false},
		"of which a part goes":          {[]int{30, 51}, 0, 20, 48, true},
		"of which none need go":         {[]int{60}, 0, 20, 39, true},
		"a pin of what nobody has":      {nil, 0, 20, 99, true},
		"pinned beside a parked one":    {[]int{39}, 51, 20, 48, false},
		"parked, pinned and room left":  {[]int{39}, 51, 20, 9, true},
		"the request that waits has it": {[]int{39}, -51, 20, 48, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, kv.Config{Sequences: 4, Cells: 1000, RAMBytes: 99})
			if x.pin > 0 {
				require.NoError(t, e.c.Pin(kv.Key{}, seqOf(1, x.pin)))
			}
			for _, n := range x.saved {
				a := e.prompt(seqOf(1, n))
				_, ops, err := e.c.Save(a.Seq)
				require.NoError(t, err)
				require.NoError(t, e.do(ops))
				require.NoError(t, e.do(e.c.Drop(a.Seq)))
			}
			switch {
			case x.parked > 0:
				e.park(e.prompt(seqOf(2, x.parked)).Seq)
			case x.parked < 0:
				e.park(e.prompt(seqOf(1, -x.parked)).Seq)
			}
			seq := e.prompt(seqOf(3, x.last)).Seq
			if x.room {
				e.park(seq)
				return
			}
			before := e.c.Stats()
			for _, plan := range []func(kv.Seq) (kv.BlobID, []kv.Op, error){e.c.Save, e.c.Park} {
				_, ops, err := plan(seq)
				require.ErrorIs(t, err, kv.ErrNoRoom)
				require.Empty(t, ops)
				require.Equal(t, before, e.c.Stats())
			}
			require.NoError(t, e.check())
		})
	}
}

// park gives the id and the operations, which it has run.
func (e *engine) park(seq kv.Seq) (kv.BlobID, []kv.Op) {
	e.Helper()
	id, ops, err := e.c.Park(seq)
	require.NoError(e, err)
	require.NoError(e, e.do(ops))
	require.NoError(e, e.check())
	return id, ops
}

// TestNoRoomToAdopt: as for saved state. What is being written to disk cannot go.
func TestNoRoomToAdopt(t *testing.T) {
	t.Parallel()
	c, err := kv.New(kv.Config{
		Sequences: 1, Cells: 1000, RAMBytes: 100, DiskBytes: 100, WriteThrough: true,
	})
	require.NoError(t, err)
	_, _, err = c.Adopt(kv.Snapshot{Tokens: seqOf(1, 40), Bytes: 40})
	require.NoError(t, err)
	a, err := c.Begin(kv.Request{Tokens: seqOf(2, 50)})
	require.NoError(t, err)
	require.NoError(t, c.Append(a.Seq, seqOf(2, 50)))
	id, _, err := c.Save(a.Seq)
	require.NoError(t, err)
	require.Equal(t, []kv.OpKind{kv.Spill}, kinds(c.Saved(id, 50)))
	before := c.Stats()
	_, ops, err := c.Adopt(kv.Snapshot{Tokens: seqOf(3, 60), Bytes: 60})
	require.ErrorIs(t, err, kv.ErrNoRoom)
	require.Empty(t, ops)
	require.Equal(t, before, c.Stats())
}

// TestParkSaved: an idle sequence that is saved already, wherever, is not saved again. What saved
// it counts as used when it was parked, by as many requests. A running one has state of its own.
func TestParkSaved(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, tokens []kv.Token) (e *engine, seq kv.Seq) {
		e = newEngine(t, kv.Config{Sequences: 3, Cells: 1000, RAMBytes: 1000, DiskBytes: 1000})
		seq = e.prompt(tokens).Seq
		e.c.End(seq)
		return e, seq
	}
	for _, place := range []kv.Place{kv.RAM, kv.Disk} {
		t.Run(place.String(), func(t *testing.T) {
			t.Parallel()
			tokens := seqOf(1, 100)
			e, seq := start(t, tokens)
			first, ops, err := e.c.Save(seq)
			require.NoError(t, err)
			require.NoError(t, e.do(ops))
			if place == kv.Disk {
				require.NoError(t, e.do(e.c.Tidy()))
				require.NoError(t, e.do(e.c.Spilled(first, 100)))
				delete(e.m.ram, first)
				e.m.spills = nil
				e.c.Lost(first, kv.RAM)
			}
			a, err := e.c.Begin(kv.Request{Tokens: append(tokens, 1)})
			require.NoError(t, err)
			require.Equal(t, seq, a.Seq)
			require.NoError(t, e.do(a.Ops))
			e.c.End(seq)
			before, uses := e.c.Stats(), e.c.Uses()
			id, ops := e.park(seq)
			require.Equal(t, first, id)
			require.Equal(t, []kv.OpKind{kv.SeqRemove}, kinds(ops))
			after := e.c.Stats()
			require.Equal(t, before.RAM, after.RAM)
			require.Equal(t, before.Disk, after.Disk)
			for h := range e.c.Held() {
				require.Equal(t, place, h.Place)
				require.Equal(t, 2, h.Uses)
				require.Greater(t, h.LastUse, uses)
			}
			a = e.prompt(append(tokens, 2))
			require.Equal(t, place, a.Source)
			require.Equal(t, 100, a.Reused)
		})
	}
	e, seq := start(t, seqOf(1, 100))
	first, ops, err := e.c.Save(seq)
	require.NoError(t, err)
	require.NoError(t, e.do(ops))
	busy := e.prompt(seqOf(1, 100)).Seq
	id, ops := e.park(busy)
	require.NotEqual(t, first, id)
	require.Equal(t, []kv.OpKind{kv.Save, kv.SeqRemove}, kinds(ops))
}

// TestSaveBesideAChangedOne: the state of a request whose policy has given up what came behind
// these tokens is not theirs: it goes with the request.
func TestSaveBesideAChangedOne(t *testing.T) {
	t.Parallel()
	e := newEngine(t, kv.Config{Sequences: 3, Cells: 1000, RAMBytes: 1000, CanShift: true})
	a := e.begin(kv.Request{
		Tokens: seqOf(1, 40), Policy: kv.Policy{Evict: kv.SinkWindow{Sinks: 40, Window: 60}},
	})
	e.compute(a.Seq, seqOf(2, 100))
	require.Equal(t, 40, e.c.Sequence(a.Seq).Exact)
	changed, _ := e.park(a.Seq)
	b := e.begin(kv.Request{Tokens: seqOf(1, 40)})
	id, ops, err := e.c.Save(b.Seq)
	require.NoError(t, err)
	require.NotEqual(t, changed, id)
	require.Equal(t, []kv.OpKind{kv.Save}, kinds(ops))
}
