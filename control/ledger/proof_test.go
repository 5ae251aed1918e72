package ledger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/norion/norion/control/event"
)

// naive is the tree hash of RFC 6962, section 2.1, word for word.
func naive(leaves []tlog.Hash) tlog.Hash {
	switch n := len(leaves); n {
	case 0:
		return tlog.Hash(event.DigestOf(nil))
	case 1:
		return leaves[0]
	default:
		k := 1
		for 2*k < n {
			k *= 2
		}
		return tlog.NodeHash(naive(leaves[:k]), naive(leaves[k:]))
	}
}

// The right edge gives the root that the definition gives, at every size.
func TestTree(t *testing.T) {
	t.Parallel()
	var edge tree
	var leaves []tlog.Hash
	for n := range 3*tileWidth + 2 {
		got, err := edge.hash()
		require.NoError(t, err)
		require.Equal(t, naive(leaves), got, n)
		leaf := tlog.RecordHash([]byte{byte(n), byte(n >> 8)})
		leaves = append(leaves, leaf)
		edge.append(leaf)
	}
}

// many makes a ledger with a few full tiles, signed for at its end.
func many(t testing.TB, events int) *Ledger {
	l := open(t, options(newDir(t)))
	for done := 1; done < events; {
		var b Batch
		for range min(BatchEventsMax, events-done) {
			b.Drafts = append(b.Drafts, draft("a", int64(done)))
			done++
		}
		_, err := l.Append(t.Context(), b)
		require.NoError(t, err)
	}
	require.NoError(t, l.Sign(t.Context()))
	return l
}

// Proofs and exports of a ledger hold, and no changed byte of one does.
func TestProofs(t *testing.T) {
	t.Parallel()
	const size = 2*tileWidth + 77
	l := many(t, size)
	_, old, err := l.Reader.checkpoint()
	require.NoError(t, err)
	later := many(t, 3)
	_, foreign, err := later.Reader.checkpoint()
	require.NoError(t, err)
	add(t, l, draft("b", 1))
	_, err = l.Prove(t.Context(), size+1)
	require.ErrorIs(t, err, ErrNotFound, "not signed for yet")
	require.NoError(t, l.Sign(t.Context()))

	rapid.Check(t, func(rt *rapid.T) {
		seq := rapid.Int64Range(1, size+1).Draw(rt, "seq")
		p, err := l.Prove(t.Context(), seq)
		require.NoError(rt, err)
		p, err = ParseProof(p.Marshal())
		require.NoError(rt, err)
		e, _, err := p.Check(l.key)
		require.NoError(rt, err)
		require.Equal(rt, seq, e.Seq)
		last := min(size+1, seq+rapid.Int64Range(0, 300).Draw(rt, "length"))
		x, err := l.Export(t.Context(), seq, last)
		require.NoError(rt, err)
		x, err = ParseExport(x.Marshal())
		require.NoError(rt, err)
		events, _, err := x.Check(l.key)
		require.NoError(rt, err)
		require.Len(rt, events, int(last-seq+1))
		data := x.Marshal()
		data[rapid.IntRange(0, len(data)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		if x, err = ParseExport(data); err == nil {
			_, _, err = x.Check(l.key)
		}
		require.Error(rt, err)
	})
	c, err := l.ProveConsistency(t.Context(), old)
	require.NoError(t, err)
	c, err = ParseConsistency(c.Marshal())
	require.NoError(t, err)
	cp, err := c.Check(l.key, old)
	require.NoError(t, err)
	require.Equal(t, int64(size+1), cp.Size)
	_, err = c.Check(l.key, foreign)
	require.ErrorIs(t, err, ErrProof)
	_, err = c.Check(later.key, old)
	require.ErrorIs(t, err, ErrCheckpoint)
	old.Root[0] ^= 1
	_, err = c.Check(l.key, old)
	require.ErrorIs(t, err, ErrProof)
	for _, r := range [][2]int64{{0, 1}, {2, 1}, {1, ExportEventsMax + 1}} {
		_, err = l.Export(t.Context(), r[0], r[1])
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err = l.Export(t.Context(), 1, size+2)
	require.ErrorIs(t, err, ErrNotFound)
}

// Every flip of a bit of a proof is refused.
func TestL4ProofFlip(t *testing.T) {
	t.Parallel()
	l := many(t, 5)
	p, err := l.Prove(t.Context(), 2)
	require.NoError(t, err)
	data := p.Marshal()
	for bit := range 8 * len(data) {
		data[bit/8] ^= 1 << (bit % 8)
		if p, err = ParseProof(data); err == nil {
			_, _, err = p.Check(l.key)
		}
		require.Error(t, err, bit)
		data[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzParse(f *testing.F) {
	l := many(f, 5)
	p, err := l.Prove(f.Context(), 2)
	require.NoError(f, err)
	x, err := l.Export(f.Context(), 2, 4)
	require.NoError(f, err)
	cp, err := ParseCheckpoint(p.Checkpoint, l.key)
	require.NoError(f, err)
	c, err := l.ProveConsistency(f.Context(), cp)
	require.NoError(f, err)
	public, err := os.ReadFile(filepath.Join(l.dir.Path("."), logPubFile))
	require.NoError(f, err)
	for _, seed := range [][]byte{p.Marshal(), x.Marshal(), c.Marshal(), p.Checkpoint, public} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := ParseProof(data); err == nil {
			require.Equal(t, string(data), string(p.Marshal()))
		}
		if x, err := ParseExport(data); err == nil {
			require.Equal(t, string(data), string(x.Marshal()))
		}
		if c, err := ParseConsistency(data); err == nil {
			require.Equal(t, string(data), string(c.Marshal()))
		}
		if cp, err := ParseCheckpoint(data, l.key); err == nil {
			require.True(t, strings.HasPrefix(string(data), cp.text()))
		}
		if v, err := ParseKey(data); err == nil {
			_, err := note.NewVerifier(strings.TrimSuffix(string(data), "\n"))
			require.NoError(t, err)
			require.Equal(t, "+", string(data[len(v.Name())]))
		}
	})
}
