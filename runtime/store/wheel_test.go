package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/store"
)

func wheelSource(w ...store.Wheel) store.Source {
	return store.Source{Kind: store.SourceWheel, Wheels: w}
}

// joined is a model in three members of two wheels in dir.
func joined(t testing.TB, dir string) ([]byte, store.Source) {
	data := modelBytes(300)
	a, b := len(data)/3, len(data)/2
	first := wheelFile(t, dir, "part1", []member{
		{"part1/__init__.py", []byte("x")}, {"part1/b", data[a:b]}, {"part1/a", data[:a]},
	}, "part1/a", "part1/b")
	second := wheelFile(t, dir, "part2", []member{{"part2/c", data[b:]}}, "part2/c")
	return data, wheelSource(first, second)
}

func TestWheelsAreJoinedInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, src := joined(t, dir)
	s := open(t, func(o *store.Options) { o.Pip = pip(dir, "ok") })
	var last store.Progress
	m, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{
		Progress: func(p store.Progress) {
			if p.Stage == store.StageDownload {
				require.GreaterOrEqual(t, p.Done, last.Done)
				last = p
			}
		},
	})
	require.NoError(t, err)
	requireWhole(t, s, "m:1", data)
	require.Equal(t, "wheel part1==1.0 + part2==1.0", m.Source)
	require.Equal(t, src.Wheels[0].SizeBytes+src.Wheels[1].SizeBytes, last.Total)
	require.Equal(t, last.Total, last.Done)
	require.Empty(t, files(t, s, "partial"))
}

func TestWheelClientFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mode string
		kind store.Kind
		says string
	}{
		{"missing", store.ErrUnavailable, "No matching distribution"},
		{"no-module", store.ErrNoPip, "No module named pip"},
		{"offline", store.ErrNetwork, "connection broken"},
		{"full", store.ErrNoSpace, "No space left"},
		{"nothing", store.ErrUnavailable, "no wheel arrived"},
		{"two", store.ErrUnavailable, "more than one"},
		{"noisy", store.ErrUnavailable, "the last word"},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			data, src := joined(t, dir)
			s := open(t, func(o *store.Options) { o.Pip = pip(dir, tc.mode) })
			_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
			e := asError(t, err, tc.kind)
			require.ErrorContains(t, e, tc.says)
			require.Less(t, len(e.Error()), 6<<10, "its messages are bounded")
			requireNone(t, s, false)
		})
	}
}

func TestWheelWithoutPython(t *testing.T) {
	t.Parallel()
	data, src := joined(t, t.TempDir())
	nowhere := filepath.Join(t.TempDir(), "python3")
	s := open(t, func(o *store.Options) { o.Pip = []string{nowhere} })
	_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
	e := asError(t, err, store.ErrNoPip)
	require.Contains(t, e.Hint, "Python")
	requireNone(t, s, false)
}

func TestWheelOfWrongDigest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, src := joined(t, dir)
	src.Wheels[1].SHA256 = sum([]byte("other"))
	s := open(t, func(o *store.Options) { o.Pip = pip(dir, "ok") })
	_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
	requireError(t, err, store.ErrDigest)
	requireNone(t, s, false)
}

// G6: a wheel is an archive from outside. Its own paths are never used, and a member that is not
// what the catalogue says is refused before it fills the disk.
func TestG6HostileWheel(t *testing.T) {
	t.Parallel()
	data := modelBytes(100)
	good, longer := member{"p/m", data}, append(bytes.Clone(data), 0)
	for _, tc := range []struct {
		name    string
		members []member
		wanted  []string
		kind    store.Kind // "" is success
	}{
		{"slips out", []member{{"../../slipped", data}, {"/slipped", data}, good}, nil, ""},
		{"member missing", []member{{"p/other", data}}, nil, store.ErrRefused},
		{"member twice", []member{good, good}, nil, store.ErrRefused},
		{"zip bomb", []member{{"p/m", make([]byte, 8<<20)}}, nil, store.ErrRefused},
		{"one byte more", []member{{"p/m", longer}}, nil, store.ErrRefused},
		{"one byte less", []member{{"p/m", data[:len(data)-1]}}, nil, store.ErrDigest},
		{"too much in all", []member{good, {"p/n", data}}, []string{"p/m", "p/n"}, store.ErrRefused},
		{"a directory", []member{{"p/m/", nil}}, []string{"p/m"}, store.ErrRefused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			wanted := tc.wanted
			if wanted == nil {
				wanted = []string{"p/m"}
			}
			src := wheelSource(wheelFile(t, dir, "p", tc.members, wanted...))
			s := open(t, func(o *store.Options) { o.Pip = pip(dir, "ok") })
			_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
			if tc.kind == "" {
				require.NoError(t, err)
				requireWhole(t, s, "m:1", data)
			} else {
				requireError(t, err, tc.kind)
				requireNone(t, s, false)
			}
			for _, d := range []string{s.Root(), filepath.Dir(s.Root()), dir} {
				require.NoFileExists(t, filepath.Join(d, "slipped"))
			}
		})
	}
}

func TestWheelThatIsNoArchive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := modelBytes(10)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "p-1.0-py3-none-any.whl"), data, 0o644))
	src := wheelSource(store.Wheel{
		Package: "p", Version: "1.0", SHA256: sum(data), Members: []string{"p/m"},
	})
	s := open(t, func(o *store.Options) { o.Pip = pip(dir, "ok") })
	_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
	requireError(t, err, store.ErrRefused)
	requireNone(t, s, false)
}

func TestWheelCancelEndsTheClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, src := joined(t, dir)
	s := open(t, func(o *store.Options) { o.Pip = pip(dir, "hang") })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := os.Stat(filepath.Join(dir, "started")); err == nil || t.Context().Err() != nil {
				return
			}
		}
	}()
	_, err := s.Add(ctx, entry(t, "m:1", data, src), store.PullOptions{})
	e := asError(t, err, store.ErrCanceled)
	require.ErrorIs(t, e, context.Canceled)
	requireNone(t, s, false)
}

// The client keeps a wheel twice for a moment, so the model's own size is not enough room.
func TestWheelRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, src := joined(t, dir)
	largest := max(src.Wheels[0].SizeBytes, src.Wheels[1].SizeBytes)
	total := src.Wheels[0].SizeBytes + src.Wheels[1].SizeBytes
	need := max(int64(len(data)), total) + 2*largest + 16<<20
	for _, free := range []int64{need - 1, need} {
		s := open(t, func(o *store.Options) {
			o.Pip = pip(dir, "ok")
			o.OpenDir = faulty(disk.Faults{FreeBytes: free}, nil)
		})
		_, err := s.Add(t.Context(), entry(t, "m:1", data, src), store.PullOptions{})
		if free == need {
			require.NoError(t, err)
			continue
		}
		e := asError(t, err, store.ErrNoSpace)
		require.ErrorContains(t, e, fmt.Sprintf("%.1f MiB needed", float64(need)/(1<<20)))
		require.Contains(t, e.Hint, "NORION_HOME")
		requireNone(t, s, false)
	}
}

// faulty opens directories with faults; the last one opened is stored in last unless nil.
func faulty(f disk.Faults, last **disk.Faulty) func(string) (disk.Dir, error) {
	return func(path string) (disk.Dir, error) {
		inner, err := disk.OpenDir(path)
		if err != nil {
			return nil, err
		}
		d := disk.NewFaulty(inner, f)
		if last != nil {
			*last = d
		}
		return d, nil
	}
}
