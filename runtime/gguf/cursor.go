package gguf

import (
	"encoding/binary"
	"errors"
	"io"
	"strconv"
)

// place says which field is being read; it is turned into text only when something fails.
type place struct {
	section string // "header", "key", "tensor"
	index   int    // position in its section; -1 in the header
	name    string // once known
	part    string // "length", "type", "offset", ...
}

func (p place) String() string {
	switch {
	case p.index < 0:
		return p.section + " " + p.part
	case p.name == "":
		return p.section + " " + strconv.Itoa(p.index) + " " + p.part
	}
	return p.section + " " + clip(p.name) + " " + p.part
}

// cursor reads little-endian fields forward through one fixed buffer. The first failure sticks:
// later reads return zeros, so that a caller checks err once per record.
type cursor struct {
	r    io.ReaderAt
	size int64 // bytes in the file
	pos  int64 // offset of the next byte, <= size
	at   place
	err  *Error

	buf   [readBufferBytes]byte
	start int64 // file offset of buf[0]
	fill  int   // valid bytes in buf
}

// fail records the first error, at the current position.
func (c *cursor) fail(kind error, hint, format string, args ...any) {
	if c.err == nil {
		c.err = fault(kind, c.at.String(), c.pos, hint, format, args...)
	}
}

const hintTruncated = "the download or copy is incomplete: fetch the file again"

// need makes the next n <= readBufferBytes bytes available and returns them without moving.
func (c *cursor) need(n int) []byte {
	if c.err != nil {
		return nil
	}
	if off := c.pos - c.start; off >= 0 && off+int64(n) <= int64(c.fill) {
		return c.buf[off : off+int64(n)]
	}
	if int64(n) > c.size-c.pos {
		c.fail(ErrTruncated, hintTruncated, "%d bytes wanted, %d left", n, c.size-c.pos)
		return nil
	}
	got, err := c.r.ReadAt(c.buf[:min(int64(len(c.buf)), c.size-c.pos)], c.pos)
	c.start, c.fill = c.pos, got
	if got >= n {
		return c.buf[:n]
	}
	c.fill = 0
	if err == nil || errors.Is(err, io.EOF) {
		c.fail(ErrTruncated, hintTruncated, "file shrank while it was read")
	} else {
		c.fail(ErrIO, "", "%w", err)
	}
	return nil
}

func (c *cursor) u32() uint32 {
	b := c.need(4)
	if b == nil {
		return 0
	}
	c.pos += 4
	return binary.LittleEndian.Uint32(b)
}

func (c *cursor) u64() uint64 {
	b := c.need(8)
	if b == nil {
		return 0
	}
	c.pos += 8
	return binary.LittleEndian.Uint64(b)
}

// skip moves over n bytes that must exist, without reading them.
func (c *cursor) skip(n int64) {
	if c.err != nil {
		return
	}
	if n < 0 || n > c.size-c.pos {
		c.fail(ErrTruncated, hintTruncated, "%d bytes wanted, %d left", n, c.size-c.pos)
		return
	}
	c.pos += n
	if c.pos > HeaderBytesMax {
		c.fail(ErrLimit, "", "header is longer than %d bytes", int64(HeaderBytesMax))
	}
}

// length reads a 64-bit length and refuses it beyond limit or beyond the file.
func (c *cursor) length(limit int64) int64 {
	n := c.u64()
	if c.err != nil {
		return 0
	}
	if n > uint64(limit) {
		c.pos -= 8 // the offset of the field, not of what follows
		c.fail(ErrLimit, "", "length %d is above %d", n, limit)
		return 0
	}
	if int64(n) > c.size-c.pos {
		c.pos -= 8
		c.fail(ErrTruncated, hintTruncated, "length %d, %d bytes left", n, c.size-c.pos-8)
		return 0
	}
	return int64(n)
}

// text reads a string of at most limit bytes (limit <= readBufferBytes) into memory.
func (c *cursor) text(limit int64) string {
	n := c.length(limit)
	if c.err != nil || n == 0 {
		return ""
	}
	b := c.need(int(n))
	s := string(b)
	c.skip(int64(len(b)))
	return s
}
