package bench

import (
	"fmt"
	"strings"
)

// Kind classifies an Error. A Kind is itself an error, so errors.Is(err, ErrPeer) works.
type Kind string

// The kinds of errors of this package. What the model or the engine says keeps its own type.
const (
	ErrFlag      Kind = "bad benchmark flag"
	ErrPeer      Kind = "no peer program"
	ErrPeerBuild Kind = "the peer is another build"
	ErrProcess   Kind = "a measured process failed"
	ErrOutput    Kind = "unreadable output of a measured process"
)

// Error makes a Kind an error.
func (k Kind) Error() string { return string(k) }

// Error is what this package returns for its own failures.
type Error struct {
	Op    string // "flags", "peer", "measure"
	Kind  Kind
	Field string // the flag or program at fault, or ""
	Hint  string // what to do next, or ""
	Err   error  // the cause, or nil
}

// Error gives the message without the hint.
func (e *Error) Error() string {
	parts := []string{e.Op, string(e.Kind)}
	if e.Field != "" {
		parts = append(parts, e.Field)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// badFlag refuses the value of one flag.
func badFlag(field, hint, format string, args ...any) *Error {
	return &Error{
		Op: "flags", Kind: ErrFlag, Field: field, Hint: hint, Err: fmt.Errorf(format, args...),
	}
}
