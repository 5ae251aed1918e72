// Command native brings llama.cpp into the repository's build: it gets the pinned sources, verifies
// them, builds them with norion's shim, and installs headers and libraries to third_party/dist.
//
// It owns the pin, the cache of builds and third_party/dist. It must not know what norion does with
// the libraries: the link line in runtime/llama and this program meet in the names of files only.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
)

const usage = `usage: go run ./third_party/native VERB

  build    fetch, verify and build llama.cpp and the shim; install to third_party/dist
  peers    build llama.cpp's own programs from the same tree and flags, to third_party/dist/peers
  strict   compile the shim with every warning an error
  fetch    only get and verify the sources; print their directory
  env      print the decisions as KEY=VALUE lines
  digest DIR   print the digests that a tree would have in the pin file
  clean    remove third_party/dist and this configuration's build from the cache

environment: LLAMA_CPP_DIR, NORION_CACHE, CUDA=1, CUDAARCHS, DL=1, NATIVE=0, JOBS,
  CC, CXX, CUDACXX
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; the same command goes on from here")
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "native:", err)
		os.Exit(1)
	}
}

func run(
	ctx context.Context, args []string, getenv func(string) string, out, log io.Writer,
) error {
	if len(args) == 0 || len(args) > 2 || len(args) == 2 && args[0] != "digest" {
		_, _ = io.WriteString(log, usage)
		return &Error{Op: "read arguments", Kind: KindOption, Hint: "name one verb"}
	}
	root, err := findRoot()
	if err != nil {
		return err
	}
	if args[0] == "digest" && len(args) == 2 {
		return printDigests(root, args[1], out)
	}
	o, err := OptionsFrom(root, getenv)
	if err != nil {
		return err
	}
	verbs := map[string]func(context.Context, *job, io.Writer) error{
		"build": build, "peers": peers, "strict": strict, "fetch": fetch, "env": env, "clean": clean,
	}
	verb, ok := verbs[args[0]]
	if !ok {
		_, _ = io.WriteString(log, usage)
		return &Error{Op: "read arguments", Kind: KindOption, Field: args[0], Hint: "no such verb"}
	}
	j, err := newJob(ctx, o, getenv, out, log)
	if err != nil {
		return err
	}
	return verb(ctx, j, out)
}

// findRoot is the nearest directory above that holds the pin file.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "third_party", "llama.cpp.pin")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", &Error{
				Op: "find the repository", Kind: KindOption,
				Err: errors.New("no third_party/llama.cpp.pin here or above"), Hint: "run it in a clone",
			}
		}
		dir = up
	}
}

// libraryTargets are what norion links; ggml brings the back ends, as plug-ins with DL=1.
func libraryTargets() []string {
	return []string{"norion-shim", "norion-shim-asan", "llama", "llama-common", "ggml"}
}

func build(ctx context.Context, j *job, out io.Writer) error {
	if err := j.run(ctx, libraryTargets(), j.install); err != nil {
		return err
	}
	kind := "UNPINNED"
	if j.source.Pinned {
		kind = "pinned"
	}
	_, err := fmt.Fprintf(out, "native: llama.cpp %s %s (%s) is in third_party/dist\n",
		j.pin.Version, j.source.Commit, kind)
	return err
}

func peers(ctx context.Context, j *job, out io.Writer) error {
	install := func() error { return errors.Join(j.install(), j.installPeers()) }
	if err := j.run(ctx, append(libraryTargets(), peerPrograms()...), install); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "native: llama.cpp's own programs are in third_party/dist/peers")
	return err
}

func strict(ctx context.Context, j *job, _ io.Writer) error {
	return j.run(ctx, []string{"norion-shim-strict"}, func() error { return nil })
}

func fetch(_ context.Context, j *job, out io.Writer) error {
	_, err := fmt.Fprintln(out, j.source.Dir)
	return err
}

func env(_ context.Context, j *job, out io.Writer) error {
	_, err := fmt.Fprintf(out, "cache=%s\nkey=%s\nsource=%s\npinned=%t\ncompiler=%s\ntags=%v\n",
		j.options.Cache, j.key, j.source.Dir, j.source.Pinned, j.compiler.Version,
		j.options.Tags(j.compiler))
	return err
}

func clean(_ context.Context, j *job, _ io.Writer) error {
	return errors.Join(os.RemoveAll(j.options.Dist()), os.RemoveAll(j.stage))
}

func printDigests(root, dir string, out io.Writer) error {
	pin, err := LoadPin(filepath.Join(root, "third_party", "llama.cpp.pin"))
	if err != nil {
		return err
	}
	for _, g := range pin.Groups() {
		sum, err := treeDigest(dir, g.Paths)
		if err != nil {
			return &Error{Op: "digest tree", Kind: KindSource, Field: g.Name, Err: err}
		}
		if _, err := fmt.Fprintf(out, "%s_sha256 = %s\n", g.Name, sum); err != nil {
			return err
		}
	}
	return nil
}
