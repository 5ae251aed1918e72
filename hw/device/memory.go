// Package device says what the machine offers: processor, memory, the limits of control groups and
// accelerators. It owns the questions to the operating system and to NVIDIA's driver, and the
// figures measured on this machine; it must not know models, plans or the network.
package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// ErrUnknown means that this operating system has no answer that norion knows to ask for.
var ErrUnknown = errors.New("available memory is not known on this system")

// AvailableMemory reads the memory that is free or can be freed now, within the limits of the
// process's control groups. Errors: ErrUnknown, or what reading failed with.
func AvailableMemory() (RAM, error) {
	if runtime.GOOS != "linux" {
		return RAM{}, ErrUnknown
	}
	return readMemory(os.DirFS("/"))
}

// readMemory reads it from the proc and sys trees below root.
func readMemory(root fs.FS) (RAM, error) {
	info, err := readMeminfo(root, "proc/meminfo")
	if err != nil {
		return RAM{}, err
	}
	m := RAM{
		TotalBytes: info["MemTotal"], AvailableBytes: info["MemAvailable"], Source: "machine",
		SwapBytes: info["SwapFree"], HugePages: hugePages(root),
		PressurePercent: readPressure(root, "memory"),
	}
	if m.TotalBytes <= 0 {
		return RAM{}, fmt.Errorf("proc/meminfo: no MemTotal: %w", ErrUnknown)
	}
	for _, l := range memoryLimits(root) {
		if l.limit >= m.TotalBytes {
			continue
		}
		if m.LimitBytes == 0 || l.limit < m.LimitBytes {
			m.LimitBytes = l.limit
		}
		if free := max(0, l.limit-l.used); free < m.AvailableBytes {
			m.AvailableBytes, m.Source = free, "cgroup"
		}
	}
	if free, ok := swapLimit(root); ok {
		m.SwapBytes = min(m.SwapBytes, free)
	}
	return m, nil
}

// UsableBytes is what the process could have if nothing else used memory.
func (m RAM) UsableBytes() int64 {
	if m.LimitBytes > 0 {
		return min(m.TotalBytes, m.LimitBytes)
	}
	return m.TotalBytes
}

// HugePages says whether a process that asks for huge pages of its own memory may get them.
func HugePages() bool { return runtime.GOOS == "linux" && hugePages(os.DirFS("/")) }

func hugePages(root fs.FS) bool {
	// The mode that is set stands in brackets.
	mode := readText(root, "sys/kernel/mm/transparent_hugepage/enabled")
	return strings.Contains(mode, "[always]") || strings.Contains(mode, "[madvise]")
}

// readMeminfo gives the fields of proc/meminfo, or of a node's, in bytes.
func readMeminfo(root fs.FS, file string) (map[string]int64, error) {
	data, err := fs.ReadFile(root, file)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if words := strings.Fields(name); len(words) > 0 {
			name = words[len(words)-1] // a node's lines begin with "Node 0"
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err == nil && kib >= 0 && kib < 1<<50 {
			out[name] = kib << 10
		}
	}
	return out, nil
}

// readPressure reads the share of the last ten seconds in which something waited for a resource.
// Source: the kernel's Documentation/accounting/psi.rst.
func readPressure(root fs.FS, resource string) float64 {
	_, after, _ := strings.Cut(readText(root, "proc/pressure/"+resource), "some avg10=")
	figure, _, _ := strings.Cut(after, " ")
	percent, err := strconv.ParseFloat(figure, 64)
	if err != nil || !(percent >= 0 && percent <= 100) {
		return 0
	}
	return percent
}
