package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/remote"
)

// TestProbe: what the endpoint ignores or refuses is not declared.
func TestProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, b := open(t, nil)
		i := b.Info()
		require.Equal(t, infer.Abilities{Generate: true, Chat: true, Embed: true}, i.Abilities)
		require.Equal(t, 2, i.EmbeddingSize)
		require.Equal(t, 512, i.ContextTokens)
		require.Len(t, i.Notes, 3, "%q", i.Notes)
		vectors, err := b.Embed(t.Context(), []string{"a"})
		require.NoError(t, err)
		require.InDeltaSlice(t, []float32{0.6, 0.8}, vectors[0], 1e-6, "it is normalised")
		text, f, err := ask(t.Context(), b, short)
		require.NoError(t, err)
		require.Equal(t, "hello there", text)
		require.Equal(t, 2, f.Usage.CompletionTokens)
		require.Contains(t, string(e.last), fmt.Sprintf(`"seed":%d`, f.Seed))
		require.NoError(t, b.Close())
		_, _, err = ask(t.Context(), b, short)
		require.ErrorIs(t, err, infer.KindClosed)
	})
}

// TestOpenRefuses wants typed errors for addresses and endpoints of no use.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	lab := remote.Options{URL: "http://lab"}
	for name, c := range map[string]struct {
		change func(*remote.Options)
		models string
		kind   infer.Kind
		field  string
	}{
		"no address": {
			change: func(o *remote.Options) { o.URL = "lab" }, kind: infer.KindInvalid, field: "url",
		},
		"a user": {
			change: func(o *remote.Options) { o.URL = "http://a:b@lab" },
			kind:   infer.KindInvalid, field: "url",
		},
		"a key of lines": {
			change: func(o *remote.Options) { o.Key = "a\nb" }, kind: infer.KindInvalid, field: "key",
		},
		"retries": {
			change: func(o *remote.Options) { o.Retries = 11 },
			kind:   infer.KindInvalid, field: "retries",
		},
		"timeout": {
			change: func(o *remote.Options) { o.Silence = -1 },
			kind:   infer.KindInvalid, field: "timeout",
		},
		"no such model": {
			change: func(o *remote.Options) { o.Model = "x" }, kind: infer.KindModel, field: "model",
		},
		"several": {
			models: `{"data":[{"id":"a"},{"id":"b"}]}`, kind: infer.KindModel, field: "model",
		},
		"none":                {models: `{}`, kind: infer.KindModel, field: "model"},
		"not OpenAI's":        {models: `<html>`, kind: infer.KindInternal},
		"a name of no letter": {models: `{"data":[{"id":4}]}`, kind: infer.KindInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := lab
			o.Transport = wire{&endpoint{models: c.models}}
			if c.change != nil {
				c.change(&o)
			}
			_, err := remote.Open(t.Context(), o)
			require.ErrorIs(t, err, c.kind)
			e, ok := errors.AsType[*infer.Error](err)
			require.True(t, ok)
			require.Equal(t, c.field, e.Field)
			require.NotContains(t, err.Error(), "a:b")
		})
	}
}

// faults are answers that must end in a typed error, after the text that came before it.
var faults = map[string]struct {
	answer http.HandlerFunc
	kind   infer.Kind
	text   string
	asked  int
}{
	"cut": {
		func(w http.ResponseWriter, _ *http.Request) { piece(w, "he") }, infer.KindLost, "he", 1,
	},
	"cut before the mark": {
		func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `data: {"choices":[{"text":"a","finish_reason":"stop"}]}`+"\n\n")
		}, infer.KindLost, "a", 1,
	},
	"no usage": {
		func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `data: {"choices":[{"text":"a","finish_reason":"stop"}]}`+"\n\n")
			fmt.Fprint(w, "data: [DONE]\n\n")
		}, infer.KindInternal, "a", 1,
	},
	"unknown end": {
		func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `data: {"choices":[{"text":"a","finish_reason":"filter"}]}`+"\n\n")
			fmt.Fprint(w, "data: [DONE]\n\n")
		}, infer.KindInternal, "a", 1,
	},
	"no JSON": {
		func(w http.ResponseWriter, _ *http.Request) { piece(w, "a"); fmt.Fprint(w, "data: {{\n\n") },
		infer.KindInternal, "a", 1,
	},
	"a huge line": {
		func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "data: "+strings.Repeat("x", remote.LineBytesMax)+"\n\n")
		}, infer.KindInternal, "", 1,
	},
	"an error within": {
		func(w http.ResponseWriter, _ *http.Request) {
			piece(w, "a")
			fmt.Fprint(w, `data: {"error":{"message":"gone","code":"engine_lost"}}`+"\n\n")
		}, infer.KindLost, "a", 1,
	},
	"a call out of order": {
		func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `data: {"choices":[{"delta":{"tool_calls":[{"index":7}]}}]}`+"\n\n")
		}, infer.KindInternal, "", 1,
	},
	"silent": {
		func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, infer.KindLost, "", 1,
	},
	"silent within": {
		func(w http.ResponseWriter, r *http.Request) { piece(w, "a"); <-r.Context().Done() },
		infer.KindLost, "a", 1,
	},
	"busy":        {status(429, ""), infer.KindBusy, "", 3},
	"unavailable": {status(503, ""), infer.KindBusy, "", 3},
	"engine lost": {status(503, `{"error":{"code":"engine_lost"}}`), infer.KindLost, "", 3},
	"broken":      {status(500, "oops"), infer.KindInternal, "", 1},
	"gateway":     {status(502, ""), infer.KindLost, "", 1},
	"no key":      {status(401, ""), infer.KindInvalid, "", 1},
	"redirected":  {status(307, ""), infer.KindInternal, "", 1},
	"too long": {
		status(400, `{"error":{"code":"context_length_exceeded","param":"messages"}}`),
		infer.KindTooLong, "", 1,
	},
	"too long for vLLM": {
		status(400, `{"message":"the maximum context length is 512","code":400}`),
		infer.KindTooLong, "", 1,
	},
	"invalid": {status(400, `{"error":{"code":400}}`), infer.KindInvalid, "", 1},
}

// TestFaults wants the kind of each fault, and no request sent more often than it may be.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, c := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e, b := open(t, nil)
				e.answers(c.answer)
				text, _, err := ask(t.Context(), b, short)
				require.ErrorIs(t, err, c.kind, "%v", err)
				require.Equal(t, c.kind, infer.KindOf(err))
				require.Equal(t, c.text, text)
				require.Equal(t, c.asked, e.count())
				require.NoError(t, b.Close())
			})
		})
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// TestRetry waits as it is told, and not longer than it may.
func TestRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, b := open(t, nil)
		busy := func(after string, times int) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				if e.count() > times {
					say(w, "at last")
					return
				}
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusTooManyRequests)
			}
		}
		e.answers(busy("7", 2))
		began := time.Now()
		text, _, err := ask(t.Context(), b, short)
		require.NoError(t, err)
		require.Equal(t, "at last", text)
		require.Equal(t, 14*time.Second, time.Since(began))

		e.answers(busy("11", 1))
		_, _, err = ask(t.Context(), b, short)
		require.ErrorIs(t, err, infer.KindBusy)
		require.Equal(t, 1, e.count(), "11 seconds are too long")

		e.answers(busy("7", 9))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = ask(ctx, b, short)
		require.ErrorIs(t, err, infer.KindDeadline, "while it waits")
		require.NoError(t, b.Close())
	})
}

// TestBreaker leaves a dead endpoint alone, and finds it again.
func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, b := open(t, nil)
		e.answers(status(502, ""))
		for range 8 {
			_, _, err := ask(t.Context(), b, short)
			require.ErrorIs(t, err, infer.KindLost)
		}
		require.Equal(t, 5, e.count(), "three were not sent")
		e.answers(nil)
		_, _, err := ask(t.Context(), b, short)
		require.ErrorContains(t, err, "in a row")
		require.NotEmpty(t, infer.HintOf(err))
		time.Sleep(11 * time.Second)
		_, _, err = ask(t.Context(), b, short)
		require.NoError(t, err)
		e.answers(status(400, ""))
		for range 8 {
			_, _, err := ask(t.Context(), b, short)
			require.ErrorIs(t, err, infer.KindInvalid)
		}
		require.Equal(t, 8, e.count(), "a refusal is no failure of the endpoint")
		require.NoError(t, b.Close())
	})
}

// TestEnds: a cancel, a deadline and Close end an answer that goes on for ever.
func TestEnds(t *testing.T) {
	t.Parallel()
	for _, kind := range []infer.Kind{infer.KindCanceled, infer.KindDeadline, infer.KindClosed} {
		synctest.Test(t, func(t *testing.T) {
			e, b := open(t, nil)
			e.answers(func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					piece(w, "more ")
					select {
					case <-time.After(time.Second):
					case <-r.Context().Done():
					}
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, chunks := short, 0
			if kind == infer.KindDeadline {
				r.Deadline = time.Now().Add(5 * time.Second)
			}
			for _, err := range b.Generate(ctx, r) {
				if err != nil {
					require.Equal(t, kind, infer.KindOf(err))
					break
				}
				switch chunks++; kind {
				case infer.KindCanceled:
					cancel()
				case infer.KindClosed:
					require.NoError(t, b.Close())
				}
			}
			require.Less(t, chunks, 7)
			require.NoError(t, b.Close())
		})
	}
}

// TestRefuses names what such an endpoint cannot be told, and sends nothing.
func TestRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, b := open(t, nil)
		e.answers(nil)
		for field, change := range map[string]func(*infer.Request){
			"kv.no_reuse":      func(r *infer.Request) { r.KV.NoReuse = true },
			"kv.salt":          func(r *infer.Request) { r.KV.Salt = "a" },
			"kv.deterministic": func(r *infer.Request) { r.KV.Deterministic = true },
			"kv.evict":         func(r *infer.Request) { r.KV.Evict = "middle-out" },
			"top_k":            func(r *infer.Request) { r.Sampling.TopK = 40 },
			"repeat_penalty":   func(r *infer.Request) { r.Sampling.RepeatPenalty = 1.1 },
			"logit_bias": func(r *infer.Request) {
				r.Sampling.LogitBias = map[infer.TokenID]float32{1: -101}
			},
			"grammar":      func(r *infer.Request) { r.Constraint.Grammar = "root ::= [a]" },
			"schema":       func(r *infer.Request) { r.Constraint.Schema = []byte("{}") },
			"logprobs":     func(r *infer.Request) { r.Logprobs = true },
			"ignore_eos":   func(r *infer.Request) { r.IgnoreEOS = true },
			"special_text": func(r *infer.Request) { r.SpecialText = true },
			"adapters":     func(r *infer.Request) { r.Adapters = []infer.Adapter{{Name: "a"}} },
			"speculate":    func(r *infer.Request) { r.Speculate = infer.SpeculateOn },
			"priority":     func(r *infer.Request) { r.Priority = 1 },
			"max_tokens":   func(r *infer.Request) { r.MaxTokens = 0 },
		} {
			r := short
			change(&r)
			_, _, err := ask(t.Context(), b, r)
			require.ErrorIs(t, err, infer.KindUnsupported, field)
			require.ErrorContains(t, err, field)
		}
		require.Zero(t, e.count())
		require.NoError(t, b.Close())
	})
}

// TestNetwork meets faults of real connections: none listens, one is cut, one asks for a key.
func TestNetwork(t *testing.T) {
	t.Parallel()
	e := &endpoint{}
	keyed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer sesame" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		e.ServeHTTP(w, r)
	})
	s := httptest.NewServer(keyed)
	t.Cleanup(s.Close)
	_, err := remote.Open(t.Context(), remote.Options{URL: s.URL, Key: "wrong"})
	require.ErrorIs(t, err, infer.KindInvalid)
	require.NotContains(t, err.Error(), "wrong", "a key is no part of errors")
	b, err := remote.Open(t.Context(), remote.Options{URL: s.URL + "/v1", Key: "sesame"})
	require.NoError(t, err)
	e.answers(func(w http.ResponseWriter, _ *http.Request) {
		piece(w, "he")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	text, _, err := ask(t.Context(), b, short)
	require.ErrorIs(t, err, infer.KindLost)
	require.Equal(t, "he", text)
	require.NoError(t, b.Close())
	s.Close()
	_, err = remote.Open(t.Context(), remote.Options{URL: s.URL, Key: "sesame"})
	require.ErrorIs(t, err, infer.KindLost)
	require.NotEmpty(t, infer.HintOf(err))
}

// FuzzStream wants an answer or a typed error for any stream.
func FuzzStream(f *testing.F) {
	f.Add([]byte(`data: {"choices":[{"text":"a","finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"))
	f.Add([]byte("data: {\"choices\":[],\"usage\":{\"completion_tokens\":-1}}\ndata:[DONE]\n"))
	f.Add([]byte(": x\n\ndata: {\"error\":{}}\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		e := &endpoint{}
		b, err := remote.Open(t.Context(), remote.Options{URL: "http://lab", Transport: wire{e}})
		require.NoError(t, err)
		e.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(stream) })
		_, final, err := ask(t.Context(), b, short)
		require.NoError(t, b.Close())
		if err != nil {
			require.NotEmpty(t, infer.KindOf(err))
			return
		}
		require.NotNil(t, final)
		require.GreaterOrEqual(t, final.Usage.CompletionTokens, 0)
	})
}
