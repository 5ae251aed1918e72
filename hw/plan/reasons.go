package plan

import (
	"fmt"
	"strings"
)

// reasons says in plain sentences why the plan is as it is.
func (p *planner) reasons(c *choice, out *Plan) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	layers := len(c.z.dense)
	switch {
	case len(p.machine.Accelerators) == 0:
		say("The machine has no accelerator, so the processor computes all %d layers.", layers)
	case len(p.slower) > 0 && len(c.where.spans) == 0:
		say("The processor computes all %d layers.", layers)
	case len(p.devices) == 0:
		say("No accelerator may be used, so the processor computes all %d layers.", layers)
	case c.full:
		say("All %d layers fit on %s: nothing is left to the host's slower memory.", layers,
			p.used(c))
	case len(c.where.spans) == 0:
		say("The processor computes all %d layers: no accelerator has room for one and its scratch, or "+
			"none is faster.", layers)
	case c.where.start == 0:
		say("All %d layers have their attention and shared weights on %s; the routed experts of %d "+
			"layers stay in the host's memory, where a token needs %d of %d.", layers, p.used(c),
			out.Devices[len(out.Devices)-1].ExpertLayers, p.shape.ExpertsUsed, p.shape.Experts)
	default:
		say("%d of %d layers fit on %s; the host computes the first %d.", out.GPULayers, layers,
			p.used(c), c.where.start)
	}
	for _, a := range p.slower {
		say("%s is left out: the processor is faster.", a.Name)
	}
	for _, change := range out.Changes {
		say("The %s is %s in place of %s: %s.", change.Field, change.Given, change.Asked, change.Why)
	}
	p.sayMemory(c, out, say)
	p.sayHost(out, say)
	return all
}

// used names the accelerators that hold something.
func (p *planner) used(c *choice) string {
	var names []string
	for _, s := range c.where.spans {
		names = append(names, p.devices[s.device-1].Name)
	}
	return strings.Join(names, ", ")
}

func (p *planner) sayMemory(c *choice, out *Plan, say func(string, ...any)) {
	s := p.shape
	if s.Window > 0 && !p.wish.FullWindow {
		say("Layers with a sliding window of %d tokens keep %d cells in place of %d.", s.Window,
			out.WindowCells, out.Cells)
	}
	if s.OutputBytes == 0 && s.InputBytes > 0 && c.where.start < len(c.z.dense) {
		say("The output reuses the input embedding, which is therefore on the accelerator, too.")
	}
	if s.CacheExtra {
		say("The model keeps an index beside its cache that is not counted: allow for more.")
	}
	if s.DraftLayers > 0 {
		say("The last %d layers only draft and are not loaded.", s.DraftLayers)
	}
	if out.MicroBatch < p.wish.MicroBatch {
		say("A micro-batch is not larger than the context.")
	}
	if out.Decode.Source == SourceGuess {
		say("The memory rate of a device in use is not known, so the speed of decoding is a guess.")
	}
	if out.Prefill.Source == SourceGuess {
		say("The operations that a device in use does in a second are not known, so the speed of " +
			"prefill is a guess.")
	}
}

func (p *planner) sayHost(out *Plan, say func(string, ...any)) {
	cpu := p.machine.CPU
	switch {
	case p.wish.Threads > 0:
		say("Threads are %d, as asked.", out.Threads)
	case cpu.Quota > 0 && int(max(1, cpu.Quota)) == out.Threads:
		say("Threads are %d: the control group grants %.3g processors.", out.Threads, cpu.Quota)
	case cpu.PerformanceCores > 0 && cpu.PerformanceCores < cpu.Cores:
		say("Threads are %d, one for each performance core, since all wait for the slowest.",
			out.Threads)
	default:
		say("Threads are %d, one for each physical core.", out.Threads)
	}
	switch {
	case p.wish.Load != "":
		say("The load mode is %s, as asked.", out.Load)
	case out.Load == LoadRead:
		say("The file is read, not mapped: huge pages make the processor faster, and half of the " +
			"memory stays free.")
	}
	if out.Lock {
		say("The weights are locked, since the machine has swap.")
	}
	if out.NUMA != "" {
		say("Pages and threads are spread over the %d memory nodes.", len(p.machine.NUMA))
	}
}
