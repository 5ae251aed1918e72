package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/engine/measure"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
)

// figures are what was measured of a model on this machine. With an error there are none.
func (a *app) figures(machine device.Machine, m store.Model) (measure.Figures, error) {
	dir, err := machineDir(a.getenv)
	if err != nil {
		return measure.Figures{}, err
	}
	return measure.Recall(dir, machine.Fingerprint(), measure.Key(m.Path, m.Digest.String()))
}

// verify loads a model as planned, holds the plan against the load, and keeps what was found.
func (a *app) verify(ctx context.Context, m store.Model, shape gguf.Shape, machine device.Machine,
	w plan.Wish, known measure.Figures, asJSON bool,
) error {
	p, err := plan.Make(shape, machine, w)
	if err != nil {
		return err
	}
	// Speeds are measured where a short prompt ends, so they are predicted there.
	w.DepthTokens = min(measure.Depth(p.ContextTokens), p.ContextTokens)
	if p, err = plan.Make(shape, machine, w); err != nil {
		return err
	}
	r, err := measure.Verify(ctx, p, engine.Options{
		Paths: []string{m.Path}, Model: m.Name.String(), Digest: m.Digest.String(),
		Template: m.Template, SmallWindow: !w.FullWindow,
	})
	if err != nil {
		return err
	}
	r.Machine = machine.Fingerprint()
	if p.Decode.Source != plan.SourceMeasured {
		if rates, err := r.Rates(shape, machine, w); err == nil {
			known.Calibrated(rates)
		}
	}
	known.Verified = &r
	if load, ok := r.Load(); ok {
		known.Saw(load)
	}
	dir, err := machineDir(a.getenv)
	if err == nil {
		err = known.Keep(dir)
	}
	if err != nil {
		r.Notes = append(r.Notes, "measured figures are not kept: "+err.Error())
	}
	if asJSON {
		return writeJSON(a.out, r)
	}
	return a.writeResult(r)
}

// calibrate measures the rates of this machine with a model, for the kinds of cache that there are,
// keeps them, and prints them.
func (a *app) calibrate(ctx context.Context, m store.Model, shape gguf.Shape,
	machine device.Machine, w plan.Wish, known *measure.Figures,
) error {
	for i, kind := range []struct {
		kvType  string
		noFlash bool
	}{{"f16", false}, {"q8_0", false}, {"f16", true}} {
		w.KVTypes, w.NoFlash = []string{kind.kvType}, kind.noFlash
		fmt.Fprintf(a.err, "calibrating with a cache of %s, flash attention %t\n", kind.kvType,
			!kind.noFlash)
		c, err := measure.Calibrate(ctx, shape, machine, w, engine.Options{
			Paths: []string{m.Path}, Model: m.Name.String(), Digest: m.Digest.String(),
			Template: m.Template, SmallWindow: !w.FullWindow,
		})
		if i > 0 && (infer.KindOf(err) == infer.KindInvalid || errors.Is(err, plan.ErrWish)) {
			fmt.Fprintf(a.err, "note: not with such a cache: %s\n", oneLine(err.Error()))
			continue
		}
		if err != nil {
			return err
		}
		known.Calibrated(c)
	}
	dir, err := machineDir(a.getenv)
	if err != nil {
		return err
	}
	return known.Keep(dir)
}

// writeRates prints what was calibrated.
func (a *app) writeRates(all []plan.Calibration) error {
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tTHREADS\tCACHE\tFLASH\tWEIGHTS\tCACHE READ\tSTEP\tPREFILL")
	rate := func(v, unit float64, name string) string {
		if v == 0 || v >= 1e18 {
			return "-" // not measured apart, or no time at all
		}
		return rounded(v/unit) + " " + name
	}
	for _, c := range all {
		fmt.Fprintf(t, "%s\t%d\t%s\t%t\t%s\t%s\t%s\t%s\n", oneLine(c.Device), c.Threads, c.KVType,
			!c.NoFlash, rate(c.BytesPerSecond, 1e9, "GB/s"), rate(c.CacheBytesPerSecond, 1e9, "GB/s"),
			rate(c.StepOpsPerSecond, 1e9, "Gop/s"), rate(c.OpsPerSecond, 1e9, "Gop/s"))
	}
	fmt.Fprintln(t)
	return t.Flush()
}

// dryLoad counts the bytes of a plan, keeps them, and gives all that is known of such loads.
func (a *app) dryLoad(ctx context.Context, m store.Model, p plan.Plan, w plan.Wish,
	known measure.Figures,
) ([]plan.Load, error) {
	l, err := measure.Dry(ctx, p, engine.Options{
		Paths: []string{m.Path}, Model: m.Name.String(), SmallWindow: !w.FullWindow,
	})
	if err != nil {
		return nil, err
	}
	known.Saw(l)
	dir, err := machineDir(a.getenv)
	if err == nil {
		err = known.Keep(dir)
	}
	if err != nil {
		fmt.Fprintf(a.err, "note: counted bytes are not kept: %s\n", oneLine(err.Error()))
	}
	return known.Loads, nil
}

// writeResult prints a plan against its load.
func (a *app) writeResult(r measure.Result) error {
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tWHAT\tPREDICTED\tREAL\tERROR\tBY")
	for _, d := range r.Devices {
		row := func(what string, predicted, measured int64) {
			if predicted == 0 && measured == 0 {
				return
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", oneLine(d.Name), what, size(predicted),
				size(measured), percent(float64(predicted), float64(measured)), r.Plan.MemorySource)
		}
		p, m := d.Predicted, d.Measured
		row("weights", p.Weights, m.Weights)
		row("KV cache", p.KV, m.KV)
		row("compute", p.Compute, m.Compute)
		row("output", p.Output, m.Output)
		row("all of them", p.Total()-p.Overhead, m.Total())
	}
	for _, v := range []struct {
		what string
		rate measure.Rate
	}{{"decode", r.Decode}, {"decode, all", r.DecodeAll}, {"prefill", r.Prefill}} {
		if v.rate.Measured == 0 || v.what == "decode, all" && r.Plan.Sequences == 1 {
			continue
		}
		fmt.Fprintf(t, "\t%s\t%s tokens/s\t%s tokens/s\t%s\t%s\n", v.what, rounded(v.rate.Predicted),
			rounded(v.rate.Measured), percent(v.rate.Predicted, v.rate.Measured), v.rate.Source)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\n%d layers on GPUs, %d cells of %s, a prompt of %d tokens and %d of answer; "+
		"loaded in %.2f s by %s\n", r.Plan.GPULayers, r.Plan.Cells, r.Plan.KVType, r.PromptTokens,
		r.AnswerTokens, r.LoadSeconds, r.Plan.Load)
	for _, n := range r.Notes {
		fmt.Fprintf(a.err, "note: %s\n", oneLine(n))
	}
	return nil
}

// percent is how far a prediction lies above what was measured.
func percent(predicted, measured float64) string {
	if measured == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", 100*(predicted/measured-1))
}
