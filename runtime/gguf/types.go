package gguf

import "strconv"

// ValueType is the type of a metadata value, with the numbers of the format.
type ValueType uint32

// Metadata value types.
const (
	TypeUint8 ValueType = iota
	TypeInt8
	TypeUint16
	TypeInt16
	TypeUint32
	TypeInt32
	TypeFloat32
	TypeBool
	TypeString
	TypeArray
	TypeUint64
	TypeInt64
	TypeFloat64
)

var valueTypes = [...]struct {
	name  string
	bytes int64 // 0: variable
}{
	{"u8", 1},
	{"i8", 1},
	{"u16", 2},
	{"i16", 2},
	{"u32", 4},
	{"i32", 4},
	{"f32", 4},
	{"bool", 1},
	{"str", 0},
	{"arr", 0},
	{"u64", 8},
	{"i64", 8},
	{"f64", 8},
}

// String returns llama.cpp's short name, e.g. "u32".
func (t ValueType) String() string {
	if int(t) < len(valueTypes) {
		return valueTypes[t].name
	}
	return "type " + strconv.FormatUint(uint64(t), 10)
}

// valid reports whether the format defines t.
func (t ValueType) valid() bool { return int(t) < len(valueTypes) }

// bytes is the width of a fixed-size value; 0 for strings and arrays.
func (t ValueType) bytes() int64 { return valueTypes[t].bytes }

// TensorType is the type of tensor elements, with ggml's numbers.
type TensorType int32

// Tensor types of the pinned ggml. The numbers that are missing were removed upstream.
const (
	F32    TensorType = 0
	F16    TensorType = 1
	Q4_0   TensorType = 2
	Q4_1   TensorType = 3
	Q5_0   TensorType = 6
	Q5_1   TensorType = 7
	Q8_0   TensorType = 8
	Q8_1   TensorType = 9
	Q2K    TensorType = 10
	Q3K    TensorType = 11
	Q4K    TensorType = 12
	Q5K    TensorType = 13
	Q6K    TensorType = 14
	Q8K    TensorType = 15
	IQ2XXS TensorType = 16
	IQ2XS  TensorType = 17
	IQ3XXS TensorType = 18
	IQ1S   TensorType = 19
	IQ4NL  TensorType = 20
	IQ3S   TensorType = 21
	IQ2S   TensorType = 22
	IQ4XS  TensorType = 23
	I8     TensorType = 24
	I16    TensorType = 25
	I32    TensorType = 26
	I64    TensorType = 27
	F64    TensorType = 28
	IQ1M   TensorType = 29
	BF16   TensorType = 30
	TQ1_0  TensorType = 34
	TQ2_0  TensorType = 35
	MXFP4  TensorType = 39
	NVFP4  TensorType = 40
	Q1_0   TensorType = 41
	Q2_0   TensorType = 42
)

// tensorTypes is indexed by TensorType; a zero block marks a number that ggml removed.
var tensorTypes = [...]struct {
	name  string
	block int64 // elements per block
	bytes int64 // bytes per block
}{
	F32: {"f32", 1, 4}, F16: {"f16", 1, 2}, BF16: {"bf16", 1, 2}, F64: {"f64", 1, 8},
	I8: {"i8", 1, 1}, I16: {"i16", 1, 2}, I32: {"i32", 1, 4}, I64: {"i64", 1, 8},
	Q4_0: {"q4_0", 32, 18}, Q4_1: {"q4_1", 32, 20}, Q5_0: {"q5_0", 32, 22}, Q5_1: {"q5_1", 32, 24},
	Q8_0: {"q8_0", 32, 34}, Q8_1: {"q8_1", 32, 36}, Q1_0: {"q1_0", 128, 18}, Q2_0: {"q2_0", 64, 18},
	Q2K: {"q2_K", 256, 84}, Q3K: {"q3_K", 256, 110}, Q4K: {"q4_K", 256, 144},
	Q5K: {"q5_K", 256, 176}, Q6K: {"q6_K", 256, 210}, Q8K: {"q8_K", 256, 292},
	IQ2XXS: {"iq2_xxs", 256, 66}, IQ2XS: {"iq2_xs", 256, 74}, IQ2S: {"iq2_s", 256, 82},
	IQ3XXS: {"iq3_xxs", 256, 98}, IQ3S: {"iq3_s", 256, 110},
	IQ1S: {"iq1_s", 256, 50}, IQ1M: {"iq1_m", 256, 56},
	IQ4NL: {"iq4_nl", 32, 18}, IQ4XS: {"iq4_xs", 256, 136},
	TQ1_0: {"tq1_0", 256, 54}, TQ2_0: {"tq2_0", 256, 66},
	MXFP4: {"mxfp4", 32, 17}, NVFP4: {"nvfp4", 64, 36},
}

// String returns ggml's name of the type, e.g. "q4_K".
func (t TensorType) String() string {
	if t.Valid() {
		return tensorTypes[t].name
	}
	return "type " + strconv.Itoa(int(t))
}

// Valid reports whether the pinned ggml has this type.
func (t TensorType) Valid() bool {
	return t >= 0 && int(t) < len(tensorTypes) && tensorTypes[t].block > 0
}

// Block returns the elements and the bytes of one block of t; zeros when t is not Valid.
func (t TensorType) Block() (elements, bytes int64) {
	if !t.Valid() {
		return 0, 0
	}
	return tensorTypes[t].block, tensorTypes[t].bytes
}

// ParseTensorType finds a type by ggml's name, e.g. "f16" or "q8_0" (as in --cache-type-k).
func ParseTensorType(name string) (TensorType, bool) {
	for i := range tensorTypes {
		if t := TensorType(i); t.Valid() && tensorTypes[i].name == name {
			return t, true
		}
	}
	return 0, false
}

// Tensor is one row of the tensor table.
type Tensor struct {
	Name   string
	Type   TensorType
	Rank   int            // dimensions stated in the file, 0 to DimsMax
	Dims   [DimsMax]int64 // elements; [0] is the fastest-moving (the row), unused ones are 1
	Offset int64          // first byte, from the start of its shard file
	Bytes  int64          // encoded size, without padding
	Shard  int            // position in Paths
}

// Elements returns the product of the dimensions; it was checked to fit.
func (t Tensor) Elements() int64 { return t.Dims[0] * t.Dims[1] * t.Dims[2] * t.Dims[3] }
