package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/llama"
)

// machineDir is where figures that were measured on this machine are kept: beside the prefixes.
func machineDir(getenv func(string) string) (string, error) {
	prefixes, err := cacheDir(getenv)
	return filepath.Join(filepath.Dir(prefixes), "machine"), err
}

// devicesFlags are the flags of norion devices.
type devicesFlags struct{ json, watch, measure bool }

func (a *app) newDevices() *cobra.Command {
	f := &devicesFlags{}
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "Show what this machine offers a model",
		Long: `Show what this machine offers a model: processor, memory, limits of control groups, and
accelerators as llama.cpp and the driver see them. What could not be read is said in the notes.

The rate of memory is measured by --measure, which keeps all cores busy for up to a second. It is
kept beside the cached prefixes, in machine, until something of the machine changes.`,
		Args: func(_ *cobra.Command, got []string) error {
			if len(got) == 0 {
				return nil
			}
			return &usageError{
				message: fmt.Sprintf("unknown command %q of norion devices", got[0]),
				hint:    "there is gate; without a command it shows this machine",
			}
		},
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			return a.devices(cmd.Context(), f)
		}),
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "print a JSON object, which --machine FILE reads")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "look again each second, until Ctrl-C")
	cmd.Flags().BoolVar(&f.measure, "measure", false, "measure the rate of memory")
	cmd.AddCommand(a.newDevicesGate())
	return cmd
}

// watchInterval is the time between two looks.
const watchInterval = time.Second

func (a *app) devices(ctx context.Context, f *devicesFlags) error {
	o, why, err := a.probeOptions()
	if err != nil {
		return err
	}
	if f.measure {
		o.Measure = device.MeasureAgain
	}
	clearScreen := f.watch && isTerminal(a.out)
	show := func() error {
		m, err := device.Probe(ctx, o)
		if err != nil {
			return err
		}
		o.Measure = device.MeasureNever // once is enough
		m.Notes = append(m.Notes, why...)
		if f.json {
			return writeJSON(a.out, m)
		}
		var text strings.Builder
		if clearScreen {
			text.WriteString("\x1b[H\x1b[2J")
		}
		if err := writeMachine(&text, m); err != nil {
			return err
		}
		_, err = io.WriteString(a.out, text.String())
		return err
	}
	if !f.watch {
		return show()
	}
	return watch(ctx, show)
}

// watch shows something each second until ctx ends or showing fails.
func watch(ctx context.Context, show func() error) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		if err := show(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errInterrupted
		}
	}
}

// probeOptions are what a probe of this machine is told, and why it may be told too little.
func (a *app) probeOptions() (o device.Options, notes []string, err error) {
	if o.Dir, err = machineDir(a.getenv); err != nil {
		return o, nil, err
	}
	o.NVIDIA = askNVIDIA()
	err = llama.Start(nil)
	var devices []llama.Device
	if err == nil {
		devices, err = llama.Devices()
	}
	switch {
	case errors.Is(err, llama.Missing):
		notes = append(notes, "this build has no llama.cpp: the devices that it would use are not known")
	case err != nil:
		return o, nil, err
	}
	for _, d := range devices {
		if d.Type == llama.DeviceGPU || d.Type == llama.DeviceIntegratedGPU {
			o.Devices = append(o.Devices, device.Reported{
				Name: d.Name, Chip: d.Description, PCI: d.ID,
				Integrated: d.Type == llama.DeviceIntegratedGPU,
				TotalBytes: signed(d.TotalBytes), FreeBytes: signed(d.FreeBytes),
			})
		}
	}
	return o, notes, nil
}

func signed(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// writeMachine writes a machine for people.
func writeMachine(to io.Writer, m device.Machine) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	line := func(name string, parts ...string) {
		var said []string
		for _, p := range parts {
			if p != "" {
				said = append(said, oneLine(p))
			}
		}
		if len(said) > 0 {
			fmt.Fprintf(w, "%s\t%s\n", name, strings.Join(said, ", "))
		}
	}
	c, r := m.CPU, m.Memory
	line("system", m.OS+"/"+m.Arch, known("kernel %s", m.Kernel))
	line("processor", c.Name, known("%d cores", c.Cores),
		when(c.PerformanceCores < c.Cores, fmt.Sprintf("%d of them fast", c.PerformanceCores)),
		known("%d threads", c.Threads), known("a quota of %.3g processors", c.Quota),
		known("%.3g %% of the time waited for", c.PressurePercent))
	line("features", strings.Join(c.Features, " "))
	line("caches", bytesOf("%s L2 for a core", c.L2Bytes), bytesOf("%s L3", c.L3Bytes))
	rate := known("%.1f GB/s", r.BytesPerSecond/1e9)
	line("memory", bytesOf("%s", r.TotalBytes), bytesOf("%s available", r.AvailableBytes),
		bytesOf("limited to %s by a control group", r.LimitBytes), bytesOf("%s of swap", r.SwapBytes),
		when(r.HugePages, "huge pages"), known("%.3g %% of the time waited for", r.PressurePercent),
		rate, when(rate == "", "rate not measured"))
	for _, n := range m.NUMA {
		line(fmt.Sprint("node ", n.ID), bytesOf("%s", n.TotalBytes),
			fmt.Sprintf("%d threads", len(n.Threads)))
	}
	for _, d := range m.Accelerators {
		name := d.Name
		if name == "" {
			name = "unused"
		}
		line(oneLine(name), accelerator(d)...)
	}
	for _, n := range m.Notes {
		line("note", n)
	}
	return w.Flush()
}

// accelerator lists what is known of an accelerator.
func accelerator(d device.Accelerator) []string {
	return []string{
		d.Chip, d.PCI, bytesOf("%s", d.TotalBytes), bytesOf("%s free", d.FreeBytes),
		when(d.Integrated, "integrated"), when(d.Unified, "the host's memory"),
		when(d.MIG, "a slice (MIG)"),
		known("%.0f GB/s", d.BytesPerSecond/1e9),
		known("%.1f GB/s from the host", d.LinkBytesPerSecond/1e9),
		known("%d NVLinks", d.NVLinks), known("compute %s", d.Compute), known("driver %s", d.Driver),
		known("at most %.0f W", d.PowerLimitWatts),
		known("slowed down by %s", strings.Join(d.Throttled, " and ")),
		known("%d processes compute on it", len(d.Processes)),
	}
}

// known formats a figure or a text, and says nothing of one that is zero.
func known[T comparable](format string, v T) string {
	var zero T
	if v == zero {
		return ""
	}
	return fmt.Sprintf(format, v)
}

func bytesOf(format string, n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, size(n))
}

func when(is bool, text string) string {
	if is {
		return text
	}
	return ""
}
