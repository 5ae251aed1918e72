package gguf

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of refusal, matched with errors.Is.
var (
	ErrIO          = errors.New("read failed")               // the operating system refused
	ErrNotGGUF     = errors.New("not a GGUF file")           // other magic
	ErrVersion     = errors.New("unsupported GGUF version")  // 1, future, or big-endian
	ErrTruncated   = errors.New("file ends too early")       // bytes that it promises are absent
	ErrCorrupt     = errors.New("invalid model file")        // a field contradicts the format
	ErrLimit       = errors.New("limit exceeded")            // legal in the format, beyond our bounds
	ErrSplit       = errors.New("incomplete split model")    // a shard is missing or does not belong
	ErrChanged     = errors.New("file changed since opened") // size, time or identity differ
	ErrNotModel    = errors.New("not a language model")      // projector, adapter, importance matrix
	ErrUnknownArch = errors.New("unknown architecture")      // the pinned llama.cpp has no such model
	ErrNoKey       = errors.New("metadata key is absent")
	ErrKeyType     = errors.New("metadata key has another type")
	ErrCacheType   = errors.New("KV cache type does not fit the model")
)

// Error is the one error type of this package.
type Error struct {
	Op     string // what was being done: "open", "read", "digest", "check"
	Kind   error  // one of the kinds above
	Field  string // the field, e.g. `tensor "output.weight" offset`; "" for the whole file
	Offset int64  // byte offset in the file; -1 where none applies
	Path   string // the file or shard; "" when read from memory
	Hint   string // what to do next; may be empty
	Err    error  // the cause; may be nil
}

// Error gives operation, file, kind, field, offset and cause in one line. File content in it is
// quoted and cut, so it is safe to print on a terminal.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("gguf: " + e.Op)
	if e.Path != "" {
		fmt.Fprintf(&b, " %q", e.Path)
	}
	b.WriteString(": " + e.what())
	return b.String()
}

// what is the message without operation and path.
func (e *Error) what() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	if e.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d", e.Offset)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the kind and the cause to errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// clip quotes text from a file for a message and cuts it to 64 bytes.
func clip(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%q...", s[:64])
	}
	return fmt.Sprintf("%q", s)
}

// fault is an Error without Op and Path: the parser's layer that knows them adds them.
func fault(kind error, field string, offset int64, hint, format string, args ...any) *Error {
	e := &Error{Kind: kind, Field: field, Offset: offset, Hint: hint}
	if format != "" {
		e.Err = fmt.Errorf(format, args...)
	}
	return e
}

// cause is the innermost text of an error of this package, without operation and path.
func cause(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}
