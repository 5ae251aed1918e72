package httpapi_test

import (
	"context"
	"encoding/json"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/infer"
)

// fuzzRoute sends any body to a route: nothing panics, no answer blames the server, every error has
// its shape, and a backend is asked only what it could run.
func fuzzRoute(f *testing.F, path string) {
	names, err := filepath.Glob("testdata/golden/*.txtar")
	require.NoError(f, err)
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(f, err)
		for _, part := range txtar.Parse(data).Files {
			head, body, _ := strings.Cut(string(part.Data), "\n")
			if part.Name == "request" && head == "POST "+path {
				f.Add(body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, body string) {
		h := serve(t, func(_ *httpapi.Options, b *fake) {
			b.run = func(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
				require.NoError(t, r.Validate())
				return saying(hello...)(ctx, r)
			}
		})
		w := h.ask(t, "POST", path, body, "Content-Type", "application/json")
		require.Less(t, w.Code, 500, "%s", w.Body)
		if w.Code != 200 {
			require.True(t, json.Valid(w.Body.Bytes()))
			require.Less(t, w.Body.Len(), 4096)
			require.Empty(t, h.models.b.asked)
		}
	})
}

func FuzzChat(f *testing.F)       { fuzzRoute(f, "/v1/chat/completions") }
func FuzzCompletion(f *testing.F) { fuzzRoute(f, "/v1/completions") }
func FuzzResponse(f *testing.F)   { fuzzRoute(f, "/v1/responses") }
func FuzzMessages(f *testing.F)   { fuzzRoute(f, "/v1/messages") }
func FuzzEmbedding(f *testing.F)  { fuzzRoute(f, "/v1/embeddings") }
func FuzzTokenize(f *testing.F)   { fuzzRoute(f, "/tokenize") }
func FuzzDetokenize(f *testing.F) { fuzzRoute(f, "/detokenize") }
