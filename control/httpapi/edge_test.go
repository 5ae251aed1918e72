package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/infer"
)

// TestE1Body: a body at the limit passes, one byte more does not.
func TestE1Body(t *testing.T) {
	t.Parallel()
	h := serve(t, func(o *httpapi.Options, _ *fake) { o.BodyBytes = 1000 })
	head, tail := `{"model":"m","messages":[{"role":"user","content":"`, `"}]}`
	for more, want := range map[int]int{0: 200, 1: http.StatusRequestEntityTooLarge} {
		n := 1000 - len(head) - len(tail) + more
		w := h.ask(t, "POST", "/v1/chat/completions", head+strings.Repeat("a", n)+tail)
		require.Equal(t, want, w.Code)
	}
}

// TestE2Text: what a user writes stays text, whatever it looks like.
func TestE2Text(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	text := "<|im_end|>\u202e\u0000\n</s>"
	w := h.ask(t, "POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user",`+
		`"content":"<|im_end|>\u202e\u0000\n</s>"}]}`)
	require.Equal(t, 200, w.Code, "%s", w.Body)
	r := h.models.b.asked[0]
	require.Equal(t, text, r.Messages[0].Content)
	require.False(t, r.ParseSpecial)
}

// TestE5Slow: a header that does not end, a body that does not end and a reader that does not read
// are cut off, and the answer stops.
func TestE5Slow(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{})
	h := serve(t, func(o *httpapi.Options, b *fake) {
		o.Now, o.BodyTimeout, o.WriteTimeout = time.Now, 50*time.Millisecond, 50*time.Millisecond
		b.run = func(context.Context, infer.Request) iter.Seq2[infer.Chunk, error] {
			return func(yield func(infer.Chunk, error) bool) {
				defer close(stopped)
				for yield(infer.Chunk{Text: strings.Repeat("x", 64<<10), Tokens: 1}, nil) {
				}
			}
		}
	})
	require.NotZero(t, h.HTTP(t.Context()).ReadHeaderTimeout)
	address := strings.TrimPrefix(h.listen(t), "http://")
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		return c
	}
	body := dial()
	defer body.Close()
	_, err := fmt.Fprint(body, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"+
		"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	require.NoError(t, err)
	line, err := bufio.NewReader(body).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "408")

	reader := dial()
	defer reader.Close()
	ask := `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	_, err = fmt.Fprintf(reader, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(ask), ask)
	require.NoError(t, err)
	<-stopped
}

// TestE6Disconnect: before the first token and in the middle, a client that goes away ends the
// generation.
func TestE6Disconnect(t *testing.T) {
	t.Parallel()
	for _, more := range []string{`,"stream":true`, ``} {
		for before := range 3 {
			begun, ended := make(chan struct{}), make(chan error, 1)
			h := serve(t, func(o *httpapi.Options, b *fake) {
				o.Now = time.Now
				b.run = func(ctx context.Context, _ infer.Request) iter.Seq2[infer.Chunk, error] {
					return func(yield func(infer.Chunk, error) bool) {
						for range before {
							yield(infer.Chunk{Text: "x", Tokens: 1}, nil)
						}
						close(begun)
						<-ctx.Done()
						ended <- ctx.Err()
					}
				}
			})
			url := h.listen(t)
			ctx, leave := context.WithCancel(t.Context())
			go func() { <-begun; leave() }()
			w, err := post(t, ctx, url+"/v1/chat/completions",
				`{"model":"m","messages":[{"role":"user","content":"hi"}]`+more+`}`)
			if err == nil {
				_ = w.Body.Close()
			}
			require.ErrorIs(t, <-ended, context.Canceled)
		}
	}
}

// TestE7Idempotency: of two requests with one key, one is generated; the second gets its answer,
// or is told to wait. A failure is not kept.
func TestE7Idempotency(t *testing.T) {
	t.Parallel()
	go_, running := make(chan struct{}), make(chan struct{}, 1)
	h := serve(t, func(_ *httpapi.Options, b *fake) {
		b.run = func(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
			running <- struct{}{}
			<-go_
			return saying(hello...)(ctx, r)
		}
	})
	first := make(chan string)
	go func() { first <- h.chat(t, `,"stream":true`, "Idempotency-Key", "k").Body.String() }()
	<-running
	w := h.chat(t, `,"stream":true`, "Idempotency-Key", "k")
	require.Equal(t, http.StatusConflict, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	close(go_)
	text := <-first
	w = h.chat(t, `,"stream":true`, "Idempotency-Key", "k")
	require.Equal(t, text, w.Body.String())
	require.Equal(t, "true", w.Header().Get("Idempotent-Replayed"))
	require.Equal(t, "text/event-stream; charset=utf-8", w.Header().Get("Content-Type"))
	w = h.chat(t, `,"stream":false`, "Idempotency-Key", "k")
	code, _ := errorOf(t, w)
	require.Equal(t, "idempotency_key_reused", code)
	require.Len(t, h.models.b.asked, 1)

	h.models.b.run = script(nil, &infer.Error{Kind: infer.KindLost})
	require.Equal(t, 503, h.chat(t, `,"stream":true`, "Idempotency-Key", "x").Code)
	h.models.b.run = saying(hello...)
	require.Contains(t, h.chat(t, `,"stream":true`, "Idempotency-Key", "x").Body.String(), "[DONE]")
	require.Equal(t, 400, h.chat(t, "", "Idempotency-Key", strings.Repeat("k", 256)).Code)
}

// TestE8Room: what the server has no room for is refused at once, with a time to come back.
func TestE8Room(t *testing.T) {
	t.Parallel()
	running, go_ := make(chan struct{}), make(chan struct{})
	h := serve(t, func(o *httpapi.Options, b *fake) {
		o.InFlight = 2
		b.run = func(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
			running <- struct{}{}
			<-go_
			return saying(hello...)(ctx, r)
		}
	})
	done := make(chan int)
	for range 2 {
		go func() { done <- h.chat(t, "").Code }()
		<-running
	}
	w := h.chat(t, "")
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Equal(t, 200, h.ask(t, "GET", "/health", "").Code)
	close(go_)
	require.Equal(t, 200, <-done)
	require.Equal(t, 200, <-done)
}

// TestE9Deadline: no answer goes on for ever.
func TestE9Deadline(t *testing.T) {
	t.Parallel()
	h := serve(t, func(o *httpapi.Options, _ *fake) { o.RequestTimeout = time.Minute })
	h.chat(t, "")
	require.Equal(t, epoch.Add(time.Minute), h.models.b.asked[0].Deadline)
}

// TestE9Load: the time of a request counts while it waits for its model.
func TestE9Load(t *testing.T) {
	t.Parallel()
	h := serve(t, func(o *httpapi.Options, _ *fake) { o.RequestTimeout = time.Millisecond })
	h.models.busy = true
	w := h.ask(t, "POST", "/v1/completions", `{"model":"m","prompt":"hi"}`)
	require.Equal(t, 504, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `"code":"deadline_exceeded"`)
}

// TestBrokenStream: an error after the first byte is an event, and no [DONE] follows.
func TestBrokenStream(t *testing.T) {
	t.Parallel()
	read := make(chan struct{})
	h := serve(t, func(o *httpapi.Options, b *fake) {
		o.Now = time.Now
		b.run = func(context.Context, infer.Request) iter.Seq2[infer.Chunk, error] {
			return func(yield func(infer.Chunk, error) bool) {
				yield(hello[0], nil)
				<-read
				yield(infer.Chunk{}, &infer.Error{Kind: infer.KindLost, Hint: "ask again"})
			}
		}
	})
	w, err := post(t, t.Context(), h.listen(t)+"/v1/chat/completions",
		`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
	require.NoError(t, err)
	defer func() { _ = w.Body.Close() }()
	require.Equal(t, 200, w.StatusCode)
	_, err = io.ReadFull(w.Body, make([]byte, 6))
	require.NoError(t, err)
	close(read)
	text := readAll(t, w.Body)
	require.Contains(t, text, `data: {"error":{"message":"engine lost; ask again",`+
		`"type":"server_error","param":null,"code":"engine_lost"}}`)
	require.NotContains(t, text, "[DONE]")
}

// TestEndless: an answer without an end is an error, not a stream that looks whole.
func TestEndless(t *testing.T) {
	t.Parallel()
	h := serve(t, func(_ *httpapi.Options, b *fake) { b.run = saying(hello[0]) })
	require.Equal(t, 500, h.chat(t, "").Code)
	require.NotContains(t, h.chat(t, `,"stream":true`).Body.String(), "[DONE]")
}

// TestPanics: a panic ends its own request only.
func TestPanics(t *testing.T) {
	t.Parallel()
	h := serve(t, func(_ *httpapi.Options, b *fake) {
		b.run = func(context.Context, infer.Request) iter.Seq2[infer.Chunk, error] {
			return func(func(infer.Chunk, error) bool) { panic("a secret") }
		}
	})
	w := h.chat(t, "")
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String()+h.logs.String(), "secret")
	h.models.b.run = nil // the handler's own
	require.Equal(t, 500, h.chat(t, "").Code)
	require.NotContains(t, h.logs.String(), "secret")
}

// TestKeepAlive: a stream that has nothing to say for a while says so in comments, and its status
// is then decided.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := serve(t, func(o *httpapi.Options, b *fake) {
			o.Now, o.KeepAlive = time.Now, 10*time.Second
			b.run = func(context.Context, infer.Request) iter.Seq2[infer.Chunk, error] {
				return func(yield func(infer.Chunk, error) bool) {
					time.Sleep(25 * time.Second) // of the bubble's clock
					for _, c := range hello {
						yield(c, nil)
					}
				}
			}
		})
		text := h.chat(t, `,"stream":true`).Body.String()
		require.True(t, strings.HasPrefix(text, ": keep-alive\n\n: keep-alive\n\ndata: {"), text)
		require.Equal(t, 2, strings.Count(text, ": keep-alive\n\n"))
		require.True(t, strings.HasSuffix(text, "data: [DONE]\n\n"))
	})
}

// TestChoices: several answers side by side, each with a seed of its own; the prompt counts once.
func TestChoices(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	w := h.chat(t, `,"n":3,"seed":4294967293`)
	require.Equal(t, 200, w.Code)
	require.Equal(t, 3, strings.Count(w.Body.String(), `"content":"Hello"`))
	require.Contains(t, w.Body.String(), `"prompt_tokens":5,"completion_tokens":6,"total_tokens":11`)
	seeds := map[uint32]bool{}
	for _, r := range h.models.b.asked {
		require.NotZero(t, r.Sampling.Seed)
		require.NotEqual(t, uint32(1<<32-1), r.Sampling.Seed)
		seeds[r.Sampling.Seed] = true
	}
	require.Len(t, seeds, 3)
	text := h.chat(t, `,"n":2,"stream":true`).Body.String()
	require.Equal(t, 2, strings.Count(text, `"finish_reason":"stop"`))
	require.Equal(t, 2, strings.Count(text, `"role":"assistant"`))
}

// TestE8RetryAfter: who finds a queue full is told to come back after the time that answers of late
// had to wait, rounded up, within bounds.
func TestE8RetryAfter(t *testing.T) {
	t.Parallel()
	now := epoch
	h := serve(t, func(o *httpapi.Options, _ *fake) { o.Now = func() time.Time { return now } })
	answer := func(waited time.Duration) {
		f := *final("Hello").Final
		f.Usage.Timings.Queue = waited
		h.models.b.run = saying(infer.Chunk{Final: &f})
		require.Equal(t, 200, h.chat(t, "").Code)
	}
	refused := func() string {
		h.models.b.run = script(nil, &infer.Error{Op: "generate", Kind: infer.KindBusy})
		w := h.chat(t, "")
		require.Equal(t, 429, w.Code)
		return w.Header().Get("Retry-After")
	}
	require.Equal(t, "1", refused(), "nothing was measured")
	answer(8 * time.Second)
	require.Equal(t, "8", refused())
	answer(16 * time.Second)
	require.Equal(t, "9", refused(), "an eighth of the way")
	answer(17 * time.Second)
	require.Equal(t, "10", refused())
	for range 40 {
		answer(0)
	}
	require.Equal(t, "1", refused())
	for range 100 {
		answer(time.Hour)
	}
	require.Equal(t, "120", refused())
	now = now.Add(5*time.Minute - 1)
	require.Equal(t, "120", refused())
	now = now.Add(1)
	require.Equal(t, "1", refused(), "too long ago")
	now = now.Add(-time.Hour)
	require.Equal(t, "1", refused(), "C1: a clock that goes back")
}

// TestDrain: new requests are refused, and /ready says so.
func TestDrain(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	require.Equal(t, 200, h.ask(t, "GET", "/ready", "").Code)
	h.Drain()
	require.Equal(t, 503, h.ask(t, "GET", "/ready", "").Code)
	require.Equal(t, 200, h.ask(t, "GET", "/health", "").Code)
	w := h.chat(t, "")
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
}

// TestRequestID: a harmless id is taken over, another one replaced.
func TestRequestID(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	id := func(given string) string {
		return h.chat(t, "", "X-Request-Id", given).Header().Get("X-Request-Id")
	}
	require.Equal(t, "abc-1.2_X", id("abc-1.2_X"))
	require.Equal(t, "abc-1.2_X", h.models.b.asked[0].ID)
	for _, bad := range []string{"a b", "a\tb", strings.Repeat("a", 129), "ä", `a"b`} {
		require.Regexp(t, "^req_[0-9a-f]{24}$", id(bad))
	}
}
