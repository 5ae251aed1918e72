package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/conform/conformtest"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/remote"
	"github.com/norion/norion/runtime/store/storetest"
)

// declared are the checks of a report that were skipped.
func declared(r conform.Report) (out []string) {
	for _, x := range r.Results {
		if x.Outcome == conform.Skipped {
			out = append(out, x.Check)
		}
	}
	return out
}

// madeUp serves the made-up model of the conformance suite as norion serve would.
type madeUp struct{ *conformtest.Model }

func (m madeUp) List() []httpapi.Model {
	info := m.Info()
	return []httpapi.Model{{Name: info.Model, Created: testEpoch, Info: &info}}
}

func (m madeUp) Open(_ context.Context, name string) (infer.Backend, func(), error) {
	if name != m.Info().Model {
		return nil, nil, httpapi.ErrNoModel
	}
	return m, func() {}, nil
}

// serveMadeUp gives the address of a made-up model.
func serveMadeUp(m *conformtest.Model) (url string, stop func(), err error) {
	s, err := httpapi.New(httpapi.Options{
		Models: madeUp{m}, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Hosts: []string{"127.0.0.1"},
	})
	if err != nil {
		return "", nil, err
	}
	h := httptest.NewServer(s)
	return h.URL, h.Close, nil
}

// TestRemoteMadeUp has a made-up model pass the suite behind norion's own handler.
func TestRemoteMadeUp(t *testing.T) {
	t.Parallel()
	url, stop, err := serveMadeUp(conformtest.New())
	require.NoError(t, err)
	t.Cleanup(stop)
	b, err := remote.Open(t.Context(), remote.Options{URL: url})
	require.NoError(t, err)
	r := conform.Test(t, b, conform.Options{})
	require.True(t, r.Passed())
	require.Equal(t, []string{"logprobs", "score", "count tokens", "schema", "tools"}, declared(r))
}

// TestRemoteNorion has another norion pass the conformance suite over HTTP.
func TestRemoteNorion(t *testing.T) {
	t.Parallel()
	s, _ := serveReal(t, "smollm2:135m")
	b, err := remote.Open(t.Context(), remote.Options{URL: s.url + "/v1/"})
	require.NoError(t, err)
	info := b.Info()
	require.True(t, info.Abilities.Chat && info.Abilities.Grammar && info.Abilities.Generate)
	require.Equal(t, 1024, info.ContextTokens)
	r := conform.Test(t, b, conform.Options{})
	require.True(t, r.Passed())
	require.Equal(t, []string{"logprobs", "score", "count tokens", "tools"}, declared(r))
}

// TestRemoteLlamaServer has llama-server of the pin pass it, where it is built (make peers).
func TestRemoteLlamaServer(t *testing.T) {
	t.Parallel()
	path, err := bench.FindPeer("llama-server", os.Getenv)
	if err != nil {
		t.Skip("no llama-server: make peers builds it")
	}
	url := startLlamaServer(t, path, storetest.Model(t, "smollm2:135m"))
	b, err := remote.Open(t.Context(), remote.Options{URL: url})
	require.NoError(t, err)
	require.Contains(t, b.Info().Engine, "llama.cpp ")
	r := conform.Test(t, b, conform.Options{})
	require.True(t, r.Passed())
	require.Equal(t, []string{"score", "count tokens", "embeddings", "tools"}, declared(r))
}

// startLlamaServer starts it on a free port and waits until it is ready.
func startLlamaServer(t *testing.T, path, model string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, path, "-m", model, "--host", "127.0.0.1",
		"--port", fmt.Sprint(port), "-t", "1", "-c", "4096", "-np", "4", "-ngl", "0")
	c.Stdout, c.Stderr = io.Discard, io.Discard
	require.NoError(t, c.Start())
	t.Cleanup(func() { stop(); _ = c.Wait() })
	url = fmt.Sprintf("http://127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		r, err := http.Get(url + "/health")
		return err == nil && r.Body.Close() == nil && r.StatusCode == http.StatusOK
	}, time.Minute, 50*time.Millisecond)
	return url
}
