package command_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/command"
	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/infer"
)

// options run the program of these tests with a fault.
func options(t testing.TB, fault string) command.Options {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return command.Options{
		Command: []string{self}, Env: []string{"FAULT=" + fault}, BackoffMin: time.Nanosecond,
		BackoffMax: time.Nanosecond,
	}
}

func open(t *testing.T, o command.Options) *command.Backend {
	t.Helper()
	b, err := command.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// last runs a request to its end.
func last(ctx context.Context, b infer.Backend, r infer.Request) (*infer.Final, error) {
	var f *infer.Final
	for c, err := range b.Generate(ctx, r) {
		if err != nil {
			return nil, err
		}
		f = c.Final
	}
	return f, nil
}

var short = infer.Request{Prompt: "once", MaxTokens: 8}

// TestConforms runs the conformance suite on a program that can do everything.
func TestConforms(t *testing.T) {
	t.Parallel()
	r := conform.Test(t, open(t, options(t, "none")), conform.Options{})
	require.True(t, r.Passed())
	for _, x := range r.Results {
		require.Equal(t, x.Check == "count tokens", x.Outcome == conform.Skipped, "%+v", x)
	}
}

// TestFaults wants a typed error for whatever a program does, and a new start after it.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, options(t, name))
			for range 2 {
				var err error
				for _, err = range b.Generate(t.Context(), short) {
					if name == "floods" && err == nil {
						<-gone(b)
					}
				}
				e, ok := errors.AsType[*infer.Error](err)
				require.True(t, ok, "%v", err)
				require.Contains(t, []infer.Kind{f.kind, infer.KindLost}, e.Kind, "%v", err)
				if f.kind != infer.KindInternal {
					require.Equal(t, f.kind, e.Kind, "%v", err)
				}
			}
		})
	}
}

// gone is closed when a program no longer takes requests.
func gone(b *command.Backend) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for command.Runs(b) {
			time.Sleep(time.Millisecond)
		}
	}()
	return done
}

// TestOpenRefuses wants typed errors for programs of no use.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*command.Options)
		kind   infer.Kind
		field  string
	}{
		"no program": {func(o *command.Options) { o.Command = nil }, infer.KindInvalid, "command"},
		"no name":    {func(o *command.Options) { o.Env = []string{"=1"} }, infer.KindInvalid, "env"},
		"negative":   {func(o *command.Options) { o.Silence = -1 }, infer.KindInvalid, "timeout"},
		"missing": {
			func(o *command.Options) { o.Command = []string{filepath.Join(t.TempDir(), "x")} },
			infer.KindLost, "command",
		},
		"another version": {
			func(o *command.Options) { o.Env = []string{"FAULT=another version"} },
			infer.KindInternal, "",
		},
		"no model": {
			func(o *command.Options) { o.Env = []string{"FAULT=no name"} }, infer.KindInternal, "",
		},
		"says nothing": {
			func(o *command.Options) {
				o.Env, o.StartTime = []string{"FAULT=says nothing"}, time.Millisecond
			}, infer.KindLost, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, "none")
			c.change(&o)
			_, err := command.Open(t.Context(), o)
			e, ok := errors.AsType[*infer.Error](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, c.kind, e.Kind, "%v", err)
			require.Equal(t, c.field, e.Field)
		})
	}
}

// TestRefuses names what the program does not say that it obeys.
func TestRefuses(t *testing.T) {
	t.Parallel()
	b := open(t, options(t, "none"))
	for field, change := range map[string]func(*infer.Request){
		"top_k":      func(r *infer.Request) { r.Sampling.TopK = 40 },
		"min_p":      func(r *infer.Request) { r.Sampling.MinP = 0.1 },
		"logit_bias": func(r *infer.Request) { r.Sampling.LogitBias = map[infer.TokenID]float32{1: 1} },
		"grammar":    func(r *infer.Request) { r.Constraint.Grammar = "root ::= [a]" },
		"kv.salt":    func(r *infer.Request) { r.KV.Salt = "a" },
		"kv.evict":   func(r *infer.Request) { r.KV.Evict = "middle-out" },
		"adapters":   func(r *infer.Request) { r.Adapters = []infer.Adapter{{Name: "a"}} },
		"ignore_eos": func(r *infer.Request) { r.IgnoreEOS = true },
	} {
		r := short
		change(&r)
		_, err := last(t.Context(), b, r)
		e, ok := errors.AsType[*infer.Error](err)
		require.True(t, ok, field)
		require.Equal(t, infer.KindUnsupported, e.Kind)
		require.Equal(t, field, e.Field)
		require.NotEmpty(t, e.Hint)
	}
}

// TestCancelIgnored kills a program that goes on with what was canceled, and starts it again.
func TestCancelIgnored(t *testing.T) {
	t.Parallel()
	o := options(t, "ignores cancels")
	o.CancelTime = time.Millisecond
	b := open(t, o)
	r := short
	r.MaxTokens = infer.TokensMax
	for range b.Generate(t.Context(), r) {
		break
	}
	<-gone(b)
	f, err := last(t.Context(), b, short)
	require.NoError(t, err)
	require.Equal(t, 8, f.Usage.CompletionTokens)
}

// TestChanges refuses a program that says something else of itself once it is started again.
func TestChanges(t *testing.T) {
	t.Parallel()
	b := open(t, options(t, "changes"))
	command.Kill(b)
	<-gone(b)
	_, err := last(t.Context(), b, short)
	require.ErrorIs(t, err, infer.KindModel)
	require.NotEmpty(t, infer.HintOf(err))
}

// TestBackoff does not start a program again and again.
func TestBackoff(t *testing.T) {
	t.Parallel()
	o := options(t, "exits")
	o.BackoffMin, o.BackoffMax = time.Hour, time.Hour
	b := open(t, o)
	_, err := last(t.Context(), b, short)
	require.ErrorIs(t, err, infer.KindLost)
	<-gone(b)
	_, err = last(t.Context(), b, short)
	require.ErrorIs(t, err, infer.KindLost)
	require.Contains(t, infer.HintOf(err), "started again in")
}

// TestCloseKills ends a program that does not end by itself.
func TestCloseKills(t *testing.T) {
	t.Parallel()
	o := options(t, "does not end")
	o.StopTime = time.Millisecond
	b := open(t, o)
	require.NoError(t, b.Close())
	require.NoError(t, b.Close())
	_, err := last(t.Context(), b, short)
	require.ErrorIs(t, err, infer.KindClosed)
}

// FuzzLine wants an answer or a typed error for any line, never a panic.
func FuzzLine(f *testing.F) {
	for _, x := range faults {
		if x.kind == infer.KindInternal || x.kind == infer.KindTooLong {
			f.Add([]byte(x.line(3)))
		}
	}
	f.Add([]byte(`{"id":1,"info":{"version":1,"model":{"model":"a","engine":"b"},"fields":[]}}`))
	f.Add([]byte(`{"id":1,"scores":{"tokens":[{"token":{"id":1,"text":"YQ=="},"logprob":-1}]}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if err := command.Check(line); err != nil {
			require.NotEmpty(t, infer.KindOf(err))
			_, ok := errors.AsType[*infer.Error](err)
			require.True(t, ok)
		}
	})
}
