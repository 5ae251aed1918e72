package llama

import (
	"errors"
	"fmt"
)

// Code classifies an Error. A Code is itself an error, so errors.Is(err, llama.Full) works.
// The first thirteen mirror enum nr_code of shim/norion.h.
type Code int32

const (
	Invalid     Code = iota + 1 // an argument that cannot be used
	Load                        // the model or adapter could not be loaded
	Memory                      // an allocation failed
	Canceled                    // a callback, a context or the abort flag said stop
	Full                        // no room in the KV cache; the state is unchanged
	Decode                      // the engine failed to compute
	Unsupported                 // the model or build cannot do this
	BadGrammar                  // a grammar or schema that cannot be used
	Template                    // a chat template that cannot be used
	Parse                       // generated text that does not parse
	State                       // a saved or cut state that does not fit
	Internal                    // an unexpected failure of the native library
	Closed                      // use after Close
	InUse                       // Close before what depends on it was closed
	Missing                     // built without llama.cpp
)

var codeNames = [...]string{
	Invalid: "invalid argument", Load: "load failed", Memory: "out of memory",
	Canceled: "canceled", Full: "KV cache full", Decode: "decode failed",
	Unsupported: "unsupported", BadGrammar: "bad grammar", Template: "bad chat template",
	Parse: "unparsable output", State: "state does not fit", Internal: "internal error",
	Closed: "closed", InUse: "in use", Missing: "built without llama.cpp",
}

// Error makes a Code usable as a target of errors.Is.
func (c Code) Error() string {
	if c > 0 && int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", int32(c))
}

// Error is the one error type of this package.
type Error struct {
	Op   string // the operation: "load", "decode", ...
	Code Code
	Hint string // what to do next, or ""
	Err  error  // the cause, or nil
}

func (e *Error) Error() string {
	s := "llama: " + e.Op + ": " + e.Code.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the code and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}

// fail is an Error with a formatted cause.
func fail(op string, code Code, hint, format string, args ...any) *Error {
	return &Error{Op: op, Code: code, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// native turns a code and text of the shim into an Error, or nil for success.
func native(op string, code int32, text string) error {
	if code == 0 {
		return nil
	}
	c := Code(code)
	if c < Invalid || c > Internal {
		c = Internal
	}
	return &Error{Op: op, Code: c, Hint: hints[c], Err: errors.New(text)}
}

var hints = map[Code]string{
	Load:   "the log above says why; check that the file is a model this llama.cpp knows",
	Memory: "use a smaller context, a smaller model or a quantised KV cache",
	Full:   "free a sequence or use a larger context",
}

// errMissing is what every native call answers in a build without cgo.
func errMissing(op string) error {
	return &Error{
		Op: op, Code: Missing,
		Hint: "build with cgo after 'make native'",
	}
}
