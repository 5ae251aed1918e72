package device

import "strings"

// Kind says what went wrong. Match it with errors.Is.
type Kind string

// The kinds of errors of this package.
const (
	ErrManifest Kind = "bad manifest"
	ErrMachine  Kind = "bad machine file"
	ErrUnmet    Kind = "the machine does not meet the manifest"
)

// Error makes a Kind an error.
func (k Kind) Error() string { return string(k) }

// Error is what parsing and Gate return.
type Error struct {
	Op    string // "parse", "gate"
	Kind  Kind   // what a caller matches
	Field string // the field of the file, or ""
	Hint  string // what to do next, or ""
	Err   error  // the cause, or nil
}

// Error gives the message without the hint.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op + ": " + string(e.Kind))
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
