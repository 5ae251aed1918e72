package kv_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	ok := kv.Config{Sequences: 1, Cells: 1}
	for _, c := range []struct {
		field  string
		kind   kv.Kind
		change func(*kv.Config)
	}{
		{"", "", func(*kv.Config) {}},
		{"", "", func(c *kv.Config) { c.Sequences, c.Cells = kv.SequencesMax, kv.TokensMax }},
		{"Sequences", kv.ErrInvalid, func(c *kv.Config) { c.Sequences = 0 }},
		{"Sequences", kv.ErrInvalid, func(c *kv.Config) { c.Sequences = kv.SequencesMax + 1 }},
		{"Cells", kv.ErrInvalid, func(c *kv.Config) { c.Cells = 0 }},
		{"Cells", kv.ErrInvalid, func(c *kv.Config) { c.Cells = kv.TokensMax + 1 }},
		{"Layout", kv.ErrInvalid, func(c *kv.Config) { c.Layout = kv.Streams + 1 }},
		{"Rank", kv.ErrInvalid, func(c *kv.Config) { c.Rank = kv.LRU + 1 }},
		{"RAMBytes", kv.ErrInvalid, func(c *kv.Config) { c.RAMBytes = -1 }},
		{"Window", kv.ErrInvalid, func(c *kv.Config) { c.Window = -1 }},
		{"Costs", kv.ErrInvalid, func(c *kv.Config) { c.Costs.Copy = -1 }},
		{"Costs", kv.ErrInvalid, func(c *kv.Config) { c.Costs.Compute = math.NaN() }},
		{"Costs", kv.ErrInvalid, func(c *kv.Config) { c.Costs.Restore = math.Inf(1) }},
		{"SmallWindow", kv.ErrContradicts, func(c *kv.Config) { c.SmallWindow = true }},
		{"CanShift", kv.ErrContradicts, func(c *kv.Config) {
			c.SmallWindow, c.Window, c.CanShift = true, 9, true
		}},
		{"DiskBytes", kv.ErrContradicts, func(c *kv.Config) { c.DiskBytes = 1 }},
	} {
		cfg := ok
		c.change(&cfg)
		_, err := kv.New(cfg)
		if c.kind == "" {
			require.NoError(t, err)
			continue
		}
		requireKind(t, err, c.kind, c.field)
	}
}

func requireKind(t *testing.T, err error, kind kv.Kind, field string) {
	t.Helper()
	var typed *kv.Error
	require.ErrorAs(t, err, &typed)
	require.ErrorIs(t, err, kind)
	require.Equal(t, field, typed.Field)
	require.NotEmpty(t, typed.Op)
	require.Contains(t, err.Error(), string(kind))
}

func TestPolicyValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy kv.Policy
		kind   kv.Kind
		field  string
	}{
		{kv.Policy{}, "", ""},
		{kv.Policy{Evict: kv.SinkWindow{Sinks: 4, Window: 4, Block: 4}}, "", ""},
		{kv.Policy{Evict: kv.SinkWindow{Sinks: 5, Window: 4}}, kv.ErrContradicts, "Window"},
		{kv.Policy{Evict: kv.SinkWindow{Sinks: 4, Window: 8, Block: 9}}, kv.ErrContradicts, "Block"},
		{kv.Policy{Evict: kv.SinkWindow{}}, kv.ErrInvalid, "Window"},
		{kv.Policy{Evict: kv.SinkWindow{Window: 4, Sinks: -1}}, kv.ErrInvalid, "Sinks"},
		{kv.Policy{Evict: kv.SinkWindow{Window: 4, Block: -1}}, kv.ErrInvalid, "Block"},
		{kv.Policy{Evict: &kv.SinkWindow{}}, kv.ErrInvalid, "Window"},
		{kv.Policy{Evict: kv.SinkWindow{Window: 1}}, kv.ErrInvalid, "Window"},
		{kv.Policy{Evict: kv.SinkWindow{Sinks: 1, Window: 1}}, kv.ErrInvalid, "Window"},
		{kv.Policy{Evict: kv.SinkWindow{Window: 2}}, "", ""},
		{kv.Policy{Evict: kv.SinkWindow{Sinks: 2, Window: 2, Block: 2}}, "", ""},
		{kv.Policy{Evict: (*kv.SinkWindow)(nil)}, kv.ErrPolicy, "Evict"},
		{kv.Policy{Evict: kv.KeepSystem{Block: -1}}, kv.ErrInvalid, "Block"},
		{kv.Policy{Evict: kv.MiddleOut{Block: kv.TokensMax + 1}}, kv.ErrInvalid, "Block"},
		{kv.Policy{Reuse: kv.ChunkReuse{}}, kv.ErrInvalid, "MinTokens"},
		{kv.Policy{Reuse: kv.ChunkReuse{MinTokens: 1}, NoReuse: true}, kv.ErrContradicts, "Reuse"},
		{kv.Policy{Recompute: true}, kv.ErrContradicts, "Recompute"},
		{kv.Policy{Recompute: true, Evict: kv.Refuse{}}, kv.ErrContradicts, "Recompute"},
	} {
		err := c.policy.Validate()
		if c.kind == "" {
			require.NoError(t, err)
			continue
		}
		requireKind(t, err, c.kind, c.field)
		e := newEngine(t, shared)
		_, err = e.c.Begin(kv.Request{Tokens: seqOf(1, 9), Policy: c.policy})
		requireKind(t, err, c.kind, c.field)
	}
}

func TestRequestValidate(t *testing.T) {
	t.Parallel()
	e := newEngine(t, shared)
	for field, change := range map[string]func(*kv.Request){
		"Tokens":           func(r *kv.Request) { r.Tokens = nil },
		"Limit":            func(r *kv.Request) { r.Limit = -1 },
		"System":           func(r *kv.Request) { r.System = 10 },
		"Align":            func(r *kv.Request) { r.Align = -1 },
		"Key.PublicTokens": func(r *kv.Request) { r.Key.PublicTokens = -1 },
	} {
		r := kv.Request{Tokens: seqOf(1, 9)}
		change(&r)
		_, err := e.c.Begin(r)
		requireKind(t, err, kv.ErrInvalid, field)
	}
	_, err := e.c.Reserve(0, 1)
	requireKind(t, err, kv.ErrUnknown, "Seq")
	require.ErrorIs(t, e.c.Append(-1, seqOf(1, 1)), kv.ErrUnknown)
	a := e.prompt(seqOf(1, 9))
	for _, n := range []int{-1, kv.TokensMax + 1} {
		_, err = e.c.Reserve(a.Seq, n)
		requireKind(t, err, kv.ErrInvalid, "n")
	}
	require.Equal(t, kv.NoSeq, e.c.Sequence(99).Seq)
	require.Zero(t, e.c.Length(99))
	e.c.End(99)
	e.c.Failed(-1)
	require.Empty(t, e.c.Drop(99))
	require.Empty(t, e.c.Saved(99, 1))
	require.Empty(t, e.c.Spilled(99, 1))
	e.c.SaveFailed(99)
	e.c.SpillFailed(99)
	e.c.Lost(99, kv.RAM)
	e.c.Release(99)
	require.NoError(t, e.check())
}

// TestPin: a pinned prefix outlives what has more of it, and moves on with the last that has it.
func TestPin(t *testing.T) {
	t.Parallel()
	e := newEngine(t, kv.Config{Sequences: 3, Cells: 1000})
	system := seqOf(1, 100)
	require.NoError(t, e.c.Pin(kv.Key{}, system))
	a := e.prompt(append(system, seqOf(2, 200)...))
	e.c.End(a.Seq)
	require.True(t, e.c.Sequence(a.Seq).Pinned)
	b := e.prompt(append(system, seqOf(3, 50)...))
	e.c.End(b.Seq)
	require.False(t, e.c.Sequence(a.Seq).Pinned, "another has it too")
	// Everything else goes.
	big := e.prompt(seqOf(4, 700))
	_, err := e.c.Reserve(big.Seq, 300)
	require.ErrorIs(t, err, kv.ErrNoRoom)
	plan, err := e.c.Reserve(big.Seq, 100)
	require.NoError(t, err)
	require.NoError(t, e.do(plan.Ops))
	require.NoError(t, e.c.Append(big.Seq, nil))
	e.c.End(big.Seq)
	c := e.prompt(append(system, seqOf(5, 50)...))
	require.Equal(t, 100, c.Reused)
	e.c.End(c.Seq)
	d := e.begin(kv.Request{Tokens: seqOf(6, 10), Limit: 900})
	require.Equal(t, 110, e.c.Stats().Cells, "only the prefix is left")
	_, err = e.c.Reserve(d.Seq, 900)
	require.ErrorIs(t, err, kv.ErrNoRoom, "the pinned prefix has a hundred of them")
	e.c.End(d.Seq)
	f := e.prompt(append(system, 1))
	require.Equal(t, 100, f.Reused)
	e.c.End(f.Seq)
	require.NoError(t, e.c.Unpin(kv.Key{}, system))
	require.ErrorIs(t, e.c.Unpin(kv.Key{}, system), kv.ErrUnknown)

	// When nobody is there to wait for, even a pinned prefix goes.
	require.NoError(t, e.c.Pin(kv.Key{}, system))
	e.prompt(seqOf(6, 1000))

	e = newEngine(t, kv.Config{Sequences: 3, Cells: 1000})
	requireKind(t, e.c.Pin(kv.Key{}, nil), kv.ErrInvalid, "Tokens")
	requireKind(t, e.c.Pin(kv.Key{}, seqOf(1, 501)), kv.ErrNoRoom, "Tokens")
	require.NoError(t, e.c.Pin(kv.Key{}, seqOf(1, 500-kv.PinsMax+1)))
	for i := range kv.PinsMax - 1 {
		require.NoError(t, e.c.Pin(kv.Key{}, seqOf(2+i, 1)))
	}
	require.ErrorIs(t, e.c.Pin(kv.Key{}, seqOf(1, 1)), kv.ErrNoRoom)
}

// TestTenants: what is public is shared, and a tenant never gets what another's prompt had.
func TestTenants(t *testing.T) {
	t.Parallel()
	key := func(salt string) kv.Key { return kv.Key{Model: "m", Salt: salt, PublicTokens: 50} }
	for _, layout := range []kv.Layout{kv.Shared, kv.Streams} {
		cfg := shared
		cfg.Layout = layout
		e := newEngine(t, cfg)
		text := seqOf(1, 200)
		a := e.begin(kv.Request{Key: key("a"), Tokens: text})
		b := e.begin(kv.Request{Key: key("b"), Tokens: text})
		require.Equal(t, 50, b.Reused)
		require.Equal(t, 199, e.begin(kv.Request{Key: key("b"), Tokens: text}).Reused)
		for _, seq := range []kv.Seq{a.Seq, b.Seq} {
			e.c.End(seq)
		}
		none := e.begin(kv.Request{Key: kv.Key{Model: "m"}, Tokens: text})
		require.Equal(t, 50, none.Reused)
	}
}

func TestHooks(t *testing.T) {
	t.Parallel()
	var got []any
	cfg := shared
	cfg.RAMBytes, cfg.DiskBytes, cfg.WriteThrough, cfg.CellBytes = 10_000, 10_000, true, 2
	cfg.Hooks = kv.Hooks{
		Admit:   func(e kv.AdmitEvent) { got = append(got, e) },
		Hit:     func(e kv.HitEvent) { got = append(got, e) },
		Evict:   func(e kv.EvictEvent) { got = append(got, e) },
		Spill:   func(e kv.SpillEvent) { got = append(got, e) },
		Restore: func(e kv.RestoreEvent) { got = append(got, e); panic("contained") },
	}
	e := newEngine(t, cfg)
	k := kv.Key{Model: "m"}
	a := e.begin(kv.Request{Key: k, Tokens: seqOf(1, 600)})
	e.c.End(a.Seq)
	e.c.End(e.begin(kv.Request{Key: k, Tokens: seqOf(2, 500)}).Seq)
	require.Equal(t, []any{
		kv.AdmitEvent{Key: k, Seq: 0, Prompt: 600},
		kv.SpillEvent{From: kv.Live, To: kv.RAM, Blob: 1, Tokens: 600, Bytes: 1200},
		kv.EvictEvent{Place: kv.Live, Seq: 0, Tokens: 600, Bytes: 1200},
		kv.AdmitEvent{Key: k, Seq: 1, Prompt: 500},
		kv.SpillEvent{From: kv.RAM, To: kv.Disk, Blob: 1, Tokens: 600, Bytes: 1200},
	}, got)
	got = nil
	e.c.End(e.begin(kv.Request{Key: k, Tokens: seqOf(1, 300)}).Seq)
	require.Contains(t, got, kv.RestoreEvent{Seq: 0, Blob: 1, Place: kv.RAM, Tokens: 600})
	require.Contains(t, got, kv.HitEvent{Key: k, Seq: 0, Place: kv.RAM, Tokens: 299})
	require.NoError(t, e.do(e.c.Drop(0)))
	got = nil
	e.begin(kv.Request{Key: k, Tokens: seqOf(1, 300)})
	require.False(t, slices.ContainsFunc(got, func(e any) bool {
		_, ok := e.(kv.RestoreEvent)
		return ok
	}), "a hook that panics is not called again")
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, "live ram disk checkpoint none", kv.Live.String()+" "+kv.RAM.String()+" "+
		kv.Disk.String()+" "+kv.Partial.String()+" "+kv.Nowhere.String())
	require.Equal(t, "SeqCopy", kv.SeqCopy.String())
	require.Equal(t, "Forget", kv.Forget.String())
	require.Equal(t, "invalid", kv.OpKind(99).String())
	require.Equal(t, "free busy idle state 9", kv.Free.String()+" "+kv.Busy.String()+" "+
		kv.Idle.String()+" "+kv.SeqState(9).String())
	err := &kv.Error{Op: "begin", Kind: kv.ErrNoRoom}
	require.Equal(t, "begin: no room", err.Error())
	require.True(t, errors.Is(err, kv.ErrNoRoom))
}
