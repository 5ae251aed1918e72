package gguf

import (
	"bytes"
	"math"
	"math/bits"
	"strings"
)

// Smallest encodings, to compare a claimed count with the bytes that are left.
const (
	entryBytesMin  = 8 + 1 + 4 + 1         // length, one byte of key, type, one byte of value
	tensorBytesMin = 8 + 4 + 4 + 8         // length of an empty name, rank 0, type, offset
	headerBytesMin = 4 + 4 + 8 + 8         // magic, version, two counts
	offsetMax      = math.MaxInt64 - 1<<32 // keeps offset plus alignment in range
	alignmentKey   = "general.alignment"   // the one key that the format itself uses
	hintRegenerate = "fetch the file again, or convert the model with a current llama.cpp"
)

// entry is one metadata pair. Strings and arrays stay in the file.
type entry struct {
	key  string
	typ  ValueType
	elem ValueType // element type of an array
	n    int64     // elements of an array; bytes of a string
	off  int64     // file offset of the first element or byte
	bits uint64    // a scalar's bytes, little-endian
}

// parse reads and checks the whole header of one file.
func parse(s shard) (*File, error) {
	c := &cursor{r: s.r, size: s.size}
	f := &File{shards: []shard{s}, alignment: alignmentDefault}
	p := &parser{c: c, f: f}
	p.header()
	p.entries()
	p.align()
	p.tensors()
	p.place()
	if c.err != nil {
		c.err.Op, c.err.Path = "open", s.path
		return nil, c.err
	}
	return f, nil
}

type parser struct {
	c       *cursor
	f       *File
	tensorN int64
	entryN  int64
}

// header reads magic, version and the two counts.
func (p *parser) header() {
	c := p.c
	c.at = place{section: "header", index: -1, part: "magic"}
	magic := c.need(4)
	if magic == nil {
		if c.size < 4 && c.err != nil {
			c.err.Kind, c.err.Hint = ErrNotGGUF, "the file is empty or cut: fetch it again"
		}
		return
	}
	if string(magic) != "GGUF" {
		hint := guessFormat(c.need(int(min(c.size, 64))))
		c.fail(ErrNotGGUF, hint, "begins with %s", clip(string(magic)))
		return
	}
	c.pos += 4
	c.at.part = "version"
	switch v := c.u32(); {
	case c.err != nil:
		return
	case v == 2 || v == 3:
		p.f.version = v
	default:
		c.pos -= 4
		c.fail(ErrVersion, versionHint(v), "version %d", v)
		return
	}
	p.tensorN = p.count("tensor count", TensorsMax, tensorBytesMin)
	p.entryN = p.count("key count", KeysMax, entryBytesMin)
}

// count reads a number of records and refuses what the limit or the file cannot hold.
func (p *parser) count(part string, limit, each int64) int64 {
	c := p.c
	c.at.part = part
	n := c.u64()
	if c.err != nil {
		return 0
	}
	switch {
	case n > uint64(limit):
		c.pos -= 8
		c.fail(ErrLimit, hintRegenerate, "%d is above %d", n, limit)
	case int64(n)*each > c.size-c.pos:
		c.pos -= 8
		c.fail(ErrTruncated, hintTruncated, "%d records cannot fit into %d bytes", n, c.size-c.pos-8)
	default:
		return int64(n)
	}
	return 0
}

func versionHint(v uint32) string {
	switch {
	case v == 1:
		return "GGUF 1 is no longer read by llama.cpp: convert the model again"
	case v&0xFFFF == 0 && v != 0:
		return "this is a big-endian file: convert it with gguf_convert_endian.py from llama.cpp"
	case v > 3:
		return "the file is newer than this program: update norion"
	}
	return hintRegenerate
}

// guessFormat names the well-known formats that are mistaken for a model file.
func guessFormat(b []byte) string {
	for _, k := range []struct{ magic, hint string }{
		{"\x1f\x8b", "this is a gzip archive: unpack it first"},
		{"PK\x03\x04", "this is a zip archive (or a PyTorch checkpoint): unpack or convert it first"},
		{"\x28\xb5\x2f\xfd", "this is a zstd archive: unpack it first"},
		{"BZh", "this is a bzip2 archive: unpack it first"},
		{"\xfd7zXZ", "this is an xz archive: unpack it first"},
		{"7z\xbc\xaf", "this is a 7z archive: unpack it first"},
		{"version https://git-lfs", "this is a Git LFS pointer: fetch the real file with git lfs pull"},
		{"<", "this is a web page, not a model: check the address that it came from"},
		{"lmgg", "this is the old GGML format: convert the model to GGUF"},
		{"tjgg", "this is the old GGJT format: convert the model to GGUF"},
		{"algg", "this is an old GGLA adapter: convert it to GGUF"},
	} {
		if bytes.HasPrefix(b, []byte(k.magic)) {
			return k.hint
		}
	}
	if len(b) > 9 && b[8] == '{' {
		return "this looks like safetensors: convert the model to GGUF"
	}
	return "give a .gguf model file"
}

// entries reads the metadata pairs.
func (p *parser) entries() {
	if p.c.err != nil {
		return
	}
	p.f.index = make(map[string]int32)
	for i := range p.entryN {
		if p.entry(int(i)); p.c.err != nil {
			return
		}
	}
}

func (p *parser) entry(i int) {
	c := p.c
	c.at = place{section: "key", index: i, part: "name"}
	begin := c.pos
	key := c.text(KeyBytesMax)
	if c.err != nil {
		return
	}
	c.at.name = key
	switch _, twice := p.f.index[key]; {
	case key == "":
		c.pos = begin
		c.fail(ErrCorrupt, hintRegenerate, "key is empty")
		return
	case strings.IndexByte(key, 0) >= 0:
		c.pos = begin
		c.fail(ErrCorrupt, hintRegenerate, "key contains a NUL byte")
		return
	case twice:
		c.pos = begin
		c.fail(ErrCorrupt, hintRegenerate, "key occurs twice")
		return
	}
	e := entry{key: key, typ: p.valueType("type")}
	if e.typ == TypeArray {
		p.array(&e)
	} else if c.err == nil {
		p.scalar(&e)
	}
	if c.err == nil {
		p.f.index[key] = int32(len(p.f.entries))
		p.f.entries = append(p.f.entries, e)
	}
}

func (p *parser) valueType(part string) ValueType {
	c := p.c
	c.at.part = part
	t := ValueType(c.u32())
	if c.err == nil && !t.valid() {
		c.pos -= 4
		c.fail(ErrCorrupt, hintRegenerate, "value type %d does not exist", uint32(t))
		return 0
	}
	return t
}

// scalar reads a fixed-size value, or measures a string.
func (p *parser) scalar(e *entry) {
	c := p.c
	c.at.part = "value"
	if e.typ == TypeString {
		e.n = c.length(StringBytesMax)
		e.off = c.pos
		c.skip(e.n)
		return
	}
	e.off = c.pos
	for i, b := range c.need(int(e.typ.bytes())) {
		e.bits |= uint64(b) << (8 * i)
	}
	c.skip(e.typ.bytes())
}

// array measures an array: fixed-size elements by one multiplication, strings one by one.
func (p *parser) array(e *entry) {
	c := p.c
	e.elem = p.valueType("element type")
	if c.err == nil && e.elem == TypeArray {
		c.pos -= 4
		c.fail(ErrLimit, hintRegenerate, "arrays nest deeper than %d", ArrayDepthMax)
		return
	}
	c.at.part = "element count"
	n := c.u64()
	if c.err != nil {
		return
	}
	width := max(e.elem.bytes(), 1) // a string has 8 bytes at least, but 1 keeps the offset exact
	switch {
	case n > ArrayElementsMax:
		c.pos -= 8
		c.fail(ErrLimit, hintRegenerate, "%d elements are above %d", n, ArrayElementsMax)
		return
	case int64(n)*width > c.size-c.pos:
		c.pos -= 8
		c.fail(ErrTruncated, hintTruncated, "%d elements, %d bytes left", n, c.size-c.pos-8)
		return
	}
	e.n, e.off = int64(n), c.pos
	c.at.part = "elements"
	if e.elem != TypeString {
		c.skip(e.n * width)
		return
	}
	for range e.n {
		if c.skip(c.length(StringBytesMax)); c.err != nil {
			return
		}
	}
}

// align takes the alignment of tensor data from the metadata.
func (p *parser) align() {
	c, f := p.c, p.f
	if c.err != nil {
		return
	}
	i, ok := f.index[alignmentKey]
	if !ok {
		return
	}
	e := f.entries[i]
	field := place{section: "key", name: alignmentKey, part: "value"}.String()
	switch {
	case e.typ != TypeUint32:
		c.err = fault(ErrCorrupt, field, e.off, hintRegenerate, "type is %s, must be u32", e.typ)
	case bits.OnesCount64(e.bits) != 1:
		c.err = fault(ErrCorrupt, field, e.off, hintRegenerate, "%d is not a power of two", e.bits)
	default:
		f.alignment = int64(e.bits)
	}
}

// tensors reads the tensor table; offsets are still relative to the data section.
func (p *parser) tensors() {
	if p.c.err != nil {
		return
	}
	p.f.names = make(map[string]int32)
	for i := range p.tensorN {
		if p.tensor(int(i)); p.c.err != nil {
			return
		}
	}
}

func (p *parser) tensor(i int) {
	c := p.c
	c.at = place{section: "tensor", index: i, part: "name"}
	begin := c.pos
	t := Tensor{Name: c.text(TensorNameMax)}
	if c.err != nil {
		return
	}
	c.at.name = t.Name
	if _, twice := p.f.names[t.Name]; twice || strings.IndexByte(t.Name, 0) >= 0 {
		c.pos = begin
		if twice {
			c.fail(ErrCorrupt, hintRegenerate, "name occurs twice")
		} else {
			c.fail(ErrCorrupt, hintRegenerate, "name contains a NUL byte")
		}
		return
	}
	p.dims(&t)
	p.tensorType(&t)
	c.at.part = "offset"
	off := c.u64()
	if c.err == nil && off > offsetMax {
		c.pos -= 8
		c.fail(ErrCorrupt, hintRegenerate, "offset %d is out of range", off)
	}
	if c.err == nil {
		t.Offset = int64(off)
		p.f.names[t.Name] = int32(len(p.f.tensors))
		p.f.tensors = append(p.f.tensors, t)
	}
}

// dims reads rank and dimensions; their product must fit into int64 (as in ggml).
func (p *parser) dims(t *Tensor) {
	c := p.c
	c.at.part = "dimension count"
	rank := c.u32()
	if c.err == nil && rank > DimsMax {
		c.pos -= 4
		c.fail(ErrCorrupt, hintRegenerate, "%d is above %d", rank, DimsMax)
	}
	if c.err != nil {
		return
	}
	t.Rank, t.Dims = int(rank), [DimsMax]int64{1, 1, 1, 1}
	c.at.part = "dimensions"
	product := uint64(1)
	for j := range t.Rank {
		d := c.u64()
		if c.err != nil {
			return
		}
		hi, lo := bits.Mul64(product, max(d, 1))
		if d > math.MaxInt64 || hi != 0 || lo > math.MaxInt64 {
			c.pos -= 8
			c.fail(ErrCorrupt, hintRegenerate, "dimension %d is %d: too many elements", j, d)
			return
		}
		product, t.Dims[j] = lo, int64(d)
	}
}

// tensorType reads the type and computes the encoded size.
func (p *parser) tensorType(t *Tensor) {
	c := p.c
	c.at.part = "type"
	t.Type = TensorType(int32(c.u32()))
	if c.err != nil {
		return
	}
	block, width := t.Type.Block()
	if block == 0 {
		c.pos -= 4
		c.fail(ErrCorrupt, "update norion if the file is newer than it; else "+hintRegenerate,
			"tensor type %d does not exist", int32(t.Type))
		return
	}
	if t.Dims[0]%block != 0 {
		c.pos -= 4
		c.fail(ErrCorrupt, hintRegenerate, "row of %d elements is no multiple of %s's block of %d",
			t.Dims[0], t.Type, block)
		return
	}
	hi, lo := bits.Mul64(uint64(t.Elements()/block), uint64(width))
	if hi != 0 || lo > offsetMax {
		c.pos -= 4
		c.fail(ErrCorrupt, hintRegenerate, "size of %d %s elements overflows", t.Elements(), t.Type)
		return
	}
	t.Bytes = int64(lo)
}

// place puts the tensors into the file: each must begin where the one before it ended (padded to
// the alignment), as llama.cpp demands, and end inside the file. So none can overlap.
func (p *parser) place() {
	c, f := p.c, p.f
	if c.err != nil || len(f.tensors) == 0 {
		return
	}
	data := pad(c.pos, f.alignment)
	c.at = place{section: "header", index: -1, part: "padding"}
	if c.skip(data - c.pos); c.err != nil {
		return
	}
	var next int64
	for i := range f.tensors {
		t := &f.tensors[i]
		c.at = place{section: "tensor", index: i, name: t.Name, part: "offset"}
		switch {
		case t.Offset != next:
			c.fail(ErrCorrupt, hintRegenerate, "offset is %d, must be %d: tensors overlap or leave a gap",
				t.Offset, next)
			return
		case next > c.size-data || t.Bytes > c.size-data-next:
			c.at.part = "data"
			c.pos = min(c.size, data+min(next, c.size-data))
			c.fail(ErrTruncated, hintTruncated, "data needs bytes up to %d, the file has %d",
				uint64(data)+uint64(next)+uint64(t.Bytes), c.size)
			return
		}
		t.Offset += data
		next = pad(next+t.Bytes, f.alignment)
	}
}

// pad rounds n up to a multiple of the power of two a. n is at most the size of a file.
func pad(n, a int64) int64 { return (n + a - 1) &^ (a - 1) }
