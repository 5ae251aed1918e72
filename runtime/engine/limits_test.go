package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// TestE1TooLong: prompt and answer fill the context exactly, and one token more is refused.
func TestE1TooLong(t *testing.T) {
	e := open(t, "smollm2:135m", func(o *engine.Options) { o.ContextTokens = 256 })
	tokens := make([]infer.TokenID, 250)
	for i := range tokens {
		tokens[i] = infer.TokenID(1000 + i)
	}
	_, f := answer(t, e, infer.Request{Tokens: tokens, MaxTokens: 6, IgnoreEOS: true})
	require.Equal(t, infer.FinishLength, f.Reason)
	require.Equal(t, 6, f.Usage.CompletionTokens)
	_, f = answer(t, e, infer.Request{Tokens: tokens, IgnoreEOS: true})
	require.Equal(t, 6, f.Usage.CompletionTokens, "no limit means what there is room for")
	for _, r := range []infer.Request{
		{Tokens: tokens, MaxTokens: 7},
		{Tokens: append(tokens, tokens[:6]...)},
		{Tokens: append(tokens, tokens...)},
	} {
		_, _, err := collect(t.Context(), e, r)
		require.Equal(t, infer.KindTooLong, infer.KindOf(err))
		require.NotEmpty(t, infer.HintOf(err))
	}
	_, err := e.Embed(t.Context(), []string{story + story + story + story + story + story + story +
		story + story + story + story + story + story + story + story + story + story + story})
	require.Equal(t, infer.KindTooLong, infer.KindOf(err))
}

func TestInvalidRequests(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	hi := []infer.Message{{Role: infer.RoleUser, Content: "hi"}}
	for _, c := range []struct {
		name string
		r    infer.Request
		kind infer.Kind
	}{
		{"nothing", infer.Request{}, infer.KindInvalid},
		{"two inputs", infer.Request{Prompt: "a", Messages: hi}, infer.KindInvalid},
		{
			"token beyond the vocabulary",
			infer.Request{Tokens: []infer.TokenID{1 << 20}},
			infer.KindInvalid,
		},
		{"negative token", infer.Request{Tokens: []infer.TokenID{-1}}, infer.KindInvalid},
		{
			"grammar",
			infer.Request{Prompt: "a", Constraint: infer.Constraint{Grammar: "root ::= ("}},
			infer.KindInvalid,
		},
		{"grammar without root", infer.Request{
			Prompt: "a", Constraint: infer.Constraint{Grammar: `x ::= "a"`},
		}, infer.KindInvalid},
		{"schema", infer.Request{
			Prompt: "a", Constraint: infer.Constraint{Schema: []byte(`{"type":"nothing"}`)},
		}, infer.KindInvalid},
		{"bias beyond the vocabulary", infer.Request{Prompt: "a", Sampling: infer.Sampling{
			LogitBias: map[infer.TokenID]float32{1 << 20: 1},
		}}, infer.KindInvalid},
		{"tools that the template would drop", infer.Request{
			Messages: hi, Tools: []infer.Tool{{Name: "f"}},
		}, infer.KindUnsupported},
		{
			"unknown policy",
			infer.Request{Prompt: "a", KV: infer.KVPolicy{Evict: "at random"}},
			infer.KindInvalid,
		},
		{
			"contradictory policy",
			infer.Request{Prompt: "a", KV: infer.KVPolicy{
				Evict: "sink-window", Sinks: 4, Window: 8, Block: 9,
			}},
			infer.KindInvalid,
		},
		{
			"deterministic, but giving up tokens",
			infer.Request{Prompt: "a", KV: infer.KVPolicy{
				Deterministic: true, Evict: "sink-window", Sinks: 4, Window: 64,
			}},
			infer.KindUnsupported,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, chunks, err := collect(t.Context(), e, c.r)
			require.Empty(t, chunks)
			require.Equal(t, c.kind, infer.KindOf(err), "%v", err)
		})
	}
	text, _ := answer(t, e, infer.Request{Prompt: story, MaxTokens: 2})
	require.NotEmpty(t, text, "refusals leave the engine as it was")
}

// TestE6Cancel: a request that nobody waits for ends, and the next one is right.
func TestE6Cancel(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	want, _ := answer(t, e, infer.Request{Prompt: story, MaxTokens: 8})
	long := infer.Request{Prompt: story, MaxTokens: 400, IgnoreEOS: true}

	t.Run("before it runs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := collect(ctx, e, long)
		require.Equal(t, infer.KindCanceled, infer.KindOf(err))
	})
	t.Run("while it runs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		var last error
		for c, err := range e.Generate(ctx, long) {
			last = err
			if n += c.Tokens; n == 3 {
				cancel()
			}
		}
		require.Equal(t, infer.KindCanceled, infer.KindOf(last))
		require.Less(t, n, 400)
	})
	t.Run("by leaving the loop", func(t *testing.T) {
		for range e.Generate(t.Context(), long) {
			break
		}
	})
	t.Run("by its deadline", func(t *testing.T) {
		r := long
		r.Deadline = time.Now().Add(-time.Second)
		_, _, err := collect(t.Context(), e, r)
		require.Equal(t, infer.KindDeadline, infer.KindOf(err))
	})
	got, _ := answer(t, e, infer.Request{Prompt: story, MaxTokens: 8})
	require.Equal(t, want, got)
	again, _ := answer(t, e, infer.Request{
		Prompt: story, MaxTokens: 8, KV: infer.KVPolicy{NoReuse: true},
	})
	require.Equal(t, want, again)
}

// TestE8QueueFull: a full queue refuses at once; what was admitted is served.
func TestE8QueueFull(t *testing.T) {
	e := open(t, "smollm2:135m", func(o *engine.Options) { o.QueueMax = 1 })
	long := infer.Request{Prompt: story, MaxTokens: 400, IgnoreEOS: true}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var last error
		first := true
		for _, err := range e.Generate(ctx, long) {
			if last = err; first {
				first = false
				close(started)
			}
		}
		ended <- last
	}()
	<-started
	waiting := make(chan error, 1)
	held, release := context.WithCancel(t.Context())
	defer release()
	fill := func() bool { // reports whether it took the one place
		err := make(chan error, 1)
		go func() {
			_, _, e := collect(held, e, long)
			err <- e
			waiting <- e
		}()
		select {
		case e := <-err:
			require.Equal(t, infer.KindBusy, infer.KindOf(e))
			require.NotEmpty(t, infer.HintOf(e))
			return false
		case <-time.After(50 * time.Millisecond):
			return true
		}
	}
	require.True(t, fill(), "the first to wait has a place")
	require.False(t, fill(), "the second has none")
	require.Equal(t, infer.KindBusy, infer.KindOf(wait(t, waiting)))
	release()
	require.Equal(t, infer.KindCanceled, infer.KindOf(wait(t, waiting)),
		"a request ends in the queue, before the running one does")
	cancel()
	require.Equal(t, infer.KindCanceled, infer.KindOf(wait(t, ended)))
	text, _ := answer(t, e, infer.Request{Prompt: story, MaxTokens: 2})
	require.NotEmpty(t, text)
}

// TestCloseWhileRunning: running and waiting requests end with KindClosed.
func TestCloseWhileRunning(t *testing.T) {
	e := open(t, "smollm2:135m", nil)
	long := infer.Request{Prompt: story, MaxTokens: 400, IgnoreEOS: true}
	started := make(chan struct{})
	running, waiting := make(chan error, 1), make(chan error, 1)
	go func() {
		var last error
		first := true
		for _, err := range e.Generate(context.Background(), long) {
			if last = err; first {
				first = false
				close(started)
			}
		}
		running <- last
	}()
	<-started
	go func() {
		_, _, err := collect(context.Background(), e, long)
		waiting <- err
	}()
	require.NoError(t, e.Close())
	require.Equal(t, infer.KindClosed, infer.KindOf(wait(t, running)))
	require.Equal(t, infer.KindClosed, infer.KindOf(wait(t, waiting)))
}
