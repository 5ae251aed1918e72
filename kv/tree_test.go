package kv_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/kv"
)

func TestTreeLookup(t *testing.T) {
	t.Parallel()
	k := kv.Key{Model: "m"}
	tree := kv.NewTree(kv.GDSF, kv.Costs{})
	require.Zero(t, tree.Lookup(k, []kv.Token{1, 2}).Tokens)
	live := tree.Hold(k, []kv.Token{1, 2, 3, 4, 5}, kv.Live, 7, 0)
	ram := tree.Hold(k, []kv.Token{1, 2, 3}, kv.RAM, 8, 100)
	tree.Hold(k, []kv.Token{1, 9}, kv.Disk, 9, 100)
	tree.Hold(k, []kv.Token{1, 2}, kv.Partial, 10, 1)
	require.NoError(t, tree.Check())

	for _, c := range []struct {
		path     []kv.Token
		at, ends [4]int
	}{
		{nil, [4]int{}, [4]int{}},
		{[]kv.Token{2}, [4]int{}, [4]int{}},
		{[]kv.Token{1}, [4]int{1, 1, 1, 1}, [4]int{}},
		{[]kv.Token{1, 2}, [4]int{2, 2, 1, 2}, [4]int{0, 0, 0, 2}},
		{[]kv.Token{1, 2, 3, 8}, [4]int{3, 3, 1, 2}, [4]int{0, 3, 0, 2}},
		{[]kv.Token{1, 2, 3, 4, 5, 6}, [4]int{5, 3, 1, 2}, [4]int{5, 3, 0, 2}},
		{[]kv.Token{1, 9, 9}, [4]int{1, 1, 2, 1}, [4]int{0, 0, 2, 0}},
	} {
		m := tree.Lookup(k, c.path)
		for p := range 4 {
			require.Equal(t, c.at[p], m.At[p].Tokens, "%v %v", c.path, kv.Place(p))
			require.Equal(t, c.ends[p], m.Ends[p].Tokens, "%v %v", c.path, kv.Place(p))
			require.Equal(t, c.at[p] > 0, m.At[p].Holding() != nil)
			require.Equal(t, c.ends[p] > 0, m.Ends[p].Holding() != nil)
		}
	}
	require.Same(t, live, tree.Lookup(k, []kv.Token{1, 2, 3, 4}).At[kv.Live].Holding())
	tree.Cut(live, 1)
	require.NoError(t, tree.Check())
	require.Equal(t, 3, tree.Lookup(k, []kv.Token{1, 2, 3, 4}).Tokens, "RAM still has it")
	tree.Release(ram)
	require.Equal(t, 2, tree.Lookup(k, []kv.Token{1, 2, 3, 4}).Tokens)
}

// TestTreeSalt: tenants share what is public and nothing behind it.
func TestTreeSalt(t *testing.T) {
	t.Parallel()
	path := []kv.Token{1, 2, 3, 4, 5, 6}
	key := func(salt string, public int) kv.Key {
		return kv.Key{Model: "m", Salt: salt, PublicTokens: public}
	}
	tree := kv.NewTree(kv.GDSF, kv.Costs{})
	a := tree.Hold(key("a", 3), path, kv.Live, 1, 0)
	require.NoError(t, tree.Check())
	for _, c := range []struct {
		key  kv.Key
		want int
	}{
		{key("a", 3), 6},
		{key("b", 3), 3},
		{key("b", 2), 2},
		{key("b", 9), 3},
		{key("", 0), 3},
		{key("b", 0), 0},
		{key("a", 2), 2},
		{kv.Key{Model: "n"}, 0},
		{kv.Key{Model: "m", Scope: "s"}, 0},
		{kv.Key{Model: "m", Adapters: "x"}, 0},
	} {
		require.Equal(t, c.want, tree.Lookup(c.key, path).Tokens, "%+v", c.key)
	}
	// A path that grows over the border goes on in its own space.
	b := tree.Hold(key("b", 3), path[:2], kv.Live, 2, 0)
	for _, token := range path[2:] {
		tree.Extend(b, []kv.Token{token})
		require.NoError(t, tree.Check())
	}
	require.Equal(t, path, b.Path())
	require.Equal(t, 3, tree.Lookup(key("", 0), path).Tokens)
	tree.Cut(b, 3)
	require.NoError(t, tree.Check())
	tree.Release(a)
	tree.Release(b)
	require.NoError(t, tree.Check())
	require.Zero(t, tree.Nodes())
}

// TestTreeModel compares the tree with a list of paths.
func TestTreeModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type held struct {
			h    *kv.Holding
			k    kv.Key
			path []kv.Token
		}
		tokens := rapid.SliceOfN(rapid.Int32Range(0, 2), 0, 12)
		keys := []kv.Key{{}, {Salt: "a", PublicTokens: 3}, {Salt: "b", PublicTokens: 3}, {Scope: "s"}}
		tree := kv.NewTree(rapid.SampledFrom([]kv.Rank{kv.GDSF, kv.LRU}).Draw(t, "rank"), kv.Costs{})
		var all []*held
		pick := func() *held { return rapid.SampledFrom(all).Draw(t, "holding") }
		some := func() {
			if len(all) == 0 {
				t.Skip("nothing is held")
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"hold": func(t *rapid.T) {
				h := &held{k: rapid.SampledFrom(keys).Draw(t, "key"), path: tokens.Draw(t, "path")}
				h.h = tree.Hold(h.k, h.path, kv.Place(rapid.IntRange(0, 3).Draw(t, "place")), 1, 5)
				all = append(all, h)
			},
			"release": func(t *rapid.T) {
				some()
				h := pick()
				tree.Release(h.h)
				all = slices.DeleteFunc(all, func(o *held) bool { return o == h })
			},
			"extend": func(t *rapid.T) {
				some()
				h, more := pick(), tokens.Draw(t, "more")
				tree.Extend(h.h, more)
				h.path = append(slices.Clip(h.path), more...)
			},
			"cut": func(t *rapid.T) {
				some()
				h := pick()
				n := rapid.IntRange(0, len(h.path)).Draw(t, "length")
				tree.Cut(h.h, n)
				h.path = h.path[:n]
			},
			"": func(t *rapid.T) {
				require.NoError(t, tree.Check())
				k, path := rapid.SampledFrom(keys).Draw(t, "key"), tokens.Draw(t, "path")
				m := tree.Lookup(k, path)
				var at, ends [4]int
				for _, h := range all {
					require.Equal(t, h.path, append([]kv.Token{}, h.h.Path()...)[:len(h.path)])
					n := same(k, h.k, path, h.path)
					at[h.h.Place] = max(at[h.h.Place], n)
					if n == len(h.path) {
						ends[h.h.Place] = max(ends[h.h.Place], n)
					}
				}
				for p := range at {
					require.Equal(t, at[p], m.At[p].Tokens, "%v", kv.Place(p))
					require.Equal(t, ends[p], m.Ends[p].Tokens, "%v", kv.Place(p))
				}
				require.Equal(t, slices.Max(at[:]), m.Tokens)
			},
		})
	})
}

// same is how many tokens two paths share, by the definition of a Key.
func same(a, b kv.Key, x, y []kv.Token) int {
	if a.Model != b.Model || a.Adapters != b.Adapters || a.Scope != b.Scope {
		return 0
	}
	n := 0
	for n < min(len(x), len(y)) && x[n] == y[n] {
		n++
	}
	if a.Salt == b.Salt && (a.Salt == "" || a.PublicTokens == b.PublicTokens) {
		return n
	}
	if a.Salt != "" {
		n = min(n, a.PublicTokens)
	}
	if b.Salt != "" {
		n = min(n, b.PublicTokens)
	}
	return n
}

func TestTreeVictim(t *testing.T) {
	t.Parallel()
	k := kv.Key{}
	path := func(first kv.Token, n int) []kv.Token {
		p := make([]kv.Token, n)
		for i := range p {
			p[i] = first
		}
		return p
	}
	for _, rank := range []kv.Rank{kv.GDSF, kv.LRU} {
		tree := kv.NewTree(rank, kv.Costs{ComputePair: 0.01})
		long := tree.Hold(k, path(1, 1000), kv.RAM, 1, 1000)
		short := tree.Hold(k, path(2, 100), kv.RAM, 2, 100)
		used := tree.Hold(k, path(3, 100), kv.RAM, 3, 100)
		tree.Touch(used)
		inner := tree.Hold(k, path(1, 500), kv.RAM, 4, 500)
		if rank == kv.LRU {
			require.Same(t, long, tree.Victim(kv.RAM, nil))
			continue
		}
		require.Same(t, inner, tree.Victim(kv.RAM, nil), "another has all of it")
		inner.Lease()
		require.Same(t, short, tree.Victim(kv.RAM, nil), "a token of a long one costs more")
		tree.Evicted(short)
		fresh := tree.Hold(k, path(5, 10), kv.RAM, 5, 10)
		require.Greater(t, tree.Worth(fresh), tree.Worth(short), "what came later aged less")
		tree.Release(short)
		pin := tree.Pin(k, path(5, 5))
		require.NotNil(t, pin)
		require.Same(t, used, tree.Victim(kv.RAM, func(h *kv.Holding) bool { return h != long }))
		require.True(t, tree.Pinned(fresh))
		inner.Unlease()
		require.Same(t, inner, tree.Victim(kv.RAM, nil))
		require.True(t, tree.Unpin(k, path(5, 5)))
		require.False(t, tree.Unpin(k, path(5, 5)))
		require.False(t, tree.Pinned(fresh))
	}
}

func TestTreeWalk(t *testing.T) {
	t.Parallel()
	tree := kv.NewTree(kv.GDSF, kv.Costs{})
	tree.Hold(kv.Key{Scope: "a"}, []kv.Token{1, 2, 3}, kv.Live, 1, 0)
	tree.Hold(kv.Key{Scope: "a"}, []kv.Token{1, 2, 4}, kv.RAM, 2, 5)
	tree.Hold(kv.Key{Scope: "a", Salt: "s", PublicTokens: 2}, []kv.Token{1, 2, 9}, kv.Disk, 3, 5)
	tree.Hold(kv.Key{Scope: "b"}, []kv.Token{7}, kv.Live, 1, 0)
	var got []string
	tree.Walk(func(n kv.NodeInfo) bool {
		got = append(got, fmt.Sprintln(n.Depth, n.Key.Scope, n.Key.Salt, n.From, n.Tokens, n.Held))
		return len(got) < 9
	})
	require.Equal(t, []string{
		"0 a  0 [1 2] [1 1 1 0]\n", "1 a  2 [3] [1 0 0 0]\n", "1 a  2 [4] [0 1 0 0]\n",
		"1 a s 2 [9] [0 0 1 0]\n", "0 b  0 [7] [1 0 0 0]\n",
	}, got)
	got = nil
	tree.Walk(func(n kv.NodeInfo) bool {
		got = append(got, "")
		return false
	})
	require.Len(t, got, 1)
}

// bigTree has 10^5 nodes in a shape of conversations: turns of 50 to 350 tokens, a third of them
// another answer to a question that was asked before.
func bigTree() (*kv.Tree, [][]kv.Token) {
	r := rand.New(rand.NewPCG(1, 2))
	tree := kv.NewTree(kv.GDSF, kv.Costs{})
	var paths [][]kv.Token
	for id := uint64(0); tree.Nodes() < 100_000; id++ {
		var path []kv.Token
		if n := len(paths); n > 0 && r.IntN(20) > 0 {
			path = paths[r.IntN(n)]
			if r.IntN(3) == 0 {
				path = path[:len(path)-25]
			}
		}
		path = slices.Clone(path)
		for range 50 + r.IntN(300) {
			path = append(path, r.Int32N(100_000))
		}
		tree.Hold(kv.Key{Model: "m"}, path, kv.Place(r.IntN(3)), id, 1)
		paths = append(paths, path)
	}
	return tree, paths
}

// queries are 1,000 tokens each of which the tree knows as much as there is.
func queries(paths [][]kv.Token) [][]kv.Token {
	var long [][]kv.Token
	for _, p := range paths {
		if len(p) >= 1000 {
			long = append(long, p[:1000])
		}
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(long), func(i, j int) {
		long[i], long[j] = long[j], long[i]
	})
	return long
}

func TestTreeLookupAllocatesNothing(t *testing.T) {
	tree, paths := bigTree()
	require.GreaterOrEqual(t, tree.Nodes(), 100_000)
	long, k, i := queries(paths), kv.Key{Model: "m"}, 0
	require.Greater(t, len(long), 100)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if m := tree.Lookup(k, long[i%len(long)]); m.Tokens != 1000 {
			t.Fatal(m.Tokens)
		}
		i++
	}))
}

// BenchmarkLookup asks for prompts that come back, and for so many that none is in the
// processor's cache.
func BenchmarkLookup(b *testing.B) {
	tree, paths := bigTree()
	k := kv.Key{Model: "m"}
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n, " prompts"), func(b *testing.B) {
			long := queries(paths)[:n]
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if tree.Lookup(k, long[i%n]).Tokens != 1000 {
					b.Fatal()
				}
			}
		})
	}
}
