package measure

import (
	"slices"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/gguf"
)

// Rates that are so high that they cost a plan no time, and one to count with.
const (
	boundless = 1e18
	unit      = 1e9
)

// Calibrate gives the rates of the device that computed a measured plan: those with which the
// plan's formulas come to the measured speeds. There are none where several devices took part,
// since the times of each are not known, where no speed was measured, or with another cache than
// one of f16 with flash attention: that has rates of its own.
func (r *Result) Calibrate(s gguf.Shape, m device.Machine, w plan.Wish) []plan.Calibration {
	if !r.Plan.Flash || r.Plan.KVType != "f16" {
		return nil
	}
	busy := -1
	for i, d := range r.Plan.Devices {
		if d.Layers == 0 && d.ExpertLayers == 0 {
			continue
		}
		if busy >= 0 {
			return nil
		}
		busy = i
	}
	if busy < 0 || r.Decode.Measured == 0 || r.Prefill.Measured == 0 {
		return nil
	}
	c := plan.Calibration{Device: r.Plan.Devices[busy].Name}
	if busy == len(r.Plan.Devices)-1 {
		c.Threads = r.Plan.Threads
	}
	// A plan for a device of one such rate and no other limit tells what a token takes of it.
	with := func(bytes, ops float64) (p plan.Plan, ok bool) {
		trial := c
		trial.BytesPerSecond, trial.OpsPerSecond = bytes, ops
		w.Calibration = append(slices.Clone(w.Calibration), trial)
		w.Calibration = slices.DeleteFunc(w.Calibration, func(old plan.Calibration) bool {
			return old.Device == c.Device && old != trial
		})
		p, err := plan.Make(s, m, w)
		return p, err == nil && p.GPULayers == r.Plan.GPULayers
	}
	p, ok := with(unit, boundless)
	if !ok {
		return nil
	}
	c.BytesPerSecond = unit / p.Decode.TokensPerSecond * r.Decode.Measured
	if p, ok = with(boundless, unit); !ok {
		return nil
	}
	c.OpsPerSecond = unit / p.Prefill.TokensPerSecond * r.Prefill.Measured
	return []plan.Calibration{c}
}
