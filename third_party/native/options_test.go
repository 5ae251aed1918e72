package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func environment(pairs ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(key string) string { return values[key] }
}

func TestOptionsFrom(t *testing.T) {
	t.Parallel()
	o, err := OptionsFrom("root", environment("NORION_CACHE", "c"))
	require.NoError(t, err)
	require.True(t, o.Native)
	require.False(t, o.DL || o.CUDA)
	require.True(t, filepath.IsAbs(o.Cache))
	o, err = OptionsFrom("root", environment(
		"NORION_CACHE", "c", "NATIVE", "0", "DL", "1", "JOBS", "1024", "LLAMA_CPP_DIR", "x"))
	require.NoError(t, err)
	require.Equal(t, Options{
		Root: "root", Cache: o.Cache, LlamaDir: "x", DL: true, Jobs: jobsMax, GOOS: o.GOOS,
	}, o)
	o, err = OptionsFrom("root", environment("NORION_CACHE", "c", "CUDAARCHS", "90;120a"))
	require.NoError(t, err)
	require.Equal(t, "90;120a", o.CUDAArchs)
	for key, value := range map[string]string{
		"CUDA": "yes", "DL": "true", "NATIVE": "2", "JOBS": "1025",
	} {
		_, err := OptionsFrom("root", environment("NORION_CACHE", "c", key, value))
		require.ErrorIs(t, err, KindOption)
		require.ErrorContains(t, err, key)
	}
	for _, jobs := range []string{"0", "-1", "many"} {
		_, err := parseJobs(jobs)
		require.ErrorIs(t, err, KindOption)
	}
}

func TestOptionsValidate(t *testing.T) {
	t.Parallel()
	require.NoError(t, Options{GOOS: "linux", CUDA: true}.Validate())
	require.NoError(t, Options{GOOS: "darwin"}.Validate())
	require.ErrorIs(t, Options{GOOS: "darwin", CUDA: true}.Validate(), KindOption)
	require.ErrorIs(t, Options{GOOS: "windows"}.Validate(), KindOption)
}

// TestCacheKey: whatever changes the objects changes the key; what does not, does not.
func TestCacheKey(t *testing.T) {
	t.Parallel()
	source := Source{Dir: "d", ID: "id", Commit: "c", Pinned: true, From: "x"}
	c := Compiler{Version: "12", Macros: "m"}
	o := Options{GOOS: "linux", Native: true}
	key := func(s Source, o Options, c Compiler) string {
		return cacheKey(s, o.Flags(s.Commit, c), c)
	}
	base := key(source, o, c)
	require.Len(t, base, 16)

	other := o
	other.Root, other.Cache, other.Jobs = "elsewhere", "cache", 7
	moved := source
	moved.Dir, moved.From = "elsewhere", "y"
	require.Equal(t, base, key(moved, other, c))

	keys := map[string]string{"base": base}
	add := func(name, key string) {
		for n, k := range keys {
			require.NotEqual(t, k, key, "%s and %s", n, name)
		}
		keys[name] = key
	}
	add("pin", key(Source{ID: "id2", Commit: "c", Pinned: true}, o, c))
	add("unpinned", key(Source{Dir: "d", Commit: "c"}, o, c))
	add("unpinned elsewhere", key(Source{Dir: "e", Commit: "c"}, o, c))
	add("portable", key(source, Options{GOOS: "linux"}, c))
	add("DL", key(source, Options{GOOS: "linux", DL: true}, c))
	add("CUDA", key(source, Options{GOOS: "linux", Native: true, CUDA: true}, c))
	cuda := Options{GOOS: "linux", Native: true, CUDA: true, CUDAArchs: "90"}
	add("CUDA architectures", key(source, cuda, c))
	newer := c
	newer.NVCC = "13.0"
	add("nvcc", key(source, cuda, newer))
	require.Equal(t, base, key(source, Options{GOOS: "linux", Native: true, CUDAArchs: "90"}, c),
		"without CUDA its architectures say nothing")
	add("system", key(source, Options{GOOS: "darwin", Native: true}, c))
	add("compiler", key(source, o, Compiler{Version: "13", Macros: "m"}))
	add("processor", key(source, o, Compiler{Version: "12", Macros: "n"}))
	add("clang", key(source, o, Compiler{Version: "Clang 19", Macros: "m", Clang: true}))
}

func TestProbeCompiler(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o755))
		return file
	}
	gcc := script("gcc", `echo '#define __VERSION__ "12.2.0"'
case "$*" in *-march=native*) echo "#define __AVX2__ 1";; esac
case "$*" in *c++*) echo "#define __cplusplus 1";; esac
`)
	clang := script("clang", `case "$*" in *-march=native*) exit 1;; esac
echo '#define __clang__ 1'
echo '#define __VERSION__ "Clang 19"'
`)
	probe := func(native bool, cc string) Compiler {
		c, err := probeCompiler(t.Context(), native, environment("CC", cc, "CXX", cc+" -x"))
		require.NoError(t, err)
		return c
	}
	tuned, plain := probe(true, gcc), probe(false, gcc)
	require.Equal(t, "12.2.0", plain.Version)
	require.False(t, plain.Clang)
	require.NotEqual(t, plain.Macros, tuned.Macros)
	require.Equal(t, tuned, probe(true, gcc))
	require.True(t, probe(true, clang).Clang)
	require.Equal(t, probe(false, clang), probe(true, clang), "no native target: the same build")

	_, err := probeCompiler(t.Context(), true, environment("CC", filepath.Join(dir, "none")))
	require.ErrorIs(t, err, KindTool)
	require.ErrorContains(t, err, "hint: install a C and C++17 compiler")
}

func TestProbeNVCC(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "nvcc")
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\necho release $1\n"), 0o755))
	version, err := probeNVCC(t.Context(), environment("CUDACXX", file))
	require.NoError(t, err)
	require.Equal(t, "release --version\n", version)
	_, err = probeNVCC(t.Context(), environment("CUDACXX", file+"-none"))
	require.ErrorIs(t, err, KindTool)
	require.ErrorContains(t, err, "hint: install the CUDA toolkit")
}

// TestCUDAFlags: the static link line names no library for several devices; a plug-in finds its
// own.
func TestCUDAFlags(t *testing.T) {
	t.Parallel()
	const nccl = "-DGGML_CUDA_NCCL=OFF"
	flags := func(o Options) []string { return o.Flags("c", Compiler{}) }
	require.Contains(t, flags(Options{GOOS: "linux", CUDA: true}), nccl)
	require.NotContains(t, flags(Options{GOOS: "linux", CUDA: true, DL: true}), nccl)
	require.Contains(t, flags(Options{GOOS: "linux", CUDA: true, CUDAArchs: "86;90"}),
		"-DCMAKE_CUDA_ARCHITECTURES=86;90")
}

// TestLinkLine compares the link line of runtime/llama with what is built for each option.
func TestLinkLine(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("..", "..", "runtime", "llama", "link_native.go"))
	require.NoError(t, err)
	lines := regexp.MustCompile(`(?m)^#cgo ?(.*?) LDFLAGS: (.*)$`).FindAllStringSubmatch(
		string(data), -1)
	require.NotEmpty(t, lines)
	shared := []string{"llama-common", "llama", "ggml", "ggml-base"}
	for _, o := range []Options{
		{GOOS: "linux"}, {GOOS: "linux", CUDA: true}, {GOOS: "linux", DL: true}, {GOOS: "darwin"},
	} {
		tags := append(o.Tags(Compiler{}), o.GOOS)
		var linked []string
		for _, m := range lines {
			if !holds(m[1], tags) {
				continue
			}
			for _, word := range strings.Fields(m[2]) {
				if lib, ok := strings.CutPrefix(word, "-l"); ok {
					linked = append(linked, lib)
				}
			}
		}
		for _, lib := range o.Libraries() {
			if lib != "norion-shim-asan" {
				require.Contains(t, linked, lib, "%+v", o)
			}
		}
		known := slices.Concat(o.Libraries(), strings.Fields(
			"gomp stdc++ m dl pthread c++ cudart cublas cublasLt cuda"))
		if o.DL {
			known = append(known, shared...)
		}
		for _, lib := range linked {
			require.Contains(t, known, lib, "%+v", o)
		}
	}
}

// holds evaluates a #cgo constraint: a space is "or", a comma is "and", ! is "not".
func holds(constraint string, tags []string) bool {
	if constraint == "" {
		return true
	}
	return slices.ContainsFunc(strings.Fields(constraint), func(all string) bool {
		return !slices.ContainsFunc(strings.Split(all, ","), func(tag string) bool {
			name, not := strings.CutPrefix(tag, "!")
			return slices.Contains(tags, name) == not
		})
	})
}

func TestVersionAtLeast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text, least string
		want        bool
	}{
		{"cmake version 3.25.1\n", "3.20", true},
		{"cmake version 3.20.0", "3.20", true},
		{"cmake version 3.19.9", "3.20", false},
		{"cmake version 3.9.1", "3.20", false},
		{"cmake version 4.0.0", "3.20", true},
		{"cmake version 2.99", "3.20", false},
		{"nonsense", "3.20", false},
		{"", "3.20", false},
	} {
		require.Equal(t, tt.want, versionAtLeast(tt.text, tt.least), fmt.Sprint(tt))
	}
}
