package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/cmd/norion/servers"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// commandLine runs a command line in the home of a server.
func commandLine(t *testing.T, home string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = newApp(home, &out, &err).main(t.Context(), args)
	return code, out.String(), err.String()
}

// TestServersSeen: a server is listed with what it does, its log says what it did without the
// texts, and norion stop ends it when its answer has ended.
func TestServersSeen(t *testing.T) {
	t.Parallel()
	b := slow{asked: make(chan struct{}), end: make(chan struct{})}
	s := serve(t, func(ctx context.Context, o engine.Options) (_ infer.Backend, err error) {
		b.Backend, err = openEngine(ctx, o)
		return b, err
	}, "--drain", "1h")
	code, out, stderr := commandLine(t, s.home, "ps")
	require.Zero(t, code, stderr)
	require.Regexp(t, `^ID +PID +ADDRESS +UP +REQUESTS +MODELS\n`+
		`[0-9a-f]{8} +\d+ +`+s.url+` .* letters\n$`, out)
	answered := make(chan string, 1)
	go func() {
		_, body, err := s.try("POST", "/v1/completions", "",
			strings.Replace(hello, "hello", "secret words", 1))
		if err != nil {
			body = err.Error()
		}
		answered <- body
	}()
	<-b.asked
	_, out, _ = commandLine(t, s.home, "ps", "--json")
	var seen serversJSON
	require.NoError(t, json.Unmarshal([]byte(out), &seen))
	require.Len(t, seen.Servers, 1)
	id := seen.Servers[0].ID
	m := seen.Servers[0].Models[0]
	m.Figures = servers.Figures{}
	path := absolute(filepath.Join(s.home, "letters.gguf"))
	require.Equal(t, servers.Model{Name: "letters", Path: path}, m)

	code, _, stderr = commandLine(t, s.home, "stop", id, "--timeout", "1ms")
	require.Equal(t, exitBusy, code, "its answer has not ended")
	require.Contains(t, stderr, "hint: wait longer with --timeout")
	stopped := make(chan string, 1)
	go func() {
		_, out, stderr := commandLine(t, s.home, "stop")
		stopped <- out + stderr
	}()
	close(b.end)
	require.Contains(t, <-answered, `"finish_reason"`)
	require.Equal(t, "stopped "+id+"\n", <-stopped)
	require.Zero(t, <-s.code, s.err)

	for _, args := range [][]string{{"logs"}, {"logs", id}, {"logs", "-f", id}} {
		code, out, stderr = commandLine(t, s.home, args...)
		require.Zero(t, code, stderr)
		require.Contains(t, out, `INFO  request request=req_`)
		require.Contains(t, out, `status=200`)
		require.Contains(t, out, "the server ends")
		require.NotContains(t, out, "secret")
	}
	_, out, _ = commandLine(t, s.home, "logs", "--json", "-n", "1")
	require.True(t, json.Valid([]byte(out)), out)
	require.NotContains(t, s.err.String(), "request=", "it is on standard error with --verbose")
}

// TestServersFigures: norion top shows what a server did, as its metrics have it.
func TestServersFigures(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	code, body := s.ask("POST", "/v1/completions", "", hello)
	require.Equal(t, 200, code, body)
	var out string
	require.Eventually(t, func() bool { // within a second
		_, out, _ = commandLine(t, s.home, "top", "--json")
		return strings.Contains(out, `"answer_tokens": 3`)
	}, time.Minute, 50*time.Millisecond)
	_, out, _ = commandLine(t, s.home, "top", "--once")
	require.Regexp(t, `(?m)^[0-9a-f]{8} +letters +0 +0 +0 .* \d+ ms +\d+ ms +`, out)
	s.end()
}

// TestServersNone: without servers the commands say so, or refuse with a hint.
func TestServersNone(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	for _, c := range []struct {
		code      int
		out, says string
		args      []string
	}{
		{0, "", "norion serve MODEL starts one", []string{"ps"}},
		{0, "", "norion serve MODEL starts one", []string{"top"}},
		{0, "{\n  \"servers\": [],\n  \"unreadable\": 0\n}\n", "", []string{"ps", "--json"}},
		{exitUsage, "", "hint: norion serve MODEL starts one", []string{"stop"}},
		{exitUsage, "", "no server", []string{"stop", "0a"}},
		{exitUsage, "", "--timeout", []string{"stop", "--timeout", "0s"}},
		{exitUsage, "", "no ID with --all", []string{"stop", "--all", "0a"}},
		{0, "", "", []string{"stop", "--all"}},
		{exitUsage, "", "no such log", []string{"logs"}},
		{exitUsage, "", "no such log", []string{"logs", "../x"}},
		{exitUsage, "", "an ID", []string{"logs", "a", "b"}},
	} {
		code, out, stderr := commandLine(t, home, c.args...)
		require.Equal(t, c.code, code, "%s: %s", c.args, stderr)
		require.Equal(t, c.out, out, c.args)
		require.Contains(t, stderr, c.says, c.args)
	}
}

// TestServersApart: two servers of one home are told apart, and one without a place to show itself
// serves all the same.
func TestServersApart(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	first, second := serveAt(t, home, nil), serveAt(t, home, nil)
	code, _, stderr := commandLine(t, home, "stop")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "2 servers run")
	_, _, stderr = commandLine(t, home, "stop", "0123")
	require.Contains(t, stderr, `no server "0123" runs`)
	code, out, stderr := commandLine(t, home, "stop", "--all")
	require.Zero(t, code, stderr)
	require.Equal(t, 2, strings.Count(out, "stopped "))
	require.Zero(t, <-first.code)
	require.Zero(t, <-second.code)

	home = t.TempDir()
	for _, name := range []string{serversDir, logsDir} {
		require.NoError(t, os.WriteFile(filepath.Join(home, name), nil, 0o600))
	}
	s := serveAt(t, home, nil)
	require.Contains(t, s.err.String(), "note: norion logs will not show this server")
	require.Contains(t, s.err.String(), "note: norion ps, top and stop will not see this server")
	code, _ = s.ask("GET", "/health", "", "")
	require.Equal(t, 200, code)
	s.end()
}
