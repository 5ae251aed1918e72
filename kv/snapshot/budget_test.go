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

// The RAM budget takes states up to its last byte.
func TestRAMBudget(t *testing.T) {
	t.Parallel()
	for budget, kept := range map[int64]int{0: 0, 99: 0, 100: 1, 199: 1, 200: 2, 201: 2, 300: 3} {
		s := opened(t, "", func(o *snapshot.Options) { o.RAMBytes = budget })
		for i := range int32(3) {
			_, err := s.Put(state(i, 1), buffer(t, s, fill(1, 100)))
			if budget < 100 {
				require.ErrorIs(t, err, snapshot.ErrNoRoom)
			} else {
				require.NoError(t, err)
			}
		}
		st := s.Stats()
		require.Equal(t, kept, st.RAM.Entries, "budget %d", budget)
		require.Equal(t, int64(100*kept), st.RAM.Bytes)
		require.Equal(t, uint64(3-kept), st.RAM.Evictions)
		require.Len(t, s.List(), kept)
	}
}

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
			require.Equal(t, kept, st.Disk.Entries, "budget %d of %d", budget, size)
			require.Equal(t, int64(kept)*size, st.Disk.Bytes)
			require.Len(t, files(t, dir), kept)
		}
		check()
		if kept > 0 {
			require.Equal(t, uint64(3-kept), s.Stats().Disk.Evictions)
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
	require.Equal(t, 2*size, s.Stats().Disk.Bytes)
}

// A tier holds so many states, however small.
func TestEntriesBound(t *testing.T) {
	t.Parallel()
	s := opened(t, "", nil)
	for i := range int32(snapshot.RAMEntriesMax + 1) {
		_, err := s.Put(state(i, 1), buffer(t, s, []byte("x")))
		require.NoError(t, err)
		require.Equal(t, min(int(i)+1, snapshot.RAMEntriesMax), s.Stats().RAM.Entries)
	}
	if testing.Short() {
		return
	}
	dir := t.TempDir()
	s = opened(t, dir, diskOnly)
	for i := range int32(snapshot.DiskEntriesMax + 1) {
		meta := snapshot.EncodeMeta(state(i, 1), time.Unix(1e9, 0))
		file, err := snapshot.SealFile(s, meta, []byte("x"))
		require.NoError(t, err)
		overwrite(t, filepath.Join(dir, snapshot.FileName(snapshot.Address(s, meta))), file)
	}
	s = opened(t, dir, diskOnly)
	st := s.Stats()
	require.Equal(t, snapshot.DiskEntriesMax, st.Disk.Entries)
	require.Equal(t, 1, st.Foreign, "one too many to know")
	dear := state(-1, 1)
	dear.Recompute = time.Hour
	put(t, s, dear, []byte("x"))
	st = s.Stats()
	require.Equal(t, snapshot.DiskEntriesMax, st.Disk.Entries)
	require.Zero(t, st.Foreign)
	require.Len(t, files(t, dir), snapshot.DiskEntriesMax)
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
			for tier, change := range map[string]func(*snapshot.Options){
				"ram":  func(o *snapshot.Options) { o.RAMBytes, o.DiskBytes = 200, 0 },
				"disk": func(o *snapshot.Options) { o.RAMBytes, o.DiskBytes = 0, 2*size },
			} {
				s := opened(t, t.TempDir(), change)
				for i, p := range c.puts {
					if i == len(c.puts)-1 {
						for first, n := range c.uses {
							for range n {
								l, ok := s.Get(t.Context(), s.ID(state(first, 1)))
								require.True(t, ok)
								l.Release()
							}
						}
					}
					st := state(p.first, 1)
					st.Recompute = p.cost * time.Second
					_, _ = s.Put(st, buffer(t, s, fill(1, p.bytes))) // may find no room
					require.NoError(t, s.Flush(t.Context()))
				}
				var kept []int32
				for _, x := range s.Index(ident) {
					kept = append(kept, x.Tokens[0])
				}
				require.ElementsMatch(t, c.kept, kept, tier)
			}
		})
	}
}

// The file of a state that is in use stays, whatever wants its room.
func TestLeaseKeepsFile(t *testing.T) {
	t.Parallel()
	dir, size := t.TempDir(), snapshot.FileBytes(state(0, 1), 100)
	s := opened(t, dir, func(o *snapshot.Options) { o.RAMBytes, o.DiskBytes = 0, size })
	id := put(t, s, state(1, 1), fill(1, 100))
	l, ok := s.Get(t.Context(), id)
	require.True(t, ok)
	dear := state(2, 1)
	dear.Recompute = time.Hour
	_, err := s.Put(dear, buffer(t, s, fill(2, 100)))
	require.NoError(t, err)
	require.NoError(t, s.Flush(t.Context()))
	require.Equal(t, []string{snapshot.FileName(id)}, files(t, dir))
	l.Release()
	put(t, s, dear, fill(2, 100))
	require.Equal(t, []string{snapshot.FileName(s.ID(dear))}, files(t, dir))
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

// The queue takes so many states, and so many bytes; what finds no place is not kept where RAM has
// no room either. Put does not wait for the disk.
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
			put := func(i int) error {
				_, err := s.Put(state(int32(i), 1), buffer(t, s, fill(1, c.size)))
				return err
			}
			require.NoError(t, put(0))
			<-g.asked // it is being written
			for i := 1; i < c.fit; i++ {
				require.NoError(t, put(i), "%d", i)
			}
			require.ErrorIs(t, put(c.fit), snapshot.ErrNoRoom)
			st := s.Stats()
			require.Equal(t, c.fit, st.Waiting)
			require.Equal(t, uint64(1), st.Saves.Skipped)
			l, ok := s.Get(t.Context(), s.ID(state(0, 1)))
			require.True(t, ok, "what waits can be used")
			l.Release()
			g.open()
			require.NoError(t, s.Flush(t.Context()))
			st = s.Stats()
			require.Equal(t, uint64(c.fit), st.Saves.Done)
			require.Equal(t, c.fit, st.Disk.Entries)
			require.Zero(t, st.RAM.Bytes)
			require.Zero(t, st.Waiting)
		})
	}
}

// What waits to be written does not push out of RAM what is worth more.
func TestQueueIsOnTop(t *testing.T) {
	t.Parallel()
	var d *disk.Faulty
	s := opened(t, t.TempDir(), func(o *snapshot.Options) { faulty(&d)(o); o.RAMBytes = 100 })
	dear := state(1, 1)
	dear.Recompute = time.Hour
	id := put(t, s, dear, fill(1, 100))
	cheap := put(t, s, state(2, 1), fill(2, 100))
	requireHit(t, s, id, fill(1, 100), snapshot.FromRAM)
	requireHit(t, s, cheap, fill(2, 100), snapshot.FromDisk)
	requireHit(t, s, id, fill(1, 100), snapshot.FromRAM)
}

// Dropping what waits, or is being written, leaves no file and no account.
func TestDropWhileWaiting(t *testing.T) {
	t.Parallel()
	for _, op := range []disk.Op{disk.OpLock, disk.OpRename} {
		s, g := gated(t, op, 1<<20)
		var ids []snapshot.ID
		for i := range int32(3) {
			id, err := s.Put(state(i, 1), buffer(t, s, fill(1, 10)))
			require.NoError(t, err)
			ids = append(ids, id)
		}
		<-g.asked
		s.Drop(ids[0])
		s.Drop(ids[1])
		again, err := s.Put(state(0, 1), buffer(t, s, fill(5, 10)))
		require.NoError(t, err)
		g.open()
		require.NoError(t, s.Flush(t.Context()))
		require.Equal(t, 2, s.Stats().Disk.Entries)
		requireMiss(t, s, ids[1], snapshot.MissAbsent)
		requireHit(t, s, again, fill(5, 10), snapshot.FromDisk)
		requireHit(t, s, ids[2], fill(1, 10), snapshot.FromDisk)
		require.Zero(t, s.Stats().RAM.Bytes)
	}
}

// Close gives up what waits, at once; Flush ends with its context.
func TestCloseWhileWaiting(t *testing.T) {
	t.Parallel()
	s, g := gated(t, disk.OpLock, 1<<20)
	for i := range int32(3) {
		_, err := s.Put(state(i, 1), buffer(t, s, fill(1, 10)))
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
	require.Zero(t, st.RAM.Bytes)
}

// Buffers are used again, and free ones stay within their bounds.
func TestPool(t *testing.T) {
	t.Parallel()
	const n = 1 << 20
	s := opened(t, "", func(o *snapshot.Options) { o.RAMBytes, o.QueueBytes = 2*n, 2*n })
	var five []*snapshot.Buffer
	for range 5 {
		five = append(five, buffer(t, s, make([]byte, n)))
	}
	for i, b := range five {
		b.Release()
		require.LessOrEqual(t, s.Stats().FreeBytes, int64(4*n-(4-i)*n), "with what is out")
	}
	require.Equal(t, int64(4*n), s.Stats().FreeBytes)
	put(t, s, state(99, 1), make([]byte, 2*n))
	require.Equal(t, int64(2*n), s.Stats().FreeBytes, "beside what is in RAM")
	s = opened(t, "", func(o *snapshot.Options) { o.RAMBytes, o.QueueBytes = 2*n, 2*n })
	b := buffer(t, s, make([]byte, n))
	first := &b.Bytes()[0]
	b.Release()
	b.Release()
	require.Nil(t, b.Bytes())
	require.Equal(t, int64(n), s.Stats().FreeBytes)
	b, err := s.Buffer(n - 1000)
	require.NoError(t, err)
	require.Same(t, first, &b.Bytes()[0])
	require.Len(t, b.Bytes(), n-1000)
	require.Zero(t, s.Stats().FreeBytes)
	b.Trim(7)
	b.Trim(8)
	require.Len(t, b.Bytes(), 7)
	b.Trim(-1)
	_, err = s.Put(state(1, 1), b)
	require.ErrorIs(t, err, snapshot.ErrInvalid)
	b.Release()
	b, err = s.Buffer(n / 2)
	require.NoError(t, err)
	require.NotSame(t, first, &b.Bytes()[0], "half of it would be wasted")
	b.Release()

	for i := range int32(20) { // in steady state eviction feeds the pool
		put(t, s, state(i, 1), make([]byte, n))
		st := s.Stats()
		require.LessOrEqual(t, st.RAM.Bytes+st.FreeBytes, int64(4*n))
		require.LessOrEqual(t, st.RAM.Bytes, int64(2*n))
	}
	small := make([]*snapshot.Buffer, snapshot.FreeBuffersMax+1)
	for i := range small {
		small[i] = buffer(t, s, []byte("x"))
	}
	for _, b := range small {
		b.Release()
	}
	require.Equal(t, int64(snapshot.FreeBuffersMax), s.Stats().FreeBytes)
	for _, bad := range []int64{-1, 0, snapshot.StateBytesMax + 1} {
		_, err := s.Buffer(bad)
		require.ErrorIs(t, err, snapshot.ErrInvalid)
	}
	_, err = opened(t, "", nil).Put(state(1, 1), buffer(t, s, []byte("x")))
	require.ErrorIs(t, err, snapshot.ErrInvalid, "a buffer of another store")
}

func TestSizeClass(t *testing.T) {
	t.Parallel()
	const exact = snapshot.ExactBytesMax
	for n, want := range map[int64]int64{
		1: 1, exact: exact, exact + 1: exact * 9 / 8, exact * 9 / 8: exact * 9 / 8,
		1 << 20: 1 << 20, 1<<20 + 1: 9 << 17, 64<<20 - 1: 64 << 20, 65 << 20: 72 << 20,
	} {
		require.Equal(t, want, snapshot.SizeClass(n), fmt.Sprint(n))
	}
}

// One goroutine reads a file for all that ask for it at once.
func TestOneRead(t *testing.T) {
	t.Parallel()
	dir, _, id, data := saved(t, diskOnly, 3*snapshot.BlockBytes)
	var d *disk.Faulty
	s := opened(t, dir, faulty(&d))
	reading, proceed := make(chan struct{}, 100), make(chan struct{})
	d.Set(disk.Faults{Fail: func(op disk.Op, _ string, _ int) error {
		if op == disk.OpOpen {
			reading <- struct{}{}
			<-proceed
		}
		return nil
	}})
	var wg sync.WaitGroup
	leases := make([]*snapshot.Lease, 8)
	for i := range leases {
		wg.Go(func() { leases[i], _ = s.Get(t.Context(), id) })
	}
	<-reading
	close(proceed)
	wg.Wait()
	require.Empty(t, reading)
	for _, l := range leases {
		require.NotNil(t, l)
		require.Equal(t, data, l.Bytes())
		require.Same(t, &leases[0].Bytes()[0], &l.Bytes()[0], "one memory for all")
	}
	for _, l := range leases {
		l.Release()
	}
	require.Zero(t, s.Stats().RAM.Bytes)
}
