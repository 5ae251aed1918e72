package store_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store"
)

// hub stands in for the model hub: it states digest and size, then redirects to another host.
type hub struct {
	*httptest.Server

	cdn    *origin
	mu     sync.Mutex
	tag    string
	size   string
	status int
	tokens []string
	paths  []string
}

func newHub(t testing.TB, data []byte) *hub {
	h := &hub{
		cdn:  newOrigin(t, data),
		tag:  `"` + strings.TrimPrefix(sum(data).String(), "sha256:") + `"`,
		size: strconv.Itoa(len(data)),
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.tokens = append(h.tokens, r.Header.Get("Authorization"))
		h.paths = append(h.paths, r.URL.Path)
		if h.status != 0 {
			w.WriteHeader(h.status)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/old/") {
			http.Redirect(w, r, strings.Replace(r.URL.Path, "/old/", "/new/", 1),
				http.StatusTemporaryRedirect)
			return
		}
		if h.tag != "" {
			w.Header().Set("X-Linked-ETag", h.tag)
		}
		if h.size != "" {
			w.Header().Set("X-Linked-Size", h.size)
		}
		http.Redirect(w, r, h.cdn.URL+"/blob?signature=secret", http.StatusFound)
	}))
	t.Cleanup(h.Close)
	return h
}

// hubEntry has no digest of its own.
func hubEntry(t testing.TB, repository string) store.Entry {
	return store.Entry{
		Name: name(t, "m:1"), UnverifiedOffline: true, Licence: store.Licence{Name: "mit"},
		Sources: []store.Source{{
			Kind: store.SourceHub, Repository: repository, File: "dir/m.gguf",
		}},
	}
}

func TestHubStatesTheDigest(t *testing.T) {
	t.Parallel()
	data := modelBytes(100)
	for repository, path := range map[string]string{
		"owner/model": "/owner/model/resolve/main/dir/m.gguf",
		"old/model":   "/old/model/resolve/main/dir/m.gguf",
	} {
		h := newHub(t, data)
		s := open(t, func(o *store.Options) { o.Hub, o.HubToken = h.URL+"/", "s3cret" })
		m, err := s.Add(t.Context(), hubEntry(t, repository), store.PullOptions{})
		require.NoError(t, err)
		requireWhole(t, s, "m:1", data)
		require.Equal(t, "hub", m.DigestFrom)
		require.Equal(t, "hub "+repository+"/dir/m.gguf", m.Source)
		require.Equal(t, path, h.paths[0])
		for _, token := range h.tokens {
			require.Equal(t, "Bearer s3cret", token)
		}
		for _, r := range h.cdn.seen() {
			require.Empty(t, r.Header.Get("Authorization"), "credentials left the hub")
		}
		require.Len(t, h.cdn.seen(), 1)
	}
}

func TestHubFailures(t *testing.T) {
	t.Parallel()
	data := modelBytes(100)
	wrong := `"` + strings.Repeat("0", 64) + `"`
	for _, tc := range []struct {
		name  string
		setup func(h *hub)
		kind  store.Kind
	}{
		{"not there", func(h *hub) { h.status = 404 }, store.ErrUnavailable},
		{"gated", func(h *hub) { h.status = 401 }, store.ErrPermission},
		{"down", func(h *hub) { h.status = 503 }, store.ErrNetwork},
		{"states another digest", func(h *hub) { h.tag = wrong }, store.ErrDigest},
		{"states another size", func(h *hub) { h.size = "7" }, store.ErrDigest},
		{"states no number", func(h *hub) { h.size = "-7" }, store.ErrRefused},
		{"blob host has nothing", func(h *hub) { h.cdn.status = 404 }, store.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, data)
			h.mu.Lock()
			h.cdn.set(func() { tc.setup(h) })
			h.mu.Unlock()
			s := open(t, func(o *store.Options) { o.Hub = h.URL })
			_, err := s.Add(t.Context(), hubEntry(t, "owner/model"), store.PullOptions{})
			requireError(t, err, tc.kind)
			require.NotContains(t, err.Error(), "signature")
			requireNone(t, s, true)
		})
	}
}

func TestHubDisagreesWithTheCatalogue(t *testing.T) {
	t.Parallel()
	data := modelBytes(100)
	h := newHub(t, data)
	e := hubEntry(t, "owner/model")
	e.SHA256, e.UnverifiedOffline = sum([]byte("something else")), false
	s := open(t, func(o *store.Options) { o.Hub = h.URL })
	_, err := s.Add(t.Context(), e, store.PullOptions{})
	requireError(t, err, store.ErrDigest)
	require.Empty(t, h.cdn.seen(), "nothing is downloaded")
}

// A hub that states nothing is believed, and the manifest says so.
func TestHubStatesNothing(t *testing.T) {
	t.Parallel()
	data := modelBytes(100)
	h := newHub(t, data)
	h.mu.Lock()
	h.tag, h.size = "", ""
	h.mu.Unlock()
	s := open(t, func(o *store.Options) {
		o.Getenv = func(k string) string { return map[string]string{"HF_ENDPOINT": h.URL}[k] }
	})
	m, err := s.Add(t.Context(), hubEntry(t, "owner/model"), store.PullOptions{})
	require.NoError(t, err)
	require.Equal(t, "computed", m.DigestFrom)
	requireWhole(t, s, "m:1", data)
}
