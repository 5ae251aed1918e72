package main

import (
	"context"
	"fmt"
	"time"

	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
)

// loaded is a model ready to run.
type loaded struct {
	infer.Backend
	path string        // of the file
	took time.Duration // of loading
	plan *plan.Plan    // nil: none was made
}

// load finds, plans and opens a model, and says on standard error what the user should know of it.
func (a *app) load(ctx context.Context, ref string, f *modelFlags, o engine.Options) (
	*loaded, error,
) {
	return a.loadBy(ctx, a.open, ref, f, o)
}

// loadBy is load with another way to open the model.
func (a *app) loadBy(
	ctx context.Context, open opener, ref string, f *modelFlags, o engine.Options,
) (*loaded, error) {
	m, err := a.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	o.Paths, o.Model, o.Digest = []string{m.Path}, m.Name.String(), m.Digest.String()
	if o.Template == "" {
		o.Template = m.Template
	}
	if (o.CacheDir != "" || f.digest) && o.Digest == "" {
		if o.Digest, err = a.fileDigest(ctx, m.Path); err != nil {
			return nil, err
		}
	}
	if isTerminal(a.err) {
		defer fmt.Fprint(a.err, "\r\x1b[K")
		shown := -1
		o.Progress = func(done float32) bool {
			if percent := int(100 * done); percent != shown {
				shown = percent
				fmt.Fprintf(a.err, "\r\x1b[Kloading %s  %3d %%", oneLine(ref), percent)
			}
			return true
		}
	}
	return a.openPlanned(ctx, open, m, f, o)
}

// replansMax is how many times a model is planned again when it found no room.
const replansMax = 3

// openPlanned plans a model and opens it as planned. Where that finds no room after all, as when
// another program was quicker, it is planned again with less, unless the user has said how to load.
func (a *app) openPlanned(
	ctx context.Context, open opener, m store.Model, f *modelFlags, o engine.Options,
) (*loaded, error) {
	var before *plan.Plan
	var failed error
	for try := 0; ; try++ {
		planned := o
		p, err := a.follow(ctx, f, m, &planned, try)
		switch {
		case failed != nil && (err != nil || sameLoad(*p, *before)):
			return nil, failed // no other plan
		case err != nil:
			return nil, err
		case p != nil && (f.verbose || f.sayPlan || isTerminal(a.err)):
			fmt.Fprintln(a.err, planLine(*p))
		}
		start := time.Now()
		b, err := open(ctx, planned)
		if err == nil {
			return &loaded{Backend: b, path: m.Path, took: time.Since(start), plan: p}, nil
		}
		if infer.KindOf(err) != infer.KindNoMemory || p == nil || f.plan != planAuto ||
			try == replansMax {
			return nil, err
		}
		fmt.Fprintf(a.err, "note: it has no room as planned, and is planned again with less: %s\n",
			oneLine(err.Error()))
		before, failed = p, err
	}
}

// sameLoad says that two plans load the same.
func sameLoad(a, b plan.Plan) bool {
	return a.GPULayers == b.GPULayers && a.ContextTokens == b.ContextTokens &&
		a.KVType == b.KVType && len(a.Overrides) == len(b.Overrides)
}
