package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/store"
)

// L7: no space, at the check before, at each kind of call, and after some bytes; then space
// returns. No model is visible in between, and none is lost.
func TestL7DiskFull(t *testing.T) {
	t.Parallel()
	data := modelBytes(600)
	full := func(want disk.Op) disk.Faults {
		return disk.Faults{Fail: func(op disk.Op, name string, _ int) error {
			if op == want && !strings.HasPrefix(name, "locks") {
				return syscall.ENOSPC
			}
			return nil
		}}
	}
	for name, f := range map[string]disk.Faults{
		"said before":  {FreeBytes: -1},
		"first byte":   {CapacityBytes: 1},
		"in the model": {CapacityBytes: 300 << 10},
		"last byte":    {CapacityBytes: int64(len(data)) - 1},
		"manifest":     {CapacityBytes: int64(len(data)) + 100},
		"write":        full(disk.OpWrite), "sync": full(disk.OpSync),
		"create": full(disk.OpOpen), "rename": full(disk.OpRename),
	} {
		for _, kind := range []string{"https", "file"} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				var d *disk.Faulty
				s := open(t, func(o *store.Options) {
					o.OpenDir = faulty(disk.Faults{}, &d)
				})
				kept := modelBytes(5)
				add(t, s, "kept:1", kept)
				src := fileSource(t, data)
				if kind == "https" {
					src = urlSource(newOrigin(t, data).URL)
				}
				e := entry(t, "m:1", data, src)
				d.Set(f)
				_, err := s.Add(t.Context(), e, store.PullOptions{})
				require.NotEmpty(t, asError(t, err, store.ErrNoSpace).Hint)
				d.Set(disk.Faults{})
				require.Zero(t, d.OpenFiles())
				_, err = s.Resolve(t.Context(), "m:1")
				requireError(t, err, store.ErrUnknownModel)
				requireWhole(t, s, "kept:1", kept)
				_, err = s.Add(t.Context(), e, store.PullOptions{})
				require.NoError(t, err)
				requireWhole(t, s, "m:1", data)
				require.Empty(t, files(t, s, "partial"))
			})
		}
	}
}

func TestRoomForADownload(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	need := int64(len(data)) + 16<<20
	for _, free := range []int64{need - 1, need} {
		o := newOrigin(t, data)
		s := open(t, func(o *store.Options) {
			o.OpenDir = faulty(disk.Faults{FreeBytes: free}, nil)
		})
		_, err := fetch(t, s, o.URL, data)
		if free == need {
			require.NoError(t, err)
		} else {
			requireError(t, err, store.ErrNoSpace)
		}
	}
}

// Every disk call of a pull fails once. Whatever happens, what is visible is whole, nothing stays
// open, and the same pull succeeds when the disk is well again.
func TestL10EveryDiskCallFailsOnce(t *testing.T) {
	t.Parallel()
	data := modelBytes(3)
	wheels := t.TempDir()
	first := wheelFile(t, wheels, "p", []member{{"p/m", data}}, "p/m")
	o := newOrigin(t, data)
	link := fileSource(t, data)
	link.Link = true
	for kind, src := range map[string]store.Source{
		"file": fileSource(t, data), "link": link, "https": urlSource(o.URL),
		"wheel": wheelSource(first),
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			callsMax := 200
			for n := 1; ; n++ {
				require.Less(t, n, callsMax, "the number of disk calls is bounded")
				if failNth(t, n, entry(t, "m:1", data, src), wheels, data) {
					require.Greater(t, n, 20, "calls were made")
					return
				}
			}
		})
	}
}

// failNth pulls with the n-th disk call failing and reports whether there was no n-th call.
func failNth(t *testing.T, n int, e store.Entry, wheels string, data []byte) bool {
	root := filepath.Join(t.TempDir(), "models")
	var d *disk.Faulty
	fault := fmt.Errorf("call %d: %w", n, syscall.EIO)
	o := store.Options{
		Root: root, Getenv: func(string) string { return "" }, Catalogue: catalogue(),
		RetryDelay: 1, Pip: pip(wheels, "ok"),
		OpenDir: faulty(disk.Faults{Fail: func(_ disk.Op, _ string, i int) error {
			if i == n {
				return fault
			}
			return nil
		}}, &d),
	}
	s, err := store.Open(o)
	if err == nil {
		_, err = s.Add(t.Context(), e, store.PullOptions{})
		require.NoError(t, s.Close())
	}
	if err != nil {
		var typed *store.Error
		require.ErrorAs(t, err, &typed)
	}
	require.Zero(t, d.OpenFiles(), "call %d leaks a descriptor", n)
	past := d.Calls() < n

	clean := openAt(t, root, func(o *store.Options) { o.Pip = pip(wheels, "ok") })
	models, lerr := clean.List(t.Context())
	require.NoError(t, lerr)
	for _, m := range models {
		require.NoError(t, m.Problem, "call %d", n)
	}
	if err == nil {
		require.Len(t, models, 1)
	}
	_, err = clean.Add(t.Context(), e, store.PullOptions{})
	require.NoError(t, err, "call %d", n)
	requireWhole(t, clean, "m:1", data)
	return past
}

// G7: a file that was changed behind the store's back.
func TestG7ChangedBehindOurBack(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	s := open(t, nil)
	m := add(t, s, "m:1", data)

	require.NoError(t, os.WriteFile(m.Path, flip(data, 5000), 0o644))
	err := s.Verify(t.Context(), "m:1", nil)
	require.Contains(t, asError(t, err, store.ErrDigest).Hint, "norion rm m:1")

	require.NoError(t, os.WriteFile(m.Path, data[:len(data)-1], 0o644))
	_, err = s.Resolve(t.Context(), "m:1")
	requireError(t, err, store.ErrDamaged)

	require.NoError(t, os.Remove(m.Path))
	_, err = s.Resolve(t.Context(), "m:1")
	requireError(t, err, store.ErrDamaged)
	models, err := s.List(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, models[0].Problem, store.ErrDamaged)
	require.Equal(t, "m:1", models[0].Name.String())

	_, err = s.Add(t.Context(), entry(t, "m:1", data, fileSource(t, data)), store.PullOptions{})
	require.NoError(t, err, "pulling again repairs")
	requireWhole(t, s, "m:1", data)
}

// A blob with the right name and wrong bytes is not adopted.
func TestDamagedBlobIsReplaced(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	s := open(t, nil)
	m := add(t, s, "m:1", data)
	require.NoError(t, os.WriteFile(m.Path, flip(data, 5000), 0o644))
	add(t, s, "n:1", data)
	requireWhole(t, s, "n:1", data)
	requireWhole(t, s, "m:1", data)
}

// A blob that goes between its check and the lock is downloaded instead.
func TestBlobRemovedWhileAdopted(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	root := filepath.Join(t.TempDir(), "models")
	m := add(t, openAt(t, root, nil), "m:1", data)
	removed := false
	s := openAt(t, root, func(o *store.Options) {
		o.OpenDir = faulty(disk.Faults{Fail: func(op disk.Op, name string, _ int) error {
			if op == disk.OpLock && name == "locks/.store" && !removed {
				removed = true
				return os.Remove(m.Path)
			}
			return nil
		}}, nil)
	})
	add(t, s, "n:1", data)
	require.True(t, removed)
	requireWhole(t, s, "n:1", data)
}

func TestDamagedManifests(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	s := open(t, nil)
	m := add(t, s, "m:1", data)
	p := filepath.Join(s.Root(), "manifests", "m@1.json")
	good, err := os.ReadFile(p)
	require.NoError(t, err)
	edit := func(key string, value any) []byte {
		var v map[string]any
		require.NoError(t, json.Unmarshal(good, &v))
		v[key] = value
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	for why, text := range map[string][]byte{
		"empty": {}, "half": good[:len(good)/2], "zeros": make([]byte, 100),
		"more": append(append([]byte{}, good...), "{}"...), "name": edit("name", "n:1"),
		"unsafe name": edit("name", "../x"), "digest": edit("digest", "sha256:../../x"),
		"no digest": edit("digest", ""), "size": edit("size", -1), "field": edit("x", 1),
		"schema": edit("schema", 0), "huge": []byte(strings.Repeat(" ", 64<<10) + string(good)),
	} {
		require.NoError(t, os.WriteFile(p, text, 0o644))
		_, err := s.Resolve(t.Context(), "m:1")
		require.ErrorIs(t, err, store.ErrDamaged, why)
		models, err := s.List(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, models[0].Problem, store.ErrDamaged, why)
		freed, err := s.Remove(t.Context(), "m:1")
		require.NoError(t, err, why)
		require.Zero(t, freed)
	}
	require.FileExists(t, m.Path, "its digest was not known")
	freed, err := s.Prune(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(len(data)), freed)

	newer := edit("schema", 2)
	require.NoError(t, os.WriteFile(p, newer, 0o644))
	_, err = s.Add(t.Context(), entry(t, "m:1", data, fileSource(t, data)), store.PullOptions{})
	requireError(t, err, store.ErrTooNew)
	after, err := os.ReadFile(p)
	require.NoError(t, err)
	require.Equal(t, newer, after, "what a newer norion wrote is not overwritten")
}

func TestListIsSorted(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	want := []string{"a:1", "b", "b:1", "c:2"}
	for i, n := range []string{"c:2", "b:1", "a:1", "b"} {
		add(t, s, n, modelBytes(i+1))
	}
	require.NoError(t, os.WriteFile(filepath.Join(s.Root(), "manifests", "README"), nil, 0o644))
	models, err := s.List(t.Context())
	require.NoError(t, err)
	var got []string
	for _, m := range models {
		got = append(got, m.Name.String())
		require.Equal(t, "MIT License", m.Licence.Title)
		require.Positive(t, m.SizeBytes)
		require.NoError(t, m.Problem)
	}
	require.Equal(t, want, got)
}

func TestRemoveKeepsWhatIsShared(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	s := open(t, nil)
	m := add(t, s, "m:1", data)
	add(t, s, "n:1", data)
	require.Len(t, files(t, s, "blobs"), 1)
	freed, err := s.Remove(t.Context(), "m:1")
	require.NoError(t, err)
	require.Zero(t, freed)
	requireWhole(t, s, "n:1", data)
	freed, err = s.Remove(t.Context(), "n:1")
	require.NoError(t, err)
	require.Equal(t, int64(len(data)), freed)
	require.NoFileExists(t, m.Path)
	require.Empty(t, files(t, s, "manifests"))
	_, err = s.Remove(t.Context(), "n:1")
	requireError(t, err, store.ErrUnknownModel)

	outside := file(t, data)
	_, err = s.Remove(t.Context(), outside)
	requireError(t, err, store.ErrName)
	require.FileExists(t, outside)
}

// While some manifest cannot be read, nobody knows which files are needed.
func TestUnreadableManifestKeepsFiles(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	s := open(t, nil)
	m := add(t, s, "m:1", data)
	p := filepath.Join(s.Root(), "manifests", "later@1.json")
	require.NoError(t, os.WriteFile(p, []byte(`{"schema": 2}`), 0o644))
	freed, err := s.Remove(t.Context(), "m:1")
	require.NoError(t, err)
	require.Zero(t, freed)
	freed, err = s.Prune(t.Context())
	require.NoError(t, err)
	require.Zero(t, freed)
	require.FileExists(t, m.Path)
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	data := modelBytes(3000)
	s := open(t, nil)
	kept := modelBytes(5)
	add(t, s, "kept:1", kept)
	interruptedEntry := newOrigin(t, data)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Add(ctx, entry(t, "m:1", data, urlSource(interruptedEntry.URL)),
		store.PullOptions{Progress: func(p store.Progress) {
			if p.Done > 0 {
				cancel()
			}
		}})
	requireError(t, err, store.ErrCanceled)
	partial := filepath.Join(s.Root(), "partial")
	require.NoError(t, os.MkdirAll(filepath.Join(partial, "x@1+abc", "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(partial, "NOT OURS"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(partial, "x@1.part.json.tmp"), nil, 0o644))
	orphan := filepath.Join(s.Root(), "blobs", "sha256-"+strings.Repeat("0", 64))
	require.NoError(t, os.WriteFile(orphan, []byte("orphan"), 0o644))
	freed, err := s.Prune(t.Context())
	require.NoError(t, err)
	require.Greater(t, freed, int64(len("orphan")))
	require.Equal(t, []string{"NOT OURS"}, files(t, s, "partial"))
	require.NoFileExists(t, orphan)
	requireWhole(t, s, "kept:1", kept)
}

func TestUseAfterClose(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Options{Root: t.TempDir()})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = s.List(t.Context())
	requireError(t, err, store.ErrClosed)
	_, err = s.Resolve(t.Context(), "smollm2:135m")
	requireError(t, err, store.ErrClosed)
	_, err = s.Pull(t.Context(), "smollm2:135m", store.PullOptions{})
	requireError(t, err, store.ErrClosed)
}

func TestCanceledBefore(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	s := open(t, nil)
	add(t, s, "m:1", data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Resolve(ctx, "m:1")
	requireError(t, err, store.ErrCanceled)
	_, err = s.List(ctx)
	requireError(t, err, store.ErrCanceled)
	requireError(t, s.Verify(ctx, "m:1", nil), store.ErrCanceled)
	_, err = s.Add(ctx, entry(t, "n:1", data, fileSource(t, data)), store.PullOptions{})
	requireError(t, err, store.ErrCanceled)
	requireWhole(t, s, "m:1", data)
}

// A bad hub in the environment does not stand in the way of what needs no hub.
func TestBadEnvironment(t *testing.T) {
	t.Parallel()
	data := modelBytes(10)
	for env, kind := range map[[2]string]store.Kind{
		{"HF_ENDPOINT", "http://hub.example"}: store.ErrRefused,
		{"HF_TOKEN", "a\nb"}:                  store.ErrOptions,
	} {
		s := open(t, func(o *store.Options) {
			o.Getenv = func(k string) string { return map[string]string{env[0]: env[1]}[k] }
		})
		add(t, s, "file:1", data)
		_, err := s.Add(t.Context(), hubEntry(t, "owner/model"), store.PullOptions{})
		requireError(t, err, kind)
	}
}

func TestRootThatIsAFile(t *testing.T) {
	t.Parallel()
	p := file(t, nil)
	for _, root := range []string{p, filepath.Join(p, "models")} {
		_, err := store.Open(store.Options{Root: root})
		requireError(t, err, store.ErrIO)
	}
}
