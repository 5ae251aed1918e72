package device

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// hierarchy is the process's control group and those above it that it can see, nearest first, each
// as a directory. Any of them may limit.
type hierarchy struct {
	dirs []string
	v2   bool
}

// mount is where a hierarchy of control groups is mounted. In a container root need not be "/".
type mount struct {
	root, point string
	controllers []string // of version 1
	v2          bool
}

// hierarchies lists those that have the controller, "cpu" or "memory": a host may mount one of each
// version. Sources: cgroups(7), proc_pid_mountinfo(5).
func hierarchies(root fs.FS, controller string) []hierarchy {
	data, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	mounts := cgroupMounts(root)
	var out []hierarchy
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(parts) != 3 {
			continue
		}
		v2 := parts[0] == "0"
		if !v2 && !slices.Contains(strings.Split(parts[1], ","), controller) {
			continue
		}
		at := mount{root: "/", point: "sys/fs/cgroup"}
		if !v2 {
			at.point = path.Join(at.point, controller)
		}
		if i := slices.IndexFunc(mounts, func(m mount) bool {
			return m.v2 == v2 && (v2 || slices.Contains(m.controllers, controller))
		}); i >= 0 {
			at = mounts[i]
		}
		out = append(out, hierarchy{at.up(parts[2]), v2})
	}
	return out
}

// up lists the directories from a group's to the mount's own.
func (m mount) up(group string) []string {
	group = path.Clean("/" + group)
	if below, ok := strings.CutPrefix(group+"/", strings.TrimSuffix(m.root, "/")+"/"); ok {
		group = path.Clean("/" + below)
	}
	var out []string
	for ; group != "/"; group = path.Dir(group) {
		out = append(out, path.Join(m.point, group))
	}
	return append(out, m.point)
}

// cgroupMounts lists the mounts of control groups that the process sees.
func cgroupMounts(root fs.FS) []mount {
	data, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []mount
	for line := range strings.Lines(string(data)) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 || r[0] != "cgroup" && r[0] != "cgroup2" {
			continue
		}
		out = append(out, mount{
			root: path.Clean(l[3]), point: strings.TrimPrefix(path.Clean(l[4]), "/"),
			controllers: strings.Split(r[2], ","), v2: r[0] == "cgroup2",
		})
	}
	return out
}

// memoryLimit is a group's limit and what of it cannot be reclaimed, in bytes.
type memoryLimit struct{ limit, used int64 }

// memoryLimits lists those of all groups above the process, and what its cpuset leaves of the
// memory nodes.
func memoryLimits(root fs.FS) []memoryLimit {
	var out []memoryLimit
	if l, ok := nodeLimit(root); ok {
		out = append(out, l)
	}
	for _, h := range hierarchies(root, "memory") {
		for _, dir := range h.dirs {
			if l, ok := h.memoryLimit(root, dir); ok {
				out = append(out, l)
			}
		}
	}
	return out
}

func (h hierarchy) memoryLimit(root fs.FS, dir string) (memoryLimit, bool) {
	stat := readStat(root, path.Join(dir, "memory.stat"))
	limits, usage := []string{"memory.max", "memory.high"}, "memory.current"
	if !h.v2 {
		limits, usage = []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes"
	}
	l := memoryLimit{limit: math.MaxInt64}
	// Version 1 tells a container of the limits of groups that it cannot see.
	if n, ok := stat["hierarchical_memory_limit"]; ok && !h.v2 {
		l.limit = n
	}
	for _, name := range limits { // above memory.high the kernel slows a process down
		if n, ok := readNumber(root, path.Join(dir, name)); ok {
			l.limit = min(l.limit, n)
		}
	}
	used, ok := readNumber(root, path.Join(dir, usage))
	// Clean file pages are counted as used but go when memory is wanted.
	l.used = max(0, used-stat["inactive_file"]-stat["active_file"])
	return l, ok && l.limit < math.MaxInt64
}

// swapLimit is the least amount of swap that groups leave free; ok is false where none limits it.
func swapLimit(root fs.FS) (free int64, ok bool) {
	free = math.MaxInt64
	for _, h := range hierarchies(root, "memory") {
		for _, dir := range h.dirs {
			most, limited := readNumber(root, path.Join(dir, "memory.swap.max"))
			used, _ := readNumber(root, path.Join(dir, "memory.swap.current"))
			if limited && h.v2 {
				free, ok = min(free, max(0, most-used)), true
			}
		}
	}
	return free, ok
}

// cpuQuota is the least processor time that a group above the process grants, in processors; 0 for
// no limit.
func cpuQuota(root fs.FS) float64 {
	least := math.Inf(1)
	for _, h := range hierarchies(root, "cpu") {
		for _, dir := range h.dirs {
			if q := h.cpuQuota(root, dir); q > 0 {
				least = min(least, q)
			}
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return least
}

func (h hierarchy) cpuQuota(root fs.FS, dir string) float64 {
	var time, period string
	if h.v2 {
		time, period, _ = strings.Cut(readText(root, path.Join(dir, "cpu.max")), " ")
	} else {
		time = readText(root, path.Join(dir, "cpu.cfs_quota_us"))
		period = readText(root, path.Join(dir, "cpu.cfs_period_us"))
	}
	t, err1 := strconv.ParseInt(time, 10, 64) // "max" and -1 mean no limit
	p, err2 := strconv.ParseInt(period, 10, 64)
	if err1 != nil || err2 != nil || t <= 0 || p <= 0 {
		return 0
	}
	return float64(t) / float64(p)
}

// readStat reads a file of lines with a name and a number.
func readStat(root fs.FS, name string) map[string]int64 {
	out := map[string]int64{}
	for line := range strings.Lines(readText(root, name)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
			out[name] = n
		}
	}
	return out
}

// readText is a file without the space around it, or "" where it cannot be read.
func readText(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// readNumber reads a count of bytes. "max" and version 1's huge number mean no limit.
func readNumber(root fs.FS, name string) (int64, bool) {
	n, err := strconv.ParseInt(readText(root, name), 10, 64)
	return n, err == nil && n >= 0
}
