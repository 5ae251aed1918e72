package device

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Reported is a device as llama.cpp reports it.
type Reported struct {
	Name       string // such as CUDA0
	Chip       string // its description
	PCI        string // domain:bus:device.function, or ""
	Integrated bool   // part of the processor
	TotalBytes int64
	FreeBytes  int64
}

// accelerate lists the devices that llama.cpp reports, with what the driver knows of each by its
// PCI address, and then those that only the driver knows.
func (m *Machine) accelerate(reported []Reported, found []Accelerator) {
	used := make([]bool, len(found))
	names := map[string]string{} // of what is listed, by PCI address
	for _, r := range reported {
		a := Accelerator{
			Chip: r.Chip, PCI: strings.ToLower(r.PCI), TotalBytes: r.TotalBytes, FreeBytes: r.FreeBytes,
		}
		i := match(r, found, used)
		if i >= 0 {
			a, used[i] = found[i], true
		} else if first := names[a.PCI]; first != "" && a.PCI != "" {
			m.note(fmt.Sprintf("%s is %s by another way: left out, as llama.cpp does", r.Name, first))
			continue
		}
		a.Name, a.Kind, a.Integrated = r.Name, kindOf(r.Name), r.Integrated
		a.Unified = a.Unified || r.Integrated || a.Kind == "metal" && m.Arch == "arm64"
		m.Accelerators = append(m.Accelerators, a)
		names[a.PCI] = r.Name
	}
	for i, a := range found {
		if used[i] {
			continue
		}
		m.Accelerators = append(m.Accelerators, a)
		if names[a.PCI] == "" {
			m.note(fmt.Sprintf("%s (%s): llama.cpp does not use it here", a.Chip, a.PCI))
		}
	}
}

// match finds what the driver says of a device: of the slices at one address, the one whose memory
// is nearest in size.
func match(r Reported, found []Accelerator, used []bool) int {
	best := -1
	distance := func(i int) int64 {
		return max(found[i].TotalBytes-r.TotalBytes, r.TotalBytes-found[i].TotalBytes)
	}
	for i := range found {
		if r.PCI == "" || used[i] || !strings.EqualFold(found[i].PCI, r.PCI) {
			continue
		}
		if best < 0 || distance(i) < distance(best) {
			best = i
		}
	}
	return best
}

// kindOf is the back-end in a device's name: cuda of CUDA0.
func kindOf(name string) string {
	kind := strings.ToLower(strings.TrimRight(name, "0123456789"))
	if kind == "mtl" {
		return "metal"
	}
	return kind
}

// nvidiaAddresses are the PCI addresses of NVIDIA's display controllers and accelerators.
func nvidiaAddresses(root fs.FS) []string {
	const tree, vendor = "sys/bus/pci/devices", "0x10de"
	if root == nil {
		return nil
	}
	entries, err := fs.ReadDir(root, tree)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		dir := path.Join(tree, e.Name())
		if readText(root, path.Join(dir, "vendor")) == vendor &&
			strings.HasPrefix(readText(root, path.Join(dir, "class")), "0x03") {
			out = append(out, e.Name())
		}
	}
	return out
}
