package worker

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/norion/norion/runtime/infer"
)

// fault is an *infer.Error on the wire. Its cause is a text there.
type fault struct {
	Op, Kind, Field, Hint, Cause string
}

// faultOf is nil for no error.
func faultOf(op string, err error) *fault {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*infer.Error](err)
	if !ok {
		e = &infer.Error{Op: op, Kind: infer.KindOf(err), Err: err}
	}
	f := &fault{Op: e.Op, Kind: string(e.Kind), Field: e.Field, Hint: e.Hint}
	if e.Err != nil {
		f.Cause = e.Err.Error()
	}
	return f
}

// err is nil for no fault.
func (f *fault) err() error {
	if f == nil {
		return nil
	}
	e := &infer.Error{Op: f.Op, Kind: infer.Kind(f.Kind), Field: f.Field, Hint: f.Hint}
	if f.Cause != "" {
		e.Err = errors.New(f.Cause)
	}
	return e
}

// lost is the error of a child that is gone.
func lost(op string, err error) error {
	return &infer.Error{
		Op: op, Kind: infer.KindLost, Hint: "send the request again: the model is loaded anew", Err: err,
	}
}

func closed(op string) error {
	return &infer.Error{Op: op, Kind: infer.KindClosed, Err: errors.New("the worker is closing")}
}

// ended is the error of a request whose context is done.
func ended(op string, ctx context.Context) error {
	kind := infer.KindCanceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = infer.KindDeadline
	}
	return &infer.Error{Op: op, Kind: kind, Err: context.Cause(ctx)}
}

// tooLarge is the refusal of a message beyond the bound, in either direction, or nil.
func tooLarge(op string, err error) error {
	if status.Code(err) != codes.ResourceExhausted {
		return nil
	}
	return &infer.Error{
		Op: op, Kind: infer.KindTooLong, Field: "request", Hint: "ask for less at once",
		Err: fmt.Errorf("the request or its answer is more than %d bytes", messageBytesMax),
	}
}
