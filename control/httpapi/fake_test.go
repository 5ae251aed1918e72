package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/infer"
)

// answerer answers one request.
type answerer func(context.Context, infer.Request) iter.Seq2[infer.Chunk, error]

// fake is a backend that answers by a script.
type fake struct {
	info infer.Info
	run  answerer

	mu    sync.Mutex
	asked []infer.Request
}

func (f *fake) Info() infer.Info { return f.info }

func (f *fake) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	f.mu.Unlock()
	if err := r.Validate(); err != nil {
		return failing(err)
	}
	return f.run(ctx, r)
}

func (f *fake) Score(context.Context, infer.ScoreRequest) (infer.Scores, error) {
	return infer.Scores{}, &infer.Error{Kind: infer.KindUnsupported}
}

// Embed gives each text a vector of its length and 0.5.
func (f *fake) Embed(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i, t := range texts {
		out[i] = []float32{float32(len(t)), 0.5}
	}
	return out, nil
}

// Tokenize makes a token of each byte.
func (f *fake) Tokenize(_ context.Context, text string, o infer.TokenizeOptions) (
	[]infer.Token, error,
) {
	var out []infer.Token
	if o.AddSpecial {
		out = append(out, infer.Token{ID: 1, Text: []byte("<s>")})
	}
	for _, b := range []byte(text) {
		out = append(out, infer.Token{ID: infer.TokenID(b), Text: []byte{b}})
	}
	return out, nil
}

func (f *fake) Detokenize(_ context.Context, tokens []infer.TokenID) ([]byte, error) {
	var out []byte
	for _, t := range tokens {
		if t < 0 || t > 255 {
			return nil, &infer.Error{Kind: infer.KindInvalid, Field: "tokens"}
		}
		out = append(out, byte(t))
	}
	return out, nil
}

// CountTokens counts the bytes of all messages.
func (f *fake) CountTokens(_ context.Context, r infer.Request) (int, error) {
	n := 0
	for _, m := range r.Messages {
		n += len(m.Content)
	}
	return n, r.Validate()
}

func (f *fake) Close() error { return nil }

func failing(err error) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) { yield(infer.Chunk{}, err) }
}

// saying answers with the same chunks each time.
func saying(chunks ...infer.Chunk) answerer { return script(chunks, nil) }

// script says chunks, and then fails with err unless it is nil.
func script(chunks []infer.Chunk, err error) answerer {
	return func(context.Context, infer.Request) iter.Seq2[infer.Chunk, error] {
		return func(yield func(infer.Chunk, error) bool) {
			for _, c := range chunks {
				if !yield(c, nil) {
					return
				}
			}
			if err != nil {
				yield(infer.Chunk{}, err)
			}
		}
	}
}

// final ends an answer of a text.
func final(text string) infer.Chunk {
	return infer.Chunk{Final: &infer.Final{
		Reason: infer.FinishStop, Seed: 7,
		Answer: infer.Message{Role: infer.RoleAssistant, Content: text},
		Usage: infer.Usage{
			PromptTokens: 5, CompletionTokens: 2, Computed: 3, Cached: infer.Cached{Live: 2},
			Timings: infer.Timings{
				Queue: time.Millisecond, Prefill: 3 * time.Millisecond, TTFT: 4 * time.Millisecond,
				Decode: 5 * time.Millisecond, ITLMax: 5 * time.Millisecond,
			},
		},
	}}
}

// hello is a short answer.
var hello = []infer.Chunk{{Text: "Hel", Tokens: 1}, {Text: "lo", Tokens: 1}, final("Hello")}

// all can do everything.
var all = infer.Info{
	Model: "m", Digest: "sha256:0", Engine: "fake 1", Vocabulary: 256, EmbeddingSize: 2,
	ContextTokens: 512, Abilities: infer.Abilities{
		Generate: true, Chat: true, Tools: true, Reasoning: true, Grammar: true, Embed: true,
	},
}

// fakeModels has one model, "m".
type fakeModels struct {
	b       *fake
	open    atomic.Int64 // backends that were not released
	refused error        // what Open says
	busy    bool         // Open waits for the end of ctx
}

func (m *fakeModels) List() []httpapi.Model {
	return []httpapi.Model{{Name: "m", Created: epoch, Info: &m.b.info}}
}

func (m *fakeModels) Open(ctx context.Context, name string) (infer.Backend, func(), error) {
	switch {
	case m.busy:
		<-ctx.Done()
		return nil, nil, &infer.Error{Op: "load", Kind: infer.KindDeadline, Err: ctx.Err()}
	case m.refused != nil:
		return nil, nil, m.refused
	case name != "m":
		return nil, nil, fmt.Errorf("%w: %q", httpapi.ErrNoModel, name)
	}
	m.open.Add(1)
	return m.b, func() { m.open.Add(-1) }, nil
}

var discard = slog.New(slog.DiscardHandler)

var epoch = time.Unix(1700000000, 0).UTC()

// harness is a server over a fake.
type harness struct {
	*httpapi.Server
	models *fakeModels
	logs   *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// serve starts a server over a fake that says hello. The clock stands still unless change sets
// another.
func serve(t testing.TB, change func(*httpapi.Options, *fake)) *harness {
	t.Helper()
	h := &harness{models: &fakeModels{b: &fake{info: all, run: saying(hello...)}}, logs: &syncBuffer{}}
	o := httpapi.Options{
		Models: h.models, Now: func() time.Time { return epoch },
		Logger: slog.New(slog.NewTextHandler(h.logs, nil)),
		Hosts:  []string{"localhost", "127.0.0.1", "example.com"},
	}
	if change != nil {
		change(&o, h.models.b)
	}
	var err error
	h.Server, err = httpapi.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.Zero(t, h.models.open.Load(), "every backend is released") })
	return h
}

// ask sends one request without a network.
func (h *harness) ask(
	t testing.TB, method, path, body string, header ...string,
) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		if header[i] == "Content-Type" {
			r.Header.Del(header[i])
		}
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// chat sends a conversation of one message.
func (h *harness) chat(
	t testing.TB, more string, header ...string,
) *httptest.ResponseRecorder {
	t.Helper()
	return h.ask(t, "POST", "/v1/chat/completions",
		`{"model":"m","messages":[{"role":"user","content":"hi"}]`+more+`}`, header...)
}

// errorOf reads an error object.
func errorOf(t testing.TB, w *httptest.ResponseRecorder) (code, param string) {
	t.Helper()
	var out struct {
		Error struct {
			Message, Type, Code string
			Param               *string
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out), "%s", w.Body)
	require.NotEmpty(t, out.Error.Message)
	require.NotEmpty(t, out.Error.Type)
	if out.Error.Param != nil {
		param = *out.Error.Param
	}
	return out.Error.Code, param
}

// listen serves on the loopback.
func (h *harness) listen(t *testing.T) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config = h.HTTP(context.Background())
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// post sends a body over the network.
func post(t *testing.T, ctx context.Context, url, body string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	return http.DefaultClient.Do(r)
}

func readAll(t *testing.T, r io.ReadCloser) string {
	t.Helper()
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return string(data)
}
