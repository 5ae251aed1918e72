package store_test

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/store"
	"github.com/norion/norion/runtime/store/storetest"
)

func TestPullByNameAndAlias(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	o := newOrigin(t, data)
	e := entry(t, "smol:1", data, urlSource(o.URL))
	e.Aliases = []store.Name{name(t, "smol")}
	s := open(t, func(o *store.Options) { o.Catalogue = catalogue(e) })

	_, err := s.Resolve(t.Context(), "smol")
	require.Contains(t, asError(t, err, store.ErrNotPulled).Hint, "norion pull smol:1")
	m, err := s.Pull(t.Context(), "smol", store.PullOptions{})
	require.NoError(t, err)
	require.Equal(t, "smol:1", m.Name.String())
	again, err := s.Pull(t.Context(), "smol:1", store.PullOptions{})
	require.NoError(t, err)
	require.Equal(t, m, again)
	require.Len(t, o.seen(), 1, "the second pull downloads nothing")
	for _, ref := range []string{"smol", "smol:1"} {
		require.Equal(t, m, requireWhole(t, s, ref, data))
	}
}

func TestUnknownModelSuggests(t *testing.T) {
	t.Parallel()
	s := open(t, func(o *store.Options) { o.Catalogue = nil })
	for ref, want := range map[string]string{
		"smolm2:135m":  "smollm2:135m",
		"gemma3:270":   "gemma3:270m",
		"qwen":         "qwen2.5",
		"qwen3:9b":     "qwen3:8b",
		"lama3.2":      "llama3.2",
		"nothing-like": "norion list",
	} {
		_, err := s.Pull(t.Context(), ref, store.PullOptions{})
		require.Contains(t, asError(t, err, store.ErrUnknownModel).Hint, want)
		_, err = s.Resolve(t.Context(), ref)
		e := asError(t, err, store.ErrUnknownModel)
		require.Contains(t, e.Hint, want)
		require.Contains(t, e.Hint, ".gguf")
	}
}

func TestResolvePaths(t *testing.T) {
	data := modelBytes(1)
	dir := t.TempDir()
	t.Chdir(dir)
	for _, f := range []string{"m.gguf", "M.GGUF", "plain"} {
		require.NoError(t, os.WriteFile(f, data, 0o644))
	}
	require.NoError(t, os.Mkdir("d.gguf", 0o755))
	s := open(t, nil)
	for _, ref := range []string{
		"m.gguf", "M.GGUF", "plain", "./plain", filepath.Join(dir, "m.gguf"),
	} {
		m, err := s.Resolve(t.Context(), ref)
		require.NoError(t, err, ref)
		require.True(t, filepath.IsAbs(m.Path))
		require.Equal(t, int64(len(data)), m.SizeBytes)
		require.True(t, m.Name.IsZero())
	}
	for ref, kind := range map[string]store.Kind{
		"no.gguf": store.ErrNotFound, "./no": store.ErrNotFound, "d.gguf": store.ErrNotModel,
		"./": store.ErrNotModel, "a\x00.gguf": store.ErrNotFound, "m.gguf/x": store.ErrNotFound,
	} {
		_, err := s.Resolve(t.Context(), ref)
		requireError(t, err, kind)
	}
	require.Error(t, s.Verify(t.Context(), "./plain", nil), "a path has no record to verify")
}

func TestResolveWithoutPermission(t *testing.T) {
	t.Parallel()
	storetest.ObeyModes(t)
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	p := filepath.Join(dir, "model.gguf")
	require.NoError(t, os.WriteFile(p, modelBytes(1), 0o600))
	s := open(t, nil)
	_, err := s.Resolve(t.Context(), p)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(p, 0))
	_, err = s.Resolve(t.Context(), p)
	require.NotEmpty(t, asError(t, err, store.ErrPermission).Hint)
	require.NoError(t, os.Chmod(p, 0o600))
	require.NoError(t, os.Chmod(dir, 0))
	_, err = s.Resolve(t.Context(), p)
	require.NotEmpty(t, asError(t, err, store.ErrPermission).Hint, "in a directory without permission")
	require.NoError(t, os.Chmod(dir, 0o700)) // or nobody can clean up
}

func TestPermissionIsTyped(t *testing.T) {
	t.Parallel()
	data := modelBytes(1)
	s := open(t, func(o *store.Options) {
		o.OpenDir = faulty(disk.Faults{Fail: func(op disk.Op, n string, _ int) error {
			if op == disk.OpOpen && strings.HasPrefix(n, "partial/") {
				return fs.ErrPermission
			}
			return nil
		}}, nil)
	})
	_, err := s.Add(t.Context(), entry(t, "m:1", data, fileSource(t, data)), store.PullOptions{})
	require.NotEmpty(t, asError(t, err, store.ErrPermission).Hint)
}

func TestTermsMustBeShown(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	o := newOrigin(t, data)
	e := entry(t, "m:1", data, urlSource(o.URL))
	e.Licence = store.Licence{Name: "x", Title: "X Terms", Notice: "read them"}
	s := open(t, nil)
	_, err := s.Add(t.Context(), e, store.PullOptions{})
	requireError(t, err, store.ErrTerms)
	refused := errors.New("no")
	_, err = s.Add(t.Context(), e, store.PullOptions{
		Terms: func(store.Licence) error { return refused },
	})
	require.ErrorIs(t, asError(t, err, store.ErrTerms), refused)
	require.Empty(t, o.seen(), "nothing is downloaded before")
	var shown []store.Licence
	show := store.PullOptions{Terms: func(l store.Licence) error {
		shown = append(shown, l)
		return nil
	}}
	m, err := s.Add(t.Context(), e, show)
	require.NoError(t, err)
	require.Equal(t, e.Licence, m.Licence)
	_, err = s.Add(t.Context(), e, show)
	require.NoError(t, err)
	require.Equal(t, []store.Licence{e.Licence}, shown, "once, at the download")
}

func TestPullRefusesWhatIsNoModel(t *testing.T) {
	t.Parallel()
	whole := modelBytes(10)
	for why, data := range map[string][]byte{
		"empty": {}, "text": []byte("<html>not found</html>"), "magic only": []byte("GGUF"),
		"truncated": whole[:len(whole)/2],
		"version":   gguftest.File{Version: 99}.Bytes(),
		"a part":    gguftest.Model().Split(2)[0].Bytes(),
	} {
		s := open(t, nil)
		_, err := s.Add(t.Context(), entry(t, "m:1", data, fileSource(t, data)),
			store.PullOptions{})
		require.ErrorIs(t, err, store.ErrNotModel, why)
		requireNone(t, s, false)
	}
}

func TestSecondSourceIsTried(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	gone, good := newOrigin(t, data), newOrigin(t, data)
	gone.set(func() { gone.status = 404 })
	e := entry(t, "m:1", data, urlSource(gone.URL))
	e.Sources = append(e.Sources, urlSource(good.URL))
	s := open(t, nil)
	m, err := s.Add(t.Context(), e, store.PullOptions{})
	require.NoError(t, err)
	require.Equal(t, good.URL, m.Source)

	gone.set(func() { gone.status, gone.data = 0, flip(data, 5000) })
	m, err = open(t, nil).Add(t.Context(), e, store.PullOptions{})
	require.NoError(t, err, "a source with other bytes is like one without")
	require.Equal(t, good.URL, m.Source)

	gone.set(func() { gone.status = 404 })
	good.set(func() { good.status = 500 })
	s = open(t, nil)
	_, err = s.Add(t.Context(), e, store.PullOptions{})
	requireError(t, err, store.ErrUnavailable)
	require.ErrorIs(t, err, store.ErrNetwork, "both failures are told")
}

func TestLocalFileLinkedAndCopied(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	for _, link := range []bool{false, true} {
		root := filepath.Join(t.TempDir(), "models")
		p := filepath.Join(filepath.Dir(root), "mine.gguf")
		require.NoError(t, os.WriteFile(p, data, 0o644))
		via := p + ".link"
		require.NoError(t, os.Symlink(p, via))
		s := openAt(t, root, nil)
		src := store.Source{Kind: store.SourceFile, Path: via, Link: link}
		e := entry(t, "m:1", data, src)
		for range 2 { // the second time the blob is there already
			m, err := s.Add(t.Context(), e, store.PullOptions{})
			require.NoError(t, err)
			requireWhole(t, s, "m:1", data)
			a, err := os.Stat(p)
			require.NoError(t, err)
			b, err := os.Stat(m.Path)
			require.NoError(t, err)
			require.Equal(t, link, os.SameFile(a, b))
			require.NoError(t, os.Remove(filepath.Join(root, "manifests", "m@1.json")))
			e.SHA256, e.UnverifiedOffline = store.Digest{}, true // so that it is linked again
		}
		require.Empty(t, files(t, s, "partial"))
		require.FileExists(t, p)
	}
	s := open(t, nil)
	src := store.Source{Kind: store.SourceFile, Path: filepath.Join(t.TempDir(), "no")}
	_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
	requireError(t, err, store.ErrNotFound)
}

// A pull that was killed between linking and publishing leaves a part that is the user's own file.
// No later pull may write to it.
func TestLinkedPartIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	mine, data := []byte("precious"), modelBytes(10)
	o := newOrigin(t, data)
	for kind, src := range map[string]store.Source{
		"https": urlSource(o.URL), "file": fileSource(t, data),
	} {
		root := filepath.Join(t.TempDir(), "models")
		s := openAt(t, root, nil)
		p := filepath.Join(filepath.Dir(root), "mine")
		require.NoError(t, os.WriteFile(p, mine, 0o644))
		require.NoError(t, os.Link(p, filepath.Join(root, "partial", "m@1.part")))
		_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
		require.NoError(t, err, kind)
		requireWhole(t, s, "m:1", data)
		got, err := os.ReadFile(p)
		require.NoError(t, err)
		require.Equal(t, mine, got, kind)
	}
}

// A link that the file system refuses becomes a copy.
func TestLocalFileLinkFallsBack(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	s := open(t, func(o *store.Options) {
		o.OpenDir = faulty(disk.Faults{Fail: func(op disk.Op, _ string, _ int) error {
			if op == disk.OpLink {
				return errors.New("cross-device link")
			}
			return nil
		}}, nil)
	})
	src := fileSource(t, data)
	src.Link = true
	_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
	require.NoError(t, err)
	requireWhole(t, s, "m:1", data)
}

func TestTemplateIsKept(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	e := entry(t, "m:1", data, fileSource(t, data))
	e.Template = "llama.cpp:some-model"
	have := func(o *store.Options) {
		o.Templates = func(n string) (string, error) { return "{{ " + n + " }}", nil }
	}
	root := filepath.Join(t.TempDir(), "models")
	s := openAt(t, root, have)
	m, err := s.Add(t.Context(), e, store.PullOptions{})
	require.NoError(t, err)
	require.Equal(t, "{{ llama.cpp:some-model }}", m.Template)
	m, err = openAt(t, root, nil).Resolve(t.Context(), "m:1")
	require.NoError(t, err)
	require.Equal(t, "{{ llama.cpp:some-model }}", m.Template, "it was stored")
	require.Equal(t, e.Template, m.TemplateName)

	for _, lookup := range []func(string) (string, error){
		nil,
		func(string) (string, error) { return "", errors.New("no such template") },
		func(string) (string, error) { return strings.Repeat("x", 1<<20+1), nil },
	} {
		root := filepath.Join(t.TempDir(), "models")
		s := openAt(t, root, func(o *store.Options) { o.Templates = lookup })
		m, err := s.Add(t.Context(), e, store.PullOptions{})
		require.NoError(t, err)
		require.Empty(t, m.Template)
		require.Equal(t, e.Template, m.TemplateName)
		m, err = openAt(t, root, have).Resolve(t.Context(), "m:1")
		require.NoError(t, err)
		require.NotEmpty(t, m.Template, "found later")
	}
}

func TestTwoPullsAtOnce(t *testing.T) {
	t.Parallel()
	data := modelBytes(600)
	o := newOrigin(t, data)
	e := entry(t, "m:1", data, urlSource(o.URL))
	root := filepath.Join(t.TempDir(), "models")
	const pulls = 4
	stores := make([]*store.Store, pulls)
	for i := range stores { // each has its own descriptors, as another process has
		stores[i] = openAt(t, root, func(o *store.Options) { o.Catalogue = catalogue(e) })
	}
	models, errs := make([]store.Model, pulls), make([]error, pulls)
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			models[i], errs[i] = s.Pull(t.Context(), "m:1", store.PullOptions{})
		})
	}
	wg.Wait()
	for i := range stores {
		require.NoError(t, errs[i])
		require.Equal(t, models[0], models[i])
	}
	require.Len(t, o.seen(), 1, "one downloads, the others wait")
	requireWhole(t, stores[0], "m:1", data)
}

func TestWaitingPullGivesUp(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	e := entry(t, "m:1", data, fileSource(t, data))
	s := open(t, func(o *store.Options) { o.Catalogue = catalogue(e) })
	dir, err := disk.OpenDir(s.Root())
	require.NoError(t, err)
	defer func() { require.NoError(t, dir.Close()) }()
	unlock, ok, err := dir.TryLock("locks/m@1")
	require.NoError(t, err)
	require.True(t, ok)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.Pull(ctx, "m:1", store.PullOptions{Progress: func(p store.Progress) {
		require.Equal(t, store.StageWait, p.Stage)
		cancel()
	}})
	require.ErrorIs(t, asError(t, err, store.ErrCanceled), context.Canceled)
	ctx, cancel = context.WithDeadline(t.Context(), now.AddDate(-10, 0, 0))
	defer cancel()
	_, err = s.Pull(ctx, "m:1", store.PullOptions{})
	require.ErrorIs(t, asError(t, err, store.ErrLocked), context.DeadlineExceeded)
	require.NoError(t, unlock())
	_, err = s.Pull(t.Context(), "m:1", store.PullOptions{})
	require.NoError(t, err)

	unlock, ok, err = dir.TryLock("locks/m@1")
	require.NoError(t, err)
	require.True(t, ok)
	_, err = s.Remove(t.Context(), "m:1")
	requireError(t, err, store.ErrLocked)
	require.NoError(t, unlock())
	requireWhole(t, s, "m:1", data)
}

// A process that is killed in the middle of a pull leaves a store that is valid, has no lock, and
// continues the download.
func TestKilledInMidPull(t *testing.T) {
	t.Parallel()
	data := modelBytes(4000)
	o := newOrigin(t, data)
	o.set(func() { o.cutAfter, o.cuts = 1<<20, 1 })
	root := filepath.Join(t.TempDir(), "models")
	child := exec.CommandContext(t.Context(), os.Args[0], "pull-child", root, o.URL)
	child.Env = append(os.Environ(), "NO_PROXY=127.0.0.1")
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "some bytes\n", line)
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())

	s := openAt(t, root, nil)
	requireNone(t, s, true)
	require.NotEmpty(t, files(t, s, "partial"))
	e := entry(t, "killed:1", data, urlSource(o.URL))
	_, err = s.Add(t.Context(), e, store.PullOptions{})
	require.NoError(t, err)
	requireWhole(t, s, "killed:1", data)
	require.Empty(t, files(t, s, "partial"))
	seen := o.seen()
	require.NotEmpty(t, seen[len(seen)-1].Header.Get("Range"), "it continues")
}
