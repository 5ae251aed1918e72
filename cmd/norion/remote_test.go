package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/conform"
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
