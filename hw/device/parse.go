package device

import (
	"errors"
	"fmt"
	"slices"
)

// MachineBytesMax bounds the file of a machine.
const MachineBytesMax = 1 << 20

// ParseMachine reads a machine that was written as JSON, by `norion devices --json` or by hand.
// Errors: *Error of kind ErrMachine, with the field.
func ParseMachine(data []byte) (Machine, error) {
	var m Machine
	bad := func(field string, err error) (Machine, error) {
		return Machine{}, &Error{
			Op: "parse", Kind: ErrMachine, Field: field, Err: err,
			Hint: "norion devices --json writes such a file",
		}
	}
	if len(data) > MachineBytesMax {
		return bad("", fmt.Errorf("more than %d bytes", MachineBytesMax))
	}
	if err := decodeStrict(data, &m); err != nil {
		return bad("", err)
	}
	for _, n := range m.numbers() {
		if !(n.value >= 0) {
			return bad(n.field, fmt.Errorf("%g is negative", n.value))
		}
	}
	c := m.CPU
	switch {
	case c.Cores > c.Threads || c.PerformanceCores > c.Cores:
		return bad("cpu", fmt.Errorf("%d performance cores of %d cores with %d threads",
			c.PerformanceCores, c.Cores, c.Threads))
	case c.Threads > processorsMax:
		return bad("cpu.threads", fmt.Errorf("%d is more than %d", c.Threads, processorsMax))
	case m.Memory.AvailableBytes > m.Memory.TotalBytes:
		return bad("memory.available_bytes", errors.New("more than total_bytes"))
	}
	for i, a := range m.Accelerators {
		if a.FreeBytes > a.TotalBytes {
			return bad(fmt.Sprintf("accelerators[%d].free_bytes", i), errors.New("more than total_bytes"))
		}
	}
	slices.Sort(m.CPU.Features)
	return m, nil
}

// number is a field of a machine that is no less than zero.
type number struct {
	field string
	value float64
}

func (m Machine) numbers() []number {
	out := []number{
		{"cpu.cores", float64(m.CPU.Cores)},
		{"cpu.performance_cores", float64(m.CPU.PerformanceCores)},
		{"cpu.threads", float64(m.CPU.Threads)},
		{"cpu.quota", m.CPU.Quota},
		{"cpu.l2_bytes", float64(m.CPU.L2Bytes)},
		{"cpu.l3_bytes", float64(m.CPU.L3Bytes)},
		{"cpu.pressure_percent", m.CPU.PressurePercent},
		{"cpu.int8_ops_per_second", m.CPU.Int8OpsPerSecond},
		{"memory.total_bytes", float64(m.Memory.TotalBytes)},
		{"memory.available_bytes", float64(m.Memory.AvailableBytes)},
		{"memory.limit_bytes", float64(m.Memory.LimitBytes)},
		{"memory.swap_bytes", float64(m.Memory.SwapBytes)},
		{"memory.pressure_percent", m.Memory.PressurePercent},
		{"memory.bytes_per_second", m.Memory.BytesPerSecond},
	}
	for i, n := range m.NUMA {
		at := fmt.Sprintf("numa[%d].", i)
		out = append(out, number{at + "id", float64(n.ID)},
			number{at + "total_bytes", float64(n.TotalBytes)})
	}
	for i, a := range m.Accelerators {
		at := fmt.Sprintf("accelerators[%d].", i)
		out = append(out, number{at + "total_bytes", float64(a.TotalBytes)},
			number{at + "free_bytes", float64(a.FreeBytes)},
			number{at + "reserved_bytes", float64(a.ReservedBytes)},
			number{at + "bytes_per_second", a.BytesPerSecond},
			number{at + "float_ops_per_second", a.FloatOpsPerSecond},
			number{at + "clock_hz", a.ClockHz},
			number{at + "link_bytes_per_second", a.LinkBytesPerSecond},
			number{at + "nvlinks", float64(a.NVLinks)},
			number{at + "power_limit_watts", a.PowerLimitWatts})
	}
	return out
}
