package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// smallTree is a tree of three groups.
func smallTree() map[string]string {
	return map[string]string{
		"include/llama.h": "h", "src/a.cpp": "a", "tools/t.cpp": "t", "models/templates/x.jinja": "j",
	}
}

// smallPin pins smallTree.
func smallPin(t testing.TB) Pin {
	t.Helper()
	dir := t.TempDir()
	plant(t, dir, smallTree())
	pin, err := LoadPin(pinFile)
	require.NoError(t, err)
	for group, paths := range map[*Group][]string{
		&pin.Build: {"include", "src"}, &pin.Peers: {"tools"}, &pin.Templates: {"models/templates"},
	} {
		group.Paths = paths
		group.SHA256, err = treeDigest(dir, paths)
		require.NoError(t, err)
	}
	return pin
}

// fake is a fetcher that gives a tree or fails, and counts its calls.
type fake struct {
	files map[string]string
	err   error
	calls int
}

func (f *fake) fetcher(t testing.TB, name string) fetcher {
	return fetcher{name, func(_ context.Context, _ Pin, dir string, _ io.Writer) error {
		f.calls++
		plant(t, dir, f.files)
		return f.err
	}}
}

type setting struct {
	r           resolver
	first, next *fake
	log         *bytes.Buffer
}

func newSetting(t testing.TB) *setting {
	t.Helper()
	s := &setting{first: &fake{files: smallTree()}, next: &fake{files: smallTree()}}
	s.log = &bytes.Buffer{}
	s.r = resolver{smallPin(t), "", t.TempDir(), []fetcher{
		s.first.fetcher(t, "first"), s.next.fetcher(t, "next"),
	}, s.log}
	return s
}

func (s *setting) cached() string { return filepath.Join(s.r.cache, "src", s.r.pin.ID()) }

func wrongTree() map[string]string {
	files := smallTree()
	files["src/a.cpp"] = "b"
	return files
}

func TestResolveFetchesOnce(t *testing.T) {
	t.Parallel()
	s := newSetting(t)
	got, err := s.r.resolve(t.Context())
	require.NoError(t, err)
	require.Equal(t, Source{
		s.cached(), s.r.pin.ID(), s.r.pin.Commit[:9], true, "first",
	}, got)
	got, err = s.r.resolve(t.Context())
	require.NoError(t, err)
	require.Equal(t, "the cache", got.From)
	require.Equal(t, [2]int{1, 0}, [2]int{s.first.calls, s.next.calls})
}

func TestResolveRefusesMismatch(t *testing.T) {
	t.Parallel()
	t.Run("fetched", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		s.first.files = wrongTree()
		got, err := s.r.resolve(t.Context())
		require.NoError(t, err)
		require.Equal(t, "next", got.From)
		require.Contains(t, s.log.String(), string(KindDigest))
	})
	t.Run("fetched by all", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		s.first.files = wrongTree()
		delete(s.next.files, "tools/t.cpp")
		_, err := s.r.resolve(t.Context())
		require.ErrorIs(t, err, KindSource)
		require.ErrorIs(t, err, KindDigest)
		require.NoDirExists(t, s.cached())
	})
	t.Run("cached", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		plant(t, s.cached(), wrongTree())
		got, err := s.r.resolve(t.Context())
		require.NoError(t, err)
		require.Equal(t, "first", got.From)
		require.Contains(t, s.log.String(), "REFUSED")
		require.NoError(t, verifyTree(got.Dir, s.r.pin))
	})
	t.Run("cached, with a file too many", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		plant(t, s.cached(), smallTree())
		plant(t, s.cached(), map[string]string{"src/extra.h": ""})
		_, err := s.r.resolve(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, s.first.calls)
	})
}

func TestResolveFallsThrough(t *testing.T) {
	t.Parallel()
	s := newSetting(t)
	s.first.err = errors.New("no network")
	got, err := s.r.resolve(t.Context())
	require.NoError(t, err)
	require.Equal(t, "next", got.From)
	s = newSetting(t)
	s.first.err, s.next.err = errors.New("no network"), errors.New("no git")
	_, err = s.r.resolve(t.Context())
	require.ErrorIs(t, err, KindSource)
	require.ErrorContains(t, err, "no network")
	require.ErrorContains(t, err, "no git")
	require.ErrorContains(t, err, "LLAMA_CPP_DIR")
	left, err := os.ReadDir(filepath.Dir(s.cached()))
	require.NoError(t, err)
	require.Empty(t, left, "a failed fetch leaves nothing")
}

func TestResolveStopsWhenCanceled(t *testing.T) {
	t.Parallel()
	s := newSetting(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.r.fetchers[0].get = func(context.Context, Pin, string, io.Writer) error {
		cancel()
		return errors.New("killed")
	}
	_, err := s.r.resolve(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, s.next.calls)
}

func TestCheckout(t *testing.T) {
	t.Parallel()
	t.Run("pinned is copied to the cache", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		s.r.llamaDir = t.TempDir()
		plant(t, s.r.llamaDir, smallTree())
		got, err := s.r.resolve(t.Context())
		require.NoError(t, err)
		require.True(t, got.Pinned)
		require.Equal(t, s.cached(), got.Dir)
		require.NoError(t, verifyTree(got.Dir, s.r.pin))
		require.Zero(t, s.first.calls)
	})
	t.Run("unpinned is used in place, loudly", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		s.r.llamaDir = t.TempDir()
		plant(t, s.r.llamaDir, wrongTree())
		got, err := s.r.resolve(t.Context())
		require.NoError(t, err)
		require.False(t, got.Pinned)
		require.Equal(t, s.r.llamaDir, got.Dir)
		require.Contains(t, got.Commit, "unpinned")
		require.Contains(t, s.log.String(), "UNPINNED")
		require.NoDirExists(t, s.cached())
	})
	t.Run("goes before the cache", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		plant(t, s.cached(), smallTree())
		s.r.llamaDir = t.TempDir()
		plant(t, s.r.llamaDir, wrongTree())
		got, err := s.r.resolve(t.Context())
		require.NoError(t, err)
		require.False(t, got.Pinned)
	})
	t.Run("must be a llama.cpp tree", func(t *testing.T) {
		t.Parallel()
		s := newSetting(t)
		s.r.llamaDir = t.TempDir()
		_, err := s.r.resolve(t.Context())
		require.ErrorIs(t, err, KindSource)
		require.ErrorContains(t, err, "LLAMA_CPP_DIR")
		require.Zero(t, s.first.calls, "a named checkout is never replaced in silence")
	})
}

func TestFetchGit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	repository := t.TempDir()
	plant(t, repository, smallTree())
	plant(t, repository, map[string]string{"docs/not-needed": "x"})
	git := func(args ...string) string {
		args = append([]string{"-C", repository, "-c", "user.name=n", "-c", "user.email=n@n"}, args...)
		out, err := exec.CommandContext(t.Context(), "git", args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "-m", "all")
	pin := smallPin(t)
	pin.Repository, pin.Commit = repository, git("rev-parse", "HEAD")
	dir := t.TempDir()
	require.NoError(t, fetchGit(t.Context(), pin, dir, io.Discard))
	require.NoError(t, verifyTree(dir, pin))
	require.NoFileExists(t, filepath.Join(dir, "docs", "not-needed"))
	pin.Commit = strings.Repeat("0", 40)
	require.Error(t, fetchGit(t.Context(), pin, t.TempDir(), io.Discard))
}
