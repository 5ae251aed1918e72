package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// newTestJob is a build of smallTree in a repository with a shim of one file.
func newTestJob(t testing.TB) *job {
	t.Helper()
	root, source := t.TempDir(), t.TempDir()
	plant(t, root, map[string]string{
		"third_party/CMakeLists.txt": "cmake", "third_party/gcc-amx.h": "amx",
		"runtime/llama/shim/a.cpp": "a", "runtime/llama/shim/norion.h": "h",
		"runtime/llama/shim/notes.md": "not staged",
	})
	plant(t, source, smallTree())
	plant(t, source, map[string]string{"ggml/include/ggml.h": "g", "LICENSE": "l"})
	o := Options{Root: root, Cache: t.TempDir(), GOOS: "linux", Native: true}
	src := Source{Dir: source, ID: "id", Commit: "0c1e57098", Pinned: true, From: "test"}
	return &job{
		options: o, pin: smallPin(t), source: src, compiler: Compiler{Version: "1"},
		flags: o.Flags(src.Commit, Compiler{}), key: "key",
		stage: filepath.Join(o.Cache, "native", "key"), log: io.Discard, out: io.Discard,
	}
}

func TestSyncStage(t *testing.T) {
	t.Parallel()
	j := newTestJob(t)
	names := func() string {
		files, err := treeFiles(j.stage, []string{"."})
		require.NoError(t, err)
		return strings.Join(files, " ")
	}
	require.NoError(t, j.syncStage())
	require.Equal(t, "CMakeLists.txt gcc-amx.h shim/a.cpp shim/norion.h", names())
	require.NoError(t, os.Rename(
		filepath.Join(j.options.ShimDir(), "a.cpp"), filepath.Join(j.options.ShimDir(), "b.cpp")))
	require.NoError(t, j.syncStage())
	require.Equal(t, "CMakeLists.txt gcc-amx.h shim/b.cpp shim/norion.h", names())
	require.NoError(t, os.RemoveAll(j.options.ShimDir()))
	require.NoError(t, j.syncStage())
	require.Equal(t, "CMakeLists.txt gcc-amx.h", names())
}

// TestAMXConfigurationIsWritten: what the optimiser thinks nobody reads, it does not write. The
// last byte of a tile configuration must reach memory.
func TestAMXConfigurationIsWritten(t *testing.T) {
	t.Parallel()
	c, err := probeCompiler(t.Context(), true, os.Getenv)
	require.NoError(t, err)
	if runtime.GOARCH != "amd64" || c.Clang {
		t.Skip("the header is for GCC on x86-64")
	}
	source := filepath.Join(t.TempDir(), "amx.cpp")
	require.NoError(t, os.WriteFile(source, []byte(`extern unsigned char last_row;
void load(void) {
    alignas(64) unsigned char config[64] = {1};
    config[63] = last_row;
    _tile_loadconfig(config);
}
`), 0o644))
	out, err := exec.CommandContext(t.Context(), "c++", "-O2", "-mamx-tile",
		"-include", filepath.Join("..", "gcc-amx.h"), "-S", "-o", "-", source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "ldtilecfg")
	require.Contains(t, string(out), "last_row")
}

func script(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tool")
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\nset -eu\n"+text), 0o755))
	return file
}

func TestConfigureRunsWhenSomethingChanged(t *testing.T) {
	t.Parallel()
	j := newTestJob(t)
	require.NoError(t, j.syncStage())
	calls := filepath.Join(t.TempDir(), "calls")
	good := tools{script(t, `echo "$@" >> `+calls+"\n"), "ninja"}
	bad := tools{script(t, `echo "no compiler"; exit 1`+"\n"), "ninja"}
	count := func() int {
		data, err := os.ReadFile(calls)
		require.NoError(t, err)
		return strings.Count(string(data), "-DLLAMA_BUILD_COMMIT=0c1e57098")
	}
	for range 2 {
		require.NoError(t, j.configure(t.Context(), good))
		require.Equal(t, 1, count())
	}
	plant(t, j.stage, map[string]string{"shim/new.cpp": ""})
	require.NoError(t, j.configure(t.Context(), good))
	require.Equal(t, 2, count(), "a new file of the shim")

	var log bytes.Buffer
	j.log = &log
	err := j.configure(t.Context(), bad)
	require.ErrorIs(t, err, KindBuild)
	require.Contains(t, log.String(), "no compiler")
	require.NoError(t, j.configure(t.Context(), good))
	require.Equal(t, 3, count(), "after a failure")
}

func TestNinjaFailure(t *testing.T) {
	t.Parallel()
	j := newTestJob(t)
	err := j.ninja(t.Context(), tools{"cmake", script(t, "exit 1\n")}, []string{"llama"})
	require.ErrorIs(t, err, KindBuild)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = j.ninja(ctx, tools{"cmake", script(t, "exit 1\n")}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

// built plants the libraries that the link line needs.
func built(t testing.TB, j *job, text string) {
	t.Helper()
	files := map[string]string{"bin/libllama.so.0": "shared", "x/libunused.a": "u"}
	for _, lib := range j.options.Libraries() {
		files["x/lib"+lib+".a"] = lib + text
	}
	for _, name := range peerPrograms() {
		files["bin/"+name] = name
	}
	plant(t, j.buildDir(), files)
}

func TestInstall(t *testing.T) {
	t.Parallel()
	j := newTestJob(t)
	require.NoError(t, j.syncStage())
	built(t, j, "1")
	require.NoError(t, j.install())
	dist := j.options.Dist()
	for _, name := range []string{
		"include/llama.h", "include/ggml.h", "include/norion.h", "templates/x.jinja",
		"licenses/LICENSE", "lib/libllama.a", "lib/libnorion-shim-asan.a", "tags", "goenv",
	} {
		require.FileExists(t, filepath.Join(dist, name))
	}
	require.NoFileExists(t, filepath.Join(dist, "lib", "libunused.a"))
	require.NoFileExists(t, filepath.Join(dist, "lib", "libllama.so.0"))
	info, err := readBuildInfo(dist)
	require.NoError(t, err)
	require.True(t, info.Pinned)
	require.Equal(t, j.pin.Commit, info.Commit)
	stamp := filepath.Join(j.options.Root, "runtime", "llama", "native_stamp.h")
	header, err := os.ReadFile(stamp)
	require.NoError(t, err)
	require.Contains(t, string(header), info.Stamp)

	require.NoError(t, j.install())
	again, err := readBuildInfo(dist)
	require.NoError(t, err)
	require.Equal(t, info, again, "equal builds are equal")

	built(t, j, "2")
	require.NoError(t, j.install())
	again, err = readBuildInfo(dist)
	require.NoError(t, err)
	require.NotEqual(t, info.Stamp, again.Stamp, "a changed library is seen")
}

func TestInstallOtherOptions(t *testing.T) {
	t.Parallel()
	j := newTestJob(t)
	require.NoError(t, j.syncStage())
	built(t, j, "")
	require.NoError(t, j.install())
	require.NoError(t, j.installPeers())
	bench := filepath.Join(j.options.Dist(), "peers", "llama-bench")
	info, err := os.Stat(bench)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o111)
	require.NoError(t, j.install())
	require.FileExists(t, bench)

	j.options.DL, j.key = true, "other"
	require.NoError(t, j.install())
	require.NoFileExists(t, bench, "peers of another build")
	require.NoFileExists(t, filepath.Join(j.options.Dist(), "lib", "libllama.a"))
	require.FileExists(t, filepath.Join(j.options.Dist(), "lib", "libllama.so.0"))
	tags, err := os.ReadFile(filepath.Join(j.options.Dist(), "tags"))
	require.NoError(t, err)
	require.Equal(t, "llamadl\n", string(tags))
}

// TestGoenv sources the file by a shell, in a repository whose path needs quoting.
func TestGoenv(t *testing.T) {
	t.Parallel()
	j := newTestJob(t)
	j.options.Root = filepath.Join(t.TempDir(), "it's $HOME")
	j.options.DL, j.options.CUDA = true, true
	plant(t, j.stage, map[string]string{"configure.log": "x\n-- norion-cuda-dir: /cuda/lib64\n-- y\n"})
	text, err := j.goenv()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc",
		text+`printf '%s\n' "$CGO_ENABLED" "$NORION_TAGS" "$LD_LIBRARY_PATH" "$CGO_LDFLAGS"`)
	cmd.Env = []string{"LD_LIBRARY_PATH=before"}
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, []string{
		"1", "cuda,llamadl", filepath.Join(j.options.Dist(), "lib") + ":before",
		"-O2 -g -L/cuda/lib64 -L/cuda/lib64/stubs -Wl,-rpath,/cuda/lib64", "",
	}, strings.Split(string(out), "\n"))
}

func TestIsShared(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"libllama.so": true, "libllama.so.0": true, "libllama.so.0.5.0": false,
		"libggml-cpu-haswell.so": true, "libggml-cpu-haswell.so.0": false,
		"libllama.dylib": true, "libmtmd.so": false, "libllama-server-impl.so": false,
		"libllama.a": false, "llama.so": false, "libllama.so.txt": false,
	} {
		require.Equal(t, want, isShared(name), name)
	}
}

func TestInstallNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	j := newTestJob(t)
	require.NoError(t, j.syncStage())
	built(t, j, "")
	require.NoError(t, os.Remove(j.file(filepath.Join("x", "libggml-cpu.a"))))
	err := j.install()
	require.ErrorIs(t, err, KindBuild)
	require.ErrorContains(t, err, "libggml-cpu.a")
	require.NoDirExists(t, filepath.Join(j.options.Dist(), "lib"))
}

func TestRunRefusesArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"nonsense"}, {"build", "x"}, {"digest", "a", "b"}} {
		var log bytes.Buffer
		err := run(t.Context(), args, environment("NORION_CACHE", t.TempDir()), io.Discard, &log)
		require.ErrorIs(t, err, KindOption, "%q", args)
		require.Contains(t, log.String(), "usage:")
	}
}

func TestDigestVerb(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := run(t.Context(), []string{"digest", t.TempDir()}, environment(), &out, io.Discard)
	require.ErrorIs(t, err, KindSource)
}
