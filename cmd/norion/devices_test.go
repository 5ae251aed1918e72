package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
)

// TestWatch: a look at once, one each second, and an end that is no failure.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		looks := 0
		err := watch(ctx, func() error { looks++; return nil })
		require.ErrorIs(t, err, errInterrupted)
		require.Equal(t, 4, looks)

		broken := errors.New("broken pipe")
		require.ErrorIs(t, watch(t.Context(), func() error { return broken }), broken)
	})
}

func TestWriteMachine(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	require.NoError(t, writeMachine(&b, device.Machine{
		OS: "linux", Arch: "amd64", Kernel: "6.1", CPU: device.CPU{
			Name: "chip", Features: []string{"avx", "avx2"}, Cores: 8, PerformanceCores: 4, Threads: 12,
			Quota: 2.5, L2Bytes: 1 << 20, L3Bytes: 32 << 20, PressurePercent: 12.5,
		},
		Memory: device.RAM{
			TotalBytes: 64 << 30, AvailableBytes: 3 << 30, LimitBytes: 4 << 30, SwapBytes: 1 << 30,
			HugePages: true, BytesPerSecond: 12.34e9,
		},
		NUMA: []device.Node{{ID: 0, Threads: []int{0, 1}, TotalBytes: 32 << 30}, {ID: 1}},
		Accelerators: []device.Accelerator{
			{
				Name: "CUDA0", Kind: "cuda", Chip: "A100", PCI: "0000:01:00.0", TotalBytes: 40 << 30,
				FreeBytes: 39 << 30, BytesPerSecond: 1555e9, LinkBytesPerSecond: 31.5e9, NVLinks: 12,
				Compute: "8.0", Driver: "550.54", PowerLimitWatts: 400, MIG: true, Unified: true,
				Throttled: []string{"power cap", "temperature"}, Processes: make([]device.Process, 2),
			},
			{Chip: "Old\x1b[2J card"},
		},
		Notes: []string{"a note\nof two lines"},
	}))
	require.Equal(t, `system     linux/amd64, kernel 6.1
processor  chip, 8 cores, 4 of them fast, 12 threads, a quota of 2.5 processors, `+
		`12.5 % of the time waited for
features   avx avx2
caches     1.0 MiB L2 for a core, 32.0 MiB L3
memory     64.0 GiB, 3.0 GiB available, limited to 4.0 GiB by a control group, `+
		`1.0 GiB of swap, huge pages, 12.3 GB/s
node 0     32.0 GiB, 2 threads
node 1     0 threads
CUDA0      A100, 0000:01:00.0, 40.0 GiB, 39.0 GiB free, the host's memory, a slice (MIG), `+
		`1555 GB/s, 31.5 GB/s from the host, 12 NVLinks, compute 8.0, driver 550.54, at most 400 W, `+
		`slowed down by power cap and temperature, 2 processes compute on it
unused     Old[2J card
note       a note; of two lines
`, b.String())

	b.Reset()
	require.NoError(t, writeMachine(&b, device.Machine{OS: "plan9", Arch: "amd64"}))
	require.Equal(t, "system  plan9/amd64\nmemory  rate not measured\n", b.String())
}
