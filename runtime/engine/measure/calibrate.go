package measure

import (
	"context"
	"errors"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf"
)

// What Calibrate measures with: sequences at once, and the tokens in the cache at the second of two
// measurements of decoding.
const (
	calibrateSequences = 4
	calibrateDeep      = 2048
)

// ErrSpread says that several devices computed a load, so that the time of each is not known, or
// that nothing was measured.
var ErrSpread = errors.New("the rates of one device cannot be told")

// Calibrate loads a model and measures the rates of the device that computes it, with the threads,
// devices, first KV type and flash attention of a wish: an answer at two depths of the cache, and
// several at once. It takes the time of about 3,000 tokens of prompt and 300 of answer. Errors:
// ErrSpread, those of plan.Make, of engine.Open and of requests.
func Calibrate(ctx context.Context, s gguf.Shape, m device.Machine, w plan.Wish, o engine.Options) (
	plan.Calibration, error,
) {
	deep := calibrateDeep
	if s.ContextLength > 0 {
		deep = min(deep, s.ContextLength-2*answerTokens)
	}
	w.ContextTokens, w.ContextMin = max(deep, PromptTokens)+2*answerTokens, 0
	if deep < 2*PromptTokens {
		deep = 0 // too near to the first for a difference that can be measured
	}
	w.Sequences, w.DepthTokens = calibrateSequences, Depth(w.ContextTokens)
	w.Calibration, w.Loads = nil, nil
	p, err := plan.Make(s, m, w)
	if errors.Is(err, plan.ErrNoFit) {
		w.Sequences = 1
		p, err = plan.Make(s, m, w)
	}
	if err != nil {
		return plan.Calibration{}, err
	}
	r, err := verify(ctx, p, o, deep)
	if err != nil {
		return plan.Calibration{}, err
	}
	return r.Rates(s, m, w)
}

// Rates gives those of the device that computed a measured plan: with them, the plan's formulas
// come to the measured speeds. The wish is the one that the plan was made of. The error is
// ErrSpread.
func (r *Result) Rates(s gguf.Shape, m device.Machine, w plan.Wish) (plan.Calibration, error) {
	busy := -1
	for i, d := range r.Plan.Devices {
		if d.Layers == 0 && d.ExpertLayers == 0 {
			continue
		}
		if busy >= 0 {
			return plan.Calibration{}, ErrSpread
		}
		busy = i
	}
	if busy < 0 || r.Decode.Measured == 0 || r.Prefill.Measured == 0 {
		return plan.Calibration{}, ErrSpread
	}
	c := plan.Calibration{
		Device: r.Plan.Devices[busy].Name, KVType: r.Plan.KVType, NoFlash: !r.Plan.Flash,
	}
	if busy == len(r.Plan.Devices)-1 {
		c.Threads = r.Plan.Threads
	}
	w.Sequences = r.Plan.Sequences
	err := r.solve(&c, trial{s, m, w, c, r.Plan.GPULayers})
	return c, err
}

// besidesWeights is the most of a token's time that the rest may take. What was measured apart may
// say more, as the machine was not equally busy: one answer alone is then as measured, and several
// at once come out faster.
const besidesWeights = 0.9

// solve finds the rates: a token takes the time of its weights, of its cache and of what it
// computes, and n at once take the last two n times.
func (r *Result) solve(c *plan.Calibration, t trial) error {
	n := float64(r.Plan.Sequences)
	one, all := 1/r.Decode.Measured, n/r.DecodeAll.Measured
	weights, err1 := t.decode(unit, boundless, boundless, r.PromptTokens)
	near, err2 := t.decode(boundless, unit, boundless, r.PromptTokens)
	ops, err3 := t.decode(boundless, boundless, unit, r.PromptTokens)
	prompt, err4 := t.prefill()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	c.OpsPerSecond = unit * prompt * r.Prefill.Measured
	cache := 0.0 // seconds for the cache at the first depth, where it has a rate of its own
	share := 0.0 // of the seconds for weights, else
	if r.deepRate > 0 {
		far, err := t.decode(boundless, unit, boundless, r.deep)
		if err != nil {
			return err
		}
		cache = min(max(0, 1/r.deepRate-one)/(far-near)*near, one*besidesWeights)
		c.CacheBytesPerSecond = rateOf(near, cache)
	} else {
		weights += near
		share = near / weights
	}
	compute := 0.0
	if r.Plan.Sequences > 1 {
		compute = ((all-one)/(n-1) - cache - share*one) / (1 - share)
		compute = min(max(0, compute), one*besidesWeights-cache)
		c.StepOpsPerSecond = rateOf(ops, compute)
	}
	c.BytesPerSecond = rateOf(weights, one-cache-compute)
	return nil
}

// Rates that are so high that they cost a plan no time, and one to count with.
const (
	boundless = 1e18
	unit      = 1e9
)

// rateOf is the rate at which what took at one unit a second takes so many seconds.
func rateOf(atUnit, seconds float64) float64 {
	if seconds*boundless <= atUnit*unit {
		return boundless
	}
	return unit * atUnit / seconds
}

// trial asks plans for a device of made-up rates what a token takes of each.
type trial struct {
	shape   gguf.Shape
	machine device.Machine
	wish    plan.Wish
	of      plan.Calibration // the device
	layers  int              // on accelerators
}

func (t trial) plan(c plan.Calibration, depth int) (plan.Plan, error) {
	w := t.wish
	w.Calibration, w.DepthTokens = []plan.Calibration{c}, depth
	p, err := plan.Make(t.shape, t.machine, w)
	if err == nil && p.GPULayers != t.layers {
		err = ErrSpread
	}
	return p, err
}

// decode is the seconds of a token with such rates.
func (t trial) decode(bytes, cache, ops float64, depth int) (float64, error) {
	c := t.of
	c.BytesPerSecond, c.CacheBytesPerSecond, c.StepOpsPerSecond = bytes, cache, ops
	c.OpsPerSecond = boundless
	p, err := t.plan(c, depth)
	return 1 / p.Decode.TokensPerSecond, err
}

// prefill is the seconds of a token of a prompt at the unit of operations.
func (t trial) prefill() (float64, error) {
	c := t.of
	c.BytesPerSecond, c.OpsPerSecond = boundless, unit
	p, err := t.plan(c, 0)
	return 1 / p.Prefill.TokensPerSecond, err
}
