package kv_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/kv"
)

// TestSinkWindow feeds far more than fits: the sinks and the latest stay, in their order.
func TestSinkWindow(t *testing.T) {
	t.Parallel()
	for _, layout := range []kv.Layout{kv.Shared, kv.Streams} {
		cfg := shared
		cfg.Layout = layout
		e := newEngine(t, cfg)
		text := seqOf(1, 9000)
		policy := kv.Policy{Evict: kv.SinkWindow{Sinks: 4, Window: 252, Block: 64}}
		a := e.begin(kv.Request{Tokens: text, Policy: policy})
		held := e.c.Tokens(a.Seq)
		require.LessOrEqual(t, len(held), 256)
		require.GreaterOrEqual(t, len(held), 256-64-64)
		require.Equal(t, text[:4], held[:4])
		require.Equal(t, text[9000-len(held)+4:], held[4:])
		require.Equal(t, 4, e.c.Sequence(a.Seq).Exact)
		require.Equal(t, len(held), e.c.Stats().Cells)
		e.c.End(a.Seq)
		// Only what is as a cold run would have it serves others.
		require.Equal(t, 4, e.prompt(text[:500]).Reused)
	}
}

// TestSinkWindowBorder: the smallest windows that are accepted let a sequence go on for ever.
func TestSinkWindowBorder(t *testing.T) {
	t.Parallel()
	for sinks := range 3 {
		w := kv.SinkWindow{Sinks: sinks, Window: 2}
		require.NoError(t, w.Validate())
		e := newEngine(t, shared)
		text := seqOf(1, 50)
		a := e.begin(kv.Request{Tokens: text, Policy: kv.Policy{Evict: w}})
		held := e.c.Tokens(a.Seq)
		require.Equal(t, text[:sinks], held[:sinks])
		require.Equal(t, text[49], held[len(held)-1])

		w.Window = 1
		_, err := w.Evict(kv.View{Length: sinks + 1, Limit: sinks + 1, Want: 1})
		require.Error(t, err, "it could give up nothing")
		err = w.Validate()
		require.ErrorIs(t, err, kv.ErrInvalid)
		var typed *kv.Error
		require.ErrorAs(t, err, &typed)
		require.NotEmpty(t, typed.Hint)
	}
}

// TestKeepSystem and MiddleOut keep what they say, by the prompt's own lengths.
func TestBuiltinChoices(t *testing.T) {
	t.Parallel()
	view := kv.View{Length: 90, Prompt: 50, System: 20, Limit: 100, Want: 15}
	for _, c := range []struct {
		e    kv.Evictor
		want []kv.Span
	}{
		{kv.SinkWindow{Sinks: 4, Window: 80, Block: 10}, []kv.Span{{P0: 4, P1: 14}}},
		{kv.SinkWindow{Sinks: 0, Window: 80, Block: 1}, []kv.Span{{P0: 0, P1: 5}}},
		{kv.SinkWindow{Sinks: 4, Window: 80}, []kv.Span{{P0: 4, P1: 14}}},
		{kv.SinkWindow{Sinks: 84, Window: 84}, []kv.Span{{P0: 84, P1: 89}}},
		{kv.SinkWindow{Sinks: 85, Window: 85}, nil},
		{kv.KeepSystem{}, []kv.Span{{P0: 20, P1: 30}}},
		{kv.KeepSystem{Block: 30}, []kv.Span{{P0: 20, P1: 50}}},
		{kv.KeepSystem{Block: 300}, []kv.Span{{P0: 20, P1: 89}}},
		{kv.MiddleOut{Block: 9}, []kv.Span{{P0: 50, P1: 59}}},
		{kv.Refuse{}, nil},
	} {
		spans, err := c.e.Evict(view)
		require.Equal(t, c.want, spans, "%T%+v", c.e, c.e)
		require.Equal(t, c.want == nil, err != nil)
	}
	require.Equal(t, 84, kv.SinkWindow{Sinks: 4, Window: 80}.Limit(1000))
	require.Equal(t, 60, kv.SinkWindow{Sinks: 4, Window: 80}.Limit(60))
	_, err := kv.KeepSystem{}.Evict(kv.View{Length: 90, System: 86, Limit: 90, Want: 4})
	require.Error(t, err)
	_, err = kv.MiddleOut{}.Evict(kv.View{Length: 90, System: 86, Limit: 90, Want: 4})
	require.Error(t, err)
}

// TestBuiltinAnswers: every answer of a built-in policy is one that the Cache accepts.
func TestBuiltinAnswers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(4, 300).Draw(t, "limit")
		n := rapid.IntRange(1, limit).Draw(t, "length")
		v := kv.View{
			Length: n, Limit: limit, Prompt: rapid.IntRange(0, n).Draw(t, "prompt"),
			System: rapid.IntRange(0, n).Draw(t, "system"),
			Want:   rapid.IntRange(limit-n+1, limit-n+limit).Draw(t, "want"),
		}
		block := rapid.IntRange(0, 50).Draw(t, "block")
		sinks := rapid.IntRange(0, 20).Draw(t, "sinks")
		for _, e := range []kv.Evictor{
			kv.SinkWindow{Sinks: sinks, Window: 50, Block: block},
			kv.KeepSystem{Block: block},
			kv.MiddleOut{Block: block},
		} {
			spans, err := e.Evict(v)
			if err != nil {
				continue
			}
			require.NoError(t, kv.CheckSpans(v, spans), "%T %+v", e, v)
			first := max(1, v.System)
			if _, sink := e.(kv.SinkWindow); sink {
				first = sinks
			}
			require.GreaterOrEqual(t, int(spans[0].P0), first)
		}
	})
}

// evictor is a policy made of a function.
type evictor func(kv.View) ([]kv.Span, error)

func (f evictor) Evict(v kv.View) ([]kv.Span, error) { return f(v) }

// limiter wants a limit besides.
type limiter struct {
	evictor
	limit func(int) int
}

func (l limiter) Limit(n int) int { return l.limit(n) }

// TestPolicyNonsense: whatever a policy answers, the books stay as they were.
func TestPolicyNonsense(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	many := func(n int) []kv.Span {
		var spans []kv.Span
		for i := range kv.Pos(n) {
			spans = append(spans, kv.Span{P0: 2 * i, P1: 2*i + 1})
		}
		return spans
	}
	spans := func(s ...kv.Span) evictor {
		return func(kv.View) ([]kv.Span, error) { return s, nil }
	}
	for name, e := range map[string]kv.Evictor{
		"panic":       evictor(func(kv.View) ([]kv.Span, error) { panic("no") }),
		"error":       evictor(func(kv.View) ([]kv.Span, error) { return nil, mine }),
		"nothing":     spans(),
		"too little":  spans(kv.Span{P0: 10, P1: 19}),
		"negative":    spans(kv.Span{P0: -1, P1: 19}),
		"empty":       spans(kv.Span{P0: 10, P1: 10}, kv.Span{P0: 20, P1: 40}),
		"backwards":   spans(kv.Span{P0: 30, P1: 10}),
		"outside":     spans(kv.Span{P0: 180, P1: 201}),
		"overlap":     spans(kv.Span{P0: 10, P1: 30}, kv.Span{P0: 29, P1: 40}),
		"descending":  spans(kv.Span{P0: 50, P1: 70}, kv.Span{P0: 10, P1: 30}),
		"everything":  spans(kv.Span{P0: 0, P1: 200}),
		"too many":    spans(many(kv.SpansMax + 1)...),
		"huge":        spans(kv.Span{P0: 1, P1: kv.End}),
		"nil pointer": (*pointer)(nil),
	} {
		e2 := newEngine(t, shared)
		a := e2.begin(kv.Request{
			Tokens: seqOf(1, 200), Limit: 200, Policy: kv.Policy{Evict: e},
		})
		before, tokens := e2.c.Stats(), slices.Clone(e2.c.Tokens(a.Seq))
		_, err := e2.c.Reserve(a.Seq, 10)
		require.ErrorIs(t, err, kv.ErrPolicy, name)
		if name == "error" {
			require.ErrorIs(t, err, mine)
		}
		require.Equal(t, before, e2.c.Stats(), name)
		require.Equal(t, tokens, e2.c.Tokens(a.Seq), name)
		require.NoError(t, e2.check(), name)
	}
	e := newEngine(t, shared)
	a := e.begin(kv.Request{
		Tokens: seqOf(1, 200), Limit: 200, Policy: kv.Policy{Evict: spans(many(kv.SpansMax)...)},
	})
	plan, err := e.c.Reserve(a.Seq, 10)
	require.NoError(t, err)
	require.NoError(t, e.do(plan.Ops))
	require.Equal(t, kv.SpansMax, plan.Dropped)
	require.NoError(t, e.check())

	for _, limit := range []func(int) int{
		func(int) int { return 0 }, func(n int) int { return n + 1 },
		func(int) int { panic("no") },
	} {
		before := e.c.Stats()
		_, err := e.c.Begin(kv.Request{
			Tokens: seqOf(1, 20), Policy: kv.Policy{Evict: limiter{spans(), limit}},
		})
		require.ErrorIs(t, err, kv.ErrPolicy)
		require.Equal(t, before, e.c.Stats())
	}
}

type pointer struct{ spans []kv.Span }

func (p *pointer) Evict(kv.View) ([]kv.Span, error) { return p.spans, nil }

// TestViewOfPolicy: what a policy is told is what is left.
func TestViewOfPolicy(t *testing.T) {
	t.Parallel()
	var views []kv.View
	policy := evictor(func(v kv.View) ([]kv.Span, error) {
		views = append(views, v)
		return []kv.Span{{P0: 10, P1: 30}, {P0: 40, P1: 60}}, nil
	})
	e := newEngine(t, shared)
	a := e.begin(kv.Request{
		Tokens: seqOf(1, 180), Limit: 100, System: 20, Policy: kv.Policy{Evict: policy},
	})
	e.compute(a.Seq, seqOf(2, 50))
	require.Equal(t, []kv.View{
		{Length: 100, Prompt: 100, System: 20, Limit: 100, Want: 25},
		{Length: 85, Prompt: 85, System: 10, Limit: 100, Want: 25},
		{Length: 100, Prompt: 100, System: 10, Limit: 100, Want: 25},
		{Length: 85, Prompt: 60, System: 10, Limit: 100, Want: 25},
	}, views)
}

// TestUnshare: what moves belongs to others too, who must not see it move.
func TestUnshare(t *testing.T) {
	t.Parallel()
	e := newEngine(t, shared)
	a := e.prompt(seqOf(1, 200))
	policy := kv.Policy{Evict: kv.SinkWindow{Sinks: 4, Window: 216, Block: 20}}
	b := e.begin(kv.Request{Tokens: append(seqOf(1, 200), 1, 2), Policy: policy})
	require.Equal(t, 200, b.Reused)
	require.Equal(t, 202, e.c.Stats().Cells)
	plan, err := e.c.Reserve(b.Seq, 20)
	require.NoError(t, err)
	require.Equal(t, []kv.OpKind{
		kv.Save, kv.SeqRemove, kv.Restore, kv.Forget, kv.SeqRemove, kv.Shift,
	}, kinds(plan.Ops))
	require.NoError(t, e.do(plan.Ops))
	require.NoError(t, e.check())
	require.Equal(t, 382, e.c.Stats().Cells)
	require.Equal(t, seqOf(1, 200), e.c.Tokens(a.Seq))
	require.Equal(t, 200, e.c.Sequence(a.Seq).Exact)
	require.Empty(t, e.m.ram)

	// What is shared is kept, what moves is not shared: no copy is made.
	c := e.begin(kv.Request{Tokens: append(seqOf(1, 200), seqOf(7, 50)...), Policy: kv.Policy{
		Evict: kv.SinkWindow{Sinks: 200, Window: 200},
	}})
	e.compute(c.Seq, seqOf(8, 140))
	plan, err = e.c.Reserve(c.Seq, 20)
	require.NoError(t, err)
	require.Equal(t, []kv.OpKind{kv.SeqRemove, kv.Shift}, kinds(plan.Ops))

	// There is no room for cells of its own: nothing happens.
	e = newEngine(t, kv.Config{Sequences: 2, Cells: 230, CanShift: true})
	e.prompt(seqOf(1, 200))
	b = e.begin(kv.Request{Tokens: append(seqOf(1, 200), 1), Limit: 210, Policy: policy})
	before := e.c.Stats()
	_, err = e.c.Reserve(b.Seq, 20)
	require.ErrorIs(t, err, kv.ErrNoRoom)
	require.Equal(t, before, e.c.Stats())
}

// TestCannotShift: models whose positions stay where they are say why, or compute again.
func TestCannotShift(t *testing.T) {
	t.Parallel()
	for _, cfg := range []kv.Config{
		{Sequences: 2, Cells: 500},
		{Sequences: 2, Cells: 500, Window: 32, SmallWindow: true},
		{Sequences: 2, Cells: 500, Recurrent: true, CanShift: true},
	} {
		e := newEngine(t, cfg)
		r := kv.Request{Tokens: seqOf(1, 300), Policy: kv.Policy{
			Evict: kv.SinkWindow{Sinks: 4, Window: 96},
		}}
		_, err := e.c.Begin(r)
		require.ErrorIs(t, err, kv.ErrUnsupported)
		var typed *kv.Error
		require.ErrorAs(t, err, &typed)
		require.NotEmpty(t, typed.Hint)
		require.Error(t, typed.Err)
		r.Policy.Recompute = true
		a := e.begin(r)
		held := e.c.Tokens(a.Seq)
		require.Equal(t, seqOf(1, 300)[:4], held[:4])
		require.Equal(t, seqOf(1, 300)[299], held[len(held)-1])
		require.Equal(t, len(held), e.c.Sequence(a.Seq).Exact, "it is what a cold run would have")
	}
}

func TestChunkReuse(t *testing.T) {
	t.Parallel()
	policy := kv.Policy{Reuse: kv.ChunkReuse{MinTokens: 16}}
	head, a, b, c := seqOf(1, 50), seqOf(2, 40), seqOf(3, 60), seqOf(4, 30)
	join := slices.Concat[[]kv.Token]
	for name, x := range map[string]struct {
		held, prompt []kv.Token
		moved        int
		ops          []kv.OpKind
	}{
		"a part was taken out": {
			join(head, a, b), join(head, b, c), 60, []kv.OpKind{kv.SeqRemove, kv.Shift},
		},
		"two parts changed places": {
			join(head, a, b, c), join(head, b, a, c), 40 + 60 + 29,
			[]kv.OpKind{kv.SeqRemove, kv.Shift, kv.Shift, kv.Shift, kv.Shift},
		},
		"too short": {join(head, a, b[:15]), join(head, b[:15], c), 0, []kv.OpKind{kv.SeqRemove}},
		"long enough": {
			join(head, a, b[:16]), join(head, b[:16], c), 16, []kv.OpKind{kv.SeqRemove, kv.Shift},
		},
		"something new in front": {join(head, a, b), join(head, c, b), 0, []kv.OpKind{kv.SeqRemove}},
		"at its place":           {join(head, a, b), join(head, a, b), 0, []kv.OpKind{kv.SeqRemove}},
	} {
		e := newEngine(t, kv.Config{Layout: kv.Streams, Sequences: 1, Cells: 500, CanShift: true})
		e.c.End(e.prompt(x.held).Seq)
		got := e.begin(kv.Request{Tokens: x.prompt, Policy: policy})
		require.Equal(t, x.moved, got.Moved, name)
		require.Equal(t, x.ops, kinds(got.Ops), name)
		if x.moved > 0 {
			require.Equal(t, 50+x.moved, got.Reused, name)
			require.Equal(t, 50, e.c.Sequence(got.Seq).Exact, name)
		}
	}
	// Not for whom the tokens are none of their business, and not where nothing can be moved.
	for _, cfg := range []kv.Config{shared, {Sequences: 1, Cells: 900}} {
		e := newEngine(t, cfg)
		salt := kv.Key{}
		if cfg.CanShift {
			salt.Salt = "a"
		}
		e.c.End(e.begin(kv.Request{Key: salt, Tokens: join(head, a, b)}).Seq)
		require.Zero(t, e.begin(kv.Request{Tokens: join(head, b, c), Policy: policy}).Moved)
	}
}

// reuser is a Reuser made of a function.
type reuser func(kv.ReuseView) ([]kv.Span, error)

func (f reuser) Reuse(v kv.ReuseView) ([]kv.Span, error) { return f(v) }

func TestReuserNonsense(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]reuser{
		"panic": func(kv.ReuseView) ([]kv.Span, error) { panic("no") },
		"error": func(kv.ReuseView) ([]kv.Span, error) { return nil, errors.New("no") },
		"prefix": func(v kv.ReuseView) ([]kv.Span, error) {
			return []kv.Span{{P0: kv.Pos(v.Prefix) - 1, P1: kv.Pos(v.Prefix) + 1}}, nil
		},
		"wrong":   func(kv.ReuseView) ([]kv.Span, error) { return []kv.Span{{P0: 60, P1: 61}}, nil },
		"outside": func(kv.ReuseView) ([]kv.Span, error) { return []kv.Span{{P0: 90, P1: 200}}, nil },
		"twice": func(kv.ReuseView) ([]kv.Span, error) {
			return []kv.Span{{P0: 90, P1: 100}, {P0: 90, P1: 100}}, nil
		},
		"scribbles": func(v kv.ReuseView) ([]kv.Span, error) {
			for i := range v.Held {
				v.Held[i] = v.Prompt[min(i, len(v.Prompt)-1)]
			}
			return []kv.Span{{P0: kv.Pos(v.Prefix), P1: 100}}, nil
		},
	} {
		e := newEngine(t, shared)
		e.c.End(e.prompt(append(seqOf(1, 50), seqOf(2, 50)...)).Seq)
		before := e.c.Stats()
		_, err := e.c.Begin(kv.Request{
			Tokens: append(seqOf(1, 50), seqOf(3, 100)...), Policy: kv.Policy{Reuse: f},
		})
		require.ErrorIs(t, err, kv.ErrPolicy, name)
		require.Equal(t, before, e.c.Stats(), name)
		require.NoError(t, e.check(), name)
	}
}
