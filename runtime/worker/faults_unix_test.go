//go:build unix

package worker_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
)

// another waits until another child than pid answers, and asks it something.
func another(t *testing.T, w *worker.Worker, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		s := w.Status()
		return s.PID != 0 && s.PID != pid
	}, time.Minute, time.Millisecond)
	_, _, err := collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 2})
	require.NoError(t, err)
}

// noticing notices a hang soon, where there is to be one.
func noticing(how string) func(*worker.Options) {
	return func(o *worker.Options) {
		if how == "stop" {
			o.PingEvery, o.PingTimeout = 2*time.Millisecond, 500*time.Millisecond
		}
	}
}

// TestR3Dies: however the child ends, the request in it ends with KindLost, and the next one is
// answered by another child.
func TestR3Dies(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"kill", "segv", "abort", "panic", "exit", "garbage", "stop"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := open(t, "fine", noticing(how))
			pid := w.Status().PID
			text, _, err := collect(t.Context(), w, infer.Request{Prompt: "die " + how, MaxTokens: 9})
			require.ErrorIs(t, err, infer.KindLost, "%v", err)
			require.NotEmpty(t, infer.HintOf(err))
			require.Contains(t, []string{"", "0 ", "0 1 "}, text)
			another(t, w, pid)
			_, err = w.Tokenize(t.Context(), "die "+how, infer.TokenizeOptions{})
			require.ErrorIs(t, err, infer.KindLost)
		})
	}
}

// TestR3Stuck: a model that no longer comes to the end of a step is a hang, though the process
// still answers.
func TestR3Stuck(t *testing.T) {
	t.Parallel()
	w := open(t, "stuck", func(o *worker.Options) { o.StepTimeout = 200 * time.Millisecond })
	pid := w.Status().PID
	_, _, err := collect(t.Context(), w, infer.Request{Prompt: "hang", MaxTokens: 9})
	require.ErrorIs(t, err, infer.KindLost)
	require.Eventually(t, func() bool { return w.Status().PID != pid }, time.Minute, time.Millisecond)
}

// TestR3Loads: a child that ends while it loads, or is not ready in time, is a typed error.
func TestR3Loads(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"kill", "segv", "abort", "exit", "garbage", "stop"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			_, err := tryOpen(t, "die "+how, noticing(how))
			require.ErrorIs(t, err, infer.KindLost, "%v", err)
			require.NotEmpty(t, infer.HintOf(err))
		})
	}
	_, err := tryOpen(t, "wait", func(o *worker.Options) { o.LoadTimeout = 50 * time.Millisecond })
	require.ErrorIs(t, err, infer.KindDeadline)
	_, err = tryOpen(t, "fine", func(o *worker.Options) { o.Command = []string{"no-such-program"} })
	require.ErrorIs(t, err, infer.KindInternal)
	_, err = tryOpen(t, "fine", func(o *worker.Options) { o.Command = []string{"true"} })
	require.ErrorIs(t, err, infer.KindLost, "a program that is no worker")
}

// TestR3GivesUp: after so many children in a row there is none, until Revive.
func TestR3GivesUp(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "broken")
	w := open(t, "die-if "+flag, func(o *worker.Options) { o.Restarts = 3 })
	pid := w.Status().PID
	require.NoError(t, os.WriteFile(flag, nil, 0o600))
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		err := w.Status().Err
		return err != nil && strings.Contains(err.Error(), "4 times in a row")
	}, time.Minute, time.Millisecond)
	require.Equal(t, int64(3), w.Status().Restarts)
	_, _, err := collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 1})
	require.ErrorIs(t, err, infer.KindLost)
	require.NoError(t, os.Remove(flag))
	w.Revive()
	another(t, w, pid)
}

// TestOtherFile: a model's file that is another one when it is loaded again is refused.
func TestOtherFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o600))
	w := open(t, "size "+path, func(o *worker.Options) { o.Restarts = 1 })
	require.NoError(t, os.WriteFile(path, []byte("other"), 0o600))
	require.NoError(t, syscall.Kill(w.Status().PID, syscall.SIGKILL))
	require.Eventually(t, func() bool { return w.Status().Err != nil }, time.Minute, time.Millisecond)
	_, err := w.Stats(t.Context())
	require.Contains(t, []infer.Kind{infer.KindModel, infer.KindLost}, infer.KindOf(err))
}

// TestC6Stopped: the deadline of a request holds while its process is stopped, and a process that
// goes on in time is kept.
func TestC6Stopped(t *testing.T) {
	t.Parallel()
	w := open(t, "fine", nil)
	pid := w.Status().PID
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	_, _, err := collect(t.Context(), w, infer.Request{
		Prompt: "x", MaxTokens: 5, Deadline: time.Now().Add(30 * time.Millisecond),
	})
	require.ErrorIs(t, err, infer.KindDeadline)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = w.Stats(ctx)
	require.ErrorIs(t, err, infer.KindDeadline)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	_, _, err = collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 5})
	require.NoError(t, err)
	require.Equal(t, pid, w.Status().PID)
}

// TestUnwilling: a child that does not end is killed.
func TestUnwilling(t *testing.T) {
	t.Parallel()
	w, err := tryOpen(t, "unwilling", func(o *worker.Options) {
		o.StopTimeout = 50 * time.Millisecond
	})
	require.NoError(t, err)
	pid := w.Status().PID
	require.ErrorIs(t, w.Close(), infer.KindLost)
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

// TestTerminalSignals: what a terminal or a service manager sends to all processes does not end a
// child before its parent is done.
func TestTerminalSignals(t *testing.T) {
	t.Parallel()
	w := open(t, "fine", nil)
	pid := w.Status().PID
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		require.NoError(t, syscall.Kill(pid, s))
	}
	_, _, err := collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 5})
	require.NoError(t, err)
	require.Equal(t, pid, w.Status().PID)
}

// TestLastWords: what a child says before it ends is in the log.
func TestLastWords(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	w := open(t, "fine", func(o *worker.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	pid := w.Status().PID
	_, _, err := collect(t.Context(), w, infer.Request{Prompt: "die panic", MaxTokens: 5})
	require.ErrorIs(t, err, infer.KindLost)
	another(t, w, pid)
	require.Contains(t, log.String(), "panic: of the model")
	require.Contains(t, log.String(), "exit status 2")
}

// safeBuffer is a buffer that several goroutines write to.
type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestR3Storm: 200 children are killed under load. Each request is answered or ends with KindLost,
// and no process, descriptor or goroutine is left.
func TestR3Storm(t *testing.T) {
	kills, clients := 200, 4
	if testing.Short() {
		kills = 20
	}
	w, err := tryOpen(t, "fine", func(o *worker.Options) { o.Restarts = kills + 1 })
	require.NoError(t, err)
	require.NoError(t, w.Close()) // what is made once for all is there now
	files, routines := openFiles(t), runtime.NumGoroutine()

	w, err = tryOpen(t, "fine", func(o *worker.Options) { o.Restarts = kills + 1 })
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	ends := map[infer.Kind]int{}
	for i := range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				_, _, err := collect(t.Context(), w, infer.Request{Prompt: "x", MaxTokens: 20 + i*1000})
				mu.Lock()
				ends[infer.KindOf(err)]++
				mu.Unlock()
			}
		})
	}
	pids := map[int]bool{}
	for len(pids) < kills {
		if pid := w.Status().PID; pid != 0 && !pids[pid] {
			for _, err := range w.Generate(t.Context(), infer.Request{Prompt: "x", MaxTokens: 5}) {
				_ = err // it may be killed first
				break   // there is load
			}
			pids[pid] = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		runtime.Gosched()
	}
	stop()
	all.Wait()
	require.NoError(t, w.Close())
	assert.Positive(t, ends[""], "some were answered")
	assert.Positive(t, ends[infer.KindLost], "and some were not")
	assert.Len(t, ends, 2, "%v", ends)
	for pid := range pids {
		assert.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "it is gone, and reaped")
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > routines ||
		openFiles(t) > files; runtime.Gosched() {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d files before, %d now; %d goroutines before, now\n%s", files, openFiles(t),
				routines, stacks[:runtime.Stack(stacks, true)])
		}
	}
	t.Logf("%d killed, ends %v", len(pids), ends)
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	dir := "/proc/self/fd"
	if runtime.GOOS != "linux" {
		dir = "/dev/fd"
	}
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	return len(names)
}
