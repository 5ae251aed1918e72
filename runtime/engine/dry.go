package engine

import (
	"context"
	"errors"
	"log/slog"

	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/llama"
)

// DryLoad counts the buffers that Open would make, by device and kind, and makes none: llama.cpp
// reads the file's header only. Weights count as read, not mapped; of the buffer of logits there is
// one row for each sequence, since it grows. Adapters are not counted. Errors: those of Open.
func DryLoad(ctx context.Context, o Options) (all []llama.MemoryUse, err error) {
	const op = "dry load"
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	file, err := gguf.Open(o.Paths[0])
	if err != nil {
		return nil, fail(op, err)
	}
	defer file.Close()
	plan, err := o.check(file)
	if err != nil {
		return nil, fail(op, err)
	}
	if err := llama.Start(o.Logger); err != nil {
		return nil, fail(op, err)
	}
	p := o.modelParams(file.Paths(), plan.need)
	p.Dry = true
	model, err := llama.LoadModel(ctx, p)
	if err != nil {
		return nil, fail(op, err)
	}
	defer func() { err = fail(op, errors.Join(err, model.Close())) }()
	e := &Engine{model: model, drafts: o.draftOutputs(model.Info())}
	c, err := e.newContext(&o, plan)
	if err != nil {
		return nil, err
	}
	all, err = c.MemoryUse()
	return all, errors.Join(err, c.Close())
}
