package kv_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// TestWindowBorder: a cut that the window answers is made; one token further back it is computed
// again, or a checkpoint gives the window back.
func TestWindowBorder(t *testing.T) {
	t.Parallel()
	cfg := kv.Config{
		Layout: kv.Streams, Sequences: 1, Cells: 2000, Window: 100, SmallWindow: true,
	}
	// The cache of the windows has 250 cells: the positions from 750 on are there.
	cfg.PosMin = func(kv.Seq) kv.Pos { return 750 }
	for _, x := range []struct {
		ram         int64
		same, reuse int
		kinds       []kv.OpKind
	}{
		{0, 850, 850, []kv.OpKind{kv.SeqRemove}},
		{0, 849, 0, []kv.OpKind{kv.SeqRemove}},
		{0, 1000, 1000, []kv.OpKind{}},
		{1000, 849, 500, []kv.OpKind{kv.Save, kv.Restore, kv.SeqRemove}},
		{1000, 500, 500, []kv.OpKind{kv.Save, kv.Restore, kv.SeqRemove}},
		{1000, 499, 0, []kv.OpKind{kv.Save, kv.SeqRemove}},
	} {
		cfg.RAMBytes = x.ram * 100
		c, err := kv.New(cfg)
		require.NoError(t, err)
		a, err := c.Begin(kv.Request{Tokens: seqOf(1, 1000), Marks: []int{500}})
		require.NoError(t, err)
		require.NoError(t, c.Append(a.Seq, seqOf(1, 1000)[:500]))
		for _, op := range c.Checkpoint(a.Seq) {
			require.Equal(t, kv.Checkpoint, op.Kind)
			require.Equal(t, kv.Pos(500), op.P1)
			c.Saved(op.Blob, 100)
		}
		require.NoError(t, c.Append(a.Seq, seqOf(1, 1000)[500:]))
		c.End(a.Seq)
		got, err := c.Begin(kv.Request{Tokens: append(seqOf(1, 1000)[:x.same:x.same], 1, 2)})
		require.NoError(t, err)
		require.Equal(t, x.reuse, got.Reused, "%+v", x)
		require.Equal(t, x.kinds, kinds(got.Ops), "%+v", x)
	}
}

// TestWindowWithoutAsking: nobody says what the windows hold, so the least is assumed.
func TestWindowWithoutAsking(t *testing.T) {
	t.Parallel()
	cfg := kv.Config{Sequences: 1, Cells: 2000, Window: 100, SmallWindow: true}
	e := newEngine(t, cfg)
	e.c, _ = kv.New(cfg) // the driver asks the machine
	a := e.prompt(seqOf(1, 99))
	plan, err := e.c.Truncate(a.Seq, 50)
	require.NoError(t, err)
	require.Equal(t, 50, plan.Length, "shorter than the window: all of it is there")
	require.NoError(t, e.do(plan.Ops))
	e.compute(a.Seq, seqOf(2, 60))
	plan, err = e.c.Truncate(a.Seq, 105)
	require.NoError(t, err)
	require.Equal(t, 0, plan.Length)
	require.Equal(t, slices.Concat(seqOf(1, 50), seqOf(2, 55)), plan.Again)
	require.NoError(t, e.do(plan.Ops))
	e.compute(a.Seq, plan.Again)
	require.Equal(t, 105, e.c.Sequence(a.Seq).Exact)
}

// TestSharedWindow: in one buffer with small windows cells are not shared, because shared ones are
// never taken up again; a copy has cells of its own.
func TestSharedWindow(t *testing.T) {
	t.Parallel()
	e := newEngine(t, kv.Config{
		Sequences: 4, Cells: 1000, Window: 50, SmallWindow: true, RAMBytes: 1 << 20,
	})
	system := seqOf(1, 200)
	a := e.begin(kv.Request{Tokens: append(system, 1, 2, 3), System: 200})
	b := e.begin(kv.Request{Tokens: append(system, 4, 5, 6), System: 200})
	require.Equal(t, 200, b.Reused)
	require.Equal(t, []kv.OpKind{kv.SeqCopy, kv.Restore, kv.SeqRemove}, kinds(b.Ops))
	require.True(t, b.Ops[0].Own)
	require.Equal(t, 406, e.c.Stats().Cells)
	e.c.End(a.Seq)

	// The same prompt once more goes through the checkpoint in front of its last token.
	again := e.begin(kv.Request{Tokens: append(system, 1, 2, 3)})
	require.Equal(t, 202, again.Reused)
}

// TestWindowRestart: state and checkpoints of an earlier process serve prompts that end before the
// state does.
func TestWindowRestart(t *testing.T) {
	t.Parallel()
	for _, cfg := range []kv.Config{
		{Sequences: 2, Cells: 1000, Window: 50, SmallWindow: true, RAMBytes: 1, DiskBytes: 900},
		{Sequences: 2, Cells: 1000, Window: 50, RAMBytes: 1, DiskBytes: 900},
		{Sequences: 2, Cells: 1000, Recurrent: true, RAMBytes: 1, DiskBytes: 900},
	} {
		c, err := kv.New(cfg)
		require.NoError(t, err)
		_, _, err = c.Adopt(kv.Snapshot{Tokens: seqOf(1, 150), Partial: true, Bytes: 50})
		require.NoError(t, err)
		_, _, err = c.Adopt(kv.Snapshot{Tokens: seqOf(1, 300), Bytes: 300})
		require.NoError(t, err)
		a, err := c.Begin(kv.Request{Tokens: append(seqOf(1, 200), 1)})
		require.NoError(t, err)
		require.Equal(t, 150, a.Reused)
		require.Equal(t, kv.Disk, a.Source)
		require.Equal(t, []kv.OpKind{kv.Restore, kv.Restore, kv.SeqRemove}, kinds(a.Ops))
		require.True(t, a.Ops[1].Partial)
		b, err := c.Begin(kv.Request{Tokens: append(seqOf(1, 300), 1)})
		require.NoError(t, err)
		require.Equal(t, 300, b.Reused, "whole, no cut is needed")
		require.Equal(t, []kv.OpKind{kv.Restore}, kinds(b.Ops))
	}
}

// TestCheckpointPlaces: at the marks, at the end of the system prompt, every so often and before
// the last token; not where one is, and at most so many.
func TestCheckpointPlaces(t *testing.T) {
	t.Parallel()
	cfg := kv.Config{
		Sequences: 2, Cells: 9000, Recurrent: true, RAMBytes: 1 << 20, CheckpointEvery: 200,
	}
	e := newEngine(t, cfg)
	places := func(r kv.Request) []int {
		a, err := e.c.Begin(r)
		require.NoError(t, err)
		require.NoError(t, e.do(a.Ops))
		var at []int
		for n := e.c.NextCheckpoint(a.Seq); n > 0; n = e.c.NextCheckpoint(a.Seq) {
			at = append(at, n)
			e.compute(a.Seq, r.Tokens[e.c.Length(a.Seq):n])
		}
		e.compute(a.Seq, r.Tokens[e.c.Length(a.Seq):])
		e.c.End(a.Seq)
		return at
	}
	text := seqOf(1, 500)
	r := kv.Request{Tokens: text, System: 77, Marks: []int{300, 77, 0, -5, 500, 900}}
	require.Equal(t, []int{77, 200, 300, 400, 499}, places(r))
	require.Equal(t, 5, e.c.Stats().RAM.Checkpoints)
	require.Empty(t, places(r), "the last one is there")
	r.Tokens = slices.Concat(text[:350], []kv.Token{1, 2, 3})
	require.Equal(t, []int{352}, places(r))
	require.Equal(t, 6, e.c.Stats().RAM.Checkpoints)

	n := cfg.CheckpointEvery * (kv.CheckpointsMax + 3)
	got := places(kv.Request{Tokens: seqOf(2, n)})
	require.Len(t, got, kv.CheckpointsMax)
	require.Equal(t, n-1, got[len(got)-1])
	require.NoError(t, e.check())

	// With the last state that they belong to, they go.
	for seq := range kv.Seq(2) {
		require.NoError(t, e.do(e.c.Drop(seq)))
	}
	for _, b := range slices.Collect(e.c.Blobs()) {
		if !b.Partial {
			e.c.Lost(b.ID, kv.RAM)
			delete(e.m.ram, b.ID)
		}
	}
	require.NoError(t, e.do(e.c.Tidy()))
	require.Zero(t, e.c.Stats().RAM.Blobs)
	require.Empty(t, e.m.ram)
	require.Zero(t, e.c.Stats().Nodes)

	none := newEngine(t, shared)
	a, err := none.c.Begin(r)
	require.NoError(t, err)
	require.Zero(t, none.c.NextCheckpoint(a.Seq))
	require.Empty(t, none.c.Checkpoint(a.Seq))
	require.Zero(t, none.c.NextCheckpoint(99))
}

// TestSoonAtMarks: a model that cannot be cut shares what is being computed at its checkpoints.
func TestSoonAtMarks(t *testing.T) {
	t.Parallel()
	e := newEngine(t, kv.Config{Sequences: 4, Cells: 1000, Recurrent: true, RAMBytes: 1 << 20})
	a, err := e.c.Begin(kv.Request{Tokens: append(seqOf(1, 200), 1, 2, 3), System: 150})
	require.NoError(t, err)
	seq, n := e.c.Soon(kv.Key{}, append(seqOf(1, 200), 4, 5))
	require.Equal(t, a.Seq, seq)
	require.Equal(t, 150, n)
	_, n = e.c.Soon(kv.Key{}, append(seqOf(1, 140), 4, 5))
	require.Zero(t, n)
	e.compute(a.Seq, append(seqOf(1, 200), 1, 2, 3))
	require.Equal(t, 150, e.prompt(append(seqOf(1, 200), 4, 5)).Reused)
}

// TestWindowOfSavedState: a saved state has no more of the window than its sequence had.
func TestWindowOfSavedState(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ first, reuse int }{{0, 40}, {30, 0}} {
		c, err := kv.New(kv.Config{
			Layout: kv.Streams, Sequences: 1, Cells: 100, Window: 50, RAMBytes: 1000,
			PosMin: func(kv.Seq) kv.Pos { return kv.Pos(x.first) },
		})
		require.NoError(t, err)
		a, err := c.Begin(kv.Request{Tokens: seqOf(1, 45)})
		require.NoError(t, err)
		require.NoError(t, c.Append(a.Seq, seqOf(1, 45)))
		c.End(a.Seq)
		id, _, err := c.Park(a.Seq)
		require.NoError(t, err)
		c.Saved(id, 45)
		b, err := c.Begin(kv.Request{Tokens: append(seqOf(1, 40), 7)})
		require.NoError(t, err)
		require.Equal(t, x.reuse, b.Reused)
	}
}
