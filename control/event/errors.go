package event

import "fmt"

// The faults of events. Match them with errors.Is.
const (
	ErrInvalid   Fault = "invalid event"
	ErrTooLarge  Fault = "event too large"
	ErrCanonical Fault = "not canonical JSON"
)

// Fault says what is wrong with an event.
type Fault string

// Error makes a Fault an error.
func (f Fault) Error() string { return string(f) }

// Error is what the functions of this package return.
type Error struct {
	Fault Fault  // what a caller matches
	Field string // the field concerned, or ""
	Err   error  // the cause, or nil
}

// Error gives the message.
func (e *Error) Error() string {
	s := string(e.Fault)
	if e.Field != "" {
		s += ": " + e.Field
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the fault and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Fault}
	}
	return []error{e.Fault, e.Err}
}

func invalid(field, format string, args ...any) error {
	return &Error{Fault: ErrInvalid, Field: field, Err: fmt.Errorf(format, args...)}
}
