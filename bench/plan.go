package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/engine/measure"
	"github.com/norion/norion/runtime/gguf"
)

// Bars of the benchmark of plans, in percent.
var (
	barPlanBytes   = Bar{Limit: 3, AtMost: true}
	barPlanWorst   = Bar{Limit: 8, AtMost: true}
	barPlanUnder   = Bar{Limit: 2, AtMost: true}
	barPlanDecode  = Bar{Limit: 15, AtMost: true}
	barPlanPrefill = Bar{Limit: 20, AtMost: true}
)

// planSlack is what a prediction of bytes may always be off by: the worst error is of those that
// are off by more.
const planSlack = 12 << 20

// Plans are the loads that plans are held against: all combinations.
type Plans struct {
	Contexts  []int
	Sequences []int
	KVTypes   []string
	NoFlash   []bool // false is with flash attention; q8_0 is only with it
}

// DefaultPlans and QuickPlans are what Plans is when nobody says.
var (
	DefaultPlans = Plans{
		Contexts: []int{512, 4096, 8192}, Sequences: []int{1, 4, 16},
		KVTypes: []string{"f16", "q8_0"}, NoFlash: []bool{false, true},
	}
	QuickPlans = Plans{
		Contexts: []int{512}, Sequences: []int{1, 2}, KVTypes: []string{"f16"},
		NoFlash: []bool{false, true},
	}
)

// Fill puts defaults in place of what is empty.
func (p Plans) Fill(quick bool) Plans {
	def := DefaultPlans
	if quick {
		def = QuickPlans
	}
	if len(p.Contexts) == 0 {
		p.Contexts = def.Contexts
	}
	if len(p.Sequences) == 0 {
		p.Sequences = def.Sequences
	}
	if len(p.KVTypes) == 0 {
		p.KVTypes = def.KVTypes
	}
	if len(p.NoFlash) == 0 {
		p.NoFlash = def.NoFlash
	}
	return p
}

// kinds are the kinds of cache that can be loaded: q8_0 needs flash attention.
func (p Plans) kinds() (all []plan.Wish) {
	for _, kind := range p.KVTypes {
		for _, noFlash := range p.NoFlash {
			if !noFlash || kind == "f16" {
				all = append(all, plan.Wish{KVTypes: []string{kind}, NoFlash: noFlash})
			}
		}
	}
	return all
}

// wishes are the combinations that can be loaded.
func (p Plans) wishes() (all []plan.Wish) {
	for _, context := range p.Contexts {
		for _, sequences := range p.Sequences {
			for _, w := range p.kinds() {
				w.ContextTokens, w.Sequences = context, sequences
				all = append(all, w)
			}
		}
	}
	return all
}

// calibrateEvery is how many loads come between two measurements of rates.
const calibrateEvery = 8

// Plan holds plans for this machine against their loads: bytes by the formulas, speeds by the
// median of the rates that were measured in between for the same kind of cache. Each combination
// counts as a round. Errors: those of loading, and ErrFlag.
func (s Scenario) Plan(ctx context.Context, p Plans) (Report, []Pair, error) {
	g, err := s.begin(ctx, "plan")
	if err != nil {
		return Report{}, nil, err
	}
	t := planned{
		o: engine.Options{
			Paths: []string{g.paths[s.Model]}, Model: s.Model, SmallWindow: true,
		},
		rates: map[plan.Calibration][]plan.Calibration{},
	}
	if t.machine, err = device.Probe(ctx, device.Options{}); err != nil {
		return Report{}, nil, err
	}
	if t.shape, err = shapeOf(g.paths[s.Model]); err != nil {
		return Report{}, nil, err
	}
	wishes := p.wishes()
	results := make([]measure.Result, len(wishes))
	for i := range wishes {
		w := &wishes[i]
		w.Threads = g.Threads
		if i%calibrateEvery == 0 {
			g.paired.Progress("rates")
			if err := t.calibrate(ctx, p, g.Threads); err != nil {
				return Report{}, nil, err
			}
		}
		g.paired.Progress(caseOf(*w))
		if results[i], err = t.verify(ctx, *w); err != nil {
			return Report{}, nil, err
		}
	}
	for i, w := range wishes {
		if err := t.predict(w, &results[i]); err != nil {
			return Report{}, nil, err
		}
		g.report.Runs = append(g.report.Runs, Run{
			Subject: s.Model, Case: caseOf(w), Side: SideNorion, Round: i,
			Values: planValues(results[i]),
		})
	}
	g.report.Rounds = len(g.report.Runs)
	g.report.planClaims(s.Model)
	g.close()
	return g.report, nil, nil
}

// caseOf names a combination.
func caseOf(w plan.Wish) string {
	return fmt.Sprintf("ctx=%d kv=%s sequences=%d flash=%t", w.ContextTokens, w.KVTypes[0],
		w.Sequences, !w.NoFlash)
}

// planned is a model on this machine, and the rates that were measured so far, by what they hold
// for.
type planned struct {
	shape   gguf.Shape
	machine device.Machine
	o       engine.Options
	rates   map[plan.Calibration][]plan.Calibration
}

// calibrate measures the rates of all kinds of cache once more.
func (t *planned) calibrate(ctx context.Context, p Plans, threads int) error {
	for _, w := range p.kinds() {
		w.Threads = threads
		c, err := measure.Calibrate(ctx, t.shape, t.machine, w, t.o)
		if errors.Is(err, measure.ErrSpread) {
			continue // a model without speeds, or one on several devices
		}
		if err != nil {
			return err
		}
		of := plan.Calibration{
			Device: c.Device, Threads: c.Threads, KVType: c.KVType, NoFlash: c.NoFlash,
		}
		t.rates[of] = append(t.rates[of], c)
	}
	return nil
}

// medians are the median rates of each kind.
func (t *planned) medians() (all []plan.Calibration) {
	for of, measured := range t.rates {
		for _, figure := range []func(*plan.Calibration) *float64{
			func(c *plan.Calibration) *float64 { return &c.BytesPerSecond },
			func(c *plan.Calibration) *float64 { return &c.CacheBytesPerSecond },
			func(c *plan.Calibration) *float64 { return &c.StepOpsPerSecond },
			func(c *plan.Calibration) *float64 { return &c.OpsPerSecond },
		} {
			samples := make([]float64, len(measured))
			for i := range measured {
				samples[i] = *figure(&measured[i])
			}
			*figure(&of) = Summarize(samples).Median
		}
		all = append(all, of)
	}
	return all
}

// verify plans at the depth at which speeds are measured, and loads.
func (t *planned) verify(ctx context.Context, w plan.Wish) (r measure.Result, err error) {
	w.DepthTokens = measure.Depth(w.ContextTokens)
	p, err := plan.Make(t.shape, t.machine, w)
	if err != nil {
		return r, err
	}
	return measure.Verify(ctx, p, t.o)
}

// predict puts the speeds that the rates come to into a result.
func (t *planned) predict(w plan.Wish, r *measure.Result) error {
	w.DepthTokens, w.Calibration = measure.Depth(w.ContextTokens), t.medians()
	if len(w.Calibration) == 0 {
		return nil
	}
	p, err := plan.Make(t.shape, t.machine, w)
	if err != nil {
		return err
	}
	r.Decode.Predicted, r.DecodeAll.Predicted = p.Decode.TokensPerSecond, p.DecodeAll.TokensPerSecond
	r.Prefill.Predicted = p.Prefill.TokensPerSecond
	return nil
}

// writePlans writes the table of loads; nothing when there are none.
func (r *Report) writePlans(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, run := range r.Runs {
		if run.Case == "" {
			return nil
		}
		if i == 0 {
			fmt.Fprint(t, "\nload\tMiB planned\tMiB\terror\tdecode\terror\tprefill\terror\n")
		}
		v := run.Values
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%+.1f %%\t%.1f\t%+.1f %%\t%.0f\t%+.1f %%\n", run.Case,
			v["predicted bytes"]/(1<<20), v["loaded bytes"]/(1<<20), v["bytes error"], v["decode"],
			v["decode error"], v["prefill"], v["prefill error"])
	}
	return t.Flush()
}

func shapeOf(path string) (gguf.Shape, error) {
	file, err := gguf.Open(path)
	if err != nil {
		return gguf.Shape{}, err
	}
	shape, err := file.Shape()
	if closed := file.Close(); err == nil {
		err = closed
	}
	return shape, err
}

// planValues are the figures of one load, by name: bytes predicted and loaded, and errors in
// percent of what was measured.
func planValues(r measure.Result) map[string]float64 {
	v := map[string]float64{}
	for _, d := range r.Devices {
		v["predicted bytes"] += float64(d.Predicted.Total() - d.Predicted.Overhead)
		v["loaded bytes"] += float64(d.Measured.Total())
	}
	v["bytes error"] = 100 * (v["predicted bytes"]/v["loaded bytes"] - 1)
	for _, rate := range []struct {
		name string
		measure.Rate
	}{{"decode", r.Decode}, {"decode, all", r.DecodeAll}, {"prefill", r.Prefill}} {
		if rate.Measured > 0 {
			v[rate.name+" predicted"], v[rate.name] = rate.Predicted, rate.Measured
			v[rate.name+" error"] = 100 * rate.Error()
		}
	}
	return v
}

// planClaims states what the runs come to.
func (r *Report) planClaims(subject string) {
	percent := func(name string, of func(map[string]float64) float64) Measure {
		return Measure{name, "%", func(run Run) float64 { return of(run.Values) }}
	}
	size := func(key string) func(map[string]float64) float64 {
		return func(v map[string]float64) float64 { return math.Abs(v[key]) }
	}
	for _, c := range []held{
		{percent("error of bytes", size("bytes error")), SideNorion, barPlanBytes},
		{percent("error of decode", size("decode error")), SideNorion, barPlanDecode},
		{
			percent("error of decode, all sequences", size("decode, all error")), SideNorion,
			barPlanDecode,
		},
		{percent("error of prefill", size("prefill error")), SideNorion, barPlanPrefill},
	} {
		if claim, ok := r.Hold(subject, c.measure, c.side, c.bar); ok {
			r.Claims = append(r.Claims, claim)
		}
	}
	r.worst(subject, "worst error of bytes, beyond 12 MiB", barPlanWorst,
		func(v map[string]float64) float64 {
			if math.Abs(v["predicted bytes"]-v["loaded bytes"]) <= planSlack {
				return 0
			}
			return math.Abs(v["bytes error"])
		})
	r.worst(subject, "most that bytes were under", barPlanUnder,
		func(v map[string]float64) float64 { return max(0, -v["bytes error"]) })
}

// worst claims the largest figure over the runs.
func (r *Report) worst(subject, name string, bar Bar, of func(map[string]float64) float64) {
	c := Claim{
		Name: strings.Join([]string{subject, name, string(SideNorion)}, ", "), Unit: "%",
		Bar: bar.String(), Samples: len(r.Runs),
	}
	for i, run := range r.Runs {
		v := of(run.Values)
		if i == 0 {
			c.Min = v
		}
		c.Min, c.Max = min(c.Min, v), max(c.Max, v)
	}
	c.Value = c.Max
	holds := bar.met(c.Value)
	c.Holds = &holds
	r.Claims = append(r.Claims, c)
}
