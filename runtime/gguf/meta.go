package gguf

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// Has reports whether the metadata has key.
func (f *File) Has(key string) bool {
	_, ok := f.index[key]
	return ok
}

// Type returns the type of a value, and for an array the type of its elements.
func (f *File) Type(key string) (t, elem ValueType, ok bool) {
	i, ok := f.index[key]
	if !ok {
		return 0, 0, false
	}
	return f.entries[i].typ, f.entries[i].elem, true
}

// Len returns the elements of an array, the bytes of a string, and 1 for another value.
// Errors: ErrNoKey.
func (f *File) Len(key string) (int, error) {
	e, err := f.lookup(key)
	if err != nil {
		return 0, err
	}
	if e.typ == TypeArray || e.typ == TypeString {
		return int(e.n), nil
	}
	return 1, nil
}

// String reads a string value from the file. Errors: ErrNoKey, ErrKeyType, ErrIO, ErrChanged.
func (f *File) String(key string) (string, error) {
	e, err := f.lookup(key)
	if err != nil {
		return "", err
	}
	if e.typ != TypeString {
		return "", f.wrongType(e, TypeString.String())
	}
	b := make([]byte, e.n)
	if err := f.readAt(b, e); err != nil {
		return "", err
	}
	return string(b), nil
}

// Uint returns an integer of any width that is not negative. Errors: ErrNoKey, ErrKeyType.
func (f *File) Uint(key string) (uint64, error) {
	e, err := f.lookup(key)
	if err != nil {
		return 0, err
	}
	v, ok := asUint(e.typ, e.bits)
	if !ok {
		return 0, f.wrongType(e, "an integer that is not negative")
	}
	return v, nil
}

// Float returns an f32 or f64 value. Errors: ErrNoKey, ErrKeyType.
func (f *File) Float(key string) (float64, error) {
	e, err := f.lookup(key)
	if err != nil {
		return 0, err
	}
	switch e.typ {
	case TypeFloat32:
		return float64(math.Float32frombits(uint32(e.bits))), nil
	case TypeFloat64:
		return math.Float64frombits(e.bits), nil
	}
	return 0, f.wrongType(e, "a float")
}

// Bool returns a bool value; like llama.cpp it takes any non-zero byte for true.
// Errors: ErrNoKey, ErrKeyType.
func (f *File) Bool(key string) (bool, error) {
	e, err := f.lookup(key)
	if err != nil {
		return false, err
	}
	if e.typ != TypeBool {
		return false, f.wrongType(e, TypeBool.String())
	}
	return e.bits != 0, nil
}

// Strings reads an array of strings into memory: look at Len first where that matters.
// Errors: ErrNoKey, ErrKeyType, ErrIO, ErrChanged.
func (f *File) Strings(key string) ([]string, error) {
	var all []string
	err := f.eachString(key, func(_ int, s []byte) { all = append(all, string(s)) })
	return all, err
}

// Uints reads an array of integers (none negative) or bools. Errors: ErrNoKey, ErrKeyType,
// ErrIO, ErrChanged.
func (f *File) Uints(key string) ([]uint64, error) {
	e, err := f.lookup(key)
	if err != nil {
		return nil, err
	}
	if e.typ != TypeArray || e.elem == TypeString || e.elem == TypeFloat32 || e.elem == TypeFloat64 {
		return nil, f.wrongType(e, "an array of integers")
	}
	width := e.elem.bytes()
	raw := make([]byte, e.n*width)
	if err := f.readAt(raw, e); err != nil {
		return nil, err
	}
	all := make([]uint64, e.n)
	for i := range all {
		var b [8]byte
		copy(b[:], raw[int64(i)*width:][:width])
		v, ok := asUint(e.elem, binary.LittleEndian.Uint64(b[:]))
		if !ok {
			return nil, f.wrongType(e, "an array of integers that are not negative")
		}
		all[i] = v
	}
	return all, nil
}

// asUint widens a value of type t; ok is false for negative ones and other types.
func asUint(t ValueType, bits uint64) (v uint64, ok bool) {
	switch t {
	case TypeUint8, TypeUint16, TypeUint32, TypeUint64:
		return bits, true
	case TypeBool:
		return min(bits, 1), true
	case TypeInt8:
		return bits, int8(bits) >= 0
	case TypeInt16:
		return bits, int16(bits) >= 0
	case TypeInt32:
		return bits, int32(bits) >= 0
	case TypeInt64:
		return bits, int64(bits) >= 0
	}
	return 0, false
}

func (f *File) lookup(key string) (*entry, error) {
	i, ok := f.index[key]
	if !ok {
		return nil, f.stamp(fault(ErrNoKey, "key "+clip(key), -1, "", ""))
	}
	return &f.entries[i], nil
}

func (f *File) wrongType(e *entry, want string) error {
	is := e.typ.String()
	if e.typ == TypeArray {
		is += " of " + e.elem.String()
	}
	return f.stamp(fault(ErrKeyType, "key "+clip(e.key), e.off, "", "is %s, wanted %s", is, want))
}

// stamp completes an error that concerns the first shard.
func (f *File) stamp(e *Error) *Error {
	if e.Op == "" {
		e.Op = "read"
	}
	e.Path = f.shards[0].path
	return e
}

// readAt fills b from the position of e.
func (f *File) readAt(b []byte, e *entry) error {
	n, err := f.shards[0].r.ReadAt(b, e.off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return f.stamp(fault(ErrChanged, "key "+clip(e.key), e.off, hintChanged, "it is shorter now"))
	}
	return f.stamp(fault(ErrIO, "key "+clip(e.key), e.off, "", "%w", err))
}

// eachString calls yield with every element of an array of strings. The bytes are valid during
// the call only. One element is held in memory at a time.
func (f *File) eachString(key string, yield func(i int, s []byte)) error {
	e, err := f.lookup(key)
	if err != nil {
		return err
	}
	if e.typ != TypeArray || e.elem != TypeString {
		return f.wrongType(e, "an array of strings")
	}
	c := &cursor{r: f.shards[0].r, size: f.shards[0].size, pos: e.off}
	c.at = place{section: "key", name: key, part: "elements"}
	var big []byte
	for i := range int(e.n) {
		n := c.length(StringBytesMax)
		var s []byte
		if n <= readBufferBytes {
			s = c.need(int(n))
		} else {
			big = append(big[:0], make([]byte, n)...)
			if got, err := c.r.ReadAt(big, c.pos); int64(got) < n {
				c.fail(ErrChanged, hintChanged, "%w", err)
			}
			s = big
		}
		if c.skip(n); c.err != nil {
			return f.stamp(c.err)
		}
		yield(i, s)
	}
	return nil
}
