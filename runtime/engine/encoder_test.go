package engine_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

func embedOne(t *testing.T, f gguftest.File, text string) []float32 {
	t.Helper()
	e := openFile(t, f, func(o *engine.Options) { o.ContextTokens = 0 })
	v, err := e.Embed(t.Context(), []string{text})
	require.NoError(t, err)
	require.Len(t, v[0], e.Info().EmbeddingSize)
	length := 0.0
	for _, x := range v[0] {
		length += float64(x) * float64(x)
	}
	require.InDelta(t, 1, length, 1e-5)
	return v[0]
}

func TestEncoder(t *testing.T) {
	e := openFile(t, gguftest.TinyEncoder(1), func(o *engine.Options) { o.ContextTokens = 0 })
	require.Equal(t, 64, e.Info().ContextTokens)
	require.Equal(t, infer.Abilities{Embed: true}, e.Info().Abilities)
	full := strings.TrimSpace(strings.Repeat("a ", 62)) // and two tokens around it
	v, err := e.Embed(t.Context(), []string{"abc", full, "abc", "xyz"})
	require.NoError(t, err)
	require.Equal(t, v[0], v[2])
	require.NotEqual(t, v[0], v[3])
	_, err = e.Embed(t.Context(), []string{full + " a"})
	require.Equal(t, infer.KindTooLong, infer.KindOf(err))
	_, _, err = collect(t.Context(), e, infer.Request{Prompt: "abc"})
	require.Equal(t, infer.KindUnsupported, infer.KindOf(err))
	_, err = e.Score(t.Context(), infer.ScoreRequest{Text: "abc"})
	require.Equal(t, infer.KindUnsupported, infer.KindOf(err))
}

// TestPooling: vectors are pooled as the file says, by an encoder and by a model that generates.
func TestPooling(t *testing.T) {
	for key, f := range map[string]gguftest.File{
		"bert.pooling_type":  gguftest.TinyEncoder(1),
		"llama.pooling_type": gguftest.TinyModel(1),
	} {
		pooled := func(n uint32) []float32 {
			return embedOne(t, f.With(gguftest.KV{Key: key, Value: n}), "abc def")
		}
		mean, cls, last := pooled(1), pooled(2), pooled(3)
		require.Equal(t, mean, pooled(0), "none is no vector of a text: the mean is taken")
		require.Equal(t, mean, embedOne(t, f.Without(key), "abc def"))
		require.NotEqual(t, mean, cls)
		require.NotEqual(t, mean, last)
		require.NotEqual(t, cls, last)
		rank := openFile(t, f.With(gguftest.KV{Key: key, Value: uint32(4)}),
			func(o *engine.Options) { o.ContextTokens = 0 })
		require.False(t, rank.Info().Abilities.Embed)
		_, err := rank.Embed(t.Context(), []string{"abc"})
		require.Equal(t, infer.KindUnsupported, infer.KindOf(err))
	}
}

// TestEmbedWaitsOnce: a list that was admitted is computed, also when others fill the queue.
func TestEmbedWaitsOnce(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.QueueMax = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	release, result := stuck(ctx, e, endless())
	embedded := make(chan error, 1)
	go func() {
		_, err := e.Embed(t.Context(), slices.Repeat([]string{"hello"}, 100))
		embedded <- err
	}()
	for e.Waiting() < 1 {
		runtime.Gosched()
	}
	var others sync.WaitGroup
	over := make(chan struct{})
	for range 3 { // one runs, one waits, one is refused
		others.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					_, _, _ = collect(t.Context(), e, infer.Request{Prompt: "x", MaxTokens: 1})
				}
			}
		})
	}
	cancel()
	release()
	require.NoError(t, wait(t, embedded))
	close(over)
	others.Wait()
	_ = wait(t, result)
}
