package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/cmd/norion/chat"
	"github.com/norion/norion/control/ledger"
	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/kv/snapshot"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store"
)

// Exit codes. They are part of the interface: `norion help exit-codes` documents them.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitModel       = 3
	exitDoesNotFit  = 4
	exitSource      = 5
	exitBusy        = 6
	exitInterrupted = 130
)

const exitCodesText = `0    it worked
1    something failed that is none of the following
2    the command line or a value in it cannot be used
3    the model is unknown, missing, unreadable, damaged, or cannot do what was asked
4    it does not fit: the context, the memory or the disk is too small, or the machine
     does not meet a manifest
5    the model could not be fetched: network, source, digest or licence terms
6    busy, or a deadline passed: the same command may work later
130  interrupted by Ctrl-C or SIGTERM; what was there was printed

A program that is stopped by the end of its output pipe ends by that signal (141 in a shell).
With --json an error is one JSON object on standard error:
{"error": {"kind", "message", "field", "hint", "exit_code"}}.`

// usageError is a fault of the command line.
type usageError struct{ message, hint, field string }

func (e *usageError) Error() string { return e.message }

// interrupted ends a command whose partial result is already printed.
var errInterrupted = &infer.Error{Kind: infer.KindCanceled, Hint: ""}

// exitCode classifies an error.
func (a *app) exitCode(err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*usageError](err); ok || !a.reached {
		return exitUsage
	}
	if _, ok := errors.AsType[chat.CommandError](err); ok {
		return exitUsage
	}
	is := func(kinds ...error) bool {
		return slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(err, k) })
	}
	switch {
	case is(infer.KindCanceled, store.ErrCanceled, ledger.ErrCanceled, context.Canceled):
		return exitInterrupted
	case is(infer.KindTooLong, infer.KindNoMemory, store.ErrNoSpace, device.ErrUnmet,
		plan.ErrNoFit):
		return exitDoesNotFit
	case is(infer.KindModel, infer.KindNoTemplate, infer.KindUnsupported, store.ErrName,
		store.ErrUnknownModel, store.ErrNotPulled, store.ErrNotFound, store.ErrNotModel,
		store.ErrDamaged, store.ErrTooNew, plan.ErrModel):
		return exitModel
	case is(store.ErrNetwork, store.ErrUnavailable, store.ErrRefused, store.ErrNoPip,
		store.ErrTerms, store.ErrDigest):
		return exitSource
	case is(infer.KindBusy, infer.KindDeadline, store.ErrLocked, ledger.ErrLocked,
		ledger.ErrPending):
		return exitBusy
	case is(infer.KindInvalid, ledger.ErrInvalid, ledger.ErrOptions, device.ErrManifest,
		device.ErrMachine, plan.ErrWish, plan.ErrMachine, plan.ErrDevice, plan.ErrUnknown):
		return exitUsage
	}
	if _, ok := errors.AsType[*gguf.Error](err); ok {
		return exitModel
	}
	if e, ok := errors.AsType[*store.Error](err); ok && e.Kind == store.ErrPermission &&
		e.Op == "resolve" { // the model's own file, not the store's directory
		return exitModel
	}
	return exitFailure
}

// errorJSON is an error for programs.
type errorJSON struct {
	Kind     string `json:"kind"`
	Message  string `json:"message"`
	Field    string `json:"field,omitempty"`
	Hint     string `json:"hint,omitempty"`
	ExitCode int    `json:"exit_code"`
}

// report prints an error and returns the exit code.
func (a *app) report(err error, args []string) int {
	code := a.exitCode(err)
	if err == nil {
		return 0
	}
	hint, kind, field := hintOf(err), "failure", ""
	if e, ok := errors.AsType[*infer.Error](err); ok {
		kind, field = string(e.Kind), e.Field
	} else if e, ok := errors.AsType[*store.Error](err); ok {
		kind = string(e.Kind)
	} else if e, ok := errors.AsType[*ledger.Error](err); ok {
		kind, field = string(e.Kind), e.Field
	} else if e, ok := errors.AsType[*gguf.Error](err); ok {
		kind, field = e.Kind.Error(), e.Field
	} else if e, ok := errors.AsType[*snapshot.Error](err); ok {
		kind, field = string(e.Kind), e.Field
	} else if e, ok := errors.AsType[*device.Error](err); ok {
		kind, field = string(e.Kind), e.Field
	} else if e, ok := errors.AsType[*plan.Error](err); ok {
		kind, field = string(e.Kind), e.Field
	} else if code == exitUsage {
		kind = "usage"
		if e, ok := errors.AsType[*usageError](err); ok {
			field = e.field
		}
	}
	message := oneLine(err.Error())
	if code == exitInterrupted {
		message = "interrupted"
	}
	if slices.Contains(args, "--json") {
		data, _ := json.Marshal(map[string]errorJSON{"error": {
			Kind: kind, Message: message, Field: field, Hint: hint, ExitCode: code,
		}})
		fmt.Fprintf(a.err, "%s\n", data)
		return code
	}
	fmt.Fprintf(a.err, "norion: %s\n", message)
	if hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", oneLine(hint))
	}
	return code
}

// oneLine keeps a message on one line and away from the terminal's control sequences.
func oneLine(s string) string {
	return printable(strings.Join(strings.FieldsFunc(strings.TrimSpace(s),
		func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
}

// hintOf returns the first hint in the tree of an error.
func hintOf(err error) string {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case nil:
		return ""
	case *usageError:
		return e.hint
	case *infer.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *store.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *ledger.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *gguf.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *llama.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *snapshot.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *device.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *plan.Error:
		if e.Hint != "" {
			return e.Hint
		}
	case *bench.Error:
		if e.Hint != "" {
			return e.Hint
		}
	}
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case interface{ Unwrap() error }:
		return hintOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, below := range e.Unwrap() {
			if h := hintOf(below); h != "" {
				return h
			}
		}
	}
	return ""
}
