package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/hw/disk"
)

// Kind says what went wrong. Match it with errors.Is.
type Kind string

// The kinds of errors of this package.
const (
	ErrOptions     Kind = "bad ledger options"
	ErrDirectory   Kind = "the ledger's directory cannot be used"
	ErrLocked      Kind = "the ledger is locked"
	ErrTooNew      Kind = "the ledger is of a newer version"
	ErrTooOld      Kind = "the ledger is of an older version"
	ErrNone        Kind = "there is no ledger"
	ErrKey         Kind = "bad key file"
	ErrDamaged     Kind = "the ledger does not verify"
	ErrRestored    Kind = "the ledger is older than its checkpoint"
	ErrCheckpoint  Kind = "bad checkpoint"
	ErrUnavailable Kind = "the ledger is unavailable"
	ErrInvalid     Kind = "invalid append"
	ErrConflict    Kind = "the stream has moved on"
	ErrKeyReused   Kind = "the idempotency key was used for something else"
	ErrPending     Kind = "the append is under way"
	ErrCanceled    Kind = "canceled"
	ErrClosed      Kind = "the ledger is closed"
	ErrNotFound    Kind = "not in the ledger"
	ErrForgotten   Kind = "the text was forgotten"
	ErrProof       Kind = "the proof does not hold"
)

// Error makes a Kind an error.
func (k Kind) Error() string { return string(k) }

// Error is what the functions of this package return.
type Error struct {
	Op    string // "open", "append", "verify", "prove", "check", "backup", ...
	Kind  Kind   // what a caller matches
	Field string // the option, file or stream concerned, or ""
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

// Hints that several errors share.
const (
	hintVerify = "run `norion ledger verify`, and see docs/runbook/ledger.md"
	hintDisk   = "check the disk, start again, and run `norion ledger verify`"
	hintNone   = "nothing was recorded here yet"
	hintSpace  = "free some space on the ledger's disk; then it goes on by itself"
)

// wrap makes an error of this package of one of the storage's or the system's.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Op: op, Kind: ErrUnavailable, Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind = ErrCanceled
	case errors.Is(err, storage.ErrTooNew):
		e.Kind, e.Hint = ErrTooNew, "use the newer norion that wrote it"
	case errors.Is(err, storage.ErrTooOld):
		e.Kind, e.Hint = ErrTooOld, "run `norion ledger rebuild` once: it migrates the ledger"
	case errors.Is(err, storage.ErrClosed):
		e.Kind = ErrClosed
	case errors.Is(err, storage.ErrCorrupt):
		e.Kind, e.Hint = ErrDamaged, hintVerify
	case errors.Is(err, storage.ErrBusy):
		e.Kind, e.Hint = ErrLocked, "another norion works on it; try again later"
	case errors.Is(err, storage.ErrNotRecord):
		e.Kind, e.Hint = ErrDirectory, "name the directory of a ledger, owned by this user alone"
	case full(err):
		e.Hint = hintSpace
	case errors.Is(err, storage.ErrIO):
		e.Hint = hintDisk
	}
	return e
}

// full reports whether err says that there is no room.
func full(err error) bool { return errors.Is(err, storage.ErrFull) || disk.NoSpace(err) }

func invalid(field, format string, args ...any) error {
	return &Error{Op: "append", Kind: ErrInvalid, Field: field, Err: fmt.Errorf(format, args...)}
}
