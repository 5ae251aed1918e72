package kv_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

// engine is a Cache with the machine that executes it.
type engine struct {
	*testing.T
	*driver
}

func newEngine(t *testing.T, cfg kv.Config) *engine {
	t.Helper()
	cfg.CellBytes = max(1, cfg.CellBytes)
	d, err := newDriver(cfg, func(int) int { return 0 })
	require.NoError(t, err)
	return &engine{t, d}
}

// seqOf gives n tokens that begin with first and are unlike those of another first.
func seqOf(first, n int) []kv.Token {
	out := make([]kv.Token, n)
	for i := range out {
		out[i] = kv.Token(first*10_000 + i)
	}
	return out
}

// begin admits a request and computes its prompt.
func (e *engine) begin(r kv.Request) kv.Admission {
	e.Helper()
	a, err := e.c.Begin(r)
	require.NoError(e, err)
	require.NoError(e, e.do(a.Ops))
	e.compute(a.Seq, r.Tokens[a.Reused:])
	return a
}

func (e *engine) prompt(tokens []kv.Token) kv.Admission {
	e.Helper()
	return e.begin(kv.Request{Tokens: tokens})
}

// compute goes through NextCheckpoint as an engine would.
func (e *engine) compute(seq kv.Seq, tokens []kv.Token) {
	e.Helper()
	for len(tokens) > 0 {
		n := min(len(tokens), 64, max(1, e.c.Sequence(seq).Most/4))
		if next := e.c.NextCheckpoint(seq); next > 0 {
			n = min(n, next-e.c.Length(seq))
		}
		plan, err := e.c.Reserve(seq, n)
		require.NoError(e, err)
		require.NoError(e, e.do(plan.Ops))
		if len(plan.Again) > 0 {
			tokens = slices.Concat(plan.Again, tokens)
			continue
		}
		next := e.c.NextCheckpoint(seq)
		require.NoError(e, e.m.compute(seq, tokens[:n]))
		require.NoError(e, e.c.Append(seq, tokens[:n]))
		if e.c.Length(seq) == next {
			require.NoError(e, e.do(e.c.Checkpoint(seq)))
		}
		tokens = tokens[n:]
	}
	require.NoError(e, e.check())
}

// answer computes n tokens more and ends the request.
func (e *engine) answer(seq kv.Seq, first, n int) []kv.Token {
	e.Helper()
	e.compute(seq, seqOf(first, n))
	tokens := slices.Clone(e.c.Tokens(seq))
	e.c.End(seq)
	return tokens
}

func kinds(ops []kv.Op) []kv.OpKind {
	out := make([]kv.OpKind, 0, len(ops))
	for _, op := range ops {
		out = append(out, op.Kind)
	}
	return out
}

var shared = kv.Config{Sequences: 4, Cells: 1000, CanShift: true}

func TestConversationGoesOnInPlace(t *testing.T) {
	t.Parallel()
	for _, layout := range []kv.Layout{kv.Shared, kv.Streams} {
		cfg := shared
		cfg.Layout = layout
		e := newEngine(t, cfg)
		first := e.prompt(seqOf(1, 100))
		require.Equal(t, kv.Nowhere, first.Source)
		text := e.answer(first.Seq, 2, 50)

		next := e.prompt(append(text, seqOf(3, 20)...))
		require.Equal(t, first.Seq, next.Seq, "the sequence itself is taken over")
		require.Equal(t, 150, next.Reused)
		require.Equal(t, kv.Live, next.Source)
		require.Empty(t, next.Ops)
		text = e.answer(next.Seq, 4, 10)

		again := e.prompt(text)
		require.Equal(t, len(text)-1, again.Reused, "the last token is computed")
		require.Equal(t, []kv.OpKind{kv.SeqRemove}, kinds(again.Ops))
		require.Equal(t, 2, e.c.Sequence(again.Seq).Hits)
		e.c.End(again.Seq)

		align := e.begin(kv.Request{Tokens: text, Align: 64})
		require.Equal(t, len(text)/64*64, align.Reused)
		e.c.End(align.Seq)
		none := e.begin(kv.Request{Tokens: text, Policy: kv.Policy{NoReuse: true}})
		require.Zero(t, none.Reused)
		e.c.End(none.Seq)
		other := e.begin(kv.Request{Key: kv.Key{Adapters: "x"}, Tokens: text})
		require.Zero(t, other.Reused)
	}
}

// TestFanOut: one prefix, many requests at once: it is computed once.
func TestFanOut(t *testing.T) {
	t.Parallel()
	for _, layout := range []kv.Layout{kv.Shared, kv.Streams} {
		e := newEngine(t, kv.Config{Layout: layout, Sequences: 16, Cells: 2000})
		system := seqOf(1, 300)
		user := func(i int) []kv.Token { return append(slices.Clone(system), seqOf(2+i, 20)...) }
		a, err := e.c.Begin(kv.Request{Tokens: user(0)})
		require.NoError(t, err)
		computed := len(user(0)) - a.Reused
		for i := 1; i < 16; i++ {
			seq, n := e.c.Soon(kv.Key{}, user(i))
			require.Equal(t, a.Seq, seq)
			require.Equal(t, 300, n)
		}
		_, n := e.c.Soon(kv.Key{Salt: "other"}, user(1))
		require.Zero(t, n)
		_, n = e.c.Soon(kv.Key{Salt: "other", PublicTokens: 200}, user(1))
		require.Equal(t, 200, n)
		e.compute(a.Seq, user(0))
		for i := 1; i < 16; i++ {
			_, n := e.c.Soon(kv.Key{}, user(i))
			require.Zero(t, n, "it is there")
			b := e.prompt(user(i))
			require.Equal(t, 300, b.Reused)
			require.Equal(t, kv.SeqCopy, b.Ops[0].Kind)
			require.Equal(t, layout == kv.Streams, b.Ops[0].Own)
			computed += len(user(i)) - b.Reused
		}
		require.Equal(t, 300+16*20, computed)
		st := e.c.Stats()
		require.Equal(t, 16, st.Sequences[kv.Busy])
		if layout == kv.Shared {
			require.Equal(t, 300+16*20, st.Cells, "each cell counts once")
			require.Equal(t, 20, e.c.Sequence(3).Cells)
		} else {
			require.Equal(t, 16*320, st.Cells)
		}
	}
}

func TestNoRoom(t *testing.T) {
	t.Parallel()
	e := newEngine(t, shared)
	refuse := func(kind kv.Kind, r kv.Request) {
		t.Helper()
		before := e.c.Stats()
		_, err := e.c.Begin(r)
		require.ErrorIs(t, err, kind)
		require.Equal(t, before, e.c.Stats())
	}
	refuse(kv.ErrTooLong, kv.Request{Tokens: seqOf(1, 1001)})
	refuse(kv.ErrTooLong, kv.Request{Tokens: seqOf(1, 10), Limit: 1001})
	refuse(kv.ErrInvalid, kv.Request{})
	whole := e.prompt(seqOf(1, 1000))
	refuse(kv.ErrNoRoom, kv.Request{Tokens: seqOf(2, 1)})
	_, err := e.c.Reserve(whole.Seq, 1)
	require.ErrorIs(t, err, kv.ErrTooLong)
	require.ErrorIs(t, e.c.Append(whole.Seq, seqOf(2, 1)), kv.ErrNoRoom)
	e.c.End(whole.Seq)
	// Idle cells are given up; a promise is kept.
	a := e.begin(kv.Request{Tokens: seqOf(2, 100), Limit: 600})
	require.Equal(t, []kv.OpKind{kv.SeqRemove}, kinds(a.Ops))
	refuse(kv.ErrNoRoom, kv.Request{Tokens: seqOf(3, 401)})
	b := e.begin(kv.Request{Tokens: seqOf(3, 100), Limit: 400})
	_, err = e.c.Reserve(b.Seq, 301)
	require.ErrorIs(t, err, kv.ErrNoRoom)
	plan, err := e.c.Reserve(a.Seq, 500)
	require.NoError(t, err)
	require.Empty(t, plan.Ops)
	e.c.End(a.Seq)
	plan, err = e.c.Reserve(b.Seq, 900)
	require.NoError(t, err)
	require.Equal(t, []kv.OpKind{kv.SeqRemove}, kinds(plan.Ops), "the idle one goes")
	require.NoError(t, e.do(plan.Ops))

	// Sequences run out as cells do.
	e = newEngine(t, shared)
	for i := range 4 {
		e.prompt(seqOf(i, 10))
	}
	refuse(kv.ErrNoRoom, kv.Request{Tokens: seqOf(9, 10)})
	require.NoError(t, e.do(e.c.Drop(2)))
	require.Equal(t, kv.Seq(2), e.prompt(seqOf(9, 10)).Seq)
}

// TestVictim: what several have goes before what one has, and what is used stays.
func TestVictim(t *testing.T) {
	t.Parallel()
	for _, rank := range []kv.Rank{kv.GDSF, kv.LRU} {
		cfg := shared
		cfg.Rank = rank
		e := newEngine(t, cfg)
		often := e.prompt(seqOf(1, 200))
		for range 3 {
			e.c.End(often.Seq)
			often = e.prompt(seqOf(1, 200))
		}
		e.c.End(often.Seq)
		once := e.prompt(seqOf(2, 200))
		e.c.End(once.Seq)
		late := e.prompt(seqOf(3, 200))
		e.c.End(late.Seq)
		e.prompt(seqOf(4, 500))
		gone := once.Seq
		if rank == kv.LRU {
			gone = often.Seq
		}
		require.Equal(t, kv.Busy, e.c.Sequence(3).State)
		require.Equal(t, kv.Free, e.c.Sequence(gone).State)
	}
}

func TestSavedAndRestored(t *testing.T) {
	t.Parallel()
	cfg := shared
	cfg.RAMBytes, cfg.DiskBytes = 500, 2000
	e := newEngine(t, cfg)
	a := e.prompt(seqOf(1, 400))
	text := e.answer(a.Seq, 2, 50)
	full := e.prompt(seqOf(3, 900))
	require.Equal(t, []kv.OpKind{kv.Save, kv.SeqRemove}, kinds(full.Ops))
	require.Equal(t, int64(450), e.c.Stats().RAM.Bytes)
	require.Equal(t, int64(450), e.c.Stats().Disk.Bytes, "three quarters were taken: it is spilled")
	require.Len(t, e.m.spills, 1)
	require.NoError(t, e.do(e.c.Spilled(e.m.spills[0], 450)))
	e.m.spills = nil
	e.c.End(full.Seq)

	back := e.prompt(append(text, 7))
	require.Equal(t, kv.RAM, back.Source)
	require.Equal(t, 450, back.Reused)
	require.Contains(t, kinds(back.Ops), kv.Restore)
	e.c.End(back.Seq)
	require.NoError(t, e.do(e.c.Drop(back.Seq)))
	e.c.Lost(back.Blob, kv.RAM)
	delete(e.m.ram, back.Blob)
	disk := e.prompt(append(text, 7))
	require.Equal(t, kv.Disk, disk.Source)
	b, ok := e.c.Blob(back.Blob)
	require.True(t, ok)
	require.Equal(t, kv.Blob{ID: back.Blob, Tokens: text, Exact: true, Disk: 450}, b)
	require.NoError(t, e.do(e.c.Drop(disk.Seq)))

	// A failed restore leaves the request with an empty sequence.
	a, err := e.c.Begin(kv.Request{Tokens: append(text, 7)})
	require.NoError(t, err)
	require.Equal(t, 450, a.Reused)
	e.c.Lost(back.Blob, kv.Disk)
	delete(e.m.disk, back.Blob)
	e.c.Failed(a.Seq)
	require.Zero(t, e.c.Length(a.Seq))
	_, ok = e.c.Blob(back.Blob)
	require.False(t, ok)
	e.compute(a.Seq, append(text, 7))
}

// TestRestart: what an earlier process left is found, up to the budget.
func TestRestart(t *testing.T) {
	t.Parallel()
	cfg := shared
	cfg.RAMBytes, cfg.DiskBytes = 1, 300
	c, err := kv.New(cfg)
	require.NoError(t, err)
	adopt := func(first, n int, bytes int64) (kv.BlobID, []kv.Op, error) {
		return c.Adopt(kv.Snapshot{Tokens: seqOf(first, n), Bytes: bytes})
	}
	old, ops, err := adopt(1, 100, 150)
	require.NoError(t, err)
	require.Empty(t, ops)
	_, ops, err = adopt(2, 100, 150)
	require.NoError(t, err)
	require.Empty(t, ops, "exactly the budget")
	_, ops, err = adopt(3, 100, 1)
	require.NoError(t, err)
	require.Equal(t, []kv.Op{{Kind: kv.Forget, Seq: kv.NoSeq, Blob: old, Place: kv.Disk}}, ops)
	_, _, err = adopt(4, 100, 301)
	require.ErrorIs(t, err, kv.ErrNoRoom)
	_, _, err = adopt(4, 0, 1)
	require.ErrorIs(t, err, kv.ErrInvalid)
	_, _, err = adopt(4, 1, 0)
	require.ErrorIs(t, err, kv.ErrInvalid)
	a, err := c.Begin(kv.Request{Tokens: seqOf(2, 60)})
	require.NoError(t, err)
	require.Equal(t, 59, a.Reused)
	require.Equal(t, kv.Disk, a.Source)
	require.Equal(t, []kv.OpKind{kv.Restore, kv.SeqRemove}, kinds(a.Ops))
}

// TestParking: a request goes on where it was, also behind what a policy has changed.
func TestParking(t *testing.T) {
	t.Parallel()
	cfg := shared
	cfg.RAMBytes = 400
	e := newEngine(t, cfg)
	sinks := kv.Policy{Evict: kv.SinkWindow{Sinks: 4, Window: 60, Block: 8}}
	a := e.begin(kv.Request{Tokens: seqOf(1, 200), Policy: sinks})
	held := slices.Clone(e.c.Tokens(a.Seq))
	require.LessOrEqual(t, len(held), 64)
	require.Equal(t, 4, e.c.Sequence(a.Seq).Exact)
	id, ops, err := e.c.Park(a.Seq)
	require.NoError(t, err)
	require.NoError(t, e.do(ops))
	require.Zero(t, e.c.Stats().Cells)

	other := e.prompt(seqOf(2, 390))
	_, ops, err = e.c.Park(other.Seq)
	require.ErrorIs(t, err, kv.ErrNoRoom, "what is parked stays")
	require.NoError(t, e.do(ops))
	b, err := e.c.Resume(id)
	require.NoError(t, err)
	require.NoError(t, e.do(b.Ops))
	require.Equal(t, len(held), b.Reused)
	require.Equal(t, held, e.c.Tokens(b.Seq))
	require.NoError(t, e.check())
	e.compute(b.Seq, seqOf(3, 100))
	require.LessOrEqual(t, e.c.Length(b.Seq), 64, "its policy came with it")
	_, err = e.c.Resume(id)
	require.ErrorIs(t, err, kv.ErrUnknown)
	require.Empty(t, e.m.ram, "of use to nobody else")

	id, ops, err = e.c.Park(other.Seq)
	require.NoError(t, err)
	require.NoError(t, e.do(ops))
	e.c.Release(id)
	require.Equal(t, 389, e.prompt(seqOf(2, 390)).Reused, "now it is anybody's")
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	e := newEngine(t, shared)
	a := e.begin(kv.Request{Tokens: seqOf(1, 50), Limit: 80})
	require.NoError(t, e.m.compute(a.Seq, seqOf(2, 5)))
	require.NoError(t, e.c.Append(a.Seq, seqOf(2, 5)))
	plan, err := e.c.Truncate(a.Seq, 52)
	require.NoError(t, err)
	require.Equal(t, kv.Plan{
		Ops:    []kv.Op{{Kind: kv.SeqRemove, Seq: a.Seq, P0: 52, P1: kv.End}},
		Length: 52, Again: []kv.Token{},
	}, plan)
	require.NoError(t, e.do(plan.Ops))
	require.NoError(t, e.check())
	plan, err = e.c.Truncate(a.Seq, 52)
	require.NoError(t, err)
	require.Len(t, plan.Ops, 1, "what a failed step left is removed")
	for _, n := range []int{-1, 53} {
		_, err = e.c.Truncate(a.Seq, n)
		require.ErrorIs(t, err, kv.ErrInvalid)
	}
	_, err = e.c.Truncate(3, 0)
	require.ErrorIs(t, err, kv.ErrUnknown)
	_, err = e.c.Truncate(4, 0)
	require.ErrorIs(t, err, kv.ErrUnknown)
}

// TestPromiseOfSharedCells: cells that others still have are not promised when they are cut off.
func TestPromiseOfSharedCells(t *testing.T) {
	t.Parallel()
	for _, failed := range []bool{false, true} {
		e := newEngine(t, kv.Config{Sequences: 2, Cells: 250})
		e.prompt(seqOf(1, 100))
		b := e.begin(kv.Request{Tokens: append(seqOf(1, 100), 7), Limit: 250})
		require.Equal(t, 250, e.c.Stats().Cells+e.c.Stats().CellsPromised)
		if failed {
			e.m.remove(b.Seq, 0, kv.End)
			e.c.Failed(b.Seq)
		} else {
			plan, err := e.c.Truncate(b.Seq, 0)
			require.NoError(t, err)
			require.NoError(t, e.do(plan.Ops))
		}
		require.NoError(t, e.check())
		require.Equal(t, 150, e.c.Sequence(b.Seq).Limit)
		_, err := e.c.Reserve(b.Seq, 151)
		require.ErrorIs(t, err, kv.ErrNoRoom)
	}
}

// TestDecodeAllocatesNothing: Reserve and Append of one token.
func TestDecodeAllocatesNothing(t *testing.T) {
	c, err := kv.New(kv.Config{Sequences: 2, Cells: 100_000})
	require.NoError(t, err)
	a, err := c.Begin(kv.Request{Tokens: seqOf(1, 100), Limit: 50_000})
	require.NoError(t, err)
	token := []kv.Token{1}
	require.Zero(t, testing.AllocsPerRun(40_000, func() {
		if _, err := c.Reserve(a.Seq, 1); err != nil {
			t.Fatal(err)
		}
		if err := c.Append(a.Seq, token); err != nil {
			t.Fatal(err)
		}
	}))
}
