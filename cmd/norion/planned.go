package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store"
)

// What --plan takes besides the path of a file.
const (
	planAuto = "auto"
	planOff  = "off"

	planBytesMax = 1 << 20
)

// follow lets a plan decide how a model is loaded, as far as the flags leave it open. It returns
// nil where there is none: with off, and with a note where the processor alone computes and the
// plan would refuse, since llama.cpp may map what does not fit. After so many loads that found no
// room, the machine is taken to have less.
func (a *app) follow(
	ctx context.Context, f *modelFlags, m store.Model, o *engine.Options, failed int,
) (*plan.Plan, error) {
	switch f.plan {
	case planOff:
		return nil, nil //nolint:nilnil // no plan is no error
	case planAuto:
	default:
		p, err := readPlan(f.plan)
		if err == nil {
			adopt(p, o)
		}
		return &p, err
	}
	shape, err := modelShape(m.Path)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // the engine says what is wrong with the file
	}
	machine, err := a.thisMachine(ctx)
	if err != nil {
		return nil, err
	}
	lessen(&machine, f.mapped, failed)
	figures, err := a.figures(machine, m)
	if err != nil {
		fmt.Fprintf(a.err, "note: %s\n", oneLine(err.Error()))
	}
	w := wishOf(o)
	if trained := shape.ContextLength; trained > 0 {
		w.ContextMin = min(w.ContextMin, trained)
	}
	w.Calibration, w.Loads = figures.Calibration, figures.Loads
	p, err := plan.Make(shape, machine, w)
	switch {
	case err == nil:
		adopt(p, o)
		return &p, nil
	case failed == 0 && (errors.Is(err, plan.ErrModel) ||
		errors.Is(err, plan.ErrNoFit) && (o.CPUOnly || len(machine.Accelerators) == 0)):
		fmt.Fprintf(a.err, "note: not planned: %s\n", oneLine(err.Error()))
		return nil, nil //nolint:nilnil // no plan is no error
	}
	return nil, err
}

// lessen takes from a machine what other models map into its memory, and an eighth of what is left
// for each load that found no room.
func lessen(m *device.Machine, mapped int64, failed int) {
	left := func(bytes int64) int64 { return bytes - bytes/8*int64(failed) }
	m.Memory.AvailableBytes = max(left(m.Memory.AvailableBytes-mapped), 1)
	m.Accelerators = slices.Clone(m.Accelerators)
	for i := range m.Accelerators {
		m.Accelerators[i].FreeBytes = left(m.Accelerators[i].FreeBytes)
	}
}

// readPlan reads what norion plan --json wrote.
func readPlan(path string) (p plan.Plan, err error) {
	text, err := readText("plan", path, planBytesMax)
	if err != nil {
		return p, err
	}
	if p, err = parsePlan(text); err != nil {
		return p, flagError("plan", "write one with norion plan MODEL --json", "%s is no plan: %w",
			path, err)
	}
	return p, nil
}

// parsePlan reads the JSON of a plan. What no load can have, the engine refuses.
func parsePlan(text string) (p plan.Plan, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, err
	}
	if len(p.Devices) == 0 {
		return p, errors.New("it names no device")
	}
	return p, nil
}

func modelShape(path string) (shape gguf.Shape, err error) {
	file, err := gguf.Open(path)
	if err != nil {
		return shape, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.CheckModel(); err != nil {
		return shape, err
	}
	return file.Shape()
}

// leastContext is how far a context that nobody asked for may shrink to keep layers on GPUs.
const leastContext = 1024

// wishOf is what options ask of a plan. What they leave open is for the plan to decide.
func wishOf(o *engine.Options) plan.Wish {
	w := plan.Wish{
		ContextTokens: o.ContextTokens, Sequences: o.Sequences, Cells: o.Cells, NoFlash: o.NoFlash,
		FullWindow: !o.SmallWindow, MicroBatch: o.MicroBatch, Threads: o.Threads,
		BatchThreads: o.ThreadsBatch, Devices: o.Devices,
	}
	if o.ContextTokens == 0 {
		w.ContextMin = leastContext
	}
	if o.Shared {
		w.Layout = plan.Shared
	}
	if o.KVType != "" {
		w.KVTypes = []string{o.KVType}
	}
	if o.GPULayers > 0 {
		w.GPULayers = &o.GPULayers
	}
	if o.CPUOnly {
		w.Devices = []string{"CPU"}
	}
	switch o.Load {
	case llama.LoadMap:
		w.Load = plan.LoadMap
	case llama.LoadRead:
		w.Load = plan.LoadRead
	}
	return w
}

// adopt takes a plan over into options, but for what they say themselves.
func adopt(p plan.Plan, o *engine.Options) {
	asked := *o
	o.Apply(p)
	o.ContextTokens = cmp.Or(asked.ContextTokens, o.ContextTokens)
	o.Sequences = cmp.Or(asked.Sequences, o.Sequences)
	o.KVType = cmp.Or(asked.KVType, o.KVType)
	o.MicroBatch = cmp.Or(asked.MicroBatch, o.MicroBatch)
	o.Threads = cmp.Or(asked.Threads, o.Threads)
	o.ThreadsBatch = cmp.Or(asked.ThreadsBatch, asked.Threads, o.ThreadsBatch)
	o.NoFlash = o.NoFlash || asked.NoFlash
	if asked.Load != llama.LoadAuto {
		o.Load = asked.Load
	}
	if asked.CPUOnly {
		o.CPUOnly, o.Devices, o.TensorSplit, o.Overrides = true, nil, nil, nil
	} else if asked.GPULayers > 0 {
		o.CPUOnly, o.GPULayers = false, asked.GPULayers
	}
}

// planLine says what was planned: layers and bytes of each device, speed, and what differs from the
// wish.
func planLine(p plan.Plan) string {
	var parts []string
	for _, d := range p.Devices {
		if d.Layers > 0 {
			parts = append(parts, fmt.Sprintf("%d layers on %s (%s)", d.Layers, oneLine(d.Name),
				size(d.Bytes.Total())))
		}
	}
	parts = append(parts, fmt.Sprintf("%s tokens/s (%s)", rounded(p.Decode.TokensPerSecond),
		p.Decode.Source))
	for _, c := range p.Changes {
		parts = append(parts, fmt.Sprintf("%s %s in place of %s", c.Field, c.Given, c.Asked))
	}
	return "plan: " + strings.Join(parts, ", ")
}
