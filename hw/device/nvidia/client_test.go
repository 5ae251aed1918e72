//go:build linux && cgo

package nvidia

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
)

// machine is NVIDIA's made-up DGX A100 with the answers that its mock leaves out.
func machine() *server.Server {
	s := dgxa100.New()
	for i, d := range s.Devices {
		answer(d.(*server.Device), i)
	}
	return s
}

// answer gives a device the facts of an A100-SXM4-40GB. Its memory runs at 1555 GB/s, and it does
// 312e12 operations a second (NVIDIA A100 data sheet): 5120 bits at 1215 MHz, twice, and 6912
// cores.
func answer(d *server.Device, i int) {
	d.GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) {
		return nvml.PciInfo{Bus: uint32(i) + 1}, nvml.SUCCESS
	}
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{
			Total: 40960 << 20, Reserved: 505 << 20, Used: 1 << 30, Free: 40455<<20 - 1<<30,
		}, nvml.SUCCESS
	}
	d.GetMemoryBusWidthFunc = func() (uint32, nvml.Return) { return 5120, nvml.SUCCESS }
	d.GetMaxClockInfoFunc = func(of nvml.ClockType) (uint32, nvml.Return) {
		if of == nvml.CLOCK_MEM {
			return 1215, nvml.SUCCESS
		}
		return 1410, nvml.SUCCESS
	}
	d.GetNumGpuCoresFunc = func() (int, nvml.Return) { return 6912, nvml.SUCCESS }
	d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 400000, nvml.SUCCESS }
	d.GetMaxPcieLinkGenerationFunc = func() (int, nvml.Return) { return 4, nvml.SUCCESS }
	d.GetMaxPcieLinkWidthFunc = func() (int, nvml.Return) { return 16, nvml.SUCCESS }
	d.GetNvLinkStateFunc = func(link int) (nvml.EnableState, nvml.Return) {
		if link >= 12 {
			return 0, nvml.ERROR_INVALID_ARGUMENT
		}
		return nvml.FEATURE_ENABLED, nvml.SUCCESS
	}
	d.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) {
		return nvml.ClocksEventReasonGpuIdle | nvml.ClocksEventReasonSwPowerCap, nvml.SUCCESS
	}
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{
			{Pid: 7, UsedGpuMemory: 1 << 30}, {Pid: 8, UsedGpuMemory: ^uint64(0)}, // not told
		}, nvml.SUCCESS
	}
}

func first(s *server.Server) *server.Device { return s.Devices[0].(*server.Device) }

func ask(t *testing.T, s *server.Server) ([]device.Accelerator, []string) {
	t.Helper()
	return (&Client{lib: s}).Devices(t.Context(), device.RAM{TotalBytes: 128, AvailableBytes: 100})
}

func TestServer(t *testing.T) {
	t.Parallel()
	s := machine()
	found, notes := ask(t, s)
	require.Empty(t, notes)
	require.Len(t, found, 8)
	a := found[2]
	require.InDelta(t, 31.5e9, a.LinkBytesPerSecond, 0.1e9)
	require.InEpsilon(t, 312e12, a.FloatOpsPerSecond, 0.005)
	a.LinkBytesPerSecond, a.FloatOpsPerSecond = 0, 0
	require.Equal(t, device.Accelerator{
		Kind: "cuda", Chip: "Mock NVIDIA A100-SXM4-40GB", UUID: s.Devices[2].(*server.Device).UUID,
		PCI: "0000:03:00.0", TotalBytes: 40455 << 20, FreeBytes: 40455<<20 - 1<<30,
		ReservedBytes: 505 << 20, BytesPerSecond: 1555.2e9, ClockHz: 1410e6, Compute: "8.0",
		Driver: "550.54.15", NVLinks: 12, PowerLimitWatts: 400, Throttled: []string{"power cap"},
		Processes: []device.Process{{PID: 7, Bytes: 1 << 30}, {PID: 8}},
	}, a)
}

// TestNoDevices: each reason why the driver does not answer is one line.
func TestNoDevices(t *testing.T) {
	t.Parallel()
	for ret, want := range map[nvml.Return]string{
		nvml.ERROR_LIBRARY_NOT_FOUND: "no driver is installed (there is no libnvidia-ml.so.1)",
		nvml.ERROR_DRIVER_NOT_LOADED: "the driver's kernel module is not loaded",
		nvml.ERROR_NO_PERMISSION: "this user may not ask the driver: " +
			"it needs access to /dev/nvidia*",
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: "the driver was updated while it ran: reboot",
		nvml.ERROR_UNKNOWN:                 "ERROR_UNKNOWN",
	} {
		s := machine()
		s.InitFunc = func() nvml.Return { return ret }
		found, notes := ask(t, s)
		require.Empty(t, found)
		require.Equal(t, []string{"NVIDIA: " + want}, notes)
	}
}

// TestLost: a device that was removed is named, and the others are there.
func TestLost(t *testing.T) {
	t.Parallel()
	const lost = "lost: it fell off the bus or was removed; reset it or reboot"
	s := machine()
	handle := s.DeviceGetHandleByIndexFunc
	s.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 1 {
			return nil, nvml.ERROR_GPU_IS_LOST
		}
		return handle(i)
	}
	first(s).GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{}, nvml.ERROR_GPU_IS_LOST // while it is asked
	}
	found, notes := ask(t, s)
	require.Len(t, found, 6)
	require.Equal(t, []string{
		"NVIDIA device 0 (0000:01:00.0): " + lost, "NVIDIA device 1: " + lost,
	}, notes)
}

// TestUnified: a device without memory of its own, such as a GB10, has the host's.
func TestUnified(t *testing.T) {
	t.Parallel()
	s := machine()
	d := first(s)
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{}, nvml.ERROR_NOT_SUPPORTED
	}
	d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		return nvml.Memory{}, nvml.ERROR_NOT_SUPPORTED
	}
	d.GetMemoryBusWidthFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	found, notes := ask(t, s)
	require.Empty(t, notes)
	require.True(t, found[0].Unified)
	require.Equal(t, int64(128), found[0].TotalBytes)
	require.Equal(t, int64(100), found[0].FreeBytes)
	require.Zero(t, found[0].BytesPerSecond)
	require.False(t, found[1].Unified)
}

// TestMemoryRefused: a device whose memory cannot be asked for is not one without memory.
func TestMemoryRefused(t *testing.T) {
	t.Parallel()
	s := machine()
	first(s).GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{}, nvml.ERROR_NO_PERMISSION
	}
	first(s).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		return nvml.Memory{}, nvml.ERROR_UNKNOWN
	}
	found, notes := ask(t, s)
	require.Zero(t, found[0].TotalBytes)
	require.False(t, found[0].Unified)
	require.Equal(t, []string{
		"NVIDIA device 0 (0000:01:00.0): memory: " + fault(nvml.ERROR_NO_PERMISSION),
		"NVIDIA device 0 (0000:01:00.0): memory: ERROR_UNKNOWN",
	}, notes)
}

// TestOldDriver: a driver without the newer symbols is asked by the older ones.
func TestOldDriver(t *testing.T) {
	t.Parallel()
	s := machine()
	s.LookupSymbolFunc = func(symbol string) error {
		switch symbol {
		case "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons",
			"nvmlDeviceGetMigMode", "nvmlDeviceGetNvLinkState":
			return errors.New("undefined symbol")
		}
		return nil
	}
	d := first(s)
	d.GetMemoryInfo_v2Func, d.GetCurrentClocksEventReasonsFunc = nil, nil // a call would panic
	d.GetMigModeFunc, d.GetNvLinkStateFunc = nil, nil
	for _, dev := range s.Devices {
		dev.(*server.Device).GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) {
			return nvml.ClocksThrottleReasonHwThermalSlowdown, nvml.SUCCESS
		}
	}
	found, notes := ask(t, s)
	require.Empty(t, notes)
	require.Equal(t, int64(40960<<20), found[0].TotalBytes)
	require.Equal(t, []string{"temperature (hardware)"}, found[0].Throttled)
	require.Zero(t, found[0].NVLinks)
}

func TestMIG(t *testing.T) {
	t.Parallel()
	s := machine()
	d := first(s)
	d.MigMode = nvml.DEVICE_MIG_ENABLE
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		switch i {
		case 0, 3:
			small := dgxa100.NewDevice(i)
			small.UUID = []string{"MIG-a", "", "", "MIG-b"}[i]
			small.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
				return nvml.Memory_v2{Total: 4864 << 20, Reserved: 13 << 20, Free: 4800 << 20}, nvml.SUCCESS
			}
			return small, nvml.SUCCESS
		case 5:
			return nil, nvml.ERROR_NO_PERMISSION
		}
		return nil, nvml.ERROR_NOT_FOUND
	}
	found, notes := ask(t, s)
	require.Equal(t, []string{
		"NVIDIA device 0 (0000:01:00.0): MIG instance 5: " + fault(nvml.ERROR_NO_PERMISSION),
	}, notes)
	require.Len(t, found, 9)
	for i, uuid := range []string{"MIG-a", "MIG-b"} {
		a := found[i]
		require.True(t, a.MIG)
		require.Equal(t, uuid, a.UUID)
		require.Equal(t, "0000:01:00.0", a.PCI)
		require.Equal(t, "8.0", a.Compute)
		require.Equal(t, int64(4851<<20), a.TotalBytes)
		require.Equal(t, int64(4800<<20), a.FreeBytes)
		require.InDelta(t, 1555.2e9*4851/40455, a.BytesPerSecond, 1e9)
		require.InEpsilon(t, 312e12*4851/40455, a.FloatOpsPerSecond, 0.005)
		require.Empty(t, a.Processes)
	}

	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
	found, notes = ask(t, s)
	require.Len(t, found, 7)
	require.Equal(t, []string{
		"NVIDIA device 0 (0000:01:00.0): MIG is on, but there is no instance: nothing of it can be used",
	}, notes)
}

// TestHang: a driver that hangs is left alone, what it answered before is kept, and it is not asked
// again until it answers.
func TestHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := machine()
		answers := make(chan struct{})
		s.Devices[2].(*server.Device).GetNameFunc = func() (string, nvml.Return) {
			<-answers
			return "late", nvml.SUCCESS
		}
		c := &Client{lib: s}
		start := time.Now()
		found, notes := c.Devices(t.Context(), device.RAM{})
		require.Equal(t, stepTimeout, time.Since(start))
		require.Len(t, found, 2)
		require.Equal(t, []string{
			"NVIDIA: the driver did not answer in 2s; nvidia-smi may hang as well",
		}, notes)

		found, notes = c.Devices(t.Context(), device.RAM{})
		require.Equal(t, stepTimeout, time.Since(start))
		require.Empty(t, found)
		require.Equal(t, []string{"NVIDIA: the driver has still not answered the last query"}, notes)

		close(answers)
		synctest.Wait()
		found, notes = c.Devices(t.Context(), device.RAM{})
		require.Empty(t, notes)
		require.Len(t, found, 8)
		require.Equal(t, "late", found[2].Chip)
	})
}

// TestCanceled: a caller that gives up is not kept waiting.
func TestCanceled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := machine()
		answers := make(chan struct{})
		s.InitFunc = func() nvml.Return {
			<-answers
			return nvml.SUCCESS
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		found, notes := (&Client{lib: s}).Devices(ctx, device.RAM{})
		require.Empty(t, found)
		require.Equal(t, []string{"NVIDIA: the query was cut short"}, notes)
		close(answers)
	})
}

// TestHere: whatever this machine has, the driver answers or says why not.
func TestHere(t *testing.T) {
	t.Parallel()
	found, notes := New().Devices(t.Context(), device.RAM{})
	require.True(t, len(found) > 0 || len(notes) == 1, "%v", notes)
}
