package worker

import (
	"time"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/grpc"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// service is the name of the protocol, with its version: a child of another version has no such
// service. Both are one program, but the file of it can be replaced while a parent runs.
const service = "norion.worker.v1"

// Bounds of the wire.
const (
	messageBytesMax = 256 << 20 // a prompt of infer.PromptBytesMax and its tools, many vectors
	elementsMax     = 1 << 26   // of one list, such as the tokens of a prompt
	streamBytesMax  = 64 << 10  // of an answer that its reader does not take; gRPC's least
	streamsMax      = 1 << 16   // requests at once
)

// nothing is the message of calls that say nothing.
type nothing struct{}

// loading is the first message of all: load a model.
type loading struct {
	Engine  engine.Options // without what cannot travel
	Verbose bool           // log to standard error
	Confine Confinement
}

// loadEvent is one of the answers to it: progress, and at last what was loaded or why not.
type loadEvent struct {
	Progress float32
	Info     *infer.Info
	Fault    *fault
}

// generation is a request. Its deadline is Left from now; 0 is none.
type generation struct {
	Request infer.Request
	Left    time.Duration
}

// piece is one chunk of an answer, or the error that ends it.
type piece struct {
	_     struct{} `cbor:",toarray"` // without names: they would be longer than the text
	Chunk infer.Chunk
	Fault *fault
}

// scoring is a request for scores. Its deadline is Left from now; 0 is none.
type scoring struct {
	Request infer.ScoreRequest
	Left    time.Duration
}

type tokenization struct {
	Text    string
	Options infer.TokenizeOptions
}

// reply is the answer to a call, or its error.
type reply[T any] struct {
	Value T
	Fault *fault
}

// codec writes messages in CBOR (RFC 8949), strictly: a message with other fields, with names twice
// or of unbounded length is refused. It keeps what JSON loses: text that is not UTF-8, infinities,
// and the difference between none and empty.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.EncOptions{IndefLength: cbor.IndefLengthForbidden}.EncMode()
	if err != nil {
		return codec{}, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: elementsMax,
	}.DecMode()
	return codec{enc, dec}, err
}

// Name implements encoding.Codec of gRPC.
func (codec) Name() string { return "cbor" }

// Marshal implements encoding.Codec of gRPC.
func (c codec) Marshal(v any) ([]byte, error) { return c.enc.Marshal(v) }

// Unmarshal implements encoding.Codec of gRPC.
func (c codec) Unmarshal(data []byte, v any) error { return c.dec.Unmarshal(data, v) }

// method is the path of a call.
func method(op string) string { return "/" + service + "/" + op }

// serverStream describes calls with one question and a stream of answers.
func serverStream() *grpc.StreamDesc { return &grpc.StreamDesc{ServerStreams: true} }
