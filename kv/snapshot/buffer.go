package snapshot

import (
	"errors"
	"math/bits"
	"slices"
)

// Bounds of the pool of buffers.
const (
	freeBuffersMax = 16
	// exactBytesMax is the largest buffer that is made as small as asked. Larger ones are rounded
	// up by at most an eighth, so that a sequence that grows finds a buffer again.
	exactBytesMax = 64 << 10
)

// Buffer is memory for one state, from Store.Buffer. It belongs to the caller until Put or
// Release, and is used by one goroutine at a time.
type Buffer struct {
	s *Store
	b []byte
}

// Bytes is the memory, with the contents of whoever had it before. It is nil after Put or Release.
func (b *Buffer) Bytes() []byte { return b.b }

// Trim shortens the buffer to its first n bytes, where a state turned out smaller than foretold.
func (b *Buffer) Trim(n int) { b.b = b.b[:min(max(0, n), len(b.b))] }

// Release gives the memory back to the pool. A second call does nothing.
func (b *Buffer) Release() {
	mem := b.take()
	if mem == nil {
		return
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.pool.out -= int64(cap(mem))
	b.s.pool.put(mem, b.s.ram.bytes)
}

// take ends the caller's ownership.
func (b *Buffer) take() []byte {
	mem := b.b
	b.b = nil
	return mem
}

// Buffer returns memory of n bytes, from the pool where one fits. ErrInvalid is returned for n
// outside 1 to StateBytesMax, ErrClosed after Close.
func (s *Store) Buffer(n int64) (*Buffer, error) {
	if n < 1 || n > StateBytesMax {
		return nil, &Error{
			Op: "buffer", Kind: ErrInvalid, Field: "n", Err: errors.New("size out of range"),
		}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, &Error{Op: "buffer", Kind: ErrClosed}
	}
	mem := s.pool.get(n)
	size := sizeClass(n)
	if mem != nil {
		size = int64(cap(mem))
	}
	s.pool.out += size
	s.mu.Unlock()
	if mem == nil {
		mem = make([]byte, size)
	}
	return &Buffer{s: s, b: mem[:n]}, nil
}

// sizeClass rounds n up to a multiple of an eighth of its highest bit.
func sizeClass(n int64) int64 {
	if n <= exactBytesMax {
		return n
	}
	step := int64(1) << (bits.Len64(uint64(n-1)) - 4)
	return (n + step - 1) / step * step
}

// pool keeps buffers that nobody uses. The Store's mutex guards it.
type pool struct {
	free  [][]byte // oldest first
	bytes int64    // of free
	out   int64    // bytes of buffers that callers own
	limit int64    // of states in RAM, free and out together
}

// get takes the smallest free buffer of n bytes or more that wastes at most a quarter, or nil.
func (p *pool) get(n int64) []byte {
	best := -1
	for i, mem := range p.free {
		c := int64(cap(mem))
		if c >= n && c-n <= n/4 && (best < 0 || c < int64(cap(p.free[best]))) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	mem := p.free[best]
	p.free = slices.Delete(p.free, best, best+1)
	p.bytes -= int64(cap(mem))
	return mem
}

// put keeps a buffer that is no longer used; used is the bytes of states in RAM.
func (p *pool) put(mem []byte, used int64) {
	p.free = append(p.free, mem)
	p.bytes += int64(cap(mem))
	p.trim(used)
}

// trim gives the oldest free buffers to the garbage collector until the bounds hold.
func (p *pool) trim(used int64) {
	for len(p.free) > freeBuffersMax ||
		len(p.free) > 0 && used+p.out+p.bytes > p.limit {
		p.bytes -= int64(cap(p.free[0]))
		p.free = slices.Delete(p.free, 0, 1)
	}
}
