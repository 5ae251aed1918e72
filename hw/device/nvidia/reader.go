//go:build linux && cgo

package nvidia

import (
	"fmt"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/norion/norion/hw/device"
)

// reader asks for the facts of one device.
type reader struct {
	query
	dev   nvml.Device
	label string // in notes
	lost  bool   // the device went away
	last  nvml.Return
	notes []string
}

// read asks one question. An old driver lacks the newer symbols, and a call would end the process:
// each is looked up first. What a device does not support is no fault.
func read[T any](r *reader, what, symbol string, ask func() (T, nvml.Return)) (v T, ok bool) {
	if r.lost {
		return v, false
	}
	r.last = nvml.ERROR_FUNCTION_NOT_FOUND
	if r.lib.Extensions().LookupSymbol(symbol) != nil {
		return v, false
	}
	got, ret := ask()
	r.last = ret
	switch ret {
	case nvml.SUCCESS:
		return got, true
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND:
	case nvml.ERROR_GPU_IS_LOST:
		r.lost = true
		r.note(fault(ret))
	default:
		r.note(what + ": " + fault(ret))
	}
	return v, false
}

func (r *reader) note(text string) { r.notes = append(r.notes, r.label+": "+text) }

// device describes the device: none where it is lost, its instances where it is cut up (MIG).
func (r *reader) device(driver string) []device.Accelerator {
	a := device.Accelerator{Kind: "cuda", Driver: driver}
	pci, ok := read(r, "PCI address", "nvmlDeviceGetPciInfo", r.dev.GetPciInfo)
	if ok {
		a.PCI = fmt.Sprintf("%04x:%02x:%02x.0", pci.Domain, pci.Bus, pci.Device)
		r.label += " (" + a.PCI + ")"
	}
	r.identity(&a)
	r.memory(&a, r.dev)
	r.rates(&a)
	r.link(&a)
	r.state(&a)
	if mode, ok := read(r, "MIG", "nvmlDeviceGetMigMode", func() (int, nvml.Return) {
		current, _, ret := r.dev.GetMigMode()
		return current, ret
	}); ok && mode == nvml.DEVICE_MIG_ENABLE {
		return r.instances(a)
	}
	if r.lost {
		return nil
	}
	return []device.Accelerator{a}
}

func (r *reader) identity(a *device.Accelerator) {
	a.Chip, _ = read(r, "name", "nvmlDeviceGetName", r.dev.GetName)
	a.UUID, _ = read(r, "UUID", "nvmlDeviceGetUUID", r.dev.GetUUID)
	type version struct{ major, minor int }
	if v, ok := read(r, "compute capability", "nvmlDeviceGetCudaComputeCapability",
		func() (version, nvml.Return) {
			major, minor, ret := r.dev.GetCudaComputeCapability()
			return version{major, minor}, ret
		}); ok {
		a.Compute = fmt.Sprintf("%d.%d", v.major, v.minor)
	}
}

// memory asks for the second version of the figures, which tells apart what the driver reserves. A
// device without memory of its own (GB10) supports neither: it uses the host's.
func (r *reader) memory(a *device.Accelerator, dev nvml.Device) {
	if m, ok := read(r, "memory", "nvmlDeviceGetMemoryInfo_v2", dev.GetMemoryInfo_v2); ok {
		a.ReservedBytes, a.FreeBytes = bytes(m.Reserved), bytes(m.Free)
		a.TotalBytes = max(0, bytes(m.Total)-a.ReservedBytes)
		return
	}
	if m, ok := read(r, "memory", "nvmlDeviceGetMemoryInfo", dev.GetMemoryInfo); ok {
		a.TotalBytes, a.FreeBytes = bytes(m.Total), bytes(m.Free)
		return
	}
	if r.last == nvml.ERROR_NOT_SUPPORTED {
		a.Unified, a.TotalBytes, a.FreeBytes = true, r.host.TotalBytes, r.host.AvailableBytes
	}
}

// bytes bounds a count of the driver's, which writes all ones where it knows none.
func bytes(n uint64) int64 {
	if n > math.MaxInt64 {
		return 0
	}
	return int64(n)
}

// rates asks for clocks and power. Memory of these devices moves data at both edges of its clock.
func (r *reader) rates(a *device.Accelerator) {
	const edges, bitsPerByte, hertz, milliwatts = 2, 8, 1e6, 1e3
	width, _ := read(r, "memory bus", "nvmlDeviceGetMemoryBusWidth", r.dev.GetMemoryBusWidth)
	clock, _ := read(r, "memory clock", "nvmlDeviceGetMaxClockInfo", func() (uint32, nvml.Return) {
		return r.dev.GetMaxClockInfo(nvml.CLOCK_MEM)
	})
	a.BytesPerSecond = float64(width) / bitsPerByte * float64(clock) * hertz * edges
	clock, _ = read(r, "clock", "nvmlDeviceGetMaxClockInfo", func() (uint32, nvml.Return) {
		return r.dev.GetMaxClockInfo(nvml.CLOCK_SM)
	})
	a.ClockHz = float64(clock) * hertz
	cores, _ := read(r, "cores", "nvmlDeviceGetNumGpuCores", r.dev.GetNumGpuCores)
	a.FloatOpsPerSecond = coreOps[a.Compute] * float64(cores) * a.ClockHz
	limit, _ := read(r, "power limit", "nvmlDeviceGetEnforcedPowerLimit", r.dev.GetEnforcedPowerLimit)
	a.PowerLimitWatts = float64(limit) / milliwatts
}

// coreOps are the operations of 16-bit multiply-adds that a CUDA core stands for in one clock, by
// compute capability: those of its tensor cores where it has some, without sparsity. They give the
// rates of NVIDIA's data sheets: 125e12 a second for a V100 (5120 cores at 1530 MHz), 65e12 for a
// T4, 312e12 for an A100, 125e12 for an A10, 121e12 for an L4, 989e12 for an H100 SXM at 1830 MHz,
// 2250e12 for a B200, 419e12 for an RTX 5090.
var coreOps = map[string]float64{
	"6.0": 4, "6.1": 2, "7.0": 16, "7.2": 16, "7.5": 16, "8.0": 32, "8.6": 8, "8.7": 16, "8.9": 8,
	"9.0": 32, "10.0": 64, "10.3": 64, "12.0": 8, "12.1": 8,
}

// laneBytesPerSecond is the rate of one PCIe lane by generation, behind its line code (8b/10b, from
// the third 128b/130b, in the sixth 242/256). Source: the PCI Express base specifications.
var laneBytesPerSecond = [...]float64{
	1: 2.5e9 / 10, 2: 5e9 / 10, 3: 8e9 / 8 * 128 / 130, 4: 16e9 / 8 * 128 / 130,
	5: 32e9 / 8 * 128 / 130, 6: 64e9 / 8 * 242 / 256,
}

// link asks for the connection to the host, at its best: an idle device lowers it to save power.
func (r *reader) link(a *device.Accelerator) {
	gen, ok1 := read(r, "PCIe", "nvmlDeviceGetMaxPcieLinkGeneration", r.dev.GetMaxPcieLinkGeneration)
	lanes, ok2 := read(r, "PCIe", "nvmlDeviceGetMaxPcieLinkWidth", r.dev.GetMaxPcieLinkWidth)
	if ok1 && ok2 && gen > 0 && gen < len(laneBytesPerSecond) {
		a.LinkBytesPerSecond = laneBytesPerSecond[gen] * float64(lanes)
	}
	for i := range nvml.NVLINK_MAX_LINKS {
		if r.lost || r.lib.Extensions().LookupSymbol("nvmlDeviceGetNvLinkState") != nil {
			return
		}
		state, ret := r.dev.GetNvLinkState(i)
		if ret != nvml.SUCCESS { // there are no more
			return
		}
		if state == nvml.FEATURE_ENABLED {
			a.NVLinks++
		}
	}
}

// throttles names the reasons that mean a loss of speed; idleness and chosen clocks do not.
var throttles = []struct {
	bit  uint64
	name string
}{
	{nvml.ClocksEventReasonSwPowerCap, "power cap"},
	{nvml.ClocksThrottleReasonHwSlowdown, "hardware slowdown"},
	{nvml.ClocksEventReasonSwThermalSlowdown, "temperature"},
	{nvml.ClocksThrottleReasonHwThermalSlowdown, "temperature (hardware)"},
	{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "power brake"},
}

// state asks what slows the device down and who uses it.
func (r *reader) state(a *device.Accelerator) {
	mask, ok := read(r, "clock events", "nvmlDeviceGetCurrentClocksEventReasons",
		r.dev.GetCurrentClocksEventReasons)
	if !ok { // the name before driver 535
		mask, _ = read(r, "clock events", "nvmlDeviceGetCurrentClocksThrottleReasons",
			r.dev.GetCurrentClocksThrottleReasons)
	}
	for _, t := range throttles {
		if mask&t.bit != 0 {
			a.Throttled = append(a.Throttled, t.name)
		}
	}
	processes, _ := read(r, "processes", "nvmlDeviceGetComputeRunningProcesses",
		r.dev.GetComputeRunningProcesses)
	for _, p := range processes {
		a.Processes = append(a.Processes, device.Process{
			PID: int(p.Pid), Bytes: bytes(p.UsedGpuMemory),
		})
	}
}

// instances describes what a device is cut up into. It cannot be used as a whole then.
func (r *reader) instances(whole device.Accelerator) []device.Accelerator {
	n, _ := read(r, "MIG", "nvmlDeviceGetMaxMigDeviceCount", r.dev.GetMaxMigDeviceCount)
	var out []device.Accelerator
	for i := range n {
		dev, ret := r.dev.GetMigDeviceHandleByIndex(i)
		if ret == nvml.ERROR_NOT_FOUND { // a number that is not used
			continue
		}
		if ret != nvml.SUCCESS {
			r.note(fmt.Sprintf("MIG instance %d: %s", i, fault(ret)))
			continue
		}
		a := whole
		a.MIG, a.Processes = true, nil
		a.TotalBytes, a.FreeBytes, a.ReservedBytes = 0, 0, 0
		a.UUID, _ = read(r, "UUID of an instance", "nvmlDeviceGetUUID", dev.GetUUID)
		if name, ok := read(r, "name of an instance", "nvmlDeviceGetName", dev.GetName); ok {
			a.Chip = name
		}
		r.memory(&a, dev)
		if whole.TotalBytes > 0 { // it has as much of the rates as of the memory
			share := min(1, float64(a.TotalBytes)/float64(whole.TotalBytes))
			a.BytesPerSecond *= share
			a.FloatOpsPerSecond *= share
		}
		out = append(out, a)
	}
	if len(out) == 0 && !r.lost {
		r.note("MIG is on, but there is no instance: nothing of it can be used")
	}
	return out
}
