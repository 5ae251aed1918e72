package snapshot

import (
	"errors"
	"math/bits"
	"slices"
	"sync"
)

// Bounds of the pool of buffers.
const (
	freeBuffersMax = 16
	// wasteShare is the part of a state's bytes that its buffer may be larger by: one eighth.
	wasteShare = 8
	// exactBytesMax is the largest buffer that is made as small as asked. Larger ones are rounded
	// up, so that a sequence that grows finds a buffer again.
	exactBytesMax = 64 << 10
)

// Buffer is a use of pooled memory that holds one state, from Store.Buffer or Store.Get. It belongs
// to who asked for it, until Release, and is used by one goroutine at a time. Several may share the
// memory: once it was given to Put, or came from Get, nobody writes to it.
type Buffer struct {
	p *pool
	m *memory // nil after Release
	b []byte
}

// memory is what Buffers share.
type memory struct {
	bytes []byte
	uses  int // Buffers; the pool's mutex guards it
}

// Bytes is the memory, at first with the contents of whoever had it before. It is nil after
// Release, and valid until then, also after Store.Close.
func (b *Buffer) Bytes() []byte { return b.b }

// Size is what the memory takes: at least len(Bytes), at most an eighth more than was asked for.
func (b *Buffer) Size() int64 { return int64(cap(b.m.bytes)) }

// Trim shortens the buffer to its first n bytes, where a state turned out smaller than foretold.
func (b *Buffer) Trim(n int) { b.b = b.b[:min(max(0, n), len(b.b))] }

// Release ends this use; the last one gives the memory back to the pool. Of nil, or a second time,
// it does nothing.
func (b *Buffer) Release() {
	if b == nil || b.m == nil {
		return
	}
	m := b.m
	b.m, b.b = nil, nil
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	if m.uses--; m.uses == 0 {
		b.p.put(m.bytes)
	}
}

// share begins another use of the same memory.
func (b *Buffer) share() *Buffer {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.m.uses++
	return &Buffer{p: b.p, m: b.m, b: b.b}
}

// Buffer returns memory of n bytes, from the pool where some fits. ErrInvalid is returned for n
// outside 1 to StateBytesMax, ErrClosed after Close.
func (s *Store) Buffer(n int64) (*Buffer, error) {
	if n < 1 || n > StateBytesMax {
		return nil, &Error{
			Op: "buffer", Kind: ErrInvalid, Field: "n", Err: errors.New("size out of range"),
		}
	}
	if s.isClosed() {
		return nil, &Error{Op: "buffer", Kind: ErrClosed}
	}
	m := &memory{bytes: s.pool.get(n), uses: 1}
	return &Buffer{p: &s.pool, m: m, b: m.bytes[:n]}, nil
}

// sizeClass rounds n up to a multiple of an eighth of its highest bit.
func sizeClass(n int64) int64 {
	if n <= exactBytesMax {
		return n
	}
	step := int64(1) << (bits.Len64(uint64(n-1)) - 4)
	return (n + step - 1) / step * step
}

// pool keeps memory that nobody uses: fresh memory costs a page fault for every page. What is free
// stays within what limit leaves beside the memory in use.
type pool struct {
	mu    sync.Mutex
	limit int64    // of used and unused together
	used  int64    // bytes
	free  [][]byte // oldest first
	spare int64    // bytes of free
}

// get takes the smallest free memory of n bytes or more that wastes little, or makes some.
func (p *pool) get(n int64) []byte {
	p.mu.Lock()
	best := -1
	for i, mem := range p.free {
		c := int64(cap(mem))
		if c >= n && c-n <= n/wasteShare && (best < 0 || c < int64(cap(p.free[best]))) {
			best = i
		}
	}
	size, mem := sizeClass(n), []byte(nil)
	if best >= 0 {
		mem = p.free[best]
		p.drop(best)
		size = int64(cap(mem))
	}
	p.used += size
	p.trim()
	p.mu.Unlock()
	if mem == nil {
		mem = make([]byte, size)
	}
	return mem
}

// put keeps memory that is no longer used. The caller holds mu, as for all that follows.
func (p *pool) put(mem []byte) {
	p.used -= int64(cap(mem))
	p.free = append(p.free, mem)
	p.spare += int64(cap(mem))
	p.trim()
}

// trim leaves the oldest free memory to the garbage collector until the bounds hold.
func (p *pool) trim() {
	for len(p.free) > freeBuffersMax || len(p.free) > 0 && p.used+p.spare > p.limit {
		p.drop(0)
	}
}

func (p *pool) drop(i int) {
	p.spare -= int64(cap(p.free[i]))
	p.free = slices.Delete(p.free, i, i+1)
}

// close keeps nothing from now on.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = 0
	p.trim()
}
