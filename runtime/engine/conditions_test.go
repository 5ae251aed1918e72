package engine_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestR7Conditions: a deterministic answer has the tokens and the numbers of its first cold run in
// company, behind others with the same beginning, after a restart and parked. One prompt and its
// answer stay within the window of Gemma and the 512 cells from which the processor's attention
// divides a token's cells among threads; the other is beyond both.
func TestR7Conditions(t *testing.T) {
	gemma, smollm2 := storetest.Model(t, "gemma3:270m"), storetest.Model(t, "smollm2:135m")
	for _, x := range []struct {
		name   string
		path   string
		small  bool
		reuses bool // deterministic requests of a model with a window compute all of their prompt
	}{
		{"gemma", gemma, false, false},
		{"gemma small", gemma, true, false},
		{"smollm2", smollm2, false, true},
	} {
		for _, threads := range []int{1, 2} {
			if x.reuses && threads == 1 {
				continue // the other tests of R7 run it with one thread
			}
			t.Run(fmt.Sprintf("%s threads=%d", x.name, threads), func(t *testing.T) {
				o := engine.Options{
					Paths: []string{x.path}, ContextTokens: 768, SmallWindow: x.small, Threads: threads,
					Sequences: 8, CacheDir: t.TempDir() + "/cache",
				}
				c := conditions{t: t, reuses: x.reuses}
				for _, n := range []int{100, 530}[:threads] { // one thread does not divide them
					c.requests = append(c.requests, deterministic(someTokens(uint64(n), n), 16))
				}
				c.live(o)
				c.restarted(o)
			})
		}
	}
}

// conditions are requests under which everything around them changes.
type conditions struct {
	t        *testing.T
	reuses   bool
	requests []infer.Request
	want     [][]infer.Logprob // of each request, cold
}

// with opens an engine for the time of a call.
func (c *conditions) with(o engine.Options, run func(e *engine.Engine)) {
	e, err := engine.Open(c.t.Context(), o)
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, e.Close()) }()
	run(e)
}

// live asks cold, in company, and behind others.
func (c *conditions) live(o engine.Options) {
	c.with(o, func(e *engine.Engine) {
		for _, r := range c.requests {
			lps, u, ok := steps(c.t, e, r)
			require.True(c.t, ok)
			require.Equal(c.t, len(r.Tokens), u.Computed)
			c.want = append(c.want, lps)
		}
		for _, others := range []int{1, 3, 7} {
			leave := company(c.t, e, others)
			for i, r := range c.requests {
				if i > 0 && others < 7 {
					continue // the short one has been in all companies
				}
				got, _, _ := steps(c.t, e, r)
				require.Equal(c.t, c.want[i], got, "request %d with %d others", i, others)
			}
			leave()
		}
		for i, r := range c.requests {
			n := len(r.Tokens) - 10
			other := r
			other.Tokens = slices.Concat(r.Tokens[:n], someTokens(1, 20))
			_, _, _ = steps(c.t, e, other)
			got, u, _ := steps(c.t, e, r)
			require.Equal(c.t, c.want[i], got, "request %d behind others, reused %+v", i, u.Cached)
			require.Equal(c.t, c.reuses, u.Cached.Live > 0, "request %d: %+v", i, u)
		}
	})
}

// restarted asks a new engine, and lets each answer make room for another in its middle.
func (c *conditions) restarted(o engine.Options) {
	c.with(o, func(e *engine.Engine) {
		disk := 0
		for i, r := range c.requests {
			got, u, _ := steps(c.t, e, r)
			require.Equal(c.t, c.want[i], got, "request %d, reused %+v", i, u.Cached)
			disk += u.Cached.Disk
		}
		require.Equal(c.t, c.reuses, disk > 0, "%d tokens from disk", disk)
		defer company(c.t, e, o.Sequences-1)()
		for i, r := range c.requests {
			r.Priority = -1
			got, u := interrupted(c.t, e, r)
			require.Equal(c.t, 1, u.Parked)
			require.Equal(c.t, c.want[i], got, "request %d, reused %+v", i, u.Cached)
		}
	})
}

// company has others answer until they are told to leave.
func company(t *testing.T, e infer.Backend, others int) (leave func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var begun, gone sync.WaitGroup
	begun.Add(others)
	for i := range others {
		r := infer.Request{Tokens: someTokens(uint64(i), 20+i), MaxTokens: 700, IgnoreEOS: true}
		gone.Go(func() {
			first := sync.OnceFunc(begun.Done)
			defer first()
			for _, err := range e.Generate(ctx, r) {
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				first()
			}
		})
	}
	begun.Wait()
	return func() {
		require.NoError(t, ctx.Err())
		cancel()
		gone.Wait()
	}
}

// interrupted runs a request that holds the last sequence, with an urgent one in its middle.
func interrupted(t *testing.T, e infer.Backend, r infer.Request) (
	lps []infer.Logprob, u infer.Usage,
) {
	for c, err := range e.Generate(t.Context(), r) {
		require.NoError(t, err)
		if lps = append(lps, c.Logprobs...); len(lps) == 5 {
			answer(t, e, infer.Request{Prompt: "Urgent", MaxTokens: 2, Priority: 1})
		}
		if c.Final != nil {
			u = c.Final.Usage
		}
	}
	return lps, u
}
