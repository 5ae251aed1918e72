package worker

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
)

// fill gives every field a value that is not zero.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1700000000, 0)))
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
				fill(v.Field(i), depth)
			}
		}
	case reflect.Slice:
		if depth == 0 {
			return // logprobs have logprobs
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), depth-1)
		fill(v.Index(1), depth-1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth)
		fill(value, depth)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("caf\xe9 \x00") // not UTF-8
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(-3)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(200)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(math.Inf(-1))
	default:
		panic("a field of kind " + v.Kind().String() + " cannot be sent")
	}
}

// TestWireWhole: no field of a message is lost, whatever is in it.
func TestWireWhole(t *testing.T) {
	t.Parallel()
	codec, err := newCodec()
	require.NoError(t, err)
	for _, m := range []any{
		&loading{}, &loadEvent{}, &generation{}, &piece{}, &scoring{}, &tokenization{}, &nothing{},
		&reply[infer.Scores]{}, &reply[[][]float32]{}, &reply[[]infer.Token]{}, &reply[int]{},
		&reply[[]byte]{}, &reply[infer.Stats]{}, &reply[nothing]{},
	} {
		fill(reflect.ValueOf(m).Elem(), 3)
		data, err := codec.Marshal(m)
		require.NoError(t, err, "%T", m)
		back := reflect.New(reflect.TypeOf(m).Elem()).Interface()
		require.NoError(t, codec.Unmarshal(data, back), "%T", m)
		require.Equal(t, m, back)
	}
}

// TestWireZero: none stays none.
func TestWireZero(t *testing.T) {
	t.Parallel()
	codec, err := newCodec()
	require.NoError(t, err)
	data, err := codec.Marshal(&generation{})
	require.NoError(t, err)
	var back generation
	require.NoError(t, codec.Unmarshal(data, &back))
	require.Equal(t, generation{}, back)
	require.True(t, back.Request.Deadline.IsZero())
}

// TestWireStrict: what is no message is refused.
func TestWireStrict(t *testing.T) {
	t.Parallel()
	codec, err := newCodec()
	require.NoError(t, err)
	for name, data := range map[string]string{
		"nothing":         "",
		"noise":           strings.Repeat("\xff", 40),
		"another field":   "\xa1\x64None\x01",
		"a field twice":   "\xa2\x64Left\x01\x64Left\x02",
		"another type":    "\xa1\x64Left\x61x",
		"without an end":  "\xbf\x64Left\x01\xff",
		"too long a list": "\xa1\x67Request\xa1\x66Tokens\x9b\x00\x00\x00\x01\x00\x00\x00\x00",
		"more behind":     "\xa1\x64Left\x01\x00",
		"too deep":        "\xa1\x67Request" + strings.Repeat("\x81", 100) + "\x01",
	} {
		var m generation
		require.Error(t, codec.Unmarshal([]byte(data), &m), name)
	}
}

// FuzzWire: a message that is read is the same when it is written and read again.
func FuzzWire(f *testing.F) {
	codec, err := newCodec()
	require.NoError(f, err)
	for _, m := range []any{&piece{Chunk: infer.Chunk{Text: "x", Final: &infer.Final{}}}, &piece{}} {
		data, err := codec.Marshal(m)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m, back piece
		if codec.Unmarshal(data, &m) != nil {
			return
		}
		again, err := codec.Marshal(&m)
		require.NoError(t, err)
		require.NoError(t, codec.Unmarshal(again, &back))
		third, err := codec.Marshal(&back)
		require.NoError(t, err)
		require.Equal(t, again, third) // values with NaN are not equal to themselves
	})
}

func TestRow(t *testing.T) {
	t.Parallel()
	r := row{min: 1, max: 5, most: 4, stable: 100}
	for _, want := range []time.Duration{1, 2, 4, 5} {
		wait, ok := r.next(99)
		require.True(t, ok)
		require.Equal(t, want, wait)
	}
	_, ok := r.next(99)
	require.False(t, ok)
	wait, ok := r.next(100)
	require.True(t, ok, "it lived long enough")
	require.Equal(t, time.Duration(1), wait)
}
