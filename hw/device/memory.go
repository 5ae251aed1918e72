// Package device says what the machine offers: for now, how much memory a load may use. It owns
// the questions to the operating system; it must not know models, plans or the network.
package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// ErrUnknown means that this operating system has no answer that norion knows to ask for.
var ErrUnknown = errors.New("available memory is not known on this system")

// Memory is what a process may use, in bytes.
type Memory struct {
	TotalBytes     int64  `json:"total_bytes"`
	AvailableBytes int64  `json:"available_bytes"`
	Source         string `json:"source"` // what set the smaller limit: "machine" or "cgroup"
}

// AvailableMemory reads the memory that is free or can be freed now, within the limit of the
// process's control group. Errors: ErrUnknown, or what reading failed with.
func AvailableMemory() (Memory, error) {
	if runtime.GOOS != "linux" {
		return Memory{}, ErrUnknown
	}
	return readMemory(os.DirFS("/"))
}

// readMemory reads it from the proc and sys trees below root.
func readMemory(root fs.FS) (Memory, error) {
	info, err := readMeminfo(root)
	if err != nil {
		return Memory{}, err
	}
	m := Memory{
		TotalBytes: info["MemTotal"], AvailableBytes: info["MemAvailable"], Source: "machine",
	}
	if m.TotalBytes <= 0 {
		return Memory{}, fmt.Errorf("proc/meminfo: no MemTotal: %w", ErrUnknown)
	}
	for _, g := range cgroups(root) {
		limit, used, ok := g.limit(root)
		if !ok || limit >= m.TotalBytes {
			continue
		}
		if free := max(0, limit-used); free < m.AvailableBytes {
			m.TotalBytes, m.AvailableBytes, m.Source = limit, free, "cgroup"
		}
	}
	return m, nil
}

// HugePages says whether a process that asks for huge pages of its own memory may get them.
func HugePages() bool { return runtime.GOOS == "linux" && hugePages(os.DirFS("/")) }

func hugePages(root fs.FS) bool {
	data, err := fs.ReadFile(root, "sys/kernel/mm/transparent_hugepage/enabled")
	mode := string(data) // the one that is set stands in brackets
	return err == nil && (strings.Contains(mode, "[always]") || strings.Contains(mode, "[madvise]"))
}

// readMeminfo gives the fields of proc/meminfo in bytes.
func readMeminfo(root fs.FS) (map[string]int64, error) {
	data, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err == nil && kib >= 0 && kib < 1<<50 {
			out[name] = kib << 10
		}
	}
	return out, nil
}

// cgroup is one control group that limits the process's memory.
type cgroup struct{ dir, max, usage, stat string }

// cgroups lists the process's memory groups, each with its parents: any of them may limit.
func cgroups(root fs.FS) []cgroup {
	data, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var out []cgroup
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var base string
		var g cgroup
		switch {
		case parts[0] == "0":
			base, g = "sys/fs/cgroup", cgroup{"", "memory.max", "memory.current", "memory.stat"}
		case strings.Contains(","+parts[1]+",", ",memory,"):
			base, g = "sys/fs/cgroup/memory", cgroup{
				"", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat",
			}
		default:
			continue
		}
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			g.dir = path.Join(base, dir)
			out = append(out, g)
			if dir == "/" {
				break
			}
		}
	}
	return out
}

// limit reads a group's limit and what of it cannot be reclaimed.
func (g cgroup) limit(root fs.FS) (limit, used int64, ok bool) {
	limit, ok = readNumber(root, path.Join(g.dir, g.max))
	if !ok {
		return 0, 0, false
	}
	used, ok = readNumber(root, path.Join(g.dir, g.usage))
	if !ok {
		return 0, 0, false
	}
	data, err := fs.ReadFile(root, path.Join(g.dir, g.stat))
	if err != nil {
		return limit, used, true
	}
	for line := range strings.Lines(string(data)) {
		// Clean file pages are counted as used but go when memory is wanted.
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "inactive_file" ||
			name == "active_file" {
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				used -= n
			}
		}
	}
	return limit, max(used, 0), true
}

func readNumber(root fs.FS, name string) (int64, bool) {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil && n >= 0 // "max" and v1's huge number mean no limit
}
