package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// follow lets a plan decide how a model is loaded, as far as the flags leave it open: with auto on
// a machine with accelerators, or as a file says. It returns what was planned as one line, or "".
func (a *app) follow(ctx context.Context, how string, m store.Model, o *engine.Options) (
	line string, err error,
) {
	if how == planOff || how == planAuto && o.CPUOnly {
		return "", nil
	}
	if how != planAuto {
		p, err := readPlan(how)
		if err != nil {
			return "", err
		}
		return adopt(p, o), nil
	}
	if sees, err := seesGPU(); err != nil || !sees {
		return "", err // the probe is not worth its time
	}
	machine, err := a.thisMachine(ctx)
	if err != nil {
		return "", err
	}
	figures, err := a.figures(machine, m)
	if err != nil {
		fmt.Fprintf(a.err, "note: %s\n", oneLine(err.Error()))
	}
	shape, err := modelShape(m.Path)
	if err != nil {
		return "", err
	}
	w := wishOf(o)
	w.Calibration, w.Loads = figures.Calibration, figures.Loads
	p, err := plan.Make(shape, machine, w)
	if err != nil {
		return "", err
	}
	return adopt(p, o), nil
}

// seesGPU says whether llama.cpp has a device that a plan could place layers on.
func seesGPU() (bool, error) {
	if err := llama.Start(nil); err != nil {
		return false, err
	}
	devices, err := llama.Devices()
	return slices.ContainsFunc(devices, func(d llama.Device) bool {
		return d.Type == llama.DeviceGPU || d.Type == llama.DeviceIntegratedGPU
	}), err
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
	switch o.Load {
	case llama.LoadMap:
		w.Load = plan.LoadMap
	case llama.LoadRead:
		w.Load = plan.LoadRead
	}
	return w
}

// adopt takes a plan over into options, but for what they say themselves.
func adopt(p plan.Plan, o *engine.Options) string {
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
	return planLine(p)
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
