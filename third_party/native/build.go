package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// peerPrograms are llama.cpp's own programs that norion is compared with.
func peerPrograms() []string {
	return []string{
		"llama-bench", "llama-server", "llama-perplexity", "llama-completion", "llama-tokenize",
	}
}

// job is one build: everything that was decided before cmake starts.
type job struct {
	options  Options
	pin      Pin
	source   Source
	compiler Compiler
	flags    []string
	key      string
	stage    string // <cache>/native/<key>: CMakeLists.txt, shim/, build/
	log      io.Writer
	out      io.Writer // ninja's progress
}

// newJob resolves the sources and the compiler.
func newJob(
	ctx context.Context, o Options, getenv func(string) string, out, log io.Writer,
) (*job, error) {
	pin, err := LoadPin(filepath.Join(o.Root, "third_party", "llama.cpp.pin"))
	if err != nil {
		return nil, err
	}
	c, err := probeCompiler(ctx, o.Native && !o.DL, getenv)
	if err == nil && o.CUDA {
		c.NVCC, err = probeNVCC(ctx, getenv)
	}
	if err != nil {
		return nil, err
	}
	r := resolver{pin, o.LlamaDir, o.Cache, fetchers(), log}
	source, err := r.resolve(ctx)
	if err != nil {
		return nil, err
	}
	flags := o.Flags(source.Commit, c)
	key := cacheKey(source, flags, c)
	stage := filepath.Join(o.Cache, "native", key)
	return &job{o, pin, source, c, flags, key, stage, log, out}, nil
}

func (j *job) buildDir() string { return filepath.Join(j.stage, "build") }

// run builds the targets under the build directory's lock, then calls install.
func (j *job) run(ctx context.Context, targets []string, install func() error) error {
	t, err := findTools(ctx, j.pin, j.options.Cache, j.log)
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, j.options.Cache, "native-"+j.key, j.log)
	if err != nil {
		return err
	}
	defer unlock()
	if err := j.syncStage(); err != nil {
		return err
	}
	if err := j.configure(ctx, t); err != nil {
		return err
	}
	if err := j.ninja(ctx, t, targets); err != nil {
		return err
	}
	return install()
}

// syncStage brings CMakeLists.txt and the shim into the stage and leaves equal files alone.
func (j *job) syncStage() error {
	for _, name := range []string{"CMakeLists.txt", "gcc-amx.h"} {
		third := filepath.Join(j.options.Root, "third_party", name)
		if err := copyFile(third, filepath.Join(j.stage, name), 0o644); err != nil {
			return err
		}
	}
	from, to := j.options.ShimDir(), filepath.Join(j.stage, "shim")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	keep := map[string]bool{}
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !e.Type().IsRegular() || !slices.Contains([]string{".h", ".hpp", ".cpp", ".cmake"}, ext) {
			continue
		}
		keep[e.Name()] = true
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if err := copyFile(src, dst, 0o644); err != nil {
			return err
		}
	}
	staged, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, e := range staged {
		if !keep[e.Name()] {
			if err := os.Remove(filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// configure runs cmake unless it has run to its end with the same arguments.
func (j *job) configure(ctx context.Context, t tools) error {
	args := slices.Concat([]string{
		"-S", j.stage, "-B", j.buildDir(), "-G", "Ninja", "-Wno-dev",
		"-DCMAKE_MAKE_PROGRAM=" + t.Ninja, "-DNORION_LLAMA_DIR=" + j.source.Dir,
	}, j.flags)
	shim, err := filepath.Glob(filepath.Join(j.stage, "shim", "*.cpp"))
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat([]string{t.CMake}, args, shim), "\n")))
	done := filepath.Join(j.stage, "configured")
	want := hex.EncodeToString(sum[:])
	if got, err := os.ReadFile(done); err == nil && string(got) == want {
		return nil
	}
	_, _ = fmt.Fprintf(j.log, "native: configuring llama.cpp %s (%s) from %s\n",
		j.pin.Version, j.source.Commit, j.source.From)
	if err := errors.Join(os.RemoveAll(done), os.RemoveAll(j.file("CMakeCache.txt"))); err != nil {
		return err
	}
	output, err := exec.CommandContext(ctx, t.CMake, args...).CombinedOutput()
	logFile := filepath.Join(j.stage, "configure.log")
	if e := writeFile(logFile, output, 0o644); e != nil {
		return e
	}
	if err != nil {
		_, _ = fmt.Fprintf(j.log, "%s\n", lastLines(output, 40))
		return &Error{
			Op: "configure llama.cpp", Kind: KindBuild, Field: logFile, Err: err,
			Hint: "cmake's last words are above; `go run ./third_party/native clean` begins afresh",
		}
	}
	return writeFile(done, []byte(want), 0o644)
}

func (j *job) file(name string) string { return filepath.Join(j.buildDir(), name) }

// ninja builds the targets and shows ninja's own progress.
func (j *job) ninja(ctx context.Context, t tools, targets []string) error {
	args := []string{"-C", j.buildDir()}
	if j.options.Jobs > 0 {
		args = append(args, "-j", strconv.Itoa(j.options.Jobs))
	}
	cmd := exec.CommandContext(ctx, t.Ninja, append(args, targets...)...)
	cmd.Env = append(os.Environ(), "NINJA_STATUS=[%f/%t] ")
	cmd.Stdout, cmd.Stderr = j.out, j.log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &Error{
			Op: "build llama.cpp", Kind: KindBuild, Field: j.buildDir(), Err: err,
			Hint: "the compiler's message is above; a machine that runs out of memory needs fewer " +
				"jobs: `make native JOBS=1`",
		}
	}
	return nil
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
