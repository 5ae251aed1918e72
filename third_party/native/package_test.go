package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// member is one entry of a test archive.
type member struct {
	name, text string
	kind       byte
	link       string
	size       int64 // declared, when not len(text)
}

func archive(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, m := range members {
		if m.kind == 0 {
			m.kind = tar.TypeReg
		}
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Mode: 0o644}
		h.Size = max(m.size, int64(len(m.text)))
		require.NoError(t, w.WriteHeader(h))
		_, err := io.WriteString(w, m.text)
		require.NoError(t, err)
	}
	_ = w.Close() // an archive with a false size does not end well
	require.NoError(t, z.Close())
	return b.Bytes()
}

func smallPackage(t testing.TB, pin *Pin) []byte {
	t.Helper()
	members := []member{{name: "pkg-1/README.md", text: "no"}}
	for name, text := range smallTree() {
		members = append(members, member{name: "pkg-1/" + pin.PackageDir + "/" + name, text: text})
	}
	members = append(members,
		member{name: "pkg-1/" + pin.PackageDir + "/docs/x", text: "not needed"},
		member{name: "pkg-1/" + pin.PackageDir + "/src/d/", kind: tar.TypeDir},
		member{name: "pkg-1/srcs/link", kind: tar.TypeSymlink, link: "elsewhere"})
	data := archive(t, members)
	pin.PackageSHA256 = hexSum(string(data))
	return data
}

func TestUnpackPackage(t *testing.T) {
	t.Parallel()
	pin := smallPin(t)
	file := filepath.Join(t.TempDir(), "pkg-1.tar.gz")
	require.NoError(t, os.WriteFile(file, smallPackage(t, &pin), 0o644))
	dir := t.TempDir()
	require.NoError(t, unpackPackage(file, pin, dir))
	require.NoError(t, verifyTree(dir, pin))
	require.NoFileExists(t, filepath.Join(dir, "docs", "x"))

	pin.PackageSHA256 = hexSum("another")
	err := unpackPackage(file, pin, t.TempDir())
	require.ErrorIs(t, err, KindDigest)
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	pin := smallPin(t)
	top := "pkg-1/" + pin.PackageDir + "/src/"
	for name, m := range map[string]member{
		"climbing name": {name: top + "../../../../x", text: "x"},
		"link":          {name: top + "x", kind: tar.TypeSymlink, link: "y"},
		"hard link":     {name: top + "x", kind: tar.TypeLink, link: "y"},
		"device":        {name: top + "x", kind: tar.TypeChar},
		"huge":          {name: top + "x", size: unpackedFileMax + 1},
		"cut short":     {name: top + "x", text: "x", size: 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			z, err := gzip.NewReader(bytes.NewReader(archive(t, []member{m})))
			require.NoError(t, err)
			require.Error(t, unpackTar(tar.NewReader(z), pin, filepath.Join(parent, "dir")))
			entries, err := filepath.Glob(filepath.Join(parent, "*", "*", "*"))
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
}

// TestFetchPackage runs a stand-in for python that saves an archive as pip would, if it was called
// with the stub in place of the package's build backend.
func TestFetchPackage(t *testing.T) {
	pin := smallPin(t)
	sdist := filepath.Join(t.TempDir(), "sdist")
	require.NoError(t, os.WriteFile(sdist, smallPackage(t, &pin), 0o644))
	bin := t.TempDir()
	python := `#!/bin/sh
set -eu
test "$1 $2 $3" = "-m pip download"
test -f "$PYTHONPATH/scikit_build_core/__init__.py"
grep -q "Name: llama_cpp_python" "$PYTHONPATH/scikit_build_core/build.py"
while [ "$1" != --dest ]; do shift; done
mkdir -p "$2"
cp "$SDIST" "$2/pkg-1.tar.gz"
test "$3" = "` + pin.Package + "==" + pin.PackageVersion + `"
`
	require.NoError(t, os.WriteFile(filepath.Join(bin, "python3"), []byte(python), 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("SDIST", sdist)
	dir := t.TempDir()
	require.NoError(t, fetchPackage(t.Context(), pin, dir, io.Discard))
	require.NoError(t, verifyTree(dir, pin))

	require.NoError(t, os.WriteFile(sdist, []byte("something else"), 0o644))
	require.ErrorIs(t, fetchPackage(t.Context(), pin, t.TempDir(), io.Discard), KindDigest)

	t.Setenv("PATH", t.TempDir())
	err := fetchPackage(t.Context(), pin, t.TempDir(), io.Discard)
	require.ErrorIs(t, err, KindTool)
	require.ErrorContains(t, err, "hint: install python3")
}
