package store_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store"
)

// origin is a server of one file that can misbehave.
type origin struct {
	*httptest.Server

	mu       sync.Mutex
	data     []byte
	etag     string
	noRange  bool             // answers 200 to a range request
	cutAfter int              // bytes of the body before the connection breaks; 0 never
	cuts     int              // how many responses are cut
	status   int              // answered instead, when not 0
	answer   http.HandlerFunc // answers a range request instead, when not nil
	header   http.Header      // added to each answer
	requests []*http.Request
}

func newOrigin(t testing.TB, data []byte) *origin {
	o := &origin{data: data, etag: `"v1"`, header: http.Header{}}
	o.Server = httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.requests = append(o.requests, r.Clone(context.Background()))
	data, cut := o.data, 0
	if o.cuts > 0 {
		o.cuts--
		cut = o.cutAfter
	}
	for k, v := range o.header {
		w.Header()[k] = v
	}
	status, etag, noRange, answer := o.status, o.etag, o.noRange, o.answer
	o.mu.Unlock()
	if answer != nil && r.Header.Get("Range") != "" {
		answer(w, r)
		return
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	if noRange {
		r.Header.Del("Range")
	}
	if cut > 0 {
		w = &cutWriter{ResponseWriter: w, left: cut}
	}
	http.ServeContent(w, r, "m.gguf", time.Time{}, bytes.NewReader(data))
}

// cutWriter breaks the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) >= c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// seen returns the requests so far.
func (o *origin) seen() []*http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]*http.Request{}, o.requests...)
}

func (o *origin) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func urlSource(url string) store.Source {
	return store.Source{Kind: store.SourceHTTPS, URL: url}
}

// fetch adds data from url as "m:1".
func fetch(t testing.TB, s *store.Store, url string, data []byte) (store.Model, error) {
	return s.Add(t.Context(), entry(t, "m:1", data, urlSource(url)), store.PullOptions{})
}

func TestHTTPDownloadReportsProgress(t *testing.T) {
	t.Parallel()
	data := modelBytes(600)
	o := newOrigin(t, data)
	s := open(t, nil)
	var reports []store.Progress
	m, err := s.Add(t.Context(), entry(t, "m:1", data, urlSource(o.URL+"/m?token=secret")),
		store.PullOptions{Progress: func(p store.Progress) { reports = append(reports, p) }})
	require.NoError(t, err)
	requireWhole(t, s, "m:1", data)
	require.Equal(t, o.URL+"/m", m.Source, "a query may be a secret")
	require.Equal(t, "catalogue", m.DigestFrom)
	require.Equal(t, now, m.PulledAt)

	require.Equal(t, store.Progress{
		Name: m.Name, Stage: store.StageDownload, Total: int64(len(data)),
	}, reports[0])
	last := reports[len(reports)-1]
	require.Equal(t, store.StagePublish, last.Stage)
	var done int64
	for _, r := range reports[:len(reports)-1] {
		require.Equal(t, store.StageDownload, r.Stage)
		require.GreaterOrEqual(t, r.Done, done)
		done = r.Done
	}
	require.Equal(t, int64(len(data)), done)
	r := o.seen()[0]
	require.Equal(t, "identity", r.Header.Get("Accept-Encoding"))
	require.Empty(t, r.Header.Get("Authorization"))
}

func TestHTTPResumesWithinAPull(t *testing.T) {
	t.Parallel()
	data := modelBytes(900)
	o := newOrigin(t, data)
	o.set(func() { o.cutAfter, o.cuts = 300<<10, 2 })
	s := open(t, nil)
	_, err := fetch(t, s, o.URL, data)
	require.NoError(t, err)
	requireWhole(t, s, "m:1", data)
	seen := o.seen()
	require.Len(t, seen, 3)
	for i, r := range seen[1:] {
		from := strconv.Itoa((i + 1) * 300 << 10)
		require.Equal(t, "bytes="+from+"-", r.Header.Get("Range"))
		require.Equal(t, `"v1"`, r.Header.Get("If-Range"))
	}
}

// interrupted leaves a part of data in s, which came from o.
func interrupted(t testing.TB, s *store.Store, o *origin, data []byte) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := s.Add(ctx, entry(t, "m:1", data, urlSource(o.URL)),
		store.PullOptions{Progress: func(p store.Progress) {
			if p.Done > 0 {
				cancel()
			}
		}})
	e := asError(t, err, store.ErrCanceled)
	require.ErrorIs(t, e, context.Canceled)
	requireNone(t, s, true)
	require.NotEmpty(t, files(t, s, "partial"))
}

func TestHTTPResumesInTheNextPull(t *testing.T) {
	t.Parallel()
	data := modelBytes(3000)
	for _, tc := range []struct {
		name    string
		change  func(o *origin)
		resumes bool
	}{
		{"same file", func(*origin) {}, true},
		{"no range support", func(o *origin) { o.noRange = true }, false},
		{"changed etag", func(o *origin) { o.etag = `"v2"` }, false},
		{"no etag any more", func(o *origin) { o.etag = "" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, data)
			s := open(t, nil)
			interrupted(t, s, o, data)
			o.set(func() { tc.change(o) })
			var first store.Progress
			_, err := s.Add(t.Context(), entry(t, "m:1", data, urlSource(o.URL)),
				store.PullOptions{Progress: func(p store.Progress) {
					if first.Total == 0 {
						first = p
					}
				}})
			require.NoError(t, err)
			requireWhole(t, s, "m:1", data)
			require.Empty(t, files(t, s, "partial"))
			seen := o.seen()
			require.NotEmpty(t, seen[1].Header.Get("Range"), "it asks to continue")
			require.Equal(t, tc.resumes, first.Done > 0)
		})
	}
}

func TestHTTPWeakValidatorStartsAgain(t *testing.T) {
	t.Parallel()
	data := modelBytes(3000)
	o := newOrigin(t, data)
	o.set(func() { o.etag = `W/"v1"` })
	s := open(t, nil)
	interrupted(t, s, o, data)
	_, err := fetch(t, s, o.URL, data)
	require.NoError(t, err)
	require.Empty(t, o.seen()[1].Header.Get("Range"))
	requireWhole(t, s, "m:1", data)
}

// A server that ignores If-Range and goes on with another file is found out by its ETag, by the
// size it states, or in the end by the digest.
func TestHTTPLyingRangeAnswers(t *testing.T) {
	t.Parallel()
	data := modelBytes(3000)
	other := modelBytes(2999)
	for _, tc := range []struct {
		name, contentRange, etag string
	}{
		{"other etag", "bytes %d-%d/%d", `"v2"`},
		{"other start", "bytes 0-%[2]d/%[3]d", `"v1"`},
		{"other size", "bytes %d-%d/9999999", `"v1"`},
		{"no range", "", `"v1"`},
		{"no number", "bytes x-y/z", `"v1"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			good := newOrigin(t, data)
			s := open(t, nil)
			interrupted(t, s, good, data)
			var lies atomic.Int32
			lie := func(w http.ResponseWriter, r *http.Request) {
				lies.Add(1)
				var from int
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
				text := tc.contentRange
				if strings.Contains(text, "%") {
					text = fmt.Sprintf(text, from, len(data)-1, len(data))
					text, _, _ = strings.Cut(text, "%!")
				}
				w.Header().Set("Content-Range", text)
				w.Header().Set("ETag", tc.etag)
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(other[min(from, len(other)):])
			}
			good.set(func() { good.answer = lie })
			_, err := fetch(t, s, good.URL, data)
			require.NoError(t, err, "it starts again")
			require.EqualValues(t, 1, lies.Load())
			requireWhole(t, s, "m:1", data)
		})
	}
}

func TestHTTPFailures(t *testing.T) {
	t.Parallel()
	data := modelBytes(300)
	for _, tc := range []struct {
		name  string
		setup func(o *origin)
		kind  store.Kind
		parts bool // a part may stay for the next pull
	}{
		{"404", func(o *origin) { o.status = 404 }, store.ErrUnavailable, true},
		{"410", func(o *origin) { o.status = 410 }, store.ErrUnavailable, true},
		{"401", func(o *origin) { o.status = 401 }, store.ErrPermission, true},
		{"403", func(o *origin) { o.status = 403 }, store.ErrPermission, true},
		{"500", func(o *origin) { o.status = 500 }, store.ErrNetwork, true},
		{"429", func(o *origin) { o.status = 429 }, store.ErrNetwork, true},
		{"416", func(o *origin) { o.status = 416 }, store.ErrNetwork, true},
		{"gone", func(o *origin) { o.CloseClientConnections(); o.Close() }, store.ErrNetwork, true},
		{
			"other bytes", func(o *origin) { o.data = flip(data, len(data)-1) },
			store.ErrDigest, false,
		},
		{
			"one byte less", func(o *origin) { o.data = data[:len(data)-1] },
			store.ErrDigest, false,
		},
		{
			"one byte more", func(o *origin) { o.data = append(bytes.Clone(data), 0) },
			store.ErrDigest, false,
		},
		{
			"compressed", func(o *origin) { o.header.Set("Content-Encoding", "gzip") },
			store.ErrRefused, false,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, data)
			o.set(func() { tc.setup(o) })
			s := open(t, nil)
			_, err := fetch(t, s, o.URL, data)
			e := asError(t, err, tc.kind)
			require.Equal(t, "m:1", e.Name)
			requireNone(t, s, tc.parts)
		})
	}
}

func flip(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 1
	return out
}

func TestHTTPTruncatedBodyKeepsThePart(t *testing.T) {
	t.Parallel()
	data := modelBytes(900)
	o := newOrigin(t, data)
	o.set(func() { o.cutAfter, o.cuts = 1, 1<<30 }) // one byte a time, for ever
	s := open(t, nil)
	_, err := fetch(t, s, o.URL, data)
	requireError(t, err, store.ErrNetwork)
	require.LessOrEqual(t, len(o.seen()), 100, "requests are bounded")
	requireNone(t, s, true)
	o.set(func() { o.cuts = 0 })
	_, err = fetch(t, s, o.URL, data)
	require.NoError(t, err)
	requireWhole(t, s, "m:1", data)
}

func TestHTTPStalledServer(t *testing.T) {
	t.Parallel()
	data := modelBytes(300)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	s := open(t, func(o *store.Options) { o.StallTimeout = 20 * time.Millisecond })
	_, err := fetch(t, s, srv.URL, data)
	e := asError(t, err, store.ErrNetwork)
	require.ErrorContains(t, e, "nothing arrived")
	requireNone(t, s, true)
}

// G6: a body that unpacks to far more is never unpacked, whatever its header says.
func TestG6CompressedBody(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := io.CopyN(z, zeros{}, 64<<20)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	data := modelBytes(10)
	for _, encoding := range []string{"gzip", "GZIP", "deflate", "br", "identity", ""} {
		o := newOrigin(t, bomb.Bytes())
		if encoding != "" {
			o.set(func() { o.header.Set("Content-Encoding", encoding) })
		}
		s := open(t, nil)
		_, err := fetch(t, s, o.URL, data)
		want := store.ErrRefused
		if encoding == "identity" || encoding == "" {
			want = store.ErrDigest // its size is not that of the model
		}
		requireError(t, err, want)
		requireNone(t, s, false)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A body longer than what the catalogue states is not stored, also without a Content-Length.
func TestHTTPEndlessBody(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush() // chunked from here
		_, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<30))
	}))
	defer srv.Close()
	s := open(t, nil)
	_, err := fetch(t, s, srv.URL, data)
	requireError(t, err, store.ErrRefused)
	requireNone(t, s, false)
}

func TestHTTPRedirects(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	o := newOrigin(t, data)
	redirect := func(to string) string {
		srv := httptest.NewServer(http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, strings.ReplaceAll(to, "SELF", "http://"+r.Host),
					http.StatusFound)
			}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	s := open(t, nil)
	_, err := fetch(t, s, redirect(o.URL+"/m"), data)
	require.NoError(t, err)
	for _, to := range []string{
		"SELF/again", "http://models.example/m", "ftp://127.0.0.1/m", "file:///etc/passwd",
		"https://user:secret@models.example/m",
	} {
		s := open(t, nil)
		_, err := fetch(t, s, redirect(to), data)
		requireError(t, err, store.ErrRefused)
		require.NotContains(t, err.Error(), "secret")
		requireNone(t, s, false)
	}
}

func TestHTTPRefusesPlainHTTP(t *testing.T) {
	t.Parallel()
	data := modelBytes(1)
	_, err := fetch(t, open(t, nil), "http://models.example/m", data)
	requireError(t, err, store.ErrCatalogue)
}
