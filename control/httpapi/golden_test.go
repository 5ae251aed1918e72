package httpapi_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/infer"
)

var rewrite = flag.Bool("rewrite", false, "write the golden parts of testdata anew")

// TestGolden runs the cases of testdata/golden. Each has a request, chunks that the backend says
// (else it says "Hello"), what the backend must be asked, and the exact response but for ids.
func TestGolden(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/golden/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			golden(t, name)
		})
	}
}

func golden(t *testing.T, name string) {
	a, err := txtar.ParseFile(name)
	require.NoError(t, err)
	files := map[string]string{}
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	chunks := hello
	if text, ok := files["chunks"]; ok {
		chunks = nil
		for line := range strings.Lines(text) {
			var c infer.Chunk
			require.NoError(t, json.Unmarshal([]byte(line), &c), line)
			chunks = append(chunks, c)
		}
	}
	h := serve(t, func(_ *httpapi.Options, b *fake) { b.run = saying(chunks...) })
	head, body, _ := strings.Cut(files["request"], "\n")
	method, path, _ := strings.Cut(head, " ")
	w := h.ask(t, method, path, body)
	asked := dump(t, h.models.b.asked)
	answer := fmt.Sprintf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), plain(w.Body.String()))
	if *rewrite {
		files["asked"], files["response"] = asked, answer
		a.Files = nil
		for _, part := range []string{"request", "chunks", "asked", "response"} {
			if files[part] != "" {
				a.Files = append(a.Files, txtar.File{Name: part, Data: []byte(files[part])})
			}
		}
		require.NoError(t, os.WriteFile(name, txtar.Format(a), 0o600))
		return
	}
	require.Equal(t, files["asked"], asked)
	require.Equal(t, strings.TrimRight(files["response"], "\n"), strings.TrimRight(answer, "\n"))
}

// plain replaces what differs from run to run.
func plain(s string) string {
	return regexp.MustCompile(`(chatcmpl-|cmpl-|req_|resp_|msg_|rs_|fc_|toolu_)[0-9a-f]{24}`).
		ReplaceAllString(s, "${1}ID")
}

// dump writes what is set in requests, without what every one has. They run side by side, so that
// their order is chance: it is that of their texts.
func dump(t *testing.T, requests []infer.Request) string {
	var all []string
	for _, r := range requests {
		var b strings.Builder
		require.NotEmpty(t, r.ID)
		require.False(t, r.Deadline.IsZero())
		bias := map[string]float32{}
		for id, v := range r.Sampling.LogitBias {
			bias[fmt.Sprint(id)] = v
		}
		r.Sampling.LogitBias = nil
		if r.Sampling.XTCThreshold == 0.1 {
			r.Sampling.XTCThreshold = 0
		}
		data, err := json.Marshal(r)
		require.NoError(t, err)
		var fields map[string]any
		require.NoError(t, json.Unmarshal(data, &fields))
		delete(fields, "ID")
		delete(fields, "Deadline")
		if len(bias) > 0 {
			fields["LogitBias"] = bias
		}
		clean(fields)
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			value, err := json.Marshal(fields[name])
			require.NoError(t, err)
			fmt.Fprintf(&b, "%s %s\n", name, value)
		}
		all = append(all, b.String())
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

// clean drops what is zero.
func clean(fields map[string]any) {
	maps.DeleteFunc(fields, func(_ string, v any) bool {
		if inner, ok := v.(map[string]any); ok {
			clean(inner)
			return len(inner) == 0
		}
		return v == nil || v == "" || v == 0.0 || v == false
	})
}
