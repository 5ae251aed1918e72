package engine_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// TestE1Limit: a prompt that leaves room for one token is answered, one token more is too long.
func TestE1Limit(t *testing.T) {
	for _, shared := range []bool{false, true} {
		e := start(t, engine.Options{Sequences: 3, Shared: shared})
		r := infer.Request{Tokens: someTokens(1, 255), MaxTokens: 1, IgnoreEOS: true}
		answer(t, e, r)
		for _, n := range []int{256, 257, 5000} {
			r.Tokens = someTokens(1, n)
			_, _, err := collect(t.Context(), e, r)
			require.Equal(t, infer.KindTooLong, infer.KindOf(err), "%d tokens: %v", n, err)
		}
	}
}

// TestE6SharedPrefixCanceled: who waits for a prefix that another request computes goes on when
// that one is canceled, whenever that is.
func TestE6SharedPrefixCanceled(t *testing.T) {
	e := start(t, engine.Options{Sequences: 3, ContextTokens: 1024, MicroBatch: 32, Batch: 32})
	for round := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		r := infer.Request{Tokens: someTokens(uint64(round), 600), MaxTokens: 2, IgnoreEOS: true}
		var wg sync.WaitGroup
		wg.Go(func() { _, _, _ = collect(ctx, e, r) })
		for range 2 {
			wg.Go(func() {
				_, chunks, err := collect(t.Context(), e, r)
				assert.NoError(t, err)
				assert.NotEmpty(t, chunks)
			})
		}
		for range round {
			_, _ = e.Tokenize(t.Context(), "a delay", infer.TokenizeOptions{})
		}
		cancel()
		wg.Wait()
	}
	busy, promised, problem := e.Books()
	require.NoError(t, problem)
	require.Zero(t, busy+promised)
}

// TestC5CacheDirectory: a directory that cannot be used, or goes away, costs the cache and nothing
// else; two engines can have the same one.
func TestC5CacheDirectory(t *testing.T) {
	path := writeModel(t, gguftest.TinyModel(1))
	r := infer.Request{Tokens: someTokens(1, 120), MaxTokens: 4, IgnoreEOS: true}
	want, _ := answer(t, start(t, engine.Options{Paths: []string{path}}), r)
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	e := start(t, engine.Options{Paths: []string{path}, CacheDir: file + "/cache"})
	require.NotEmpty(t, e.Info().Notes)
	got, _ := answer(t, e, r)
	require.Equal(t, want, got)

	o := engine.Options{Paths: []string{path}, CacheDir: t.TempDir() + "/cache", Sequences: 2}
	first, second := start(t, o), start(t, o)
	for i := range 6 {
		for _, e := range []*engine.Engine{first, second} {
			got, _ := answer(t, e, r)
			require.Equal(t, want, got)
			answer(t, e, infer.Request{Tokens: someTokens(uint64(2+i), 100), MaxTokens: 2})
		}
		if i == 3 {
			require.NoError(t, os.Rename(o.CacheDir, o.CacheDir+" away"))
		}
	}
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())
}
