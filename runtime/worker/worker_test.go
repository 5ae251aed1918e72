//go:build unix

package worker_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
)

// TestBackend: every method's question and answer cross whole.
func TestBackend(t *testing.T) {
	t.Parallel()
	w := open(t, "fine", nil)
	info := w.Info()
	require.Equal(t, "fake", info.Model)
	require.Equal(t, []string{"one"}, info.Adapters)
	text, chunks, err := collect(t.Context(), w, infer.Request{
		Prompt: "hello", MaxTokens: 3, Sampling: infer.Sampling{Seed: 5},
	})
	require.NoError(t, err)
	require.Equal(t, "0 1 2 ", text)
	require.Len(t, chunks, 4)
	require.Equal(t, uint32(5), chunks[3].Final.Seed)

	scores, err := w.Score(t.Context(), infer.ScoreRequest{Text: "x"})
	require.NoError(t, err)
	require.InDelta(t, -1.5, scores.Sum, 0)
	vectors, err := w.Embed(t.Context(), []string{"a", "bc"})
	require.NoError(t, err)
	require.Equal(t, [][]float32{{0.6, 1}, {0.6, 2}}, vectors)
	tokens, err := w.Tokenize(t.Context(), "read "+os.DevNull, infer.TokenizeOptions{})
	require.NoError(t, err)
	require.Equal(t, "done", string(tokens[0].Text))
	stats, err := w.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(7), stats.Totals.Steps)
	_, err = w.CountTokens(t.Context(), infer.Request{Prompt: "x"})
	require.ErrorIs(t, err, infer.KindUnsupported)
	_, err = w.Detokenize(t.Context(), []infer.TokenID{1})
	require.ErrorIs(t, err, infer.KindUnsupported)
}

// TestErrors: a typed error crosses with all its parts, while loading and within an answer.
func TestErrors(t *testing.T) {
	t.Parallel()
	want := refusal()
	check := func(err error) {
		t.Helper()
		var e *infer.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, want.Error(), e.Error())
		require.Equal(t, *want, infer.Error{
			Op: e.Op, Kind: e.Kind, Field: e.Field, Hint: e.Hint, Err: want.Err,
		})
	}
	_, err := tryOpen(t, "refuse", nil)
	check(err)
	w := open(t, "fine", nil)
	text, _, err := collect(t.Context(), w, infer.Request{Prompt: "refuse", MaxTokens: 9})
	check(err)
	require.Equal(t, "0 1 ", text)
	_, err = w.Tokenize(t.Context(), "what", infer.TokenizeOptions{})
	require.ErrorIs(t, err, infer.KindInternal, "an error of no kind")
	require.Zero(t, w.Status().Restarts)
}

// TestTooLarge: a message beyond the bound is refused; the child goes on.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	w := open(t, "fine", nil)
	pid := w.Status().PID
	_, err := w.Tokenize(t.Context(), "big", infer.TokenizeOptions{})
	require.ErrorIs(t, err, infer.KindTooLong)
	_, err = w.Tokenize(t.Context(), strings.Repeat("x", 300<<20), infer.TokenizeOptions{})
	require.ErrorIs(t, err, infer.KindTooLong)
	require.NotEmpty(t, infer.HintOf(err))
	_, _, err = collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 1})
	require.NoError(t, err)
	require.Equal(t, pid, w.Status().PID)
}

// TestProgress: loading tells how far it is, and stops when it is told to.
func TestProgress(t *testing.T) {
	t.Parallel()
	var seen []float32
	open(t, "progress", func(o *worker.Options) {
		o.Engine.Progress = func(done float32) bool { seen = append(seen, done); return true }
	})
	require.Equal(t, []float32{0, 0.25, 0.5, 0.75}, seen)
	_, err := tryOpen(t, "progress", func(o *worker.Options) {
		o.Engine.Progress = func(done float32) bool { return done < 0.5 }
	})
	require.ErrorIs(t, err, infer.KindCanceled)
}

// TestLeave: leaving the loop, ctx and the deadline reach the child, which ends the request.
func TestLeave(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, "fine", func(o *worker.Options) { o.Engine.CacheDir = dir }) // where it may write
	endless := func(name string) infer.Request {
		return infer.Request{Prompt: "note " + filepath.Join(dir, name), MaxTokens: infer.TokensMax}
	}
	for _, err := range w.Generate(t.Context(), endless("left")) {
		require.NoError(t, err)
		break
	}
	ended(t, filepath.Join(dir, "left"))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range w.Generate(ctx, endless("canceled")) {
		cancel()
		last = err
	}
	require.ErrorIs(t, last, infer.KindCanceled)
	ended(t, filepath.Join(dir, "canceled"))

	r := endless("late")
	r.Deadline = time.Now().Add(20 * time.Millisecond)
	_, _, err := collect(t.Context(), w, r)
	require.ErrorIs(t, err, infer.KindDeadline)
	ended(t, filepath.Join(dir, "late"))

	r = infer.Request{Prompt: "x", MaxTokens: 1, Deadline: time.Now().Add(time.Hour)}
	_, chunks, err := collect(t.Context(), w, r)
	require.NoError(t, err)
	queue := chunks[1].Final.Usage.Timings.Queue
	require.Greater(t, queue, 55*time.Minute, "the deadline is there, too")
	require.LessOrEqual(t, queue, time.Hour)
	r.Deadline = time.Now().Add(-time.Second)
	_, _, err = collect(t.Context(), w, r)
	require.ErrorIs(t, err, infer.KindDeadline)
}

// ended waits until the child has noted the end of a request.
func ended(t *testing.T, path string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := os.Stat(path)
		return err == nil
	}, time.Minute, time.Millisecond)
}

// TestBackPressure: a reader that takes nothing holds its own answer up, and no other.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, "fine", func(o *worker.Options) { o.Engine.CacheDir = dir })
	note := filepath.Join(dir, "note")
	read := 0
	for c, err := range w.Generate(t.Context(), infer.Request{
		Prompt: "note " + note, MaxTokens: infer.TokensMax,
	}) {
		require.NoError(t, err)
		read += c.Tokens
		_, _, err = collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 10000})
		require.NoError(t, err)
		break
	}
	require.Equal(t, 1, read)
	ended(t, note)
}

// TestClose: requests that run end with KindClosed, also of a reader that does not read, and of one
// that closes the worker itself.
func TestClose(t *testing.T) {
	t.Parallel()
	w := open(t, "fine", nil)
	var last error
	for _, err := range w.Generate(t.Context(), infer.Request{
		Prompt: "x", MaxTokens: infer.TokensMax,
	}) {
		last = err
		require.NoError(t, w.Close())
	}
	require.ErrorIs(t, last, infer.KindClosed)
	require.NoError(t, w.Close())
	_, _, err := collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 1})
	require.ErrorIs(t, err, infer.KindClosed)
	_, err = w.Stats(t.Context())
	require.ErrorIs(t, err, infer.KindClosed)
	require.Zero(t, w.Status().PID)
}

// TestOptions: what cannot be sent or meant is refused before anything starts.
func TestOptions(t *testing.T) {
	t.Parallel()
	for field, change := range map[string]func(*worker.Options){
		"evict":         func(o *worker.Options) { o.Engine.Evict = kv.KeepSystem{} },
		"ping timeout":  func(o *worker.Options) { o.PingTimeout = -1 },
		"restarts":      func(o *worker.Options) { o.Restarts = -1 },
		"context":       func(o *worker.Options) { o.Engine.ContextTokens = -1 },
		"model":         func(o *worker.Options) { o.Engine.Paths = nil },
		"step timeout":  func(o *worker.Options) { o.StepTimeout = -1 },
		"stable time":   func(o *worker.Options) { o.Stable = -1 },
		"load timeout":  func(o *worker.Options) { o.LoadTimeout = -1 },
		"stop timeout":  func(o *worker.Options) { o.StopTimeout = -1 },
		"ping interval": func(o *worker.Options) { o.PingEvery = -1 },
		"backoff":       func(o *worker.Options) { o.BackoffMin = -1 },
	} {
		_, err := tryOpen(t, "fine", change)
		var e *infer.Error
		require.ErrorAs(t, err, &e, field)
		require.Equal(t, field, e.Field)
	}
}
