package snapshot_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/kv/snapshot"
)

// The disk budget takes files up to its last byte, also over restarts.
func TestDiskBudget(t *testing.T) {
	t.Parallel()
	size := snapshot.FileBytes(state(0, 1), 100)
	for budget, kept := range map[int64]int{
		size - 1: 0, size: 1, 2*size - 1: 1, 2 * size: 2, 2*size + 1: 2, 3 * size: 3,
	} {
		dir := t.TempDir()
		bound := func(o *snapshot.Options) { o.DiskBytes = budget }
		s := opened(t, dir, bound)
		for i := range int32(3) {
			put(t, s, state(i, 1), fill(1, 100))
		}
		check := func() {
			st := s.Stats()
			require.Equal(t, kept, st.Files, "budget %d of %d", budget, size)
			require.Equal(t, int64(kept)*size, st.Bytes)
			require.Len(t, files(t, dir), kept)
		}
		check()
		if kept > 0 {
			require.Equal(t, uint64(3-kept), s.Stats().Evictions)
		}
		require.NoError(t, s.Close())
		s = opened(t, dir, bound)
		check()
	}
}

// A smaller budget after a restart is kept from the first save on.
func TestDiskBudgetShrinks(t *testing.T) {
	t.Parallel()
	dir, size := t.TempDir(), snapshot.FileBytes(state(0, 1), 100)
	s := opened(t, dir, nil)
	for i := range int32(5) {
		put(t, s, state(i, 1), fill(1, 100))
	}
	require.NoError(t, s.Close())
	s = opened(t, dir, func(o *snapshot.Options) { o.DiskBytes = 2 * size })
	put(t, s, state(9, 1), fill(1, 100))
	require.Len(t, files(t, dir), 2)
	require.Equal(t, 2*size, s.Stats().Bytes)
}

// There are so many files, however small.
func TestFilesBound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		return
	}
	dir := t.TempDir()
	s := opened(t, dir, nil)
	for i := range int32(snapshot.FilesMax + 1) {
		meta := snapshot.EncodeMeta(state(i, 1), time.Unix(1e9, 0))
		file, err := snapshot.SealFile(s, meta, []byte("x"))
		require.NoError(t, err)
		overwrite(t, filepath.Join(dir, snapshot.FileName(snapshot.Address(s, meta))), file)
	}
	s = opened(t, dir, nil)
	st := s.Stats()
	require.Equal(t, snapshot.FilesMax, st.Files)
	require.Equal(t, 1, st.Foreign, "one too many to know")
	dear := state(-1, 1)
	dear.Recompute = time.Hour
	put(t, s, dear, []byte("x"))
	st = s.Stats()
	require.Equal(t, snapshot.FilesMax, st.Files)
	require.Zero(t, st.Foreign)
	require.Len(t, files(t, dir), snapshot.FilesMax)
}

// What is worth most per byte stays, and what is not used any more grows old.
func TestWorth(t *testing.T) {
	t.Parallel()
	type step struct {
		first int32
		bytes int
		cost  time.Duration
	}
	for name, c := range map[string]struct {
		puts []step
		uses map[int32]int // before the last put
		kept []int32
	}{
		"cheap goes": {[]step{{1, 100, 9}, {2, 100, 1}, {3, 100, 5}}, nil, []int32{1, 3}},
		"large goes": {[]step{{1, 150, 9}, {2, 50, 9}, {3, 50, 9}}, nil, []int32{2, 3}},
		"unused goes": {
			[]step{{1, 100, 1}, {2, 100, 1}, {3, 100, 2}}, map[int32]int{1: 2}, []int32{1, 3},
		},
		"older goes":          {[]step{{1, 100, 1}, {2, 100, 1}, {3, 100, 1}}, nil, []int32{2, 3}},
		"worthless stays out": {[]step{{1, 100, 9}, {2, 100, 9}, {3, 100, 1}}, nil, []int32{1, 2}},
		"famous grows old": {
			[]step{
				{1, 100, 4},
				{2, 100, 1},
				{3, 100, 2},
				{4, 100, 3},
				{5, 100, 3},
				{6, 100, 3},
				{7, 100, 3},
			}, nil, []int32{6, 7},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			size := snapshot.FileBytes(state(0, 1), 100)
			s := opened(t, t.TempDir(), func(o *snapshot.Options) { o.DiskBytes = 2 * size })
			for i, p := range c.puts {
				if i == len(c.puts)-1 {
					for first, n := range c.uses {
						for range n {
							b, ok := s.Get(t.Context(), s.ID(state(first, 1)))
							require.True(t, ok)
							b.Release()
						}
					}
				}
				st := state(p.first, 1)
				st.Recompute = p.cost * time.Second
				put(t, s, st, fill(1, p.bytes))
			}
			var kept []int32
			for _, x := range s.Index(ident) {
				kept = append(kept, x.Tokens[0])
			}
			require.ElementsMatch(t, c.kept, kept)
		})
	}
}

// gate holds the disk's lock calls until it is opened.
type gate struct {
	op     disk.Op
	once   sync.Once
	opened chan struct{}
	asked  chan struct{} // one per call that waits
}

func (g *gate) fail(op disk.Op, _ string, _ int) error {
	if op == g.op {
		select {
		case g.asked <- struct{}{}:
		default:
		}
		<-g.opened
	}
	return nil
}

func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

// gated is a store whose disk waits in calls of one kind.
func gated(t *testing.T, op disk.Op, queueBytes int64) (*snapshot.Store, *gate) {
	t.Helper()
	var d *disk.Faulty
	s := opened(t, t.TempDir(), func(o *snapshot.Options) {
		faulty(&d)(o)
		o.QueueBytes = queueBytes
	})
	g := &gate{op: op, opened: make(chan struct{}), asked: make(chan struct{}, 1)}
	d.Set(disk.Faults{Fail: g.fail})
	t.Cleanup(g.open) // before the store is closed
	return s, g
}

// The queue takes so many states, and so many bytes. Put does not wait for the disk.
func TestQueueBounds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		queueBytes int64
		size, fit  int
	}{
		"entries":      {1 << 20, 10, snapshot.QueueEntriesMax + 1}, // one is being written
		"bytes":        {1000, 250, 4},
		"bytes less 1": {999, 250, 3},
		"one too big":  {100, 250, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, g := gated(t, disk.OpLock, c.queueBytes)
			id, err := give(t, s, state(0, 1), fill(1, c.size))
			require.NoError(t, err)
			<-g.asked // it is being written
			for i := 1; i < c.fit; i++ {
				_, err := give(t, s, state(int32(i), 1), fill(1, c.size))
				require.NoError(t, err, "%d", i)
			}
			_, err = give(t, s, state(int32(c.fit), 1), fill(1, c.size))
			require.ErrorIs(t, err, snapshot.ErrNoRoom)
			again, err := give(t, s, state(0, 1), fill(2, c.size))
			require.NoError(t, err)
			require.Equal(t, id, again, "it waits already")
			st := s.Stats()
			require.Equal(t, c.fit, st.Waiting)
			require.Equal(t, uint64(1), st.Saves.Skipped)
			require.Equal(t, int64(c.fit*c.size), st.BufferBytes)
			requireHit(t, s, id, fill(1, c.size))
			g.open()
			require.NoError(t, s.Flush(t.Context()))
			st = s.Stats()
			require.Equal(t, uint64(c.fit), st.Saves.Done)
			require.Equal(t, c.fit, st.Files)
			require.Zero(t, st.BufferBytes)
			require.Zero(t, st.Waiting)
		})
	}
}

// A save takes no second copy of a state: what is written is the caller's own memory. It lives
// until it is written, also when its caller has given it up, and until then whoever asks gets it.
func TestSaveSharesMemory(t *testing.T) {
	t.Parallel()
	s, g := gated(t, disk.OpLock, 1<<20)
	data := fill(1, 300)
	b := buffer(t, s, data)
	memory := &b.Bytes()[0]
	id, err := s.Put(state(1, 1), b)
	require.NoError(t, err)
	<-g.asked
	require.Equal(t, int64(300), s.Stats().BufferBytes)
	b.Release()
	b.Release()
	require.Nil(t, b.Bytes())
	require.Equal(t, int64(300), s.Stats().BufferBytes, "it is not yet written")
	other := buffer(t, s, make([]byte, 300))
	got, ok := s.Get(t.Context(), id)
	require.True(t, ok)
	require.Same(t, memory, &got.Bytes()[0])
	require.Equal(t, data, got.Bytes())
	g.open()
	require.NoError(t, s.Flush(t.Context()))
	require.Equal(t, int64(600), s.Stats().BufferBytes, "it is in use")
	got.Release()
	other.Release()
	require.Zero(t, s.Stats().BufferBytes)
	requireHit(t, s, id, data)
}

// Dropping what waits frees its memory at once; dropping what is being written, once that ends.
// Neither leaves a file or an account.
func TestDropWhileWaiting(t *testing.T) {
	t.Parallel()
	for _, op := range []disk.Op{disk.OpLock, disk.OpRename} {
		s, g := gated(t, op, 1<<20)
		var ids []snapshot.ID
		for i := range int32(3) {
			id, err := give(t, s, state(i, 1), fill(1, 10))
			require.NoError(t, err)
			ids = append(ids, id)
			if i == 0 {
				<-g.asked
			}
		}
		require.Equal(t, int64(30), s.Stats().BufferBytes)
		s.Drop(ids[0])
		require.Equal(t, int64(30), s.Stats().BufferBytes, "it is being written")
		s.Drop(ids[1])
		require.Equal(t, int64(20), s.Stats().BufferBytes)
		require.Equal(t, 2, s.Stats().Waiting)
		again, err := give(t, s, state(0, 1), fill(5, 10))
		require.NoError(t, err)
		g.open()
		require.NoError(t, s.Flush(t.Context()))
		require.Equal(t, 2, s.Stats().Files)
		requireMiss(t, s, ids[1], snapshot.MissAbsent)
		requireHit(t, s, again, fill(5, 10))
		requireHit(t, s, ids[2], fill(1, 10))
		require.Zero(t, s.Stats().BufferBytes)
	}
}

// Close gives up what waits, at once; Flush ends with its context.
func TestCloseWhileWaiting(t *testing.T) {
	t.Parallel()
	s, g := gated(t, disk.OpLock, 1<<20)
	for i := range int32(3) {
		_, err := give(t, s, state(i, 1), fill(1, 10))
		require.NoError(t, err)
	}
	<-g.asked
	ctx, cancel := contextDone(t)
	defer cancel()
	require.ErrorIs(t, s.Flush(ctx), snapshot.ErrCanceled)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	g.open()
	require.NoError(t, <-closed)
	st := s.Stats()
	require.Zero(t, st.Waiting)
	require.Equal(t, uint64(3), st.Saves.Done+st.Saves.Skipped)
	require.Zero(t, st.BufferBytes+st.FreeBytes)
}

// What is unused and what is in use stay within the budget together, to the last byte, and what is
// in use may exceed it alone. After Close nothing stays.
func TestBufferBudget(t *testing.T) {
	t.Parallel()
	const n = 1000
	for budget, free := range map[int64]int64{
		0: 0, n - 1: 0, n: n, 2*n - 1: n, 2 * n: 2 * n, 3*n - 1: 2 * n, 3 * n: 3 * n, 4 * n: 3 * n,
	} {
		s := opened(t, "", func(o *snapshot.Options) { o.BufferBytes = budget })
		var three []*snapshot.Buffer
		for range 3 {
			three = append(three, buffer(t, s, make([]byte, n)))
		}
		require.Equal(t, int64(3*n), s.Stats().BufferBytes)
		for i, b := range three {
			b.Release()
			st := s.Stats()
			require.Equal(t, int64((2-i)*n), st.BufferBytes)
			require.LessOrEqual(t, st.BufferBytes+st.FreeBytes, max(budget, st.BufferBytes))
		}
		require.Equal(t, free, s.Stats().FreeBytes, "budget %d", budget)
		other := buffer(t, s, make([]byte, 2*n)) // unlike those that are there: they make room
		require.LessOrEqual(t, s.Stats().FreeBytes, max(0, budget-2*n), "budget %d", budget)
		require.NoError(t, s.Close())
		require.Zero(t, s.Stats().FreeBytes)
		require.Len(t, other.Bytes(), 2*n)
		other.Release()
		st := s.Stats()
		require.Zero(t, st.BufferBytes+st.FreeBytes)
	}
}

// Memory is used again where little of it is wasted: for a save, a copy or a read.
func TestPool(t *testing.T) {
	t.Parallel()
	const n = 1 << 20
	s := opened(t, t.TempDir(), func(o *snapshot.Options) { o.BufferBytes = 4 * n })
	b := buffer(t, s, make([]byte, n))
	first := &b.Bytes()[0]
	id, err := s.Put(state(1, 1), b)
	require.NoError(t, err)
	require.NoError(t, s.Flush(t.Context()))
	b.Release()
	b.Release()
	require.Equal(t, int64(n), s.Stats().FreeBytes)
	b, ok := s.Get(t.Context(), id)
	require.True(t, ok)
	require.Same(t, first, &b.Bytes()[0])
	b.Release()
	least := int64(n - n/9) // wastes an eighth of itself
	b, err = s.Buffer(least)
	require.NoError(t, err)
	require.Same(t, first, &b.Bytes()[0])
	require.Len(t, b.Bytes(), int(least))
	require.Equal(t, int64(n), b.Size())
	require.Zero(t, s.Stats().FreeBytes)
	b.Trim(7)
	b.Trim(8)
	require.Len(t, b.Bytes(), 7)
	b.Trim(-1)
	_, err = s.Put(state(2, 1), b)
	require.ErrorIs(t, err, snapshot.ErrInvalid)
	b.Release()
	b, err = s.Buffer(least - 1)
	require.NoError(t, err)
	require.NotSame(t, first, &b.Bytes()[0])
	_, err = opened(t, "", nil).Put(state(1, 1), b)
	require.ErrorIs(t, err, snapshot.ErrInvalid, "a buffer of another store")
	b.Release()
	_, err = s.Put(state(1, 1), b)
	require.ErrorIs(t, err, snapshot.ErrInvalid, "released")
	(*snapshot.Buffer)(nil).Release()
	for _, bad := range []int64{-1, 0, snapshot.StateBytesMax + 1} {
		_, err := s.Buffer(bad)
		require.ErrorIs(t, err, snapshot.ErrInvalid)
	}

	small := make([]*snapshot.Buffer, snapshot.FreeBuffersMax+1)
	for i := range small {
		small[i] = buffer(t, s, []byte("x"))
	}
	for _, b := range small {
		b.Release()
	}
	require.Equal(t, int64(snapshot.FreeBuffersMax), s.Stats().FreeBytes)
}

// A buffer is at most an eighth larger than what it is for.
func TestSizeClass(t *testing.T) {
	t.Parallel()
	const exact = snapshot.ExactBytesMax
	for n, want := range map[int64]int64{
		1: 1, exact: exact, exact + 1: exact * 9 / 8, exact * 9 / 8: exact * 9 / 8,
		1 << 20: 1 << 20, 1<<20 + 1: 9 << 17, 64<<20 - 1: 64 << 20, 65 << 20: 72 << 20,
	} {
		require.Equal(t, want, snapshot.SizeClass(n), fmt.Sprint(n))
		require.LessOrEqual(t, want-n, n/8)
	}
}
