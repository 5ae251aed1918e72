package device

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// joined is a case of TestAccelerators.
type joined struct {
	name     string
	arch     string
	reported []Reported
	found    []Accelerator
	want     []Accelerator
	notes    []string
}

func TestAccelerators(t *testing.T) {
	t.Parallel()
	for _, c := range joins() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := Machine{Arch: c.arch}
			m.accelerate(c.reported, c.found)
			require.Equal(t, c.want, m.Accelerators)
			require.Equal(t, c.notes, m.Notes)
		})
	}
}

func joins() []joined {
	const gib = 1 << 30
	card := Accelerator{
		Kind: "cuda", Chip: "RTX", UUID: "GPU-1", PCI: "0000:01:00.0", TotalBytes: 24 * gib,
		FreeBytes: 23 * gib,
	}
	slice := func(uuid string, total int64) Accelerator {
		return Accelerator{
			Kind: "cuda", Chip: "A100 MIG", UUID: uuid, PCI: "0000:02:00.0", TotalBytes: total, MIG: true,
		}
	}
	named := func(a Accelerator, name, kind string) Accelerator {
		a.Name, a.Kind = name, kind
		return a
	}
	return []joined{
		{name: "none"},
		{
			name:     "the driver's figures, llama.cpp's name",
			reported: []Reported{{Name: "CUDA0", Chip: "x", PCI: "0000:01:00.0", TotalBytes: 1}},
			found:    []Accelerator{card},
			want:     []Accelerator{named(card, "CUDA0", "cuda")},
		},
		{
			name: "one device by two ways",
			reported: []Reported{
				{Name: "CUDA0", PCI: "0000:01:00.0"}, {Name: "Vulkan0", PCI: "0000:01:00.0"},
			},
			found: []Accelerator{card},
			want:  []Accelerator{named(card, "CUDA0", "cuda")},
			notes: []string{"Vulkan0 is CUDA0 by another way: left out, as llama.cpp does"},
		},
		{
			name:  "only the driver knows it",
			found: []Accelerator{card},
			want:  []Accelerator{card},
			notes: []string{"RTX (0000:01:00.0): llama.cpp does not use it here"},
		},
		{
			name:     "a slice by its size, and the rest of them without a word",
			reported: []Reported{{Name: "CUDA0", PCI: "0000:02:00.0", TotalBytes: 10 * gib}},
			found:    []Accelerator{slice("a", 5*gib), slice("b", 9*gib), slice("c", 20*gib)},
			want: []Accelerator{
				named(slice("b", 9*gib), "CUDA0", "cuda"), slice("a", 5*gib), slice("c", 20*gib),
			},
		},
		{
			name: "others", arch: "arm64",
			reported: []Reported{
				{Name: "MTL0", Chip: "Apple M3", TotalBytes: 2, FreeBytes: 1},
				{Name: "Vulkan0", Chip: "Radeon 780M", PCI: "0000:C1:00.0", Integrated: true},
				{Name: "ROCm1", Chip: "W7900"},
			},
			want: []Accelerator{
				{
					Name: "MTL0", Kind: "metal", Chip: "Apple M3", Unified: true, TotalBytes: 2, FreeBytes: 1,
				},
				{
					Name: "Vulkan0", Kind: "vulkan", Chip: "Radeon 780M", PCI: "0000:c1:00.0", Unified: true,
					Integrated: true,
				},
				{Name: "ROCm1", Kind: "rocm", Chip: "W7900"},
			},
		},
	}
}

// TestDriverNotAsked: a device that is seen on the bus and not asked for is named.
func TestDriverNotAsked(t *testing.T) {
	t.Parallel()
	h := recordedHost(tree(map[string]string{
		"sys/bus/pci/devices/0000:00:02.0/vendor": "0x8086\n",
		"sys/bus/pci/devices/0000:00:02.0/class":  "0x030000\n",
		"sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
		"sys/bus/pci/devices/0000:01:00.0/class":  "0x030000\n",
		"sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
		"sys/bus/pci/devices/0000:01:00.1/class":  "0x040300\n",
	}), "amd64")
	const note = "NVIDIA: there is a device at 0000:01:00.0, and this program does not ask its driver"
	m, err := h.probe(t.Context(), Options{})
	require.NoError(t, err)
	require.Contains(t, m.Notes, note)
	m, err = h.probe(t.Context(), Options{
		NVIDIA: func(context.Context, RAM) ([]Accelerator, []string) { return nil, []string{"asked"} },
	})
	require.NoError(t, err)
	require.NotContains(t, m.Notes, note)
	require.Contains(t, m.Notes, "asked")
}
