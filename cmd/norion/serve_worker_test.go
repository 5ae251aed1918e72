package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
)

// spawned are the processes of models that a server has started.
type spawned struct {
	mu  sync.Mutex
	all []*worker.Worker
}

// watch has an app note them.
func (s *spawned) watch(a *app) {
	open := a.spawn
	a.spawn = func(ctx context.Context, o worker.Options) (infer.Backend, error) {
		b, err := open(ctx, o)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.all = append(s.all, b.(*worker.Worker))
		}
		return b, err
	}
}

// get gives all of them.
func (s *spawned) get() []*worker.Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*worker.Worker(nil), s.all...)
}

// TestServeSurvives: a model's process that is killed costs no more than the requests in it.
func TestServeSurvives(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("models have no processes of their own there")
	}
	var models spawned
	s := serveWith(t, t.TempDir(), models.watch, "--ctx", "65536")
	w := models.get()[0]
	killed := w.Status().PID
	process, err := os.FindProcess(killed)
	require.NoError(t, err)

	long := strings.Replace(hello, `"max_tokens":3`,
		`"max_tokens":60000,"ignore_eos":true,"stream":true`, 1)
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/v1/completions",
		strings.NewReader(long))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	answer, err := s.client.Do(r)
	require.NoError(t, err)
	_, err = io.ReadFull(answer.Body, make([]byte, 20))
	require.NoError(t, err)
	require.NoError(t, process.Kill())
	rest, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Contains(t, string(rest), "engine_lost")

	code, body := s.ask("POST", "/v1/completions", "", hello)
	require.Equal(t, 200, code, body)
	require.NotEqual(t, killed, w.Status().PID)
	code, body = s.ask("GET", "/metrics", "", "")
	require.Equal(t, 200, code)
	require.Contains(t, body, `norion_worker_restarts_total{model="letters"} 1`)
	s.end()
	require.Zero(t, w.Status().PID)
}

// TestServeMemory: models that do not fit together are loaded in turns, one that does not fit alone
// is refused.
func TestServeMemory(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	other := filepath.Join(home, "other.gguf")
	require.NoError(t, os.WriteFile(other, letters().Bytes(), 0o600))
	a := newApp(home, io.Discard, io.Discard)
	f := &serveFlags{}
	f.o.Threads, f.o.CPUOnly = 1, true
	o, err := f.modelFlags.options(a)
	require.NoError(t, err)
	o.Sequences = 4
	need, err := a.predict(t.Context(), other, o)
	require.NoError(t, err)
	require.Positive(t, need)

	s := serveAt(t, home, openEngine, other, "--cpu", "--memory", mib(need*3/2))
	loaded := func() (names []string) {
		_, body := s.ask("GET", "/metrics", "", "")
		for _, name := range []string{"letters", "other"} {
			if strings.Contains(body, `norion_model_loaded{model="`+name+`"} 1`) {
				names = append(names, name)
			}
		}
		return names
	}
	require.Equal(t, []string{"other"}, loaded(), "the last one made room for itself")
	for _, name := range []string{"letters", "other"} {
		code, body := s.ask("POST", "/v1/completions", "", strings.Replace(hello, "letters", name, 1))
		require.Equal(t, 200, code, body)
		require.Equal(t, []string{name}, loaded())
	}
	_, body := s.ask("GET", "/v1/models", "", "")
	require.Contains(t, body, `"loaded":false`)
	s.end()

	var stderr bytes.Buffer
	code := newApp(home, io.Discard, &stderr).main(t.Context(), []string{
		"serve", other, "--cpu", "-t", "1", "--port", "0", "--memory", mib(need / 2),
	})
	require.Equal(t, exitDoesNotFit, code, stderr.String())
	require.Contains(t, stderr.String(), "allow more memory")
}

func mib(n int64) string { return fmt.Sprint(n >> 20) }
