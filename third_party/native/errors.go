package main

import (
	"fmt"
	"strings"
)

// Kind says what sort of thing went wrong. It is an error so that
// errors.Is(err, KindDigest) works on anything this program returns.
type Kind string

// The kinds of failure.
const (
	KindPin    Kind = "the pin file is wrong"
	KindOption Kind = "an option is wrong"
	KindSource Kind = "the sources cannot be had"
	KindDigest Kind = "the sources are not the pinned ones"
	KindTool   Kind = "a build tool is missing"
	KindBuild  Kind = "the native build failed"
)

// Error makes a Kind usable as a target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is every failure of this program.
type Error struct {
	Op    string // what was being done
	Kind  Kind   // what sort of failure
	Field string // the key, file or variable concerned, if one
	Hint  string // what to do next, if something can be done
	Err   error  // the cause, if another error
}

// Error gives the operation, the kind, the field, the cause and the hint in one text.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Op, string(e.Kind))
	if e.Field != "" {
		fmt.Fprintf(&b, " (%s)", e.Field)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "\n  hint: %s", e.Hint)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches a Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}
