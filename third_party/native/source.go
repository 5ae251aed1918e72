package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Source is a tree of llama.cpp on this machine.
type Source struct {
	Dir    string // absolute
	ID     string // Pin.ID when pinned
	Commit string // what the build information will say
	Pinned bool   // every byte is the pinned one
	From   string // where it came from, for people
}

// fetcher gets the groups of the tree into an empty directory.
type fetcher struct {
	name string
	get  func(ctx context.Context, pin Pin, dir string, log io.Writer) error
}

// fetchers lists the ways to get the sources from outside, best first.
func fetchers() []fetcher {
	return []fetcher{{"the Python package", fetchPackage}, {"git", fetchGit}}
}

// resolver finds the sources: LLAMA_CPP_DIR, the cache, then each fetcher in turn.
type resolver struct {
	pin      Pin
	llamaDir string
	cache    string
	fetchers []fetcher
	log      io.Writer
}

// resolve gives the first source that is there and is the pinned one. Only LLAMA_CPP_DIR may
// differ from the pin, which is then said loudly.
func (r resolver) resolve(ctx context.Context) (Source, error) {
	unlock, err := lock(ctx, r.cache, "source-"+r.pin.ID(), r.log)
	if err != nil {
		return Source{}, err
	}
	defer unlock()
	dir := filepath.Join(r.cache, "src", r.pin.ID())
	pinned := Source{Dir: dir, ID: r.pin.ID(), Commit: r.pin.Commit[:9], Pinned: true}
	if r.llamaDir != "" {
		return r.checkout(ctx, pinned)
	}
	if ok, err := r.cached(dir); ok || err != nil {
		pinned.From = "the cache"
		return pinned, err
	}
	var failed []error
	for _, f := range r.fetchers {
		_, _ = fmt.Fprintf(r.log, "native: getting llama.cpp %s (%s) by %s\n",
			r.pin.Version, r.pin.Commit[:9], f.name)
		err := fillDir(dir, func(tmp string) error {
			if err := f.get(ctx, r.pin, tmp, r.log); err != nil {
				return err
			}
			return verifyTree(tmp, r.pin)
		})
		if err == nil {
			pinned.From = f.name
			return pinned, nil
		}
		if ctx.Err() != nil {
			return Source{}, ctx.Err()
		}
		_, _ = fmt.Fprintf(r.log, "native: not by %s: %v\n", f.name, err)
		failed = append(failed, fmt.Errorf("%s: %w", f.name, err))
	}
	return Source{}, &Error{
		Op: "get llama.cpp", Kind: KindSource, Err: errors.Join(failed...),
		Hint: "needs python3 with pip, or git, and a network; or set LLAMA_CPP_DIR to a checkout of " +
			r.pin.Repository + " at " + r.pin.Commit,
	}
}

// cached says whether the cache holds the pinned tree. A tree that differs is refused and removed.
func (r resolver) cached(dir string) (bool, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err := verifyTree(dir, r.pin)
	if err == nil {
		return true, nil
	}
	_, _ = fmt.Fprintf(r.log, "native: REFUSED the cached sources, they are removed: %v\n", err)
	if err := os.RemoveAll(dir); err != nil {
		return false, cacheError(r.cache, err)
	}
	return false, nil
}

// checkout uses LLAMA_CPP_DIR: a copy in the cache when it is the pinned tree, else in place.
func (r resolver) checkout(ctx context.Context, pinned Source) (Source, error) {
	dir, err := filepath.Abs(r.llamaDir)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "include", "llama.h"))
	}
	if err != nil {
		return Source{}, &Error{
			Op: "use the checkout", Kind: KindSource, Field: "LLAMA_CPP_DIR", Err: err,
			Hint: "LLAMA_CPP_DIR must be the top of a llama.cpp tree, or empty",
		}
	}
	err = verifyTree(dir, r.pin)
	if err == nil {
		pinned.From = "LLAMA_CPP_DIR"
		if verifyTree(pinned.Dir, r.pin) == nil {
			return pinned, nil
		}
		return pinned, fillDir(pinned.Dir, func(tmp string) error {
			return copyGroups(dir, tmp, r.pin.Groups())
		})
	}
	_, _ = fmt.Fprintf(r.log, "native: *** UNPINNED: LLAMA_CPP_DIR=%s is not the pinned llama.cpp\n"+
		"native: *** %v\n", r.llamaDir, err)
	return Source{Dir: dir, Commit: gitHead(ctx, dir), From: "LLAMA_CPP_DIR, unpinned"}, nil
}

func gitHead(ctx context.Context, dir string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "rev-parse", "--short=9", "HEAD").Output()
	if err != nil {
		return "unpinned"
	}
	return strings.TrimSpace(string(out)) + "-unpinned"
}

// fetchGit gets the pinned commit, and only that, by git.
func fetchGit(ctx context.Context, pin Pin, dir string, log io.Writer) error {
	work, err := os.MkdirTemp("", "norion-git-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"fetch", "--depth=1", pin.Repository, pin.Commit},
		{"-c", "core.autocrlf=false", "-c", "advice.detachedHead=false", "checkout", "FETCH_HEAD"},
	} {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", work}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("git %s: %w", args[0], err)
		}
	}
	return copyGroups(work, dir, pin.Groups())
}
