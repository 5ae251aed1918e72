package conform_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/conform/conformtest"
	"github.com/norion/norion/runtime/infer"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func manifest() conform.Manifest {
	return conform.NewManifest("lab", conform.Reached{URL: "http://127.0.0.1:1"},
		conform.LifecycleExternal, conformtest.Everything())
}

// issued is a receipt of a fake that may be broken.
func issued(t testing.TB, breaks func(*conformtest.Model)) (conform.Manifest, conform.Receipt) {
	t.Helper()
	f, m := conformtest.New(), manifest()
	breaks(f)
	report, err := conform.Run(t.Context(), f, conform.Options{})
	require.NoError(t, err)
	r, err := conform.NewReceipt(&m, report, noon, time.Hour)
	require.NoError(t, err)
	return m, r
}

func TestReceipt(t *testing.T) {
	t.Parallel()
	m, good := issued(t, func(*conformtest.Model) {})
	_, bad := issued(t, func(f *conformtest.Model) { f.Count = 1 })
	for name, c := range map[string]struct {
		change func(*conform.Manifest, *conform.Receipt)
		at     time.Duration
		want   error
	}{
		"fresh":                   {at: 0},
		"last second":             {at: time.Hour - time.Second},
		"expired":                 {at: time.Hour, want: conform.ErrStale},
		"clock set back a little": {at: -time.Minute},
		"clock set back":          {at: -time.Hour, want: conform.ErrStale},
		"another address": {
			change: func(m *conform.Manifest, _ *conform.Receipt) { m.Reached.URL += "2" },
			want:   conform.ErrForeign,
		},
		"another model": {
			change: func(m *conform.Manifest, _ *conform.Receipt) { m.Model.Digest = "sha256:1" },
			want:   conform.ErrForeign,
		},
		"another suite": {
			change: func(_ *conform.Manifest, r *conform.Receipt) { r.Report.Suite++ },
			want:   conform.ErrSuite,
		},
		"failed": {
			change: func(_ *conform.Manifest, r *conform.Receipt) { *r = bad },
			want:   conform.ErrFailed,
		},
		"empty": {
			change: func(_ *conform.Manifest, r *conform.Receipt) { r.Report.Results = nil },
			want:   conform.ErrFailed,
		},
		"an outcome of its own": {
			change: func(_ *conform.Manifest, r *conform.Receipt) {
				results := append([]conform.Result(nil), r.Report.Results...)
				results[3].Outcome = "fine"
				r.Report.Results = results
			},
			want: conform.ErrFailed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, r := m, good
			if c.change != nil {
				c.change(&m, &r)
			}
			err := r.Check(&m, noon.Add(c.at))
			require.ErrorIs(t, err, c.want)
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.Equal(t, infer.KindUnsupported, infer.KindOf(err))
			require.Equal(t, "norion backends check lab", infer.HintOf(err))
		})
	}
}

// TestReceiptText: what is written is read as the same, and another version is refused.
func TestReceiptText(t *testing.T) {
	t.Parallel()
	_, good := issued(t, func(*conformtest.Model) {})
	data, err := json.Marshal(good)
	require.NoError(t, err)
	back, err := conform.ParseReceipt(data)
	require.NoError(t, err)
	require.Equal(t, good, back)
	_, err = conform.ParseReceipt([]byte(strings.Replace(string(data), `"version":1`,
		`"version":2`, 1)))
	require.ErrorIs(t, err, infer.KindInvalid)
}

func TestManifest(t *testing.T) {
	t.Parallel()
	m := manifest()
	data, err := json.Marshal(m)
	require.NoError(t, err)
	back, err := conform.ParseManifest(data)
	require.NoError(t, err)
	require.Equal(t, m, back)
	for name, change := range map[string][2]string{
		"unknown name": {`"name":"lab"`, `"name":"lab","colour":"red"`},
		"doubled name": {`"name":"lab"`, `"name":"lab","name":"lab"`},
		"version":      {`"version":1`, `"version":2`},
		"no name":      {`"name":"lab"`, `"name":""`},
		"no way":       {`"url":"http://127.0.0.1:1"`, ``},
		"two ways":     {`"url":"`, `"command":["a"],"url":"`},
		"lifecycle":    {`"external"`, `"eternal"`},
		"negative":     {`"sequences":4`, `"sequences":-4`},
		"devices":      {`"limits"`, `"devices":["b","a"],"limits"`},
		"behind":       {`"lifecycle":"external"}`, `"lifecycle":"external"} {}`},
	} {
		bad := strings.Replace(string(data), change[0], change[1], 1)
		require.NotEqual(t, string(data), bad, name)
		_, err := conform.ParseManifest([]byte(bad))
		require.ErrorIs(t, err, infer.KindInvalid, name)
	}
	_, err = conform.ParseManifest(make([]byte, conform.FileBytesMax+1))
	require.ErrorContains(t, err, "too large")
}

// FuzzManifest wants that what is taken is written and read as the same.
func FuzzManifest(f *testing.F) {
	data, err := json.Marshal(manifest())
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := conform.ParseManifest(data)
		if err != nil {
			require.Equal(t, infer.KindInvalid, infer.KindOf(err))
			return
		}
		first, err := m.Digest()
		require.NoError(t, err)
		again, err := json.Marshal(m)
		require.NoError(t, err)
		back, err := conform.ParseManifest(again)
		require.NoError(t, err)
		second, err := back.Digest()
		require.NoError(t, err)
		require.Equal(t, first, second)
	})
}

// FuzzReceipt wants errors, never a panic, also of the check that follows.
func FuzzReceipt(f *testing.F) {
	_, r := issued(f, func(*conformtest.Model) {})
	data, err := json.Marshal(r)
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := conform.ParseReceipt(data)
		if err != nil {
			require.Equal(t, infer.KindInvalid, infer.KindOf(err))
			return
		}
		m := manifest()
		if err := r.Check(&m, noon); err != nil {
			require.Equal(t, infer.KindUnsupported, infer.KindOf(err))
		}
	})
}
