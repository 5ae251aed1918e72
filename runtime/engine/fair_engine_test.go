package engine_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// TestFairQueue: a tenant with one request does not wait for the twenty of another that came
// before.
func TestFairQueue(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.QueueMax = 64 })
	const many = 20
	first := make(chan struct{}) // the busy tenant's first answer has begun
	goOn := make(chan struct{})  // all have come
	served := make(chan string, 1+many)
	var wg sync.WaitGroup
	ask := func(name string) {
		r := endless() // longer than the owner runs ahead: the next one begins after the break
		r.KV.Salt = name
		for _, err := range e.Generate(t.Context(), r) {
			assert.NoError(t, err)
			served <- name
			break
		}
	}
	wg.Go(func() {
		r := endless()
		r.KV.Salt = "busy"
		chunks := 0
		for _, err := range e.Generate(t.Context(), r) {
			assert.NoError(t, err)
			if chunks++; chunks == 1 {
				close(first)
				<-goOn
			}
			if chunks > 60 { // more than the owner was ahead: this one was charged meanwhile
				break
			}
		}
	})
	<-first
	for range many {
		wg.Go(func() { ask("busy") })
	}
	for e.Waiting() < many {
		runtime.Gosched()
	}
	wg.Go(func() { ask("quiet") })
	for e.Waiting() < many+1 {
		runtime.Gosched()
	}
	close(goOn)
	wg.Wait()
	require.Equal(t, "quiet", <-served)
	for range many {
		require.Equal(t, "busy", <-served)
	}
}

// TestServed: what a tenant got is the prompt tokens that were computed, and twice the answer's;
// texts that are scored or embedded count as prompts.
func TestServed(t *testing.T) {
	e := openTiny(t, nil)
	r := infer.Request{Prompt: "hello", MaxTokens: 7, IgnoreEOS: true}
	_, f := answer(t, e, r)
	want := f.Usage.PromptTokens + 2*7
	require.EqualValues(t, want, e.Served("", ""))
	_, f = answer(t, e, r)
	require.NotZero(t, f.Usage.Cached.Live)
	want += f.Usage.Computed + 2*7
	require.EqualValues(t, want, e.Served("", ""))
	s, err := e.Score(t.Context(), infer.ScoreRequest{Text: "some other text"})
	require.NoError(t, err)
	want += s.Usage.Computed
	require.EqualValues(t, want, e.Served("", ""))
	_, err = e.Embed(t.Context(), []string{"abc", "defg"})
	require.NoError(t, err)
	for _, text := range []string{"abc", "defg"} {
		tokens, err := e.Tokenize(t.Context(), text, infer.TokenizeOptions{AddSpecial: true})
		require.NoError(t, err)
		want += len(tokens)
	}
	require.EqualValues(t, want, e.Served("", ""))
	r.KV.Scope = "new"
	_, f = answer(t, e, r)
	require.EqualValues(t, want+f.Usage.Computed+2*7, e.Served("new", ""), "lifted to the last")
}

// TestPromptOrder counts the steps until each of several prompts has its answer's first token:
// a short prompt does not wait for a long one, and the long one goes on.
func TestPromptOrder(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) {
		o.Sequences, o.ContextTokens, o.MicroBatch = 16, 1024, 32
	})
	prompts := func(lengths ...int) (out []infer.Request) {
		for _, n := range lengths {
			out = append(out, infer.Request{
				Tokens:    slices.Repeat([]infer.TokenID{5}, n),
				MaxTokens: 1, IgnoreEOS: true, KV: infer.KVPolicy{NoReuse: true},
			})
		}
		return out
	}
	for _, c := range []struct{ lengths, want []int }{
		{[]int{800}, []int{25}},
		{[]int{800, 20}, []int{26, 1}},
		{[]int{96, 96, 96}, []int{3, 6, 9}},
		{[]int{64, 96}, []int{2, 5}},
		{[]int{128, 24, 24, 24}, []int{7, 1, 2, 3}}, // one step in four is the first one's
	} {
		require.Equal(t, c.want, e.Steps(t, prompts(c.lengths...)...), "%v", c.lengths)
	}
	many := e.Steps(t, prompts(append([]int{600}, slices.Repeat([]int{200}, 14)...)...)...)
	require.Equal(t, (600+14*200+31)/32, many[14])
	require.Less(t, many[0], many[14]*2/3, "shorter ones do not hold it up to the end")
}
