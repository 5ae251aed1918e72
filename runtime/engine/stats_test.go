package engine_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

func stats(t testing.TB, e infer.Observer) infer.Stats {
	t.Helper()
	s, err := e.Stats(t.Context())
	require.NoError(t, err)
	return s
}

// TestStatsAddUp: the totals are the sums of what every request was told, whatever runs together,
// parks and guesses, and can be asked for meanwhile.
func TestStatsAddUp(t *testing.T) {
	for _, shared := range []bool{false, true} {
		e := start(t, engine.Options{Sequences: 2, Shared: shared, RAM: 1 << 20})
		var mu sync.Mutex
		var want infer.Totals
		add := func(u infer.Usage) {
			mu.Lock()
			defer mu.Unlock()
			want.Computed += int64(u.Computed)
			want.Cached.Live += u.Cached.Live
			want.Cached.RAM += u.Cached.RAM
			want.Cached.Moved += u.Cached.Moved
			want.Answered += int64(u.CompletionTokens)
			want.Evicted += int64(u.Evicted)
			want.Parked += int64(u.Parked)
			want.Resumed += int64(u.Parked)
			want.Drafted += int64(u.Drafted)
			want.Accepted += int64(u.Accepted)
		}
		var clients sync.WaitGroup
		for client := range 4 {
			clients.Go(func() {
				r := rand.New(rand.NewPCG(5, uint64(client)))
				for range 20 {
					_, chunks, err := collect(t.Context(), e, anyRequest(r))
					if assert.NoError(t, err) {
						add(chunks[len(chunks)-1].Final.Usage)
					}
				}
			})
		}
		over := make(chan struct{})
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			before := infer.Totals{}
			for {
				now, err := e.Stats(context.Background())
				assert.NoError(t, err)
				assert.GreaterOrEqual(t, now.Totals.Answered, before.Answered)
				assert.LessOrEqual(t, now.Now.Running, 2)
				before = now.Totals
				select {
				case <-over:
					return
				default:
				}
			}
		}()
		clients.Wait()
		close(over)
		<-asked
		score, err := e.Score(t.Context(), infer.ScoreRequest{Text: "some words"})
		require.NoError(t, err)
		add(score.Usage)
		_, err = e.Embed(t.Context(), []string{"abc"})
		require.NoError(t, err)

		got := stats(t, e).Totals
		want.Requests = map[string]int64{"length": 80, "done": 2}
		want.Embedded, want.Steps = 4, got.Steps
		require.Equal(t, want, got)
		require.Positive(t, got.Evicted)
		require.Positive(t, got.Accepted)
		require.Greater(t, got.Steps, int64(40))
		require.Less(t, got.Steps, got.Answered+got.Computed+got.Embedded)
	}
}

// anyRequest draws one that may share a prefix, park others, guess and give up tokens.
func anyRequest(r *rand.Rand) infer.Request {
	q := infer.Request{
		Tokens: someTokens(uint64(r.IntN(4)), 20+r.IntN(60)), MaxTokens: 1 + r.IntN(40),
		IgnoreEOS: true, Priority: r.IntN(3), Speculate: infer.SpeculateOn,
	}
	if r.IntN(3) == 0 { // it repeats itself, so that guesses come true
		q.Sampling.LogitBias = map[infer.TokenID]float32{300: 100}
	}
	if r.IntN(3) == 0 {
		q.MaxTokens, q.KV = 300, infer.KVPolicy{Evict: "sink-window", Sinks: 4, Window: 90}
	}
	return q
}

// TestStatsWhileBusy: who asks does not wait behind requests that wait for each other.
func TestStatsWhileBusy(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.QueueMax = 1 })
	none := stats(t, e)
	require.Equal(t, infer.Gauges{CellsTotal: 256}, none.Now)
	require.Empty(t, none.Held)
	release, first := stuck(t.Context(), e, endless())
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waits := make(chan error, 1)
	go func() {
		_, _, err := collect(ctx, e, infer.Request{Prompt: "waits", MaxTokens: 1})
		waits <- err
	}()
	for stats(t, e).Now.Waiting == 0 { //nolint:revive // until it is in the queue
	}
	_, _, err := collect(t.Context(), e, infer.Request{Prompt: "too many", MaxTokens: 1})
	require.Equal(t, infer.KindBusy, infer.KindOf(err))
	_, _, err = collect(t.Context(), e, infer.Request{})
	require.Equal(t, infer.KindInvalid, infer.KindOf(err))

	s := stats(t, e)
	require.Equal(t, 1, s.Now.Running)
	require.Equal(t, 1, s.Now.Waiting)
	require.Positive(t, s.Now.Cells)
	require.Len(t, s.Held, 1)
	require.Equal(t, 1, s.Held[0].Leases)
	require.Equal(t, map[string]int64{"busy": 1, "invalid request": 1}, s.Totals.Requests)

	cancel()
	require.Equal(t, infer.KindCanceled, infer.KindOf(wait(t, waits)))
	release()
	require.ErrorIs(t, wait(t, first), errFinal)
	for range e.Generate(t.Context(), infer.Request{Prompt: "left", MaxTokens: 9, IgnoreEOS: true}) {
		break
	}
	s = stats(t, e)
	require.Equal(t, map[string]int64{
		"busy": 1, "invalid request": 1, "canceled": 2, "length": 1,
	}, s.Totals.Requests)

	gone, cancelGone := context.WithCancel(t.Context())
	cancelGone()
	require.NoError(t, e.Close())
	_, err = e.Stats(t.Context())
	require.Equal(t, infer.KindClosed, infer.KindOf(err))
	_, err = e.Stats(gone)
	require.Contains(t, []infer.Kind{infer.KindClosed, infer.KindCanceled}, infer.KindOf(err))
}

// TestStatsParked: a request that made room is counted while it waits, and when it goes on.
func TestStatsParked(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.RAM = 1 << 20 })
	release, result := stuck(t.Context(), e, endless())
	defer release()
	urgent := endless()
	urgent.Priority = 1
	releaseUrgent, resultUrgent := stuck(t.Context(), e, urgent)
	defer releaseUrgent()
	s := stats(t, e)
	require.Equal(t, 1, s.Now.Parked)
	require.Equal(t, [2]int64{1, 0}, [2]int64{s.Totals.Parked, s.Totals.Resumed})
	releaseUrgent()
	release()
	require.ErrorIs(t, wait(t, resultUrgent), errFinal)
	require.ErrorIs(t, wait(t, result), errFinal)
	s = stats(t, e)
	require.Zero(t, s.Now.Parked)
	require.Equal(t, [2]int64{1, 1}, [2]int64{s.Totals.Parked, s.Totals.Resumed})
}

// TestStatsHeld: what lies where is told by place, size and use, and not by what it says.
func TestStatsHeld(t *testing.T) {
	o := engine.Options{
		Paths:    []string{writeModel(t, gguftest.TinyModel(1))},
		CacheDir: t.TempDir() + "/cache", RAM: 1 << 20, Sequences: 1,
	}
	e := start(t, o)
	secret := infer.Request{Prompt: "the quick brown fox jumps over it all", MaxTokens: 1}
	secret.KV = infer.KVPolicy{Salt: "tenant seven", Scope: "ward nine"}
	answer(t, e, secret)
	answer(t, e, secret)
	answer(t, e, infer.Request{Tokens: someTokens(1, 60), MaxTokens: 1})
	require.NoError(t, e.Close())
	e = start(t, o)
	answer(t, e, secret)
	answer(t, e, infer.Request{Tokens: someTokens(2, 50), MaxTokens: 1})
	s := stats(t, e)
	byPlace := map[string][]infer.Held{}
	for _, h := range s.Held {
		byPlace[h.Place] = append(byPlace[h.Place], h)
		require.Positive(t, h.Tokens)
		require.Positive(t, h.Bytes)
		require.Positive(t, h.Uses)
		require.GreaterOrEqual(t, h.AgeSeconds, 0.0)
	}
	require.Len(t, byPlace["live"], 1)
	require.Equal(t, 50, byPlace["live"][0].Tokens)
	require.NotEmpty(t, byPlace["disk"])
	require.Equal(t, 1, s.Now.Idle)
	require.Equal(t, 50, s.Now.Cells)
	require.Equal(t, int64(1<<20), s.Now.RAM.Budget)
	require.Positive(t, s.Now.Disk.Used)
	require.Positive(t, s.Totals.Cached.Disk)
	data, err := json.Marshal(s)
	require.NoError(t, err)
	for _, word := range []string{"quick", "tenant", "ward", "tiny.gguf"} {
		require.NotContains(t, string(data), word)
	}
}

// TestStatsOfEncoder: a model that keeps no cache has counts, too.
func TestStatsOfEncoder(t *testing.T) {
	e := openFile(t, gguftest.TinyEncoder(1), func(o *engine.Options) { o.ContextTokens = 0 })
	_, err := e.Embed(t.Context(), []string{"abc", "de"})
	require.NoError(t, err)
	s := stats(t, e)
	require.Equal(t, map[string]int64{"done": 1}, s.Totals.Requests)
	require.Equal(t, int64(9), s.Totals.Embedded, "with CLS and SEP")
	require.Equal(t, int64(2), s.Totals.Steps)
	require.Equal(t, infer.Gauges{}, s.Now)
}
