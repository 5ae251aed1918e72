package infer

import (
	"errors"
	"fmt"
	"strings"
)

// Kind classifies an Error. A Kind is itself an error, so errors.Is(err, KindTooLong) works.
// The values cross process and network borders: they are only ever added to.
type Kind string

const (
	KindInvalid     Kind = "invalid request"        // a field has a value that cannot be used
	KindTooLong     Kind = "too long"               // prompt and answer do not fit the context
	KindUnsupported Kind = "unsupported"            // the model or backend cannot do this
	KindNoTemplate  Kind = "no chat template"       // chat was asked of a model without one
	KindModel       Kind = "invalid model"          // the model file cannot be loaded
	KindNoMemory    Kind = "not enough memory"      // the model or context does not fit
	KindBusy        Kind = "busy"                   // the queue is full; try again later
	KindDeadline    Kind = "deadline exceeded"      // the deadline passed before the end
	KindCanceled    Kind = "canceled"               // the caller gave up
	KindClosed      Kind = "closed"                 // the backend is closing or closed
	KindLost        Kind = "engine lost"            // the engine died; a new request may work
	KindMissing     Kind = "native library missing" // built without llama.cpp
	KindRecord      Kind = "record unavailable"     // the request could not be recorded
	KindInternal    Kind = "internal"               // a defect of norion or of the engine
)

// Error makes a Kind usable as a target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is the one error type of every Backend.
type Error struct {
	Op    string // what was being done: "generate", "load", ...
	Kind  Kind
	Field string // the request or option field at fault, or ""
	Hint  string // what to do next, or ""
	Err   error  // the cause, or nil
}

// Error gives the message without the hint; a user interface shows the hint on its own line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(string(e.Kind))
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// KindOf returns the kind of err, KindInternal for an error that carries none, and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	return KindInternal
}

// HintOf returns the first hint found along the chain of err, or "".
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}

// invalid is the refusal of one request field.
func invalid(field, hint, format string, args ...any) *Error {
	return &Error{
		Op: "validate", Kind: KindInvalid, Field: field, Hint: hint,
		Err: fmt.Errorf(format, args...),
	}
}
