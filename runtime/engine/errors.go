package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// kinds maps the binding's codes to the kinds that every backend shares.
var kinds = map[llama.Code]infer.Kind{
	llama.Invalid: infer.KindInvalid, llama.Load: infer.KindModel,
	llama.Memory: infer.KindNoMemory, llama.Canceled: infer.KindCanceled,
	llama.Full: infer.KindTooLong, llama.Unsupported: infer.KindUnsupported,
	llama.BadGrammar: infer.KindInvalid, llama.Template: infer.KindUnsupported,
	llama.State: infer.KindInternal, llama.Decode: infer.KindInternal,
	llama.Closed: infer.KindClosed, llama.Missing: infer.KindMissing,
}

// fail turns any failure below the engine into an *infer.Error.
func fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*infer.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*llama.Error](err); ok {
		out := &infer.Error{Op: op, Kind: infer.KindInternal, Hint: e.Hint, Err: err}
		if k, ok := kinds[e.Code]; ok {
			out.Kind = k
		}
		switch {
		case e.Code == llama.BadGrammar:
			out.Field = "grammar"
		case e.Code == llama.Template && out.Hint == "":
			out.Hint = "mend the template, or name another one with --template"
		}
		return out
	}
	if e, ok := errors.AsType[*kv.Error](err); ok {
		return &infer.Error{Op: op, Kind: kvKinds[e.Kind], Field: e.Field, Hint: e.Hint, Err: err}
	}
	if e, ok := errors.AsType[*gguf.Error](err); ok {
		out := &infer.Error{Op: op, Kind: infer.KindModel, Hint: e.Hint, Err: err}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			out.Hint = "check the path; 'norion list' shows the models at hand"
		case errors.Is(err, fs.ErrPermission):
			out.Hint = "you may not read this file: change its owner or mode"
		}
		return out
	}
	return &infer.Error{Op: op, Kind: kindOfContext(err), Err: err}
}

// kindOfContext names the kind of an error that a context ended with.
func kindOfContext(err error) infer.Kind {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return infer.KindDeadline
	case errors.Is(err, context.Canceled):
		return infer.KindCanceled
	}
	return infer.KindOf(err)
}

// ended is the error of a request whose context is done.
func ended(op string, ctx context.Context) error {
	cause := context.Cause(ctx)
	if e, ok := errors.AsType[*infer.Error](cause); ok {
		return e
	}
	kind := infer.KindCanceled // whatever cause the caller gave for it
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = infer.KindDeadline
	}
	return &infer.Error{Op: op, Kind: kind, Err: cause}
}

// notUTF8 refuses a text.
func notUTF8(op, field string) error {
	return &infer.Error{
		Op: op, Kind: infer.KindInvalid, Field: field, Hint: "send UTF-8 text",
		Err: errors.New("not valid UTF-8"),
	}
}

// fits refuses a text that is too long whatever its tokens are, before the tokenizer works on it.
func (e *Engine) fits(op, field string, bytes int) error {
	if bytes <= e.bytes {
		return nil
	}
	return &infer.Error{
		Op: op, Kind: infer.KindTooLong, Field: field, Hint: "use a larger context (--ctx)",
		Err: fmt.Errorf("%d bytes cannot be %d tokens", bytes, e.bounded),
	}
}

var errClosed = &infer.Error{
	Op: "submit", Kind: infer.KindClosed, Err: errors.New("the engine is closing"),
}
