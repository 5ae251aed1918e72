package device

import (
	"cmp"
	"context"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// Options say what a probe is told and may do. The zero value asks the operating system only.
type Options struct {
	// Devices are those that llama.cpp reports, without processors, in its order.
	Devices []Reported
	// NVIDIA asks NVIDIA's driver, given the memory of the host: the method of a nvidia.Client. Nil
	// leaves the driver alone; where such a device is seen all the same, a note says so.
	NVIDIA func(ctx context.Context, host RAM) (found []Accelerator, notes []string)
	// Dir is the directory of the figures that were measured; it is made when there is something to
	// write. Empty keeps and uses none.
	Dir     string
	Measure Measure
}

// Measure says when the rate of memory is measured. That takes all processors for up to a second.
type Measure int

// The values of Measure.
const (
	MeasureNever   Measure = iota // it is known only if it was measured before
	MeasureMissing                // where it was not measured before
	MeasureAgain
)

// host is where a probe gets its answers: this machine, or a recorded one in a test.
type host struct {
	os, arch string
	root     fs.FS // of proc and sys; nil where the system has none
	ask      func() processor
	memory   func() (RAM, error) // where root is nil
	threads  int                 // that the Go runtime counted
}

func thisHost() host {
	h := host{
		os: runtime.GOOS, arch: runtime.GOARCH, ask: askProcessor, memory: systemMemory,
		threads: runtime.NumCPU(),
	}
	if h.os == "linux" {
		h.root = os.DirFS("/")
	}
	return h
}

// Probe says what this machine is and what of it the process may use now. What cannot be read is
// left zero and named in Notes. It is as safe for concurrent use as Options.NVIDIA. Errors: that of
// ctx.
func Probe(ctx context.Context, o Options) (Machine, error) {
	return thisHost().probe(ctx, o)
}

func (h host) probe(ctx context.Context, o Options) (Machine, error) {
	if err := ctx.Err(); err != nil {
		return Machine{}, err
	}
	m := h.machine()
	var found []Accelerator
	if o.NVIDIA != nil {
		var notes []string
		found, notes = o.NVIDIA(ctx, m.Memory)
		m.Notes = append(m.Notes, notes...)
	} else if at := nvidiaAddresses(h.root); len(at) > 0 {
		m.note("NVIDIA: there is a device at " + strings.Join(at, ", ") +
			", and this program does not ask its driver")
	}
	m.accelerate(o.Devices, found)
	known := o.Dir != "" && o.Measure != MeasureAgain && m.recall(o.Dir)
	if !known && o.Measure != MeasureNever {
		m.measureMemory(ctx)
		if o.Dir != "" && m.Memory.BytesPerSecond > 0 {
			m.keep(o.Dir)
		}
	}
	return m, ctx.Err()
}

// machine describes everything but accelerators.
func (h host) machine() Machine {
	m := Machine{OS: h.os, Arch: h.arch}
	if h.root == nil {
		h.askSystem(&m)
		return m
	}
	m.Kernel = readText(h.root, "proc/sys/kernel/osrelease")
	t := readTopology(h.root)
	m.CPU = CPU{
		Name: t.info.name, Features: kernelFeatures(t.info.flags, h.arch),
		Cores: len(t.leaders), Threads: len(t.usable), Quota: cpuQuota(h.root),
		PressurePercent: readPressure(h.root, "cpu"),
	}
	var fast []int
	if m.CPU.PerformanceCores, fast = t.performance(); len(fast) > 0 {
		m.CPU.L2Bytes, m.CPU.L3Bytes = t.caches(fast[0])
	}
	h.complete(&m.CPU)
	if len(t.usable) == 0 {
		m.note("proc and sys say nothing of the processors: they are counted without limits and cores")
	}
	var err error
	if m.Memory, err = readMemory(h.root); err != nil {
		m.note("memory: " + err.Error())
	}
	var notes []string
	m.NUMA, notes = readNodes(h.root, t.usable)
	m.Notes = append(m.Notes, notes...)
	if strings.Contains(strings.ToLower(m.Kernel), "microsoft") {
		m.note("runs in WSL: processors and memory are what Windows gave to its virtual machine")
	}
	return m
}

// askSystem fills in what a system without proc and sys says.
func (h host) askSystem(m *Machine) {
	h.complete(&m.CPU)
	var err error
	if m.Memory, err = h.memory(); err != nil {
		m.note("memory: " + err.Error())
	}
	m.CPU.PerformanceCores = cmp.Or(systemPerformanceCores(), m.CPU.Cores)
}

// complete fills in from the processor itself what the trees left out.
func (h host) complete(c *CPU) {
	p := h.ask()
	c.Name = cmp.Or(c.Name, p.name)
	if len(c.Features) == 0 {
		c.Features = p.features
	}
	c.L2Bytes, c.L3Bytes = cmp.Or(c.L2Bytes, p.l2), cmp.Or(c.L3Bytes, p.l3)
	if c.Threads == 0 {
		c.Threads = h.threads
		c.Cores = min(cmp.Or(p.cores, c.Threads), c.Threads)
		c.PerformanceCores = c.Cores
	}
}

// note adds a line to the notes.
func (m *Machine) note(text string) { m.Notes = append(m.Notes, text) }
