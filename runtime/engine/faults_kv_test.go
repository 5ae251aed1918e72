package engine_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// start opens an engine that the test closes itself, perhaps more than once.
func start(t testing.TB, o engine.Options) *engine.Engine {
	t.Helper()
	if o.Paths == nil {
		o.Paths = []string{writeModel(t, gguftest.TinyModel(1))}
	}
	if o.ContextTokens == 0 {
		o.ContextTokens = 256
	}
	o.Threads = 1
	e, err := engine.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// someTokens are the same for the same seed.
func someTokens(seed uint64, n int) []infer.TokenID {
	return draw(rand.New(rand.NewPCG(seed, 9)), n)
}

// TestSmallWindowOfShortContext: a context that is not longer than the window's own cells opens.
func TestSmallWindowOfShortContext(t *testing.T) {
	path := writeModel(t, tinyWindowModel())
	for _, shared := range []bool{false, true} {
		e := start(t, engine.Options{Paths: []string{path}, SmallWindow: true, Shared: shared})
		r := infer.Request{Tokens: someTokens(1, 150), MaxTokens: 4}
		cold, _, _ := steps(t, e, r)
		warm, u, _ := steps(t, e, r)
		closeTo(t, cold, warm)
		require.Positive(t, u.Cached.Live)
		r.KV = infer.KVPolicy{Evict: "middle-out"}
		_, _, err := collect(t.Context(), e, r)
		require.Equal(t, infer.KindUnsupported, infer.KindOf(err), "%v", err)
	}
}

// TestParkedBehindASlowReader: a parked answer whose reader is there goes on, although one that was
// parked before it has no reader.
func TestParkedBehindASlowReader(t *testing.T) {
	e := start(t, engine.Options{RAM: 1 << 24})
	releaseA, resultA := stuck(t.Context(), e, endless())
	defer releaseA()
	releaseB, resultB := stuck(t.Context(), e, endless())
	defer releaseB()
	answer(t, e, infer.Request{Prompt: "third", MaxTokens: 3})
	releaseB()
	require.ErrorIs(t, wait(t, resultB), errFinal)
	releaseA()
	require.ErrorIs(t, wait(t, resultA), errFinal)
}

// TestKeepBesideAChangedSequence: a sequence that a policy has changed, which is of no use to
// others, does not keep those beside it from being saved.
func TestKeepBesideAChangedSequence(t *testing.T) {
	o := engine.Options{
		Paths:    []string{writeModel(t, gguftest.TinyModel(1))},
		CacheDir: t.TempDir() + "/cache", Sequences: 3,
	}
	e := start(t, o)
	changed := infer.Request{Tokens: someTokens(1, 60), MaxTokens: 120, IgnoreEOS: true}
	changed.KV = infer.KVPolicy{Evict: "sink-window", Sinks: 2, Window: 80}
	_, f := answer(t, e, changed)
	require.Positive(t, f.Usage.Evicted)
	r := infer.Request{Tokens: someTokens(2, 100), MaxTokens: 2, IgnoreEOS: true}
	answer(t, e, r)
	require.NoError(t, e.Close())
	_, f = answer(t, start(t, o), r)
	require.Equal(t, 99, f.Usage.Cached.Disk)
}

// TestR5AnotherModel: what another file computed that had the same name is not used, neither where
// the caller knows the digests nor where it does not.
func TestR5AnotherModel(t *testing.T) {
	for _, known := range []bool{false, true} {
		path := writeModel(t, gguftest.TinyModel(1))
		o := engine.Options{Paths: []string{path}, CacheDir: t.TempDir() + "/cache"}
		if known {
			o.Digest = "sha256:1"
		}
		r := infer.Request{Tokens: someTokens(1, 100), MaxTokens: 6, IgnoreEOS: true}
		e := start(t, o)
		answer(t, e, r)
		require.NoError(t, e.Close())
		require.NoError(t, os.WriteFile(path, gguftest.TinyModel(2).Bytes(), 0o600))
		if known {
			o.Digest = "sha256:2"
		}
		e = start(t, o)
		got, f := answer(t, e, r)
		require.Zero(t, f.Usage.Cached)
		r.KV.NoReuse = true
		want, _ := answer(t, e, r)
		require.Equal(t, want, got)
	}
}

// files gives the files of a cache directory.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, path)
		}
		return err
	}))
	return out
}

// TestR5DamagedFiles: whatever is done to the files of a cache directory, between two engines or
// under a running one, a request gets the answer of a cold run and no error.
func TestR5DamagedFiles(t *testing.T) {
	damage := map[string]func(t *testing.T, path string, b []byte){
		"flipped": func(t *testing.T, path string, b []byte) {
			b[len(b)/2] ^= 1
			require.NoError(t, os.WriteFile(path, b, 0o600))
		},
		"flipped at the start": func(t *testing.T, path string, b []byte) {
			b[9] ^= 0x80
			require.NoError(t, os.WriteFile(path, b, 0o600))
		},
		"cut": func(t *testing.T, path string, b []byte) {
			require.NoError(t, os.Truncate(path, int64(len(b)*2/3)))
		},
		"empty": func(t *testing.T, path string, _ []byte) {
			require.NoError(t, os.Truncate(path, 0))
		},
		"foreign": func(t *testing.T, path string, _ []byte) {
			require.NoError(t, os.WriteFile(path, make([]byte, 5000), 0o600))
		},
		"gone": func(t *testing.T, path string, _ []byte) { require.NoError(t, os.Remove(path)) },
		"a directory": func(t *testing.T, path string, _ []byte) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		},
	}
	models := map[string][]byte{
		"llama": gguftest.TinyModel(1).Bytes(), "window": tinyWindowModel().Bytes(),
	}
	for model, content := range models {
		path := filepath.Join(t.TempDir(), "m.gguf")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		for name, do := range damage {
			for _, late := range []bool{false, true} {
				for _, shared := range []bool{false, true} {
					o := engine.Options{
						Paths: []string{path}, CacheDir: t.TempDir() + "/cache", Sequences: 2, Shared: shared,
						CachePlain: name == "flipped",
					}
					e := start(t, o)
					r := infer.Request{Tokens: someTokens(1, 120), MaxTokens: 5, IgnoreEOS: true}
					want, _ := answer(t, e, r)
					require.NoError(t, e.Close())
					if late {
						e = start(t, o)
					}
					all := files(t, o.CacheDir)
					require.NotEmpty(t, all)
					for _, file := range all {
						if b, err := os.ReadFile(file); err == nil && len(b) > 100 {
							do(t, file, b)
						}
					}
					if !late {
						e = start(t, o)
					}
					got, f := answer(t, e, r)
					require.Equal(t, want, got, "%s %s", model, name)
					require.Equal(t, 120, f.Usage.Computed+f.Usage.Cached.Live, "%s %s", model, name)
					got, f = answer(t, e, r)
					require.Equal(t, want, got, "%s %s", model, name)
					require.Equal(t, 119, f.Usage.Cached.Live, "%s %s", model, name)
					_, _, problem := e.Books()
					require.NoError(t, problem)
					require.NoError(t, e.Close())
				}
			}
		}
	}
}

// TestR4TiersAndRestart: what one tenant computed is no hit for another, in cells, in memory, on
// disk, and after a restart.
func TestR4TiersAndRestart(t *testing.T) {
	for _, shared := range []bool{false, true} {
		o := engine.Options{
			Paths:    []string{writeModel(t, gguftest.TinyModel(1))},
			CacheDir: t.TempDir() + "/cache", Sequences: 1, Shared: shared, RAM: 1 << 20,
		}
		e := start(t, o)
		ask := func(k infer.KVPolicy) infer.Cached {
			_, f := answer(t, e, infer.Request{
				Tokens: someTokens(1, 120), MaxTokens: 2, IgnoreEOS: true, KV: k,
			})
			return f.Usage.Cached
		}
		tenants := []infer.KVPolicy{{Salt: "a"}, {Salt: "b"}, {Scope: "a"}, {}, {Salt: "a", Scope: "a"}}
		if !shared {
			tenants = append(tenants, infer.KVPolicy{Deterministic: true})
		}
		for _, k := range tenants { // one sequence: each pushes the one before it into memory
			require.Zero(t, ask(k), "%+v", k)
		}
		for _, k := range tenants[:2] {
			require.Equal(t, 119, ask(k).RAM, "%+v", k)
		}
		require.NoError(t, e.Close())
		e = start(t, o)
		for _, k := range []infer.KVPolicy{{Salt: "c"}, {Scope: "b"}, {Salt: "b", Scope: "a"}} {
			require.Zero(t, ask(k), "%+v", k)
		}
		for _, k := range tenants {
			want := 119
			if k.Deterministic {
				want = 64
			}
			require.Equal(t, want, ask(k).Disk, "%+v", k)
		}
		require.NoError(t, e.Close())
	}
}

// TestC5NothingIsLeft: an engine with all its tiers leaves no goroutine and no descriptor behind.
func TestC5NothingIsLeft(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("descriptors are counted in /proc")
	}
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(all)
	}
	path, dir := writeModel(t, gguftest.TinyModel(1)), t.TempDir()+"/cache"
	round := func() {
		e := start(t, engine.Options{Paths: []string{path}, CacheDir: dir, Sequences: 2})
		answer(t, e, infer.Request{Tokens: someTokens(1, 120), MaxTokens: 2, IgnoreEOS: true})
		release, result := stuck(t.Context(), e, endless())
		require.NoError(t, e.Close())
		release()
		require.Equal(t, infer.KindClosed, infer.KindOf(wait(t, result)))
	}
	round() // what is made once
	goroutines, descriptors := runtime.NumGoroutine(), open()
	for range 5 {
		round()
	}
	noneLeft(t, goroutines)
	require.Equal(t, descriptors, open())
}

// TestRunAfterAFailure: operations on other sequences than the one that failed are done.
func TestRunAfterAFailure(t *testing.T) {
	require.Zero(t, openTiny(t, func(o *engine.Options) { o.Sequences = 2 }).After(t))
}
