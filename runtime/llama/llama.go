// Package llama binds llama.cpp: models, contexts, batches, samplers, chat formats and the state
// of sequences as Go values. It owns every crossing into C and checks every precondition before
// C sees it, because a failed assertion there ends the process. It must not know requests,
// queues, files of norion or the control layer, and it imports nothing of norion.
//
// A Model may be used by many goroutines. A Context, Sampler, Batch or Chat is used by one at a
// time; only Context.Abort may be called from another. Every value is closed by its owner:
// children first, twice is harmless, and use after Close is the error Closed.
//
// In a build without cgo everything compiles and each native call answers the error Missing.
package llama

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
)

// Token is an index into a model's vocabulary.
type Token int32

// Pos is the position of a token in its sequence, from 0.
type Pos int32

// Seq names a sequence of a context, from 0.
type Seq int32

// DeviceType is the kind of a Device.
type DeviceType int32

const (
	DeviceCPU DeviceType = iota
	DeviceGPU
	DeviceIntegratedGPU
	DeviceAccelerator
)

// String gives the short name that users see.
func (t DeviceType) String() string {
	switch t {
	case DeviceCPU:
		return "cpu"
	case DeviceGPU:
		return "gpu"
	case DeviceIntegratedGPU:
		return "igpu"
	default:
		return "accel"
	}
}

// Device is something that llama.cpp can compute on.
type Device struct {
	Name        string     `json:"name"`
	Description string     `json:"description"`
	ID          string     `json:"id"` // PCI bus id in lower case, or ""
	Type        DeviceType `json:"type"`
	FreeBytes   uint64     `json:"free_bytes"`
	TotalBytes  uint64     `json:"total_bytes"`
}

var logger atomic.Pointer[slog.Logger]

// Start starts the back-ends. The first call decides when they load; every call sets where log
// lines go. A nil logger silences them. Safe for concurrent use.
func Start(log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	logger.Store(log)
	return nativeStart(minLevel(log))
}

// minLevel is the lowest ggml level that log would keep.
func minLevel(log *slog.Logger) int32 {
	ctx := context.Background()
	for level, at := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(ctx, at) {
			return int32(level) + 1
		}
	}
	return 4
}

// logLine hands one line of the library to the logger. It never panics into C.
func logLine(level int32, line string) {
	defer func() { _ = recover() }() // a handler that panics must not unwind C frames
	log := logger.Load()
	if log == nil {
		return
	}
	at := slog.LevelDebug
	switch {
	case level >= 4:
		at = slog.LevelError
	case level == 3:
		at = slog.LevelWarn
	case level == 2:
		at = slog.LevelDebug // upstream's info is chatter about loading
	}
	log.Log(context.Background(), at, line, "source", "llama.cpp")
}

// life guards one native value against use after Close and Close before its children.
type life struct {
	mu       sync.Mutex
	closed   bool
	users    int // calls in flight and children
	children int
}

// enter admits one call; leave ends it.
func (l *life) enter(op string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return &Error{Op: op, Code: Closed}
	}
	l.users++
	return nil
}

func (l *life) leave() {
	l.mu.Lock()
	l.users--
	l.mu.Unlock()
}

// adopt counts a child until disown. It is called between enter and leave.
func (l *life) adopt() {
	l.mu.Lock()
	l.children++
	l.mu.Unlock()
}

func (l *life) disown() {
	l.mu.Lock()
	l.children--
	l.mu.Unlock()
}

// close runs free once. A second call returns nil; a call while in use is the error InUse.
func (l *life) close(op string, free func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	if l.children > 0 || l.users > 0 {
		return fail(op, InUse, "close what was made from it first",
			"%d children, %d calls in flight", l.children, l.users)
	}
	l.closed = true
	free()
	return nil
}
