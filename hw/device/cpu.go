package device

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// cpuTree is where the kernel describes processors. Source: the kernel's
// Documentation/ABI/testing/sysfs-devices-system-cpu.
const cpuTree = "sys/devices/system/cpu"

// topology is which processors the process may use, and which of them share a core.
type topology struct {
	root    fs.FS
	info    cpuinfo
	usable  []int          // logical processors, sorted
	core    map[int]string // the core of each, by any name
	leaders []int          // the first processor of each core
}

// readTopology reads it; nothing is usable where neither tree has an answer.
//
// The affinity mask is read from proc rather than asked for by sched_getaffinity: that is the same
// mask, without the bound of 1024 processors that unix.CPUSet has.
func readTopology(root fs.FS) topology {
	t := topology{root: root, info: readCPUInfo(root), core: map[int]string{}}
	online := readList(root, cpuTree+"/online")
	if len(online) == 0 {
		online = t.info.processors
	}
	allowed := parseList(statusField(root, "Cpus_allowed_list"))
	t.usable = intersect(allowed, online)
	if len(t.usable) == 0 {
		t.usable = online
	}
	for _, cpu := range t.usable {
		if t.core[cpu] == "" {
			t.nameCore(cpu)
		}
	}
	seen := map[string]bool{}
	for _, cpu := range t.usable {
		if name := t.core[cpu]; !seen[name] {
			seen[name] = true
			t.leaders = append(t.leaders, cpu)
		}
	}
	return t
}

// nameCore names the core of a processor, and so of all that share it.
func (t *topology) nameCore(cpu int) {
	siblings := readText(t.root, cpuFile(cpu, "topology/thread_siblings_list"))
	for _, other := range parseList(siblings) {
		t.core[other] = siblings
	}
	if t.core[cpu] == "" {
		t.core[cpu] = t.info.core[cpu]
	}
	if t.core[cpu] == "" {
		t.core[cpu] = fmt.Sprint("processor ", cpu)
	}
}

// performance counts the cores that are not slower than the rest: Intel's P cores, or those with
// three quarters of the greatest capacity or clock. The margin keeps cores together that differ
// only in their boost clocks.
func (t *topology) performance() (cores int, fast []int) {
	if p := readList(t.root, "sys/devices/cpu_core/cpus"); len(p) > 0 {
		fast = intersect(t.leaders, p)
	} else {
		for _, file := range []string{"cpu_capacity", "cpufreq/cpuinfo_max_freq"} {
			if fast = t.fastest(file); len(fast) > 0 {
				break
			}
		}
	}
	if len(fast) == 0 {
		fast = t.leaders
	}
	return len(fast), fast
}

func (t *topology) fastest(file string) []int {
	const margin = 0.75
	var rates []int64
	for _, cpu := range t.leaders {
		n, ok := readNumber(t.root, cpuFile(cpu, file))
		if !ok || n == 0 {
			return nil
		}
		rates = append(rates, n)
	}
	if len(rates) == 0 {
		return nil
	}
	least := margin * float64(slices.Max(rates))
	var out []int
	for i, cpu := range t.leaders {
		if float64(rates[i]) >= least {
			out = append(out, cpu)
		}
	}
	return out
}

// caches gives the second level's bytes for one core of a processor and the third level's for all.
func (t *topology) caches(of int) (l2, l3 int64) {
	const indexesMax = 8
	for i := range indexesMax {
		dir := fmt.Sprint("cache/index", i)
		if readText(t.root, cpuFile(of, dir+"/type")) == "Instruction" {
			continue
		}
		switch level, _ := readNumber(t.root, cpuFile(of, dir+"/level")); level {
		case 2:
			sharers := map[string]bool{}
			for _, cpu := range readList(t.root, cpuFile(of, dir+"/shared_cpu_list")) {
				if t.core[cpu] == "" {
					t.nameCore(cpu)
				}
				sharers[t.core[cpu]] = true
			}
			l2 = cacheBytes(t.root, cpuFile(of, dir+"/size")) / int64(max(1, len(sharers)))
		case 3:
			l3 = t.sumCaches(dir)
		}
	}
	return l2, l3
}

// sumCaches adds up the caches at a directory of all usable processors.
func (t *topology) sumCaches(dir string) (sum int64) {
	seen := map[int]bool{}
	for _, cpu := range t.usable {
		if seen[cpu] {
			continue
		}
		seen[cpu] = true
		for _, other := range readList(t.root, cpuFile(cpu, dir+"/shared_cpu_list")) {
			seen[other] = true
		}
		sum += cacheBytes(t.root, cpuFile(cpu, dir+"/size"))
	}
	return sum
}

func cpuFile(cpu int, name string) string {
	return path.Join(cpuTree, fmt.Sprint("cpu", cpu), name)
}

// cacheBytes reads a size such as 2048K.
func cacheBytes(root fs.FS, name string) int64 {
	text := readText(root, name)
	number, shift := text, 0
	switch {
	case strings.HasSuffix(text, "K"):
		number, shift = text[:len(text)-1], 10
	case strings.HasSuffix(text, "M"):
		number, shift = text[:len(text)-1], 20
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<32 {
		return 0
	}
	return n << shift
}

// cpuinfo is what proc/cpuinfo says. Its keys differ from one architecture to another.
type cpuinfo struct {
	name       string
	flags      []string
	processors []int          // sorted
	core       map[int]string // where it says which core a processor belongs to
}

func readCPUInfo(root fs.FS) cpuinfo {
	c := cpuinfo{core: map[int]string{}}
	var model, board, maker, part, pkg string
	cpu := -1
	for line := range strings.Lines(readText(root, "proc/cpuinfo")) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "processor":
			if n, err := strconv.Atoi(value); err == nil && n >= 0 && n < processorsMax {
				cpu, pkg = n, ""
				c.processors = append(c.processors, n)
			}
		case "model name":
			model = value
		case "Model", "Hardware":
			board = value
		case "CPU implementer":
			maker = value
		case "CPU part":
			part = value
		case "flags", "Features":
			c.flags = strings.Fields(value)
		case "physical id":
			pkg = value
		case "core id":
			c.core[cpu] = "package " + pkg + " core " + value
		}
	}
	slices.Sort(c.processors)
	for _, name := range []string{
		model, strings.TrimRight(readText(root, "proc/device-tree/model"), "\x00"), board,
		armParts[maker+" "+part],
	} {
		if name != "" {
			c.name = name
			break
		}
	}
	return c
}

// armParts names the cores of servers, whose kernels do not. Source: util-linux, lscpu-arm.c.
var armParts = map[string]string{
	"0x41 0xd0c": "Neoverse-N1", "0x41 0xd40": "Neoverse-V1", "0x41 0xd49": "Neoverse-N2",
	"0x41 0xd4f": "Neoverse-V2", "0xc0 0xac3": "Ampere-1", "0xc0 0xac4": "Ampere-1a",
}

// statusField reads a field of the process's own status.
func statusField(root fs.FS, name string) string {
	for line := range strings.Lines(readText(root, "proc/self/status")) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// processorsMax bounds the numbers of a list: Linux itself ends at 8192.
const processorsMax = 1 << 14

func readList(root fs.FS, name string) []int { return parseList(readText(root, name)) }

// parseList reads a list such as 0-3,8,10-11, sorted as the kernel writes it. What is no list gives
// none.
func parseList(text string) []int {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from < 0 || to < from || to >= processorsMax {
			return nil
		}
		for n := from; n <= to; n++ {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// intersect gives the numbers of a that b has too. b is sorted.
func intersect(a, b []int) []int {
	var out []int
	for _, n := range a {
		if _, ok := slices.BinarySearch(b, n); ok {
			out = append(out, n)
		}
	}
	return out
}
