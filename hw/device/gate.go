package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Manifest is what a model needs of a machine, as the file of `norion devices gate` says it. An
// empty or zero field asks for nothing.
type Manifest struct {
	Version int      `json:"version"`        // ManifestVersion
	OS      []string `json:"os,omitempty"`   // any of these, as GOOS
	Arch    []string `json:"arch,omitempty"` // any of these, as GOARCH
	// CPUFeatures are all needed, by the names of CPU.Features.
	CPUFeatures []string `json:"cpu_features,omitempty"`
	Cores       int      `json:"cores,omitempty"`        // physical ones, at least
	MemoryBytes int64    `json:"memory_bytes,omitempty"` // RAM.UsableBytes, at least
	// AcceleratorBytes is the least memory of all accelerators together that llama.cpp uses, of
	// those AcceleratorKinds where any are named.
	AcceleratorBytes int64    `json:"accelerator_bytes,omitempty"`
	AcceleratorKinds []string `json:"accelerator_kinds,omitempty"`
}

// ManifestVersion is the version of the format.
const ManifestVersion = 1

// Bounds of a manifest.
const (
	ManifestBytesMax = 64 << 10
	listMax          = 64
	coresMax         = processorsMax
	memoryBytesMax   = 1 << 50
)

// The names that a manifest may use.
var (
	systems = []string{"android", "darwin", "freebsd", "linux", "windows"}
	arches  = []string{"386", "amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"}
	kinds   = []string{
		"cann", "cuda", "hexagon", "metal", "musa", "opencl", "rocm", "rpc", "sycl", "vulkan", "webgpu",
	}
)

// ParseManifest reads a manifest. Errors: *Error of kind ErrManifest, with the field.
func ParseManifest(data []byte) (Manifest, error) {
	var x Manifest
	bad := func(field, hint string, err error) (Manifest, error) {
		return Manifest{}, &Error{Op: "parse", Kind: ErrManifest, Field: field, Hint: hint, Err: err}
	}
	if len(data) > ManifestBytesMax {
		return bad("", "", fmt.Errorf("more than %d bytes", ManifestBytesMax))
	}
	if err := decodeStrict(data, &x); err != nil {
		return bad("", "docs/cli.md has the fields of a manifest", err)
	}
	if x.Version != ManifestVersion {
		return bad("version", fmt.Sprintf("this program reads version %d", ManifestVersion),
			fmt.Errorf("it is %d", x.Version))
	}
	for _, list := range []struct {
		field     string
		got, from []string
	}{
		{"os", x.OS, systems},
		{"arch", x.Arch, arches},
		{"accelerator_kinds", x.AcceleratorKinds, kinds},
		{"cpu_features", x.CPUFeatures, featureNames()},
	} {
		if len(list.got) > listMax {
			return bad(list.field, "", fmt.Errorf("more than %d names", listMax))
		}
		for _, name := range list.got {
			if !slices.Contains(list.from, name) {
				return bad(list.field, "one of "+strings.Join(list.from, ", "),
					fmt.Errorf("%q is not known", name))
			}
		}
	}
	for _, n := range []struct {
		field     string
		got, most int64
	}{
		{"cores", int64(x.Cores), coresMax},
		{"memory_bytes", x.MemoryBytes, memoryBytesMax},
		{"accelerator_bytes", x.AcceleratorBytes, memoryBytesMax},
	} {
		if n.got < 0 || n.got > n.most {
			return bad(n.field, "", fmt.Errorf("%d is outside 0..%d", n.got, n.most))
		}
	}
	if len(x.AcceleratorKinds) > 0 && x.AcceleratorBytes == 0 {
		return bad("accelerator_kinds", "say how much memory with accelerator_bytes",
			errors.New("kinds of accelerators without their memory"))
	}
	if len(Gate(Machine{}, x)) == 0 {
		return bad("", "name what the model needs", errors.New("it asks for nothing"))
	}
	return x, nil
}

func featureNames() []string {
	var out []string
	for _, f := range features {
		out = append(out, f.name)
	}
	slices.Sort(out)
	return out
}

// Check is one need of a manifest, and what the machine has.
type Check struct {
	Field  string `json:"field"` // of the manifest
	Wanted string `json:"wanted"`
	Here   string `json:"here"`
	Met    bool   `json:"met"`
}

// Gate checks a machine against each need of a manifest, in the order of the manifest's fields.
// What is not known of the machine is not met. It is a pure function.
func Gate(m Machine, x Manifest) []Check {
	var out []Check
	add := func(field string, asked bool, wanted, here string, met bool) {
		if !asked {
			return
		}
		if here == "" {
			here = "unknown"
		}
		out = append(out, Check{field, wanted, here, met})
	}
	add("os", len(x.OS) > 0, strings.Join(x.OS, " or "), m.OS, slices.Contains(x.OS, m.OS))
	add("arch", len(x.Arch) > 0, strings.Join(x.Arch, " or "), m.Arch, slices.Contains(x.Arch, m.Arch))
	for _, f := range x.CPUFeatures {
		has := slices.Contains(m.CPU.Features, f)
		add("cpu_features", true, f, map[bool]string{true: f, false: "no " + f}[has], has)
	}
	atLeast := func(field string, wanted, here int64, text func(int64) string) {
		has := ""
		if here > 0 {
			has = text(here)
		}
		add(field, wanted > 0, text(wanted), has, here >= wanted)
	}
	plain := func(n int64) string { return fmt.Sprint(n) }
	atLeast("cores", int64(x.Cores), int64(m.CPU.Cores), plain)
	atLeast("memory_bytes", x.MemoryBytes, m.Memory.UsableBytes(), mebibytes)
	var total int64
	for _, a := range m.Accelerators {
		fits := len(x.AcceleratorKinds) == 0 || slices.Contains(x.AcceleratorKinds, a.Kind)
		if a.Name != "" && fits {
			total = min(memoryBytesMax, total+min(memoryBytesMax, a.TotalBytes))
		}
	}
	of := ""
	if len(x.AcceleratorKinds) > 0 {
		of = " of " + strings.Join(x.AcceleratorKinds, " or ")
	}
	add("accelerator_bytes", x.AcceleratorBytes > 0, mebibytes(x.AcceleratorBytes)+of,
		mebibytes(total)+of, total >= x.AcceleratorBytes)
	return out
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// Unmet turns checks into an error of kind ErrUnmet that names what is missing; nil when all are
// met.
func Unmet(checks []Check) error {
	var missing []string
	for _, c := range checks {
		if !c.Met {
			missing = append(missing, fmt.Sprintf("%s: %s wanted, %s here", c.Field, c.Wanted, c.Here))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &Error{
		Op: "gate", Kind: ErrUnmet, Err: errors.New(strings.Join(missing, "; ")),
		Hint: "another machine, or a smaller model",
	}
}
