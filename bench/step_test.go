package bench_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

// stepper generates tokens as the engine does: one Step per token, sampled and spelled in C.
type stepper struct {
	tb    testing.TB
	c     *llama.Context
	picks []llama.Pick
	token llama.Token
	pos   llama.Pos
}

func newStepper(tb testing.TB, contextTokens int) *stepper {
	tb.Helper()
	runtime.LockOSThread() // one team of compute threads
	m, err := llama.LoadModel(context.Background(), llama.ModelParams{
		Paths: []string{storetest.Model(tb, "smollm2:135m")},
	})
	require.NoError(tb, err)
	c, err := m.NewContext(llama.ContextParams{Tokens: contextTokens, Threads: 1})
	require.NoError(tb, err)
	s, err := m.NewSampler(llama.DefaultSampler())
	require.NoError(tb, err)
	tb.Cleanup(func() {
		require.NoError(tb, s.Close())
		require.NoError(tb, c.Close())
		require.NoError(tb, m.Close())
		runtime.UnlockOSThread()
	})
	return &stepper{tb: tb, c: c, picks: []llama.Pick{{Sampler: s}}, token: m.Info().BOS}
}

// step generates one token; a full context starts again.
func (s *stepper) step() {
	if int(s.pos) == s.c.Info().Tokens {
		if err := s.c.Clear(); err != nil {
			s.tb.Fatal(err)
		}
		s.pos = 0
	}
	b := s.c.Batch()
	b.Reset()
	if _, err := b.Add(s.token, s.pos, 0, true); err != nil {
		s.tb.Fatal(err)
	}
	if err := s.c.Step(s.picks); err != nil {
		s.tb.Fatal(err)
	}
	s.token = s.picks[0].Token
	s.pos++
}

// BenchmarkStep is one generated token through the binding.
func BenchmarkStep(b *testing.B) {
	s := newStepper(b, 512)
	s.step()
	b.ReportAllocs()
	for b.Loop() {
		s.step()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// TestStepAllocatesNothing: 200 generated tokens, not one allocation in Go.
func TestStepAllocatesNothing(t *testing.T) {
	s := newStepper(t, 256)
	s.step()
	require.Zero(t, testing.AllocsPerRun(200, s.step))
}

func newEngine(tb testing.TB) *engine.Engine {
	tb.Helper()
	e, err := engine.Open(context.Background(), engine.Options{
		Paths: []string{storetest.Model(tb, "smollm2:135m")}, ContextTokens: 1024, Threads: 1,
	})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, e.Close()) })
	return e
}

// generate asks the engine for n tokens and returns how many came.
func generate(tb testing.TB, e infer.Backend, n int) int {
	tb.Helper()
	tokens := 0
	for chunk, err := range e.Generate(context.Background(), infer.Request{
		Prompt: "Once upon a time", MaxTokens: n, IgnoreEOS: true,
	}) {
		if err != nil {
			tb.Fatal(err)
		}
		tokens += chunk.Tokens
	}
	return tokens
}

// BenchmarkGenerate is one generated token through the engine, streamed.
func BenchmarkGenerate(b *testing.B) {
	e := newEngine(b)
	const perRequest = 500
	generate(b, e, 10)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= perRequest {
		generate(b, e, min(left, perRequest))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// TestGenerateAllocatesLittle: what a longer answer costs in Go is its text, not its tokens. The
// difference between two lengths leaves out what a request costs once.
func TestGenerateAllocatesLittle(t *testing.T) {
	e := newEngine(t)
	generate(t, e, 10)
	mallocs := func(n int) (count uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		require.Equal(t, n, generate(t, e, n))
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs
	}
	short, long := mallocs(100), mallocs(300)
	t.Logf("%d allocations for 100 tokens, %d for 300", short, long)
	require.Less(t, int(long)-int(short), 20)
}
