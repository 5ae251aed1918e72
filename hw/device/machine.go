package device

// Machine is what a planner has to know of a machine. It is a plain value that reads back from JSON
// as it was written, so that a plan can be made for a machine that is not here. Zero means unknown.
type Machine struct {
	OS     string `json:"os"`               // as GOOS
	Arch   string `json:"arch"`             // as GOARCH
	Kernel string `json:"kernel,omitempty"` // its release
	CPU    CPU    `json:"cpu"`
	Memory RAM    `json:"memory"`
	NUMA   []Node `json:"numa,omitempty"`
	// Accelerators are in the order in which llama.cpp numbers them, where it knows them.
	Accelerators []Accelerator `json:"accelerators,omitempty"`
	// Notes say what could not be read, and why.
	Notes []string `json:"notes,omitempty"`
}

// CPU is the processor as this process may use it.
type CPU struct {
	Name     string   `json:"name,omitempty"`
	Features []string `json:"features,omitempty"` // those that ggml has kernels for, sorted
	Cores    int      `json:"cores"`              // physical, that this process may run on
	// PerformanceCores are those of Cores that are not slower than the rest; equal to Cores where all
	// are alike.
	PerformanceCores int `json:"performance_cores"`
	Threads          int `json:"threads"` // logical processors that this process may run on
	// Quota is the processor time that a cgroup grants, in processors; 0 for no limit.
	Quota   float64 `json:"quota,omitempty"`
	L2Bytes int64   `json:"l2_bytes,omitempty"` // of one core
	L3Bytes int64   `json:"l3_bytes,omitempty"` // of all
	// PressurePercent is the share of the last ten seconds in which something waited for a processor,
	// of the whole host (pressure stall information: some avg10).
	PressurePercent float64 `json:"pressure_percent,omitempty"`
	// Int8OpsPerSecond is the rate of multiply-adds on 8-bit integers of all cores together, two
	// operations each. A probe does not know it: it is measured where a model runs.
	Int8OpsPerSecond float64 `json:"int8_ops_per_second,omitempty"`
}

// RAM is the host's memory as this process may use it.
type RAM struct {
	TotalBytes     int64 `json:"total_bytes"`
	AvailableBytes int64 `json:"available_bytes"`
	// LimitBytes is the least limit of the cgroups above this process; 0 for none. AvailableBytes is
	// within it.
	LimitBytes int64  `json:"limit_bytes,omitempty"`
	Source     string `json:"source,omitempty"`     // what bounds AvailableBytes: machine or cgroup
	SwapBytes  int64  `json:"swap_bytes,omitempty"` // free
	HugePages  bool   `json:"huge_pages,omitempty"` // transparent ones can be asked for
	// PressurePercent is the share of the last ten seconds in which something waited for memory, of
	// the whole host (pressure stall information: some avg10).
	PressurePercent float64 `json:"pressure_percent,omitempty"`
	// BytesPerSecond is the measured rate at which all cores together read memory.
	BytesPerSecond float64 `json:"bytes_per_second,omitempty"`
}

// Node is one memory node of a machine with several.
type Node struct {
	ID         int   `json:"id"`
	Threads    []int `json:"threads,omitempty"` // those of CPU.Threads, as the system numbers them
	TotalBytes int64 `json:"total_bytes,omitempty"`
}

// Accelerator is a device that can hold layers.
type Accelerator struct {
	// Name is what llama.cpp calls it, such as CUDA0; empty where it does not use it.
	Name string `json:"name"`
	Kind string `json:"kind"`           // cuda, metal, vulkan, rocm, ...
	Chip string `json:"chip,omitempty"` // such as NVIDIA RTX 4090
	UUID string `json:"uuid,omitempty"`
	PCI  string `json:"pci,omitempty"` // domain:bus:device.function
	// Unified says that its memory is the host's: what it takes is missing there.
	Unified bool `json:"unified,omitempty"`
	// Integrated says that it is part of the processor: llama.cpp uses it by itself only where there
	// is no other. Its memory is the host's as well.
	Integrated    bool  `json:"integrated,omitempty"`
	TotalBytes    int64 `json:"total_bytes"`
	FreeBytes     int64 `json:"free_bytes"`
	ReservedBytes int64 `json:"reserved_bytes,omitempty"` // by the driver, in neither
	// BytesPerSecond is the rate of its memory: measured, or bus width times clock.
	BytesPerSecond float64 `json:"bytes_per_second,omitempty"`
	// FloatOpsPerSecond is the rate of multiply-adds on 16-bit floats, two operations each.
	FloatOpsPerSecond float64 `json:"float_ops_per_second,omitempty"`
	ClockHz           float64 `json:"clock_hz,omitempty"` // the most that its processors reach
	Compute           string  `json:"compute,omitempty"`  // capability, such as 8.9
	Driver            string  `json:"driver,omitempty"`
	// LinkBytesPerSecond is the rate from the host's memory.
	LinkBytesPerSecond float64 `json:"link_bytes_per_second,omitempty"`
	NVLinks            int     `json:"nvlinks,omitempty"` // to other devices, that are up
	PowerLimitWatts    float64 `json:"power_limit_watts,omitempty"`
	// Throttled names why it runs below its clocks now.
	Throttled []string `json:"throttled,omitempty"`
	MIG       bool     `json:"mig,omitempty"` // a slice of a device
	// Processes are those that compute on it now, of all users, as far as the driver tells.
	Processes []Process `json:"processes,omitempty"`
}

// Process is one that computes on an accelerator.
type Process struct {
	PID   int   `json:"pid"`
	Bytes int64 `json:"bytes,omitempty"` // of the accelerator's memory; 0 where it is not told
}
