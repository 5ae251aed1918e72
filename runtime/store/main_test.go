package store_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/store"
)

// TestMain makes the test binary also a process that pulls, and is killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "pull-child" {
		os.Exit(pullChild(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// now is the injected time.
var now = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)

// modelBytes is a valid model of about tensorKiB KiB that does not compress.
func modelBytes(tensorKiB int) []byte {
	f := gguftest.Model()
	w := gguftest.F32("extra.weight", 256, uint64(tensorKiB))
	w.Data = make([]byte, w.Size)
	rnd := rand.NewChaCha8([32]byte{byte(tensorKiB)})
	_, _ = rnd.Read(w.Data)
	f.Tensors = append(f.Tensors, w)
	return f.Bytes()
}

func sum(b []byte) store.Digest {
	s := sha256.Sum256(b)
	d, err := store.ParseDigest(hex.EncodeToString(s[:]))
	if err != nil {
		panic(err)
	}
	return d
}

func name(t testing.TB, s string) store.Name {
	n, err := store.ParseName(s)
	require.NoError(t, err)
	return n
}

// entry is a catalogue entry of data from one source.
func entry(t testing.TB, n string, data []byte, src store.Source) store.Entry {
	return store.Entry{
		Name: name(t, n), SHA256: sum(data), SizeBytes: int64(len(data)),
		Licence: store.Licence{Name: "mit", Title: "MIT License"},
		Sources: []store.Source{src},
	}
}

func catalogue(entries ...store.Entry) *store.Catalogue {
	return &store.Catalogue{Schema: 1, Hub: "https://hub.example", Models: entries}
}

// open opens a store in a fresh directory; change edits the options.
func open(t testing.TB, change func(*store.Options)) *store.Store {
	return openAt(t, filepath.Join(t.TempDir(), "models"), change)
}

func openAt(t testing.TB, root string, change func(*store.Options)) *store.Store {
	o := store.Options{
		Root: root, Getenv: func(string) string { return "" }, Catalogue: catalogue(),
		Now: func() time.Time { return now }, RetryDelay: time.Nanosecond,
	}
	if change != nil {
		change(&o)
	}
	s, err := store.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// file writes data to a fresh file.
func file(t testing.TB, data []byte) string {
	p := filepath.Join(t.TempDir(), "model.gguf")
	require.NoError(t, os.WriteFile(p, data, 0o644))
	return p
}

func fileSource(t testing.TB, data []byte) store.Source {
	return store.Source{Kind: store.SourceFile, Path: file(t, data)}
}

// add puts data into the store under a name.
func add(t testing.TB, s *store.Store, n string, data []byte) store.Model {
	m, err := s.Add(t.Context(), entry(t, n, data, fileSource(t, data)), store.PullOptions{})
	require.NoError(t, err)
	return m
}

// requireError checks that err is an *Error of the kind with an operation.
func requireError(t testing.TB, err error, kind store.Kind) {
	t.Helper()
	require.NotNil(t, asError(t, err, kind))
}

// asError is requireError for a test that looks further.
func asError(t testing.TB, err error, kind store.Kind) *store.Error {
	t.Helper()
	require.ErrorIs(t, err, kind)
	var e *store.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, kind, e.Kind)
	require.NotEmpty(t, e.Op)
	return e
}

// requireNone checks that no model is visible and, unless parts are allowed, no bytes are left.
func requireNone(t testing.TB, s *store.Store, partsAllowed bool) {
	t.Helper()
	models, err := s.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, models)
	require.Empty(t, files(t, s, "blobs"))
	if !partsAllowed {
		require.Empty(t, files(t, s, "partial"))
	}
}

func files(t testing.TB, s *store.Store, dir string) []string {
	entries, err := os.ReadDir(filepath.Join(s.Root(), dir))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// requireWhole checks that a model is listed, resolves, and is data.
func requireWhole(t testing.TB, s *store.Store, ref string, data []byte) store.Model {
	t.Helper()
	m, err := s.Resolve(t.Context(), ref)
	require.NoError(t, err)
	got, err := os.ReadFile(m.Path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got), "the file differs")
	require.Equal(t, sum(data), m.Digest)
	require.Equal(t, int64(len(data)), m.SizeBytes)
	require.NoError(t, s.Verify(t.Context(), ref, nil))
	return m
}

// member is one file of a wheel.
type member struct {
	name string
	data []byte
}

// wheelFile writes a wheel into dir and describes it.
func wheelFile(
	t testing.TB, dir, pkg string, members []member, wanted ...string,
) store.Wheel {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, m := range members {
		w, err := z.Create(m.name)
		require.NoError(t, err)
		_, err = w.Write(m.data)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	p := filepath.Join(dir, pkg+"-1.0-py3-none-any.whl")
	require.NoError(t, os.WriteFile(p, buf.Bytes(), 0o644))
	return store.Wheel{
		Package: pkg, Version: "1.0", SHA256: sum(buf.Bytes()), SizeBytes: int64(buf.Len()),
		Members: wanted,
	}
}

// fakePip stands in for the package client: it copies the wanted wheel to where --dest says, or
// fails as the second argument says. A shell starts faster than this binary does.
const fakePip = `
dir=$1 mode=$2; shift 2
while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest=$2; shift; done
wheel=${1%%==*}-${1#*==}-py3-none-any.whl
fail() { echo "$1" >&2; exit 1; }
case $mode in
missing) fail "ERROR: No matching distribution found for x" ;;
no-module) fail "python3: No module named pip" ;;
offline) fail "WARNING: Retrying after connection broken by NewConnectionError" ;;
full) fail "ERROR: [Errno 28] No space left on device" ;;
noisy) yes | head -n 500000 >&2; fail "the last word" ;;
hang) : >"$dir/started"; exec sleep 100000 ;;
nothing) exit 0 ;;
two) cp "$dir/$wheel" "$dest/other.whl" ;;
esac
cp "$dir/$wheel" "$dest/"
`

// pip is the command of the fake package client: wheels come from dir, mode says how it fails.
func pip(dir, mode string) []string { return []string{"sh", "-c", fakePip, "pip", dir, mode} }

// pullChild pulls url into the store at root and prints a line when the first bytes are there.
func pullChild(root, url string) int {
	n, _ := store.ParseName("killed:1")
	s, err := store.Open(store.Options{Root: root})
	if err != nil {
		return 2
	}
	said := false
	_, err = s.Add(context.Background(), store.Entry{
		Name: n, UnverifiedOffline: true, Licence: store.Licence{Name: "mit"},
		Sources: []store.Source{{Kind: store.SourceHTTPS, URL: url}},
	}, store.PullOptions{Progress: func(p store.Progress) {
		if p.Done > 0 && !said {
			said = true
			_, _ = io.WriteString(os.Stdout, "some bytes\n")
		}
	}})
	if err != nil {
		return 1
	}
	return 0
}
