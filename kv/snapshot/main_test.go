package snapshot_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/kv/snapshot"
)

// TestMain makes the test binary also a process that saves and is killed, and one of another user.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "save-child" {
		os.Exit(saveChild(os.Args[2], os.Args[3]))
	}
	if len(os.Args) == 3 && os.Args[1] == "look-child" {
		os.Exit(lookChild(os.Args[2]))
	}
	os.Exit(m.Run())
}

// ident is the identity of most tests.
var ident = snapshot.Identity{
	Engine: "engine 1.2 (abc) seq 3", Model: "sha256:0123", Context: "f16 fa=1", Scope: "a",
}

// state describes a state of n tokens that begin with first.
func state(first int32, n int) snapshot.State {
	st := snapshot.State{Identity: ident, Part: snapshot.Full, Tokens: make([]int32, n)}
	for i := range st.Tokens {
		st.Tokens[i] = first + int32(i)
	}
	return st
}

// fill is the contents of a state of n bytes, different for each seed.
func fill(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}).Read(b)
	return b
}

// key encrypts the files of most tests.
func key() []byte { return bytes.Repeat([]byte{7}, snapshot.KeyBytes) }

// opened opens a store with room for everything; change may be nil.
func opened(t testing.TB, dir string, change func(*snapshot.Options)) *snapshot.Store {
	t.Helper()
	o := snapshot.Options{DiskBytes: 1 << 30, Dir: dir, Key: key()}
	if change != nil {
		change(&o)
	}
	s, err := snapshot.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// faulty makes the directory of the files faulty.
func faulty(out **disk.Faulty) func(*snapshot.Options) {
	return func(o *snapshot.Options) {
		o.OpenDir = func(path string) (disk.Dir, error) {
			d, err := disk.OpenDir(path)
			if err != nil {
				return nil, err
			}
			*out = disk.NewFaulty(d, disk.Faults{})
			return *out, nil
		}
	}
}

// buffer is a buffer of s with these bytes.
func buffer(t testing.TB, s *snapshot.Store, data []byte) *snapshot.Buffer {
	t.Helper()
	b, err := s.Buffer(int64(len(data)))
	require.NoError(t, err)
	copy(b.Bytes(), data)
	return b
}

// give has a state saved, and keeps nothing of it.
func give(
	t testing.TB, s *snapshot.Store, st snapshot.State, data []byte,
) (snapshot.ID, error) {
	t.Helper()
	b := buffer(t, s, data)
	defer b.Release()
	return s.Put(st, b)
}

// put saves and waits for the disk.
func put(t testing.TB, s *snapshot.Store, st snapshot.State, data []byte) snapshot.ID {
	t.Helper()
	id, err := give(t, s, st, data)
	require.NoError(t, err)
	require.NoError(t, s.Flush(context.Background()))
	return id
}

// requireHit wants exactly these bytes.
func requireHit(t testing.TB, s *snapshot.Store, id snapshot.ID, data []byte) {
	t.Helper()
	b, ok := s.Get(context.Background(), id)
	require.True(t, ok, "%v", s.Stats())
	require.True(t, bytes.Equal(data, b.Bytes()), "the bytes that were put")
	b.Release()
}

// requireMiss wants one miss of that cause.
func requireMiss(t testing.TB, s *snapshot.Store, id snapshot.ID, why snapshot.Miss) {
	t.Helper()
	before := s.Stats().Misses
	b, ok := s.Get(context.Background(), id)
	require.False(t, ok)
	require.Nil(t, b)
	after := s.Stats().Misses
	require.Equal(t, before[why]+1, after[why], "%v", after)
}

// files lists the directory without the lock.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, d := range list {
		if d.Name() != snapshot.LockName {
			names = append(names, d.Name())
		}
	}
	return names
}

// saved makes a directory with one state, and returns its file, id and contents.
func saved(
	t testing.TB, change func(*snapshot.Options), n int,
) (dir, file string, id snapshot.ID, data []byte) {
	t.Helper()
	dir = t.TempDir()
	data = fill(1, n)
	s := opened(t, dir, change)
	id = put(t, s, state(100, 5), data)
	require.NoError(t, s.Close())
	require.Equal(t, []string{snapshot.FileName(id)}, files(t, dir))
	return dir, filepath.Join(dir, snapshot.FileName(id)), id, data
}

// plain turns encryption off.
func plain(o *snapshot.Options) { o.Plain, o.Key = true, nil }

// modes are the two forms of files.
var modes = map[string]func(*snapshot.Options){
	"encrypted": func(*snapshot.Options) {}, "plain": plain,
}

// contextDone is a context that has ended.
func contextDone(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}
