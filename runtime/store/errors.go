package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/norion/norion/hw/disk"
)

// Kind says what went wrong. Match it with errors.Is.
type Kind string

// The kinds of errors of this package.
const (
	ErrName         Kind = "bad model name"
	ErrUnknownModel Kind = "unknown model"
	ErrNotPulled    Kind = "model not pulled"
	ErrNotFound     Kind = "no such file"
	ErrNotModel     Kind = "not a model file"
	ErrDamaged      Kind = "damaged store entry"
	ErrTooNew       Kind = "written by a newer norion"
	ErrDigest       Kind = "digest mismatch"
	ErrNoSpace      Kind = "no space on disk"
	ErrPermission   Kind = "permission denied"
	ErrNetwork      Kind = "network unavailable"
	ErrUnavailable  Kind = "source does not have the model"
	ErrRefused      Kind = "unsafe source refused"
	ErrNoPip        Kind = "no Python package client"
	ErrTerms        Kind = "licence terms not accepted"
	ErrLocked       Kind = "in use by another process"
	ErrCanceled     Kind = "canceled"
	ErrOptions      Kind = "bad store options"
	ErrCatalogue    Kind = "bad catalogue"
	ErrIO           Kind = "disk operation failed"
	ErrClosed       Kind = "store closed"
)

// Error makes a Kind an error.
func (k Kind) Error() string { return string(k) }

// Error is what every function of this package returns.
type Error struct {
	Op   string // "open", "resolve", "pull", "list", "verify", "remove", "prune"
	Kind Kind   // what a caller matches
	Name string // the model, file or option concerned, or ""
	Hint string // what to do next, or ""
	Err  error  // the cause, or nil
}

// Error gives the message without the hint.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(string(e.Kind))
	if e.Name != "" {
		b.WriteString(": " + e.Name)
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

// typed makes err an *Error of this operation. An *Error made further down keeps its kind and
// hint and gets what it lacks of op and name; the kind of any other error is found from its
// cause, and is fallback when that says nothing.
func typed(op, name string, fallback Kind, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		out := *e
		if out.Op == "" {
			out.Op = op
		}
		if out.Name == "" {
			out.Name = name
		}
		return &out
	}
	e = &Error{Op: op, Name: name, Kind: fallback, Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind = ErrCanceled
	case disk.NoSpace(err):
		e.Kind = ErrNoSpace
		e.Hint = "free some space, or put the store on another disk with NORION_HOME"
	case errors.Is(err, fs.ErrPermission):
		e.Kind = ErrPermission
		e.Hint = "check the owner and the permissions of the store directory"
	case errors.Is(err, fs.ErrClosed):
		e.Kind = ErrClosed
	}
	return e
}
