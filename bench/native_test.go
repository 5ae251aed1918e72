package bench_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestNative runs small tests on a real model. Records must say what was run and hold as many
// samples as were asked for; a second test at the same depth restores what the first computed.
func TestNative(t *testing.T) {
	path := storetest.Model(t, "smollm2:135m")
	var g bench.Grid
	require.NoError(t, set(t, &g, "m", "small", "p", "5", "n", "2", "pg", "3,2", "d", "0,9", "t", "1",
		"b", "4", "ub", "2", "r", "2"))
	now := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	asked, steps := 0, 0
	n := bench.Native{
		Reps: 2, Now: func() time.Time { return now },
		Progress: func(string) { steps++ },
		Resolve: func(_ context.Context, model string) (string, error) {
			require.Equal(t, "small", model)
			asked++
			return path, nil
		},
	}
	var records []bench.Record
	require.NoError(t, n.Run(t.Context(), g.Tests(), func(r bench.Record) error {
		records = append(records, r)
		return nil
	}))
	require.Equal(t, 1, asked, "the model is loaded once")
	require.Len(t, records, 6)
	require.Equal(t, 6, steps)
	for i, r := range records {
		want := g.Tests()[i]
		require.Equal(t, want.Prompt, r.Prompt)
		require.Equal(t, want.Gen, r.Gen)
		require.Equal(t, want.Depth, r.Depth)
		require.Len(t, r.SamplesNs, 2)
		require.Positive(t, r.Rate())
		require.Equal(t, now, r.TestTime)
		require.Equal(t, "small", r.ModelFilename)
		require.Equal(t, int64(96576768), r.ModelSize)
		require.Equal(t, int64(134515008), r.ModelParams)
		require.Equal(t, "llama 256M Q4_1", r.ModelType, "as llama-bench names it")
	}
}

func TestNativeStops(t *testing.T) {
	path := storetest.Model(t, "smollm2:135m")
	tests := bench.Grid{
		Models: []string{path}, Prompt: []int{64}, Gen: []int{1}, Threads: []int{1},
	}.Tests()
	stop := errors.New("enough")
	n := 0
	err := bench.Native{Reps: 1, NoWarmup: true}.Run(t.Context(), tests, func(bench.Record) error {
		n++
		return stop
	})
	require.ErrorIs(t, err, stop)
	require.Equal(t, 1, n)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = bench.Native{}.Run(ctx, tests, func(bench.Record) error { return nil })
	require.ErrorIs(t, err, llama.Canceled)

	// Canceled from inside: the decode that runs ends.
	ctx, cancel = context.WithCancel(t.Context())
	err = bench.Native{Reps: bench.RepsMax, Resolve: func(context.Context, string) (string, error) {
		time.AfterFunc(0, cancel)
		return path, nil
	}}.Run(ctx, tests, func(bench.Record) error { return nil })
	require.ErrorIs(t, err, llama.Canceled)
}

func TestNativeRefusesBadFiles(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "x.gguf")
	require.NoError(t, os.WriteFile(bad, []byte("no model"), 0o600))
	for path, want := range map[string]error{bad: gguf.ErrNotGGUF, bad + "x": os.ErrNotExist} {
		tests := bench.Grid{Models: []string{path}, Threads: []int{1}}.Tests()
		err := bench.Native{}.Run(t.Context(), tests, func(bench.Record) error { return nil })
		require.ErrorIs(t, err, want)
	}
}

// TestFirstPromptTokens: the prompt of the first-token measurement is 32 tokens long.
func TestFirstPromptTokens(t *testing.T) {
	for _, name := range []string{"smollm2:135m", "gemma3:270m"} {
		m, err := llama.LoadModel(t.Context(), llama.ModelParams{
			Paths: []string{storetest.Model(t, name)}, VocabularyOnly: true,
		})
		require.NoError(t, err)
		tokens, err := m.Tokenize(bench.FirstPrompt, false, false)
		require.NoError(t, err)
		require.Len(t, tokens, 32, name)
		require.NoError(t, m.Close())
	}
}
