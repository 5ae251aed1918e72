package remote_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/remote"
)

// wire carries requests to a handler without a network, so that tests have a clock of their own.
type wire struct{ handler http.Handler }

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	from, to := io.Pipe()
	a := &reply{header: http.Header{}, body: to, status: make(chan int, 1)}
	go func() {
		w.handler.ServeHTTP(a, r)
		a.WriteHeader(http.StatusOK)
		_ = to.Close()
	}()
	context.AfterFunc(r.Context(), func() { _ = from.CloseWithError(r.Context().Err()) })
	select {
	case status := <-a.status:
		return &http.Response{StatusCode: status, Header: a.header, Body: from}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

type reply struct {
	header http.Header
	body   io.Writer
	once   sync.Once
	status chan int
}

func (a *reply) Header() http.Header { return a.header }

func (a *reply) WriteHeader(status int) { a.once.Do(func() { a.status <- status }) }

func (a *reply) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// endpoint is a made-up endpoint, such as vLLM. answer replaces what it answers once it is open.
type endpoint struct {
	mu     sync.Mutex
	answer http.HandlerFunc
	asked  int // completions and chats since then
	last   []byte
	models string
}

const oneModel = `{"object":"list","data":[{"id":"m","owned_by":"vllm","max_model_len":512}]}`

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	answer, models := e.answer, e.models
	if r.URL.Path != "/v1/models" {
		e.asked++
		e.last = body
	}
	e.mu.Unlock()
	switch {
	case r.URL.Path == "/v1/models" && models != "":
		fmt.Fprint(w, models)
	case r.URL.Path == "/v1/models":
		fmt.Fprint(w, oneModel)
	case answer != nil:
		answer(w, r)
	case r.URL.Path == "/v1/embeddings":
		fmt.Fprint(w, `{"data":[{"index":0,"embedding":[3,4]}]}`)
	default:
		say(w, "hello", " there")
	}
}

func (e *endpoint) answers(h http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer, e.asked = h, 0
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

// say streams an answer as it should be.
func say(w io.Writer, pieces ...string) {
	for _, p := range pieces {
		piece(w, p)
	}
	fmt.Fprint(w, `data: {"choices":[{"text":"","finish_reason":"stop"}]}`+"\n\n")
	fmt.Fprintf(w, `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d}}`+"\n\n",
		len(pieces))
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func piece(w io.Writer, text string) {
	fmt.Fprint(w, ": keep-alive\n\n")
	fmt.Fprintf(w, "data: {\"choices\":[{\"text\":%q,\"finish_reason\":null}]}\n\n", text)
}

// open opens a backend at a made-up endpoint.
func open(t *testing.T, change func(*endpoint, *remote.Options)) (*endpoint, *remote.Backend) {
	t.Helper()
	e := &endpoint{}
	o := remote.Options{URL: "http://lab", Transport: wire{e}}
	if change != nil {
		change(e, &o)
	}
	b, err := remote.Open(t.Context(), o)
	require.NoError(t, err)
	return e, b
}

// ask runs a request to its end.
func ask(ctx context.Context, b infer.Backend, r infer.Request) (
	text string, f *infer.Final, err error,
) {
	for c, err := range b.Generate(ctx, r) {
		if err != nil {
			return text, nil, err
		}
		text += c.Text
		f = c.Final
	}
	return text, f, nil
}

var short = infer.Request{Prompt: "once", MaxTokens: 8}
