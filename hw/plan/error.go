package plan

import (
	"fmt"
	"strings"
)

// Kind classifies an Error. A Kind is itself an error, so errors.Is(err, ErrNoFit) works.
type Kind string

const (
	ErrWish    Kind = "invalid wish"       // a field of the wish has a value that cannot be used
	ErrMachine Kind = "invalid machine"    // a field of the machine cannot be true
	ErrModel   Kind = "invalid model"      // a field of the shape cannot be true
	ErrDevice  Kind = "no such device"     // the wish names a device that the machine lacks
	ErrNoFit   Kind = "does not fit"       // no placement that the wish allows has room
	ErrUnknown Kind = "not in the library" // no machine or model of this name
)

// Error makes a Kind usable as a target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is the one error type of this package.
type Error struct {
	Op    string // what was being done: "plan", "read", ...
	Kind  Kind
	Field string // the field at fault, or ""
	Hint  string // what to do next, or ""
	Err   error  // the cause, or nil

	// MissingBytes is how much more memory the least demanding placement needs; with ErrNoFit only.
	MissingBytes int64
	// Ways are changes of the wish, each of which alone would make it fit; with ErrNoFit only.
	Ways []Way
}

// Way is a change of a wish.
type Way struct {
	Change        string `json:"change"` // in words, such as "context of 8192 tokens"
	ContextTokens int    `json:"context_tokens"`
	Sequences     int    `json:"sequences"`
	KVType        string `json:"kv_type"`
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

func fault(kind Kind, field, hint, format string, args ...any) *Error {
	return &Error{Op: "plan", Kind: kind, Field: field, Hint: hint, Err: fmt.Errorf(format, args...)}
}
