package snapshot_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
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
	ram, disk           int64 // budgets
	ramClock, diskClock float64
	sequence            int
	held                map[int32]*modelEntry
	leased              []*modelEntry
}

type modelEntry struct {
	first              int32
	bytes, fileBytes   int64
	cost               float64
	uses, sequence     int
	inRAM, onDisk      bool
	ramWorth, diskWort float64
	leases             int
	gone               bool
}

func (m *model) used() (ram, disk int64) {
	all := slices.Collect(maps.Values(m.held))
	for _, e := range m.leased {
		if e.gone && !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	for _, e := range all {
		if e.inRAM {
			ram += e.bytes
		}
		if e.onDisk {
			disk += e.fileBytes
		}
	}
	return ram, disk
}

func (m *model) touch(e *modelEntry) {
	e.uses++
	e.ramWorth = m.ramClock + float64(e.uses)*e.cost/float64(e.bytes)
	e.diskWort = m.diskClock + float64(e.uses)*e.cost/float64(e.fileBytes)
}

func (m *model) forget(e *modelEntry) {
	if !e.inRAM && !e.onDisk {
		delete(m.held, e.first)
		e.gone = true
	}
}

func (m *model) evictRAM() {
	for {
		used, _ := m.used()
		var free []*modelEntry
		for _, e := range m.held {
			if e.inRAM && e.leases == 0 {
				free = append(free, e)
			}
		}
		if used <= m.ram || len(free) == 0 {
			return
		}
		e := slices.MinFunc(free, func(a, b *modelEntry) int {
			return cmp.Or(cmp.Compare(a.ramWorth, b.ramWorth), a.sequence-b.sequence)
		})
		m.ramClock = max(m.ramClock, e.ramWorth)
		e.inRAM = false
		m.forget(e)
	}
}

func (m *model) put(first int32, bytes, fileBytes int64, cost float64) {
	e := m.held[first]
	if e == nil {
		m.sequence++
		e = &modelEntry{first: first, sequence: m.sequence, bytes: bytes, fileBytes: fileBytes}
		m.held[first] = e
	}
	e.cost, e.inRAM = cost, true
	m.touch(e)
	if !e.onDisk {
		m.save(e)
	}
	m.evictRAM()
}

// save evicts files that are worth less, if that makes room enough.
func (m *model) save(e *modelEntry) {
	_, used := m.used()
	var victims []*modelEntry
	for _, v := range m.held {
		if v.onDisk && v.leases == 0 {
			victims = append(victims, v)
		}
	}
	slices.SortFunc(victims, func(a, b *modelEntry) int {
		return cmp.Or(cmp.Compare(a.diskWort, b.diskWort), a.sequence-b.sequence)
	})
	n := 0
	for ; used+e.fileBytes > m.disk; n++ {
		if n == len(victims) || victims[n].diskWort > e.diskWort ||
			victims[n].diskWort == e.diskWort && victims[n].sequence > e.sequence {
			return
		}
		used -= victims[n].fileBytes
	}
	for _, v := range victims[:n] {
		m.diskClock = max(m.diskClock, v.diskWort)
		v.onDisk = false
		m.forget(v)
	}
	e.onDisk = true
	e.diskWort = m.diskClock + float64(e.uses)*e.cost/float64(e.fileBytes)
}

func (m *model) get(first int32) (hit, fromRAM bool) {
	e := m.held[first]
	if e == nil {
		return false, false
	}
	fromRAM, e.inRAM = e.inRAM, true
	m.touch(e)
	e.leases++
	m.leased = append(m.leased, e)
	return true, fromRAM
}

func (m *model) release(i int) {
	e := m.leased[i]
	m.leased = slices.Delete(m.leased, i, i+1)
	e.leases--
	m.evictRAM()
}

func (m *model) drop(first int32) {
	if e := m.held[first]; e != nil {
		e.onDisk, e.gone = false, true // a lease may still hold the memory
		delete(m.held, first)
	}
}

// reopen keeps what is on disk, in the order of the names.
func (m *model) reopen(name func(first int32) string) {
	*m = model{ram: m.ram, disk: m.disk, held: m.held}
	kept := slices.SortedFunc(maps.Values(m.held), func(a, b *modelEntry) int {
		return cmp.Compare(name(a.first), name(b.first))
	})
	m.held = map[int32]*modelEntry{}
	for _, e := range kept {
		if e.onDisk {
			m.sequence++
			e.uses, e.sequence, e.inRAM, e.leases = 0, m.sequence, false, 0
			m.touch(e)
			m.held[e.first] = e
		}
	}
}

// system is a store beside its model.
type system struct {
	rt     *rapid.T
	o      snapshot.Options
	s      *snapshot.Store
	m      *model
	leases []*snapshot.Lease
	sizes  map[int32]int
}

// Random puts, gets, releases, drops and restarts do to a store exactly what they do to the model:
// the same states in the same tiers, the same bytes.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		y := &system{rt: rt, sizes: map[int32]int{}, o: snapshot.Options{
			RAMBytes:  rapid.Int64Range(0, 500).Draw(rt, "ram"),
			DiskBytes: rapid.Int64Range(0, 2000).Draw(rt, "disk"),
			Dir:       dir, Plain: true, Workers: 1,
		}}
		var err error
		y.s, err = snapshot.Open(y.o)
		require.NoError(rt, err)
		y.m = &model{ram: y.o.RAMBytes, disk: y.o.DiskBytes, held: map[int32]*modelEntry{}}
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
		// So far apart that no buffer is used again for another size: its capacity is charged.
		y.sizes[first] = rapid.SampledFrom([]int{8, 20, 50, 120, 280}).Draw(y.rt, "bytes")
	}
	n, st := y.sizes[first], y.describe(first)
	b, err := y.s.Buffer(int64(n))
	require.NoError(y.rt, err)
	copy(b.Bytes(), fill(uint64(first), n))
	_, err = y.s.Put(st, b)
	require.NoError(y.rt, y.s.Flush(context.Background()))
	y.m.put(first, int64(n), snapshot.FileBytes(st, n), float64(1+first))
	if err != nil {
		require.ErrorIs(y.rt, err, snapshot.ErrNoRoom)
		require.Nil(y.rt, y.m.held[first])
	}
}

func (y *system) get(*rapid.T) {
	first := y.first()
	l, ok := y.s.Get(context.Background(), y.s.ID(y.describe(first)))
	hit, fromRAM := y.m.get(first)
	require.Equal(y.rt, hit, ok)
	if ok {
		require.Equal(y.rt, fromRAM, l.Source() == snapshot.FromRAM)
		y.leases = append(y.leases, l)
	}
}

func (y *system) release(*rapid.T) {
	if len(y.leases) == 0 {
		return
	}
	i := rapid.IntRange(0, len(y.leases)-1).Draw(y.rt, "lease")
	y.leases[i].Release()
	y.leases = slices.Delete(y.leases, i, i+1)
	y.m.release(i)
}

func (y *system) drop(*rapid.T) {
	first := y.first()
	y.s.Drop(y.s.ID(y.describe(first)))
	y.m.drop(first)
}

func (y *system) reopen(*rapid.T) {
	if rapid.IntRange(0, 4).Draw(y.rt, "really") > 0 {
		return
	}
	for _, l := range y.leases {
		l.Release()
	}
	require.NoError(y.rt, y.s.Close())
	y.leases = nil
	var err error
	y.s, err = snapshot.Open(y.o)
	require.NoError(y.rt, err)
	y.m.reopen(func(first int32) string { return y.s.ID(y.describe(first)).String() })
}

func (y *system) check(*rapid.T) {
	got, want := []string{}, []string{}
	for _, x := range y.s.Index(ident) {
		item, ok := y.s.Lookup(x.ID)
		require.True(y.rt, ok)
		got = append(got, fmt.Sprint(x.Tokens[0], item.RAMBytes > 0, item.FileBytes > 0))
	}
	for _, e := range y.m.held {
		want = append(want, fmt.Sprint(e.first, e.inRAM, e.onDisk))
	}
	require.ElementsMatch(y.rt, want, got)
	st := y.s.Stats()
	ram, disk := y.m.used()
	require.Equal(y.rt, ram, st.RAM.Bytes)
	require.Equal(y.rt, disk, st.Disk.Bytes)
	require.LessOrEqual(y.rt, st.Disk.Bytes, y.o.DiskBytes)
	if len(y.leases) == 0 {
		require.LessOrEqual(y.rt, st.RAM.Bytes, y.o.RAMBytes)
	}
	for i, l := range y.leases {
		first := y.m.leased[i].first
		require.True(y.rt, bytes.Equal(fill(uint64(first), y.sizes[first]), l.Bytes()))
	}
}
