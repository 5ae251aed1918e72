package snapshot_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv/snapshot"
)

// overwrite puts a file of this user there.
func overwrite(t testing.TB, file string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, data, 0o600))
}

// missedOnce wants a miss, whatever its cause, and the file gone.
func missedOnce(t testing.TB, s *snapshot.Store, id snapshot.ID, file, what string) {
	t.Helper()
	l, ok := s.Get(t.Context(), id)
	require.False(t, ok, what)
	require.Nil(t, l, what)
	n := uint64(0)
	for _, m := range s.Stats().Misses {
		n += m
	}
	require.Equal(t, uint64(1), n, what)
	require.NoFileExists(t, file, what)
}

// badFiles tries each damaged form of a good file: it is there when a store opens, which changes
// nothing and verifies it, and comes to be under a store that knows the good one.
func badFiles(t *testing.T, forms func(good []byte, try func(bad []byte, what string))) {
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, file, id, data := saved(t, change, 70)
			good, err := os.ReadFile(file)
			require.NoError(t, err)
			known := opened(t, dir, change)
			tried := 0
			forms(good, func(bad []byte, what string) {
				tried++
				overwrite(t, file, bad)
				o := snapshot.Options{DiskBytes: 1 << 30, Dir: dir, Key: key()}
				change(&o)
				s, err := snapshot.Open(o)
				require.NoError(t, err)
				reports, err := s.Verify(t.Context())
				require.NoError(t, err)
				require.Len(t, reports, 1, what)
				require.NotEmpty(t, reports[0].Bad, what)
				require.Equal(t, int64(len(bad)), reports[0].Bytes, what)
				missedOnce(t, s, id, file, what)
				require.NoError(t, s.Close())

				overwrite(t, file, good)
				requireHit(t, known, id, data)
				overwrite(t, file, bad)
				_, ok := known.Get(t.Context(), id)
				require.False(t, ok, what)
				require.NoFileExists(t, file, what)
			})
			st := known.Stats()
			require.Equal(t, uint64(tried), st.Misses[snapshot.MissDamaged]+
				st.Misses[snapshot.MissForeign])
			require.Zero(t, st.Files)
			require.Zero(t, st.Bytes)
			overwrite(t, file, good)
			requireHit(t, known, id, data)
		})
	}
}

// R5: every byte of a file is changed in three ways, one at a time.
func TestR5Flipped(t *testing.T) {
	t.Parallel()
	badFiles(t, func(good []byte, try func([]byte, string)) {
		for i := range good {
			for _, mask := range []byte{0x01, 0x80, 0xff} {
				bad := slices.Clone(good)
				bad[i] ^= mask
				try(bad, fmt.Sprintf("byte %d of %d ^ %#x", i, len(good), mask))
			}
		}
	})
}

// R5: the file is cut at every byte, and is longer than it should be.
func TestR5Truncated(t *testing.T) {
	t.Parallel()
	badFiles(t, func(good []byte, try func([]byte, string)) {
		for n := range good {
			try(slices.Clone(good[:n]), fmt.Sprintf("%d of %d bytes", n, len(good)))
		}
		try(append(slices.Clone(good), 0), "a byte more")
		try(make([]byte, len(good)), "zeros")
		try(append(slices.Clone(good[:len(good)/2]), make([]byte, len(good)-len(good)/2)...),
			"the second half zeros")
	})
}

// R5: in a file of several blocks, random bytes are changed and blocks change places.
func TestR5Blocks(t *testing.T) {
	t.Parallel()
	const block = snapshot.BlockBytes + snapshot.TagBytes
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, file, id, data := saved(t, change, 3*snapshot.BlockBytes+100)
			good, err := os.ReadFile(file)
			require.NoError(t, err)
			s := opened(t, dir, change)
			first := len(good) - (3*block + 100 + snapshot.TagBytes)
			try := func(bad []byte, what string) {
				overwrite(t, file, bad)
				requireMiss(t, s, id, snapshot.MissDamaged)
				require.NoFileExists(t, file, what)
			}
			rnd := rand.New(rand.NewPCG(1, 2)) // the seed of every run
			for range 40 {
				bad := slices.Clone(good)
				i := first + rnd.IntN(len(good)-first)
				bad[i] ^= 1 << rnd.IntN(8)
				try(bad, fmt.Sprintf("byte %d", i))
			}
			swapped := slices.Clone(good)
			copy(swapped[first:], good[first+block:first+2*block])
			copy(swapped[first+block:], good[first:first+block])
			try(swapped, "two blocks change places")
			twice := slices.Clone(good)
			copy(twice[first+block:], good[first:first+block])
			try(twice, "a block twice")
			overwrite(t, file, good)
			requireHit(t, s, id, data)
		})
	}
}

// R5: a state of another model, engine, context or part is not found; a good file under the name
// of another state is not believed, nor one that another key or version made.
func TestR5Foreign(t *testing.T) {
	t.Parallel()
	for mode, change := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, file, _, _ := saved(t, change, 70)
			good, err := os.ReadFile(file)
			require.NoError(t, err)
			s := opened(t, dir, change)
			for _, alter := range []func(*snapshot.State){
				func(st *snapshot.State) { st.Engine = "engine 1.3 (abd) seq 3" },
				func(st *snapshot.State) { st.Model = "sha256:0124" },
				func(st *snapshot.State) { st.Context = "q8_0 fa=1" },
				func(st *snapshot.State) { st.Part = snapshot.Partial },
			} {
				st := state(100, 5)
				alter(&st)
				other := s.ID(st)
				requireMiss(t, s, other, snapshot.MissAbsent)
				name := filepath.Join(dir, snapshot.FileName(other))
				overwrite(t, name, good)
				requireMiss(t, s, other, snapshot.MissDamaged)
				require.NoFileExists(t, name)
			}
			newer := slices.Clone(good)
			newer[8] = 2
			overwrite(t, filepath.Join(dir, snapshot.FileName(snapshot.ID{9})), newer)
			s = opened(t, dir, change)
			require.Equal(t, 1, s.Stats().Foreign, "counted, not removed")
			require.Equal(t, int64(2*len(good)), s.Stats().Bytes)
			reports, err := s.Verify(t.Context())
			require.NoError(t, err)
			require.Len(t, reports, 2)
			require.Equal(t, snapshot.MissForeign, reports[0].Bad)
			require.Empty(t, reports[1].Bad)
		})
	}
}

// R5: stores with different keys share a directory. Neither reads nor removes what the other
// wrote, until its budget asks for room: then the other's files go first.
func TestR5OtherKey(t *testing.T) {
	t.Parallel()
	dir, file, id, data := saved(t, nil, 70)
	size := snapshot.FileBytes(state(100, 5), 70)
	s := opened(t, dir, func(o *snapshot.Options) { plain(o); o.DiskBytes = 2 * size })
	require.Equal(t, 1, s.Stats().Foreign)
	require.Empty(t, s.Index(ident))
	requireMiss(t, s, s.ID(state(100, 5)), snapshot.MissAbsent)
	put(t, s, state(200, 5), data)
	requireHit(t, opened(t, dir, nil), id, data)
	put(t, s, state(300, 5), data)
	require.NoFileExists(t, file)
	st := s.Stats()
	require.Zero(t, st.Foreign)
	require.Equal(t, 2*size, st.Bytes)
	require.Zero(t, st.Evictions)
}

// R4: what one tenant saved, no other finds: not after a restart either, and a copied file does not
// help.
func TestR4Scopes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine, theirs := state(1, 20), state(1, 20)
	mine.Scope, theirs.Scope = "tenant a", "tenant b"
	s := opened(t, dir, nil)
	id := put(t, s, mine, fill(1, 100))
	other := s.ID(theirs)
	for range 2 {
		requireMiss(t, s, other, snapshot.MissAbsent)
		index := s.Index(theirs.Identity)
		require.Len(t, index, 1)
		require.Equal(t, "tenant a", index[0].Scope, "the scope stays with the state")
		require.NoError(t, s.Close())
		s = opened(t, dir, nil)
	}
	raw, err := os.ReadFile(filepath.Join(dir, snapshot.FileName(id)))
	require.NoError(t, err)
	overwrite(t, filepath.Join(dir, snapshot.FileName(other)), raw)
	requireMiss(t, s, other, snapshot.MissDamaged)
	requireHit(t, s, id, fill(1, 100))
}
