package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// served is a norion serve that runs in this process.
type served struct {
	t      *testing.T
	home   string
	err    *announced
	ctx    context.Context
	stop   context.CancelFunc
	code   chan int
	client *http.Client
	url    string
}

// announced is the standard error of a server: ready is closed when it says where it listens.
type announced struct {
	mu    sync.Mutex
	text  bytes.Buffer
	once  sync.Once
	ready chan struct{}
}

func (a *announced) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text.Write(p)
	if strings.Contains(a.text.String(), "norion serves ") {
		a.once.Do(func() { close(a.ready) })
	}
	return len(p), nil
}

func (a *announced) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.String()
}

// newApp is a command line with a home of its own.
func newApp(home string, out, stderr io.Writer) *app {
	return &app{
		in: strings.NewReader(""), out: out, err: stderr, open: openEngine, spawn: openWorker,
		env: func(name string) (string, bool) { return home, name == "NORION_HOME" },
	}
}

// serve starts a server with the model of letters. open replaces what opens it, unless nil.
func serve(t *testing.T, open opener, args ...string) *served {
	t.Helper()
	return serveAt(t, t.TempDir(), open, args...)
}

func serveAt(t *testing.T, home string, open opener, args ...string) *served {
	t.Helper()
	if open == nil {
		return serveWith(t, home, nil, args...)
	}
	return serveWith(t, home, func(a *app) { a.open = open }, append(args, "--in-process")...)
}

// serveWith is serveAt with a changed app.
func serveWith(t *testing.T, home string, change func(*app), args ...string) *served {
	t.Helper()
	path := filepath.Join(home, "letters.gguf")
	require.NoError(t, os.WriteFile(path, letters().Bytes(), 0o600))
	s := &served{
		t: t, home: home, err: &announced{ready: make(chan struct{})}, code: make(chan int, 1),
		client: http.DefaultClient,
	}
	s.ctx, s.stop = context.WithCancel(t.Context())
	a := newApp(home, io.Discard, s.err)
	args = append([]string{"serve", path, "-t", "1", "--port", "0"}, args...)
	if change != nil {
		change(a)
	}
	go func() { s.code <- a.main(s.ctx, args) }()
	select {
	case <-s.err.ready:
	case code := <-s.code:
		t.Fatalf("it ended with %d: %s", code, s.err)
	}
	s.url = s.address()
	t.Cleanup(s.stop)
	return s
}

// address is where the server says that it listens; "" for a socket.
func (s *served) address() string {
	m := regexp.MustCompile(`at (https?://\S+)`).FindStringSubmatch(s.err.String())
	if m == nil {
		return ""
	}
	return m[1]
}

// end interrupts the server, which ends well.
func (s *served) end() {
	s.t.Helper()
	s.stop()
	require.Zero(s.t, <-s.code, s.err)
}

// ask sends a request and gives the status and the body.
func (s *served) ask(method, path, key, body string) (int, string) {
	s.t.Helper()
	code, text, err := s.try(method, path, key, body)
	require.NoError(s.t, err)
	return code, text
}

// try is ask where an error is possible. It asks on after the server was interrupted.
func (s *served) try(method, path, key, body string) (code int, text string, err error) {
	r, err := http.NewRequestWithContext(context.WithoutCancel(s.ctx), method, s.url+path,
		strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	r.Header.Set("Content-Type", "application/json")
	w, err := s.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	data, err := io.ReadAll(w.Body)
	return w.StatusCode, string(data), errors.Join(err, w.Body.Close())
}

const hello = `{"model":"letters","prompt":"hello","max_tokens":3,"temperature":0}`

// TestServe answers over a port and a socket, and ends well when it is interrupted.
func TestServe(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	code, body := s.ask("GET", "/v1/models", "", "")
	require.Equal(t, 200, code)
	require.Contains(t, body, `"id":"letters"`)
	code, body = s.ask("POST", "/v1/completions", "", hello)
	require.Equal(t, 200, code, body)
	require.Contains(t, body, `"finish_reason":"length"`)
	require.Contains(t, body, `"completion_tokens":3`)
	code, body = s.ask("POST", "/v1/completions", "", strings.Replace(hello, "letters", "other", 1))
	require.Equal(t, 404, code)
	require.Contains(t, body, `"code":"model_not_found"`)
	code, body = s.ask("GET", "/metrics", "", "")
	require.Equal(t, 200, code)
	require.Contains(t, body, `norion_answer_tokens_total{model="letters"} 3`)
	s.end()

	socket := filepath.Join(t.TempDir(), "s")
	s = serve(t, nil, "--unix", socket)
	s.url = "http://localhost"
	s.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	fi, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	code, _ = s.ask("GET", "/health", "", "")
	require.Equal(t, 200, code)
	var stderr bytes.Buffer
	path := filepath.Join(s.home, "letters.gguf")
	require.Equal(t, exitBusy, newApp(s.home, io.Discard, &stderr).main(t.Context(),
		[]string{"serve", path, "--unix", socket}), "another server is there")
	require.Contains(t, stderr.String(), "hint: another program listens there")
	s.end()
}

// TestServeKeys lets in whoever has a key, until it is revoked.
func TestServeKeys(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	keys := func(args ...string) string {
		var out, stderr bytes.Buffer
		code := newApp(home, &out, &stderr).main(t.Context(), append([]string{"keys"}, args...))
		require.Zero(t, code, stderr.String())
		return strings.TrimSpace(out.String())
	}
	key, operator := keys("create", "laptop"), keys("create", "root", "--role", "operator")
	kept, err := os.ReadFile(filepath.Join(home, keysName))
	require.NoError(t, err)
	require.NotContains(t, string(kept), key)
	fi, err := os.Stat(filepath.Join(home, keysName))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())

	s := serveAt(t, home, nil, "--keys")
	code, body := s.ask("GET", "/v1/models", "", "")
	require.Equal(t, 401, code, body)
	code, _ = s.ask("GET", "/health", "", "")
	require.Equal(t, 200, code)
	code, body = s.ask("POST", "/v1/completions", key, hello)
	require.Equal(t, 200, code, body)
	code, _ = s.ask("GET", "/metrics", key, "")
	require.Equal(t, 403, code)
	code, _ = s.ask("GET", "/metrics", operator, "")
	require.Equal(t, 200, code)
	keys("revoke", strings.Split(key, "_")[1])
	code, body = s.ask("POST", "/v1/completions", key, hello)
	require.Equal(t, 401, code, body)
	require.NoError(t, os.WriteFile(filepath.Join(home, keysName), []byte("{"), 0o600))
	code, _ = s.ask("GET", "/metrics", operator, "")
	require.Equal(t, 200, code, "a damaged file changes nothing")
	require.Contains(t, s.err.String(), "the keys before it hold")
	require.NotContains(t, s.err.String(), key)
	s.end()
}

// TestServeRefuses what would let strangers in or cannot be used.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	path := filepath.Join(home, "letters.gguf")
	require.NoError(t, os.WriteFile(path, letters().Bytes(), 0o600))
	var listen net.ListenConfig
	taken, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--host", "0.0.0.0", "--port", "0"}, exitUsage, "norion keys create"},
		{[]string{"--keys", "--port", "0"}, exitUsage, "norion keys create"},
		{[]string{"--port", port}, exitBusy, "choose another --port"},
		{[]string{"--port", "70000"}, exitUsage, "a port that you may use"},
		{[]string{"--tls-cert", path}, exitUsage, "--tls-self-signed"},
		{[]string{"--tls-cert", path, "--tls-key", path}, exitUsage, "PEM"},
		{[]string{"--unix", path}, exitUsage, "name a path that is free"},
		{[]string{"--port", "0", "--speculate", "on"}, exitUsage, "off or adaptive"},
		{[]string{"--port", "0", "--allow-origin", "*"}, exitUsage, "https://chat.example"},
		{[]string{"--port", "0", path}, exitUsage, "name each model once"},
		{[]string{"--port", "0", home + "/absent.gguf"}, exitModel, "no such file"},
	} {
		var stderr bytes.Buffer
		a := newApp(home, io.Discard, &stderr)
		got := a.main(t.Context(), append([]string{"serve", path, "-t", "1"}, c.args...))
		require.Equal(t, c.code, got, "%s: %s", c.args, &stderr)
		require.Contains(t, stderr.String(), c.says, c.args)
	}
	require.FileExists(t, path, "no file was taken for a socket")
}

// slow is a model whose answer ends when it is told to.
type slow struct {
	infer.Backend
	asked, end chan struct{}
}

func (b slow) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	close(b.asked)
	<-b.end
	return b.Backend.Generate(ctx, r)
}

// TestServeDrains: an answer that runs when the server is interrupted comes whole; with no time
// left it is cut off.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	for _, drain := range []string{"1h", "0s"} {
		b := slow{asked: make(chan struct{}), end: make(chan struct{})}
		s := serve(t, func(ctx context.Context, o engine.Options) (_ infer.Backend, err error) {
			b.Backend, err = openEngine(ctx, o)
			return b, err
		}, "--drain", drain)
		answered := make(chan error, 1)
		go func() {
			code, body, err := s.try("POST", "/v1/completions", "", hello)
			if err == nil && (code != 200 || !strings.Contains(body, `"finish_reason"`)) {
				err = errors.New(body)
			}
			answered <- err
		}()
		<-b.asked
		s.stop()
		if drain == "0s" {
			require.Error(t, <-answered)
			close(b.end)
		} else {
			close(b.end)
			require.NoError(t, <-answered)
		}
		require.Zero(t, <-s.code, s.err)
	}
}

// TestServeTLS prints the fingerprint of the certificate that clients see.
func TestServeTLS(t *testing.T) {
	t.Parallel()
	s := serve(t, nil, "--tls-self-signed", "--allow-host", "box.example")
	s.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, //nolint:gosec // the fingerprint is compared below
			ServerName:         "box.example",
			VerifyConnection: func(c tls.ConnectionState) error {
				cert := c.PeerCertificates[0]
				if err := cert.VerifyHostname("box.example"); err != nil {
					return err
				}
				if !strings.Contains(s.err.String(), fmt.Sprintf("%X", sha256.Sum256(cert.Raw))) {
					return errors.New("another certificate")
				}
				return nil
			},
		},
	}}
	code, _ := s.ask("GET", "/health", "", "")
	require.Equal(t, 200, code)
	s.end()
}
