package worker

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// Options configures a Worker. Engine is required; zero elsewhere means the default that is named.
type Options struct {
	// Engine is what the child opens. Its policies must be built-in ones, which requests name:
	// Evict and Evictors are Go values and cannot be sent. Its Logger turns the child's log on.
	Engine engine.Options
	// Command is the child's program and arguments; nil: this program with the argument "worker". It
	// must call Main.
	Command []string
	// Env is the child's whole environment; nil: none. What the drivers of devices read is named here.
	Env     []string
	Confine Confinement

	LoadTimeout time.Duration // from the start of a child until its model is loaded; 0: 30 minutes
	PingEvery   time.Duration // 0: 2 s
	// PingTimeout is how long a child may take to answer a ping; two late answers in a row are a
	// hang. 0: 10 s.
	PingTimeout time.Duration
	// StepTimeout is how long the model may compute without coming to the end of a step.
	// 0: 10 minutes.
	StepTimeout time.Duration
	StopTimeout time.Duration // for a child to end by itself; 0: 20 s
	BackoffMin  time.Duration // before the first restart, doubled with each; 0: 100 ms
	BackoffMax  time.Duration // 0: 10 s
	// Restarts is how many there are in a row before the worker gives up; 0: 8. A child that lived for
	// Stable begins a new row.
	Restarts int
	Stable   time.Duration // 0: 1 minute

	Logger *slog.Logger // nil is silent; never sees text of prompts or answers
}

// Confinement says what a child may do beyond computing. It can always read what the user can, and
// use GPUs. On Linux it can write nowhere but in the engine's CacheDir, and open no connection of a
// network; elsewhere it is not confined, which Info.Notes says.
type Confinement struct {
	Off bool // do not confine the child
	// MemoryBytes bounds the memory that the child can write to (RLIMIT_DATA): mapped weights do not
	// count. 0: no bound.
	MemoryBytes uint64
	Files       uint64 // open at once; 0: 1024
}

// Validate refuses options that cannot be used. The error is an *infer.Error that names the field.
func (o *Options) Validate() error {
	refuse := func(field string, kind infer.Kind, hint, format string, args ...any) error {
		return &infer.Error{
			Op: "options", Kind: kind, Field: field, Hint: hint, Err: fmt.Errorf(format, args...),
		}
	}
	if o.Engine.Evict != nil || len(o.Engine.Evictors) > 0 {
		return refuse("evict", infer.KindUnsupported, "open the engine in this process",
			"a policy written in Go cannot be sent to another process")
	}
	for _, f := range []struct {
		field string
		value time.Duration
	}{
		{"load timeout", o.LoadTimeout},
		{"ping interval", o.PingEvery},
		{"ping timeout", o.PingTimeout},
		{"step timeout", o.StepTimeout},
		{"stop timeout", o.StopTimeout},
		{"backoff", o.BackoffMin},
		{"backoff", o.BackoffMax},
		{"stable time", o.Stable},
		{"restarts", time.Duration(o.Restarts)},
	} {
		if f.value < 0 {
			return refuse(f.field, infer.KindInvalid, "use 0 for the default", "it is negative")
		}
	}
	return o.Engine.Validate()
}

func (o Options) withDefaults() Options {
	o.LoadTimeout = cmp.Or(o.LoadTimeout, 30*time.Minute)
	o.PingEvery = cmp.Or(o.PingEvery, 2*time.Second)
	o.PingTimeout = cmp.Or(o.PingTimeout, 10*time.Second)
	o.StepTimeout = cmp.Or(o.StepTimeout, 10*time.Minute)
	o.StopTimeout = cmp.Or(o.StopTimeout, 20*time.Second)
	o.BackoffMin = cmp.Or(o.BackoffMin, 100*time.Millisecond)
	o.BackoffMax = max(cmp.Or(o.BackoffMax, 10*time.Second), o.BackoffMin)
	o.Restarts = cmp.Or(o.Restarts, 8)
	o.Stable = cmp.Or(o.Stable, time.Minute)
	o.Confine.Files = cmp.Or(o.Confine.Files, 1024)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
