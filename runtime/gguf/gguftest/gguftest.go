// Package gguftest writes small GGUF files in memory, valid ones and broken ones, for the tests
// of every package that needs a model file. It owns the encoding only; it must not know what is
// valid: a test may write any count, type or length it likes. It is not for production use.
package gguftest

import (
	"encoding/binary"
	"fmt"
	"math"
)

// KV is one metadata pair. Value is a Go integer of fixed width, float32, float64, bool, string,
// a slice of one of these, or Raw.
type KV struct {
	Key   string
	Value any
}

// Raw is a value written as it is: a type number and the bytes after it.
type Raw struct {
	Type  uint32
	Bytes []byte
}

// Tensor is one row of the tensor table and its data. Where Offset is nil it is placed after the
// tensor before it; where Data is nil, Size bytes of zeros are written.
type Tensor struct {
	Name   string
	Type   int32
	Dims   []uint64
	Size   int64 // encoded bytes, without padding
	Offset *uint64
	Data   []byte
}

// File describes a whole file. Zero values mean: version 3, alignment 32, true counts.
type File struct {
	Magic       string
	Version     uint32
	Alignment   uint64 // used for padding only; add the key yourself to state it
	KVs         []KV
	Tensors     []Tensor
	TensorCount *uint64
	KVCount     *uint64
}

// Uint64 returns a pointer to v, for the fields that override what is true.
func Uint64(v uint64) *uint64 { return &v }

// F32 is a tensor of type f32 with the right size.
func F32(name string, dims ...uint64) Tensor {
	size := int64(4)
	for _, d := range dims {
		size *= int64(d)
	}
	return Tensor{Name: name, Type: 0, Dims: dims, Size: size}
}

// Bytes encodes the file, tensor data included.
func (f File) Bytes() []byte {
	head, data := f.encode()
	return append(head, data...)
}

// HeaderBytes returns the length of everything before the tensor data, padding included.
func (f File) HeaderBytes() int {
	head, _ := f.encode()
	return len(head)
}

func (f File) encode() (head, data []byte) {
	align := or(f.Alignment, 32)
	b := append([]byte(nil), or(f.Magic, "GGUF")...)
	b = u32(b, or(f.Version, 3))
	b = u64(b, orPointer(f.TensorCount, uint64(len(f.Tensors))))
	b = u64(b, orPointer(f.KVCount, uint64(len(f.KVs))))
	for _, kv := range f.KVs {
		b = Value(Text(b, kv.Key), kv.Value)
	}
	for _, t := range f.Tensors {
		b = Text(b, t.Name)
		b = u32(b, uint32(len(t.Dims)))
		for _, d := range t.Dims {
			b = u64(b, d)
		}
		b = u32(b, uint32(t.Type))
		b = u64(b, orPointer(t.Offset, uint64(len(data))))
		body := t.Data
		if body == nil {
			body = make([]byte, t.Size)
		}
		data = padTo(append(data, body...), align)
	}
	if len(f.Tensors) > 0 {
		b = padTo(b, align)
	}
	return b, data
}

// Text appends a string: 64-bit length and bytes.
func Text(b []byte, s string) []byte { return append(u64(b, uint64(len(s))), s...) }

// Value appends type and value.
func Value(b []byte, v any) []byte {
	switch v := v.(type) {
	case Raw:
		return append(u32(b, v.Type), v.Bytes...)
	case []uint8:
		return list(b, v)
	case []int8:
		return list(b, v)
	case []uint16:
		return list(b, v)
	case []int32:
		return list(b, v)
	case []uint32:
		return list(b, v)
	case []uint64:
		return list(b, v)
	case []float32:
		return list(b, v)
	case []bool:
		return list(b, v)
	case []string:
		return list(b, v)
	}
	t, body := scalar(v)
	return append(u32(b, t), body...)
}

func list[T any](b []byte, all []T) []byte {
	var zero T
	t, _ := scalar(zero)
	b = u64(u32(u32(b, 9), t), uint64(len(all)))
	for _, v := range all {
		_, body := scalar(v)
		b = append(b, body...)
	}
	return b
}

// scalar returns the type number and the bytes of one value.
func scalar(v any) (uint32, []byte) {
	switch v := v.(type) {
	case uint8:
		return 0, []byte{v}
	case int8:
		return 1, []byte{byte(v)}
	case uint16:
		return 2, binary.LittleEndian.AppendUint16(nil, v)
	case int16:
		return 3, binary.LittleEndian.AppendUint16(nil, uint16(v))
	case uint32:
		return 4, u32(nil, v)
	case int32:
		return 5, u32(nil, uint32(v))
	case float32:
		return 6, u32(nil, math.Float32bits(v))
	case bool:
		if v {
			return 7, []byte{1}
		}
		return 7, []byte{0}
	case string:
		return 8, Text(nil, v)
	case uint64:
		return 10, u64(nil, v)
	case int64:
		return 11, u64(nil, uint64(v))
	case float64:
		return 12, u64(nil, math.Float64bits(v))
	}
	panic(fmt.Sprintf("gguftest: no GGUF type for %T", v))
}

func u32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
func u64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

func padTo(b []byte, align uint64) []byte {
	for uint64(len(b))%align != 0 {
		b = append(b, 0)
	}
	return b
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func orPointer[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
