package kv

import (
	"fmt"
	"strings"
)

// Kind classifies an Error. A Kind is itself an error, so errors.Is(err, ErrNoRoom) works.
type Kind string

const (
	ErrInvalid     Kind = "invalid"       // a field has a value that cannot be used
	ErrNoRoom      Kind = "no room"       // cells or sequences are in use by others: wait, or park one
	ErrTooLong     Kind = "too long"      // it does not fit even when nobody else is there
	ErrPolicy      Kind = "policy"        // a policy panicked or answered nonsense
	ErrUnsupported Kind = "unsupported"   // the model's cache cannot do this
	ErrUnknown     Kind = "unknown"       // no such sequence, blob or prefix, or not in that state
	ErrContradicts Kind = "contradictory" // fields that exclude each other
)

// Error makes a Kind usable as a target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is the one error type of this package.
type Error struct {
	Op    string // what was being done: "begin", "reserve", ...
	Kind  Kind
	Field string // the field at fault, or ""
	Hint  string // what to do next, or ""
	Err   error  // the cause, or nil
}

// Error gives the message without the hint.
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

func fail(op string, kind Kind, field, hint, format string, args ...any) *Error {
	return &Error{Op: op, Kind: kind, Field: field, Hint: hint, Err: fmt.Errorf(format, args...)}
}
