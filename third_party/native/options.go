package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// cacheLayout is part of the cache key; raise it when the layout of a build directory changes.
const cacheLayout = 1

// jobsMax bounds JOBS.
const jobsMax = 1024

// Options say what is built, and from where.
type Options struct {
	Root      string // the repository
	Cache     string // NORION_CACHE; default: norion in the user's cache directory
	LlamaDir  string // LLAMA_CPP_DIR: a checkout of llama.cpp; empty: the pinned sources
	CUDA      bool   // CUDA=1: with the CUDA back end
	CUDAArchs string // CUDAARCHS=LIST, of cmake: the generations of devices to compile for
	DL        bool   // DL=1: shared libraries with one CPU plug-in per processor generation
	Native    bool   // NATIVE=0: for any x86-64-v3 or arm64 machine; default: for this machine
	Jobs      int    // JOBS=N: parallel compilations; 0: one per processor
	GOOS      string // the system that is built on and for
}

// OptionsFrom reads the options from the environment.
func OptionsFrom(root string, getenv func(string) string) (Options, error) {
	o := Options{
		Root: root, Cache: getenv("NORION_CACHE"), LlamaDir: getenv("LLAMA_CPP_DIR"),
		CUDAArchs: getenv("CUDAARCHS"), GOOS: runtime.GOOS,
	}
	var err [4]error
	o.CUDA, err[0] = parseSwitch("CUDA", getenv("CUDA"), false)
	o.DL, err[1] = parseSwitch("DL", getenv("DL"), false)
	o.Native, err[2] = parseSwitch("NATIVE", getenv("NATIVE"), true)
	o.Jobs, err[3] = parseJobs(getenv("JOBS"))
	if e := errors.Join(err[:]...); e != nil {
		return Options{}, e
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return Options{}, &Error{
				Op: "find the cache", Kind: KindOption, Field: "NORION_CACHE", Err: err,
				Hint: "set NORION_CACHE to a directory that builds may fill (about 400 MB)",
			}
		}
		o.Cache = filepath.Join(dir, "norion")
	}
	if o.Cache, err[0] = filepath.Abs(o.Cache); err[0] != nil {
		return Options{}, err[0]
	}
	return o, o.Validate()
}

// Validate refuses combinations that are not built.
func (o Options) Validate() error {
	switch {
	case o.GOOS != "linux" && o.GOOS != "darwin":
		return &Error{
			Op: "read options", Kind: KindOption, Field: "GOOS=" + o.GOOS,
			Hint: "the native part is built on Linux and macOS; on Windows use WSL, or build " +
				"with CGO_ENABLED=0 and a remote back end",
		}
	case o.CUDA && o.GOOS != "linux":
		return &Error{
			Op: "read options", Kind: KindOption, Field: "CUDA",
			Hint: "CUDA=1 needs Linux; on macOS the Metal back end is built by itself",
		}
	}
	return nil
}

func parseSwitch(name, value string, unset bool) (bool, error) {
	switch value {
	case "":
		return unset, nil
	case "1":
		return true, nil
	case "0":
		return false, nil
	}
	return false, &Error{
		Op: "read options", Kind: KindOption, Field: name + "=" + value,
		Hint: fmt.Sprintf("%s is 0 or 1", name),
	}
}

func parseJobs(value string) (int, error) {
	if value == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > jobsMax {
		return 0, &Error{
			Op: "read options", Kind: KindOption, Field: "JOBS=" + value,
			Hint: fmt.Sprintf("JOBS is a number from 1 to %d", jobsMax),
		}
	}
	return n, nil
}

// Dist is the directory that the build is installed to.
func (o Options) Dist() string { return filepath.Join(o.Root, "third_party", "dist") }

// ShimDir holds norion's own C++.
func (o Options) ShimDir() string { return filepath.Join(o.Root, "runtime", "llama", "shim") }

// Tags are the go build tags that select the matching link line in runtime/llama.
func (o Options) Tags(c Compiler) []string {
	var tags []string
	if o.CUDA {
		tags = append(tags, "cuda")
	}
	if o.DL {
		tags = append(tags, "llamadl")
	}
	if o.GOOS == "linux" && c.Clang {
		tags = append(tags, "noopenmp")
	}
	return tags
}

// Libraries are the static libraries that the link line names, without prefix and suffix.
func (o Options) Libraries() []string {
	libs := []string{"norion-shim", "norion-shim-asan"}
	if o.DL {
		return libs
	}
	libs = append(libs, "llama-common", "llama-common-base", "cpp-httplib", "llama", "ggml",
		"ggml-cpu", "ggml-base")
	if o.CUDA {
		libs = append(libs, "ggml-cuda")
	}
	if o.GOOS == "darwin" {
		libs = append(libs, "ggml-metal", "ggml-blas")
	}
	return libs
}

// Flags are cmake's settings. They are part of the cache key.
func (o Options) Flags(commit string, c Compiler) []string {
	on := func(name string, v bool) string {
		if v {
			return "-D" + name + "=ON"
		}
		return "-D" + name + "=OFF"
	}
	flags := []string{
		"-DCMAKE_BUILD_TYPE=Release",
		on("CMAKE_POSITION_INDEPENDENT_CODE", true),
		on("BUILD_SHARED_LIBS", o.DL),
		on("GGML_NATIVE", o.Native && !o.DL),
		on("GGML_OPENMP", o.GOOS == "linux" && !c.Clang),
		on("GGML_CUDA", o.CUDA),
		on("GGML_BACKEND_DL", o.DL),
		on("GGML_CPU_ALL_VARIANTS", o.DL),
		on("GGML_METAL_EMBED_LIBRARY", true),
		on("CMAKE_BUILD_WITH_INSTALL_RPATH", o.DL),
		"-DCMAKE_INSTALL_RPATH=$ORIGIN",
		on("LLAMA_ALL_WARNINGS", false),
		on("LLAMA_OPENSSL", false),
		on("LLAMA_BUILD_COMMON", true),
		on("LLAMA_BUILD_TOOLS", true), // targets of `peers`; `build` names its own
		on("LLAMA_BUILD_SERVER", true),
		on("LLAMA_BUILD_APP", false),
		on("LLAMA_BUILD_UI", false),
		on("LLAMA_USE_PREBUILT_UI", false),
		"-DLLAMA_BUILD_NUMBER=0",
		"-DLLAMA_BUILD_COMMIT=" + commit,
		on("GIT_EXE", false), // else ggml would ask the git repository around the cache
	}
	if !o.CUDA {
		return flags
	}
	if !o.DL {
		flags = append(flags, on("GGML_CUDA_NCCL", false)) // go's link line does not name it
	}
	if o.CUDAArchs != "" {
		flags = append(flags, "-DCMAKE_CUDA_ARCHITECTURES="+o.CUDAArchs)
	}
	return flags
}

// Compiler is what the key must know about the C and C++ compilers.
type Compiler struct {
	Version string // first line of cc --version
	Clang   bool
	Macros  string // digest of everything that both predefine, for this machine when native
	NVCC    string // what nvcc says of its version; empty without CUDA
}

// probeCompiler asks the compilers what they are. The predefined macros name the version and, with
// -march=native, every instruction set of this machine's processor.
func probeCompiler(ctx context.Context, native bool, getenv func(string) string) (Compiler, error) {
	var c Compiler
	h := sha256.New()
	for _, try := range []struct{ env, name, lang string }{
		{"CC", "cc", "c"},
		{"CXX", "c++", "c++"},
	} {
		cmd := strings.Fields(getenv(try.env))
		if len(cmd) == 0 {
			cmd = []string{try.name}
		}
		macros, err := predefined(ctx, cmd, try.lang)
		if err != nil {
			return c, &Error{
				Op: "find a compiler", Kind: KindTool, Field: cmd[0], Err: err,
				Hint: "install a C and C++17 compiler (Debian: apt-get install g++; Fedora: " +
					"dnf install gcc-c++; macOS: xcode-select --install), or set CC and CXX",
			}
		}
		if native {
			// A compiler that knows no native target builds the same for every machine.
			if tuned, err := predefined(ctx, cmd, try.lang, "-march=native"); err == nil {
				macros = tuned
			}
		}
		_, _ = fmt.Fprintf(h, "%s\n%s\n", try.lang, macros)
		if try.lang == "c" {
			c.Clang = strings.Contains(macros, "#define __clang__ ")
			c.Version = macro(macros, "__VERSION__")
		}
	}
	c.Macros = hex.EncodeToString(h.Sum(nil))
	return c, nil
}

// probeNVCC asks CUDA's compiler for its version. CUDACXX names it where PATH does not.
func probeNVCC(ctx context.Context, getenv func(string) string) (string, error) {
	nvcc := cmp.Or(getenv("CUDACXX"), "nvcc")
	out, err := exec.CommandContext(ctx, nvcc, "--version").Output()
	if err != nil {
		return "", &Error{
			Op: "find nvcc", Kind: KindTool, Field: nvcc, Err: err,
			Hint: "install the CUDA toolkit and put its bin directory on PATH, or set CUDACXX",
		}
	}
	return string(out), nil
}

// predefined lists the macros that a compiler defines by itself.
func predefined(ctx context.Context, cmd []string, lang string, flags ...string) (string, error) {
	args := slices.Concat(cmd[1:], flags, []string{"-dM", "-E", "-x", lang, os.DevNull})
	out, err := exec.CommandContext(ctx, cmd[0], args...).Output()
	return string(out), err
}

func macro(macros, name string) string {
	m := regexp.MustCompile(`(?m)^#define ` + name + ` "?(.*?)"?$`).FindStringSubmatch(macros)
	if m == nil {
		return "unknown"
	}
	return m[1]
}

// cacheKey names the build directory: what is built, how, and by which compiler for which machine.
func cacheKey(source Source, flags []string, c Compiler) string {
	id := source.ID
	if !source.Pinned {
		id = source.Dir // a checkout that is being worked on keeps its build directory
	}
	parts := []any{cacheLayout, source.Pinned, id, flags, c.Version, c.Macros}
	if c.NVCC != "" {
		parts = append(parts, c.NVCC)
	}
	data, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings and booleans always marshal
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])[:16]
}
