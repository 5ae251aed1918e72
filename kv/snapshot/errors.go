package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/norion/norion/hw/disk"
)

// Kind says what went wrong. Match it with errors.Is.
type Kind string

// The kinds of errors of this package. None of them concerns a user's request: a state that
// cannot be had is a miss, and the prompt is computed again.
const (
	ErrOptions  Kind = "bad snapshot options"
	ErrInvalid  Kind = "bad state"
	ErrNoRoom   Kind = "the state cannot be written now"
	ErrClosed   Kind = "snapshot store closed"
	ErrCanceled Kind = "canceled"
	ErrKey      Kind = "bad key file"
	ErrDisk     Kind = "disk tier unavailable"
)

// Error makes a Kind an error.
func (k Kind) Error() string { return string(k) }

// Error is what the functions of this package return.
type Error struct {
	Op    string // "open", "key", "put", "buffer", "save", "flush", "list", "verify", "clear"
	Kind  Kind   // what a caller matches
	Field string // the option, field or file concerned, or ""
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

// Miss says why a state was not found. It is also the verdict of Verify on a file.
type Miss string

// The causes of a miss.
const (
	MissAbsent    Miss = "absent"     // never saved, evicted, or removed by somebody
	MissDamaged   Miss = "damaged"    // cut, flipped, renamed, or never whole
	MissForeign   Miss = "foreign"    // another format version or another key
	MissUntrusted Miss = "untrusted"  // another user owns the file or may write to it
	MissIO        Miss = "unreadable" // the system could not read the file
	MissCanceled  Miss = "canceled"   // the caller gave up
	MissClosed    Miss = "closed"     // the store is closed
)

// Error makes a Miss the cause of an error.
func (m Miss) Error() string { return string(m) }

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", MissDamaged, fmt.Sprintf(format, args...))
}

// missOf classifies an error of the disk tier.
func missOf(err error) Miss {
	if m, ok := errors.AsType[Miss](err); ok {
		return m
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return MissAbsent
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return MissCanceled
	default:
		return MissIO
	}
}

// canceled makes the error of a context that ended.
func canceled(op string, err error) error { return &Error{Op: op, Kind: ErrCanceled, Err: err} }

// saveError makes err the typed reason of a save that failed.
func saveError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Op: "save", Kind: ErrDisk, Err: err}
	switch {
	case disk.NoSpace(err):
		e.Hint = "free some space, or give the cache a smaller budget or another disk"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "check the owner and the permissions of the cache directory"
	}
	return e
}
