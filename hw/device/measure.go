package device

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Bounds of the measurement of memory. It ends within a second.
const (
	measureBytesMin = 32 << 20 // less says nothing
	measureBytes    = 256 << 20
	measureBytesMax = 1 << 30
	measureShare    = 8 // of the available memory, one part in so many
	passesMin       = 2
	passesMax       = 8
	passesTime      = 400 * time.Millisecond
)

// measureMemory fills in the rate at which all cores together read memory.
func (m *Machine) measureMemory(ctx context.Context) {
	caches := m.CPU.L3Bytes + m.CPU.L2Bytes*int64(m.CPU.Cores)
	size := measureSize(caches, m.Memory.AvailableBytes)
	if size < measureBytesMin {
		m.note("the rate of memory is not measured: too little is available")
		return
	}
	if size < 2*caches {
		m.note(fmt.Sprintf("the rate of memory is measured over %d MiB, of which caches hold %d MiB",
			size>>20, min(size, caches)>>20))
	}
	var err error
	m.Memory.BytesPerSecond, err = readRate(ctx, readers(m.CPU, runtime.GOMAXPROCS(0)), size)
	if err != nil {
		m.note("the rate of memory is not measured: " + err.Error())
	}
}

// measureSize is how many bytes are read: twice what the caches hold, within bounds.
func measureSize(caches, available int64) int64 {
	return min(max(measureBytes, 2*caches), measureBytesMax, available/measureShare)
}

// readers is how many threads read: one for each processor that the process really has.
func readers(c CPU, procs int) int {
	n := min(c.Threads, procs)
	if c.Quota > 0 {
		n = min(n, int(math.Ceil(c.Quota)))
	}
	return max(1, n)
}

// readRate reads size bytes with n threads and gives the best rate of several passes, in bytes a
// second; 0 when ctx ends before. Each thread looks for a byte that is not there, which the
// standard library does with vector instructions: a loop over words would be slower than memory.
func readRate(ctx context.Context, n int, size int64) (float64, error) {
	const absent = 2
	memory, free, err := allocate(int(size))
	if err != nil {
		return 0, err
	}
	defer free()
	part := func(i int) []byte { return memory[i*len(memory)/n : (i+1)*len(memory)/n] }
	parallel(n, func(i int) {
		for at, p := 0, part(i); at < len(p); at += os.Getpagesize() {
			p[at] = 1 // a page that was never written is the system's one page of zeros
		}
	})
	var best float64
	found := make([]bool, n)
	for pass, start := 0, time.Now(); pass < passesMin || pass < passesMax &&
		time.Since(start) < passesTime; pass++ {
		if ctx.Err() != nil {
			return 0, nil
		}
		begin := time.Now()
		parallel(n, func(i int) { found[i] = bytes.IndexByte(part(i), absent) >= 0 })
		if took := time.Since(begin).Seconds(); took > 0 && !slices.Contains(found, true) {
			best = max(best, float64(size)/took)
		}
	}
	return best, nil
}

// parallel calls f for 0..n-1, each on a goroutine, and waits.
func parallel(n int, f func(i int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { f(i) })
	}
	wait.Wait()
}
