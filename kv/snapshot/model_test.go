package snapshot_test

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/kv/snapshot"
)

// model is what a store should do, written down as plainly as can be: one list, searched from the
// front, one step after the other.
type model struct {
	budget   int64
	clock    float64
	sequence int
	held     map[int32]*modelEntry
}

type modelEntry struct {
	first          int32
	bytes          int64
	cost, worth    float64
	uses, sequence int
}

func (m *model) used() (bytes int64) {
	for _, e := range m.held {
		bytes += e.bytes
	}
	return bytes
}

func (m *model) touch(e *modelEntry) {
	e.uses++
	e.worth = m.clock + float64(e.uses)*e.cost/float64(e.bytes)
}

// put evicts files that are worth less, if that makes room enough.
func (m *model) put(first int32, bytes int64, cost float64) {
	if e := m.held[first]; e != nil {
		m.touch(e)
		return
	}
	m.sequence++
	e := &modelEntry{first: first, sequence: m.sequence, bytes: bytes, cost: cost}
	m.touch(e)
	victims := slices.SortedFunc(maps.Values(m.held), func(a, b *modelEntry) int {
		return cmp.Or(cmp.Compare(a.worth, b.worth), a.sequence-b.sequence)
	})
	n, used := 0, m.used()
	for ; used+e.bytes > m.budget; n++ {
		if n == len(victims) || victims[n].worth > e.worth {
			return
		}
		used -= victims[n].bytes
	}
	for _, v := range victims[:n] {
		m.clock = max(m.clock, v.worth)
		delete(m.held, v.first)
	}
	m.held[first] = e
	e.worth = m.clock + e.cost/float64(e.bytes)
}

// reopen keeps the files, in the order of their names.
func (m *model) reopen(name func(first int32) string) {
	kept := slices.SortedFunc(maps.Values(m.held), func(a, b *modelEntry) int {
		return cmp.Compare(name(a.first), name(b.first))
	})
	*m = model{budget: m.budget, held: m.held}
	for _, e := range kept {
		m.sequence++
		e.uses, e.sequence = 0, m.sequence
		m.touch(e)
	}
}

// system is a store beside its model.
type system struct {
	rt    *rapid.T
	o     snapshot.Options
	s     *snapshot.Store
	m     *model
	held  []held
	sizes map[int32]int
}

// held is a buffer that is in use, and what it was for.
type held struct {
	b     *snapshot.Buffer
	first int32
}

// Random puts, gets, releases, drops and restarts do to a store exactly what they do to the model:
// the same files, and the same bytes in every buffer for as long as it is in use.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		y := &system{rt: rt, sizes: map[int32]int{}, o: snapshot.Options{
			BufferBytes: rapid.Int64Range(0, 500).Draw(rt, "buffers"),
			DiskBytes:   rapid.Int64Range(1, 2000).Draw(rt, "disk"),
			Dir:         dir, Plain: true, Workers: 1,
		}}
		var err error
		y.s, err = snapshot.Open(y.o)
		require.NoError(rt, err)
		y.m = &model{budget: y.o.DiskBytes, held: map[int32]*modelEntry{}}
		rt.Repeat(map[string]func(*rapid.T){
			"put": y.put, "get": y.get, "release": y.release, "drop": y.drop,
			"reopen": y.reopen, "": y.check,
		})
		require.NoError(rt, y.s.Close())
	})
}

func (y *system) first() int32 { return rapid.Int32Range(0, 9).Draw(y.rt, "state") }

func (y *system) describe(first int32) snapshot.State {
	st := state(first, 2)
	st.Recompute = time.Duration(1+first) * time.Millisecond
	return st
}

func (y *system) put(*rapid.T) {
	first := y.first()
	if y.sizes[first] == 0 {
		y.sizes[first] = rapid.SampledFrom([]int{8, 20, 50, 120, 280}).Draw(y.rt, "bytes")
	}
	n, st := y.sizes[first], y.describe(first)
	b, err := y.s.Buffer(int64(n))
	require.NoError(y.rt, err)
	copy(b.Bytes(), fill(uint64(first), n))
	_, err = y.s.Put(st, b)
	require.NoError(y.rt, err)
	if rapid.Bool().Draw(y.rt, "keep") {
		y.held = append(y.held, held{b, first})
	} else {
		b.Release()
	}
	require.NoError(y.rt, y.s.Flush(context.Background()))
	y.m.put(first, snapshot.FileBytes(st, n), float64(1+first))
}

func (y *system) get(*rapid.T) {
	first := y.first()
	b, ok := y.s.Get(context.Background(), y.s.ID(y.describe(first)))
	e := y.m.held[first]
	require.Equal(y.rt, e != nil, ok)
	if ok {
		y.m.touch(e)
		y.held = append(y.held, held{b, first})
	}
}

func (y *system) release(*rapid.T) {
	if len(y.held) == 0 {
		return
	}
	i := rapid.IntRange(0, len(y.held)-1).Draw(y.rt, "buffer")
	y.held[i].b.Release()
	y.held = slices.Delete(y.held, i, i+1)
}

func (y *system) drop(*rapid.T) {
	first := y.first()
	y.s.Drop(y.s.ID(y.describe(first)))
	delete(y.m.held, first)
}

func (y *system) reopen(*rapid.T) {
	if rapid.IntRange(0, 4).Draw(y.rt, "really") > 0 {
		return
	}
	require.NoError(y.rt, y.s.Close())
	y.check(nil) // buffers outlive their store
	for _, h := range y.held {
		h.b.Release()
	}
	st := y.s.Stats()
	require.Zero(y.rt, st.BufferBytes+st.FreeBytes)
	y.held = nil
	var err error
	y.s, err = snapshot.Open(y.o)
	require.NoError(y.rt, err)
	y.m.reopen(func(first int32) string { return y.s.ID(y.describe(first)).String() })
}

func (y *system) check(*rapid.T) {
	got, want := []int32{}, []int32{}
	for _, x := range y.s.Index(ident) {
		got = append(got, x.Tokens[0])
	}
	for _, e := range y.m.held {
		want = append(want, e.first)
	}
	require.ElementsMatch(y.rt, want, got)
	st := y.s.Stats()
	require.Equal(y.rt, y.m.used(), st.Bytes)
	require.Equal(y.rt, len(want), st.Files)
	require.LessOrEqual(y.rt, st.Bytes, y.o.DiskBytes)
	require.LessOrEqual(y.rt, st.BufferBytes+st.FreeBytes, max(y.o.BufferBytes, st.BufferBytes))
	used := int64(0)
	for _, h := range y.held {
		require.True(y.rt, bytes.Equal(fill(uint64(h.first), y.sizes[h.first]), h.b.Bytes()))
		used += h.b.Size()
	}
	require.Equal(y.rt, used, st.BufferBytes)
}
