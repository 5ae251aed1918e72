package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine/measure"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/store"
)

// machineBytesMax bounds the file of --machine.
const machineBytesMax = 1 << 20

// planFlags are the flags of norion plan.
type planFlags struct {
	wish      plan.Wish
	machine   string
	kvTypes   []string
	layout    string
	priority  string
	reserve   int64 // MiB
	gpuLayers int
	verify    bool
	calibrate bool
	dry       bool
	asJSON    bool
}

func (a *app) newPlan() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan MODEL",
		Short: "Say what would go where, how many bytes that takes, how fast it will be, and why",
		Long: `Say what would go where, how many bytes that takes on each device, how fast it will be, and
why. Nothing is loaded; of the model only the header is read. MODEL may also be the name of a shape
of the library: ` + strings.Join(plan.Models(), ", ") + `.

With --calibrate the model is first loaded and asked a little, to measure what this machine reaches
with it; with --verify it is then loaded as planned, and the plan is held against what that took.
Both are kept beside the cached prefixes, in machine, for the next plan.`,
		Example: `  norion plan smollm2:135m
  norion plan smollm2:135m --verify
  norion plan llama-3.1-8b-q4_k_m --machine desktop-8gb -c 32768 --kv-type f16,q8_0`,
		Args: args(1, 1, "a MODEL: a name, a .gguf file or a shape of the library"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			return a.plan(cmd.Context(), args[0], &f)
		}),
	}
	fs := cmd.Flags()
	fs.StringVar(&f.machine, "machine", "",
		"plan for another `MACHINE`: a JSON file, or one of "+strings.Join(plan.Machines(), ", "))
	fs.IntVar(&f.wish.ContextMin, "ctx-min", 0,
		"the context may shrink to so many tokens where all layers then fit on GPUs; 0: it may not")
	fs.IntVar(&f.wish.Sequences, "sequences", 1, "requests at a time")
	fs.StringVar(&f.layout, "layout", string(plan.Streams),
		"how their KV cells lie: `LAYOUT` streams or shared")
	fs.StringVar(&f.priority, "priority", string(plan.Latency),
		"what to choose for: `PRIORITY` latency, throughput, memory or quality")
	fs.Int64Var(&f.reserve, "reserve", 0,
		"MiB that stay free on each device; 0: a sixteenth, at most 512 on a GPU and 1024 elsewhere")
	fs.StringSliceVar(&f.wish.Devices, "device", nil,
		"`NAME` of a device that may be used; may be repeated; CPU alone uses no GPU")
	fs.BoolVar(&f.wish.FullWindow, "full-window", false,
		"keep all tokens in layers with a sliding window, as chat does, and run with --cache")
	fs.BoolVar(&f.verify, "verify", false,
		"load as planned, measure, and say how far the plan was off")
	fs.BoolVar(&f.calibrate, "calibrate", false,
		"measure the rates of this machine with the model, for this plan and later ones")
	fs.BoolVar(&f.dry, "dry", false,
		"have llama.cpp count the bytes of the load, without allocating them")
	fs.BoolVar(&f.asJSON, "json", false, "print a JSON object")
	group(fs, "Model", func(fs *pflag.FlagSet) {
		fs.IntVarP(&f.wish.ContextTokens, "ctx", "c", 0,
			"context of each request in tokens; 0: 4096, or as trained if less")
		fs.StringSliceVar(&f.kvTypes, "kv-type", nil,
			"`TYPE` of cached keys and values; several, best first, allow the others")
		fs.IntVarP(&f.wish.Threads, "threads", "t", 0, "threads of decoding; 0: the planner chooses")
		fs.IntVar(&f.wish.BatchThreads, "threads-batch", 0, "threads of prefill; 0: as --threads")
		fs.IntVar(&f.wish.MicroBatch, "ubatch", 0, "most tokens computed at once; 0: 512")
		fs.IntVar(&f.gpuLayers, "gpu-layers", -1, "layers on GPUs; -1: the planner chooses")
		fs.BoolVar(&f.wish.NoFlash, "no-flash", false, "leave flash attention off")
	})
	return cmd
}

func (a *app) plan(ctx context.Context, ref string, f *planFlags) error {
	w, err := f.full()
	if err != nil {
		return err
	}
	machine, err := a.readMachine(ctx, f.machine)
	if err != nil {
		return err
	}
	m, shape, err := a.readShape(ctx, ref)
	if err != nil {
		return err
	}
	here := f.machine == "" && m.Path != ""
	for flag, given := range map[string]bool{
		"verify": f.verify, "dry": f.dry, "calibrate": f.calibrate,
	} {
		if given && !here {
			return flagError(flag, "name a model that is here, and no other machine",
				"what is not here cannot be loaded")
		}
	}
	var known measure.Figures
	if here {
		if known, err = a.figures(machine, m); err != nil {
			fmt.Fprintf(a.err, "note: %s\n", oneLine(err.Error()))
		}
	}
	if f.calibrate {
		if err := a.calibrate(ctx, m, shape, machine, w, &known); err != nil {
			return err
		}
		if !f.asJSON {
			if err := a.writeRates(known.Calibration); err != nil {
				return err
			}
		}
	}
	w.Calibration, w.Loads = known.Calibration, known.Loads
	if f.verify {
		return a.verify(ctx, m, shape, machine, w, known, f.asJSON)
	}
	p, err := plan.Make(shape, machine, w)
	if err == nil && f.dry && p.MemorySource == plan.SourceFormula {
		if w.Loads, err = a.dryLoad(ctx, m, p, w, known); err == nil {
			p, err = plan.Make(shape, machine, w)
		}
	}
	if err != nil {
		return err
	}
	if f.asJSON {
		return writeJSON(a.out, p)
	}
	return a.writePlan(p)
}

// full is the wish that the flags come to.
func (f *planFlags) full() (plan.Wish, error) {
	w := f.wish
	w.KVTypes, w.Layout, w.Priority = f.kvTypes, plan.Layout(f.layout), plan.Priority(f.priority)
	if f.reserve < 0 || f.reserve > 1<<30 {
		return w, flagError("reserve", "", "%d MiB", f.reserve)
	}
	w.ReserveBytes = f.reserve << 20
	if f.gpuLayers < -1 {
		return w, flagError("gpu-layers", "-1 leaves it to the planner", "%d is below -1", f.gpuLayers)
	}
	if f.gpuLayers >= 0 {
		w.GPULayers = &f.gpuLayers
	}
	return w, nil
}

// readMachine gives the machine that is planned for: the one named, or this one.
func (a *app) readMachine(ctx context.Context, name string) (device.Machine, error) {
	switch {
	case name == "":
		return a.thisMachine(ctx)
	case slices.Contains(plan.Machines(), name):
		return plan.Machine(name)
	}
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
		return device.Machine{}, flagError("machine",
			"give a file, or one of "+strings.Join(plan.Machines(), ", "),
			"no file and no machine %q", name)
	}
	text, err := readText("machine", name, machineBytesMax)
	if err != nil {
		return device.Machine{}, err
	}
	return plan.ReadMachine([]byte(text))
}

// thisMachine probes the machine at hand. Nothing is measured.
func (a *app) thisMachine(ctx context.Context) (device.Machine, error) {
	o, notes, err := a.probeOptions()
	if err != nil {
		return device.Machine{}, err
	}
	probe := device.Probe
	if a.probe != nil {
		probe = a.probe
	}
	m, err := probe(ctx, o)
	m.Notes = append(m.Notes, notes...)
	m.Accelerators = slices.DeleteFunc(m.Accelerators, func(v device.Accelerator) bool {
		return v.Name == "" // llama.cpp does not use it
	})
	return m, err
}

// readShape reads the header of a model that is here, or takes a shape of the library, which has no
// path.
func (a *app) readShape(ctx context.Context, ref string) (
	m store.Model, shape gguf.Shape, err error,
) {
	if slices.Contains(plan.Models(), ref) {
		shape, err = plan.Shape(ref)
		return m, shape, err
	}
	s, err := a.openStore()
	if err != nil {
		return m, shape, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if m, err = s.Resolve(ctx, ref); err != nil {
		return m, shape, err
	}
	shape, err = modelShape(m.Path)
	return m, shape, err
}

// writePlan prints a plan for people.
func (a *app) writePlan(p plan.Plan) error {
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tLAYERS\tEXPERTS\tWEIGHTS\tKV\tCOMPUTE\tOUTPUT\tOVERHEAD\tTOTAL\tFREE")
	for _, d := range p.Devices {
		b := d.Bytes
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", oneLine(d.Name), d.Layers,
			d.ExpertLayers, size(b.Weights), size(b.KV), size(b.Compute), size(b.Output),
			size(b.Overhead), size(b.Total()), size(d.FreeBytes))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	line := func(label, format string, args ...any) {
		fmt.Fprintf(a.out, "%-13s %s\n", label, fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(a.out)
	line("bytes", "%s", p.MemorySource)
	line("decode", "%s, %d tokens in the cache", speedText(p.Decode), p.DepthTokens)
	if p.Sequences > 1 {
		line("", "%s, all %d sequences together", speedText(p.DecodeAll), p.Sequences)
	}
	line("prefill", "%s", speedText(p.Prefill))
	line("context", "%d tokens for each of %d, %s in %s, %d cells", p.ContextTokens, p.Sequences,
		p.KVType, p.Layout, p.Cells)
	line("settings", "--gpu-layers %d --ctx %d --kv-type %s --ubatch %d --threads %d "+
		"--threads-batch %d, load by %s", p.GPULayers, p.ContextTokens, p.KVType, p.MicroBatch,
		p.Threads, p.BatchThreads, p.Load)
	if len(p.TensorSplit) > 0 {
		line("split", "%s", strings.Trim(fmt.Sprint(p.TensorSplit), "[]"))
	}
	for _, o := range p.Overrides {
		line("override", "%s=%s", o.Pattern, o.Buffer)
	}
	for i, r := range p.Reasons {
		label := ""
		if i == 0 {
			label = "because"
		}
		line(label, "%s", oneLine(r))
	}
	for _, o := range p.Alternatives {
		line("or", "%s (%d layers, context %d, %s, decode %s)", o.Change, o.GPULayers,
			o.ContextTokens, o.KVType, speedText(o.Decode))
	}
	return nil
}

func speedText(s plan.Speed) string {
	return fmt.Sprintf("%s tokens/s, %s to %s (%s)", rounded(s.TokensPerSecond), rounded(s.Low),
		rounded(s.High), s.Source)
}

// rounded keeps three digits.
func rounded(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// priorities are what --priority takes.
func priorities() []string {
	return []string{
		string(plan.Latency), string(plan.Throughput), string(plan.Memory), string(plan.Quality),
	}
}
