package snapshot_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv/snapshot"
)

// fuzzStore is a store and its directory.
func fuzzStore(f *testing.F) (*snapshot.Store, string) {
	dir := f.TempDir()
	return opened(f, dir, plain), dir
}

// FuzzMeta: metadata is refused, or is exactly what the state it describes would be written as.
func FuzzMeta(f *testing.F) {
	at := time.Unix(1e9, 0).UTC()
	good := snapshot.EncodeMeta(state(1, 3), at)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), 0))
	f.Add(good[:snapshot.MetaFixedBytes])
	f.Add([]byte{})
	huge := bytes.Clone(good)
	copy(huge[len(huge)-16:], "\xff\xff\xff\xff")
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		st, n, saved, err := snapshot.ParseMeta(b)
		if err != nil {
			require.ErrorIs(t, err, snapshot.MissDamaged)
			return
		}
		require.Len(t, st.Tokens, n)
		require.Equal(t, b, snapshot.EncodeMeta(st, saved))
	})
}

// FuzzHeader: a header is refused, or says exactly what its bytes say, and its sizes make the size
// of the file.
func FuzzHeader(f *testing.F) {
	s, _ := fuzzStore(f)
	good, err := snapshot.SealFile(s, []byte("meta"), []byte("state"))
	require.NoError(f, err)
	f.Add(good[:snapshot.HeaderBytes], int64(len(good)))
	f.Add(good[:snapshot.HeaderBytes], int64(len(good))-1)
	f.Add(bytes.Repeat([]byte{0xff}, snapshot.HeaderBytes), int64(1)<<62)
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if len(b) < snapshot.HeaderBytes {
			return
		}
		in := [snapshot.HeaderBytes]byte(b)
		out, meta, state, err := snapshot.Reheader(in, size)
		if err != nil {
			return
		}
		require.Equal(t, in, out)
		require.Positive(t, meta)
		require.Positive(t, state)
		require.Less(t, meta+state, size)
	})
}

// FuzzFile: whatever lies under a state's name, it is a miss, or the state.
func FuzzFile(f *testing.F) {
	s, dir := fuzzStore(f)
	st, data := state(1, 3), fill(1, 40)
	id := put(f, s, st, data)
	file := filepath.Join(dir, snapshot.FileName(id))
	good, err := os.ReadFile(file)
	require.NoError(f, err)
	f.Add(good)
	f.Add(good[:snapshot.HeaderBytes])
	f.Add(good[:len(good)-1])
	f.Add([]byte("NORIONKV"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		overwrite(t, file, b)
		l, ok := s.Get(context.Background(), id)
		if !ok {
			require.NoFileExists(t, file)
			return
		}
		require.Equal(t, data, l.Bytes())
		l.Release()
	})
}

// FuzzSealed: metadata that somebody with the key wrote, right down to the tags, is a miss or
// describes a state that comes back, also to a store that opens.
func FuzzSealed(f *testing.F) {
	s, dir := fuzzStore(f)
	good := snapshot.EncodeMeta(state(1, 3), time.Unix(1e9, 0))
	f.Add(good, []byte("state"))
	f.Add(good[:len(good)-1], []byte("state"))
	f.Add(good, []byte{})
	f.Add(append(bytes.Clone(good), 1, 0, 0, 0), []byte("x"))
	f.Fuzz(func(t *testing.T, meta, data []byte) {
		if len(meta) < snapshot.MetaFixedBytes {
			return
		}
		id := snapshot.Address(s, meta)
		file := filepath.Join(dir, snapshot.FileName(id))
		sealed, err := snapshot.SealFile(s, meta, data)
		require.NoError(t, err)
		overwrite(t, file, sealed)
		_, _, _, err = snapshot.ParseMeta(meta)
		other := opened(t, dir, plain)
		require.Equal(t, err == nil && len(data) > 0, len(other.List()) > 0)
		overwrite(t, file, sealed)
		l, ok := s.Get(context.Background(), id)
		require.Equal(t, err == nil && len(data) > 0, ok)
		if ok {
			require.Equal(t, data, l.Bytes())
			l.Release()
			s.Drop(id)
		}
		require.NoFileExists(t, file)
	})
}
