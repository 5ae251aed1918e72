package device

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/disk"
)

func TestMeasureSize(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, c := range []struct{ caches, available, want int64 }{
		{caches: 32 * mib, available: 64 << 30, want: 256 * mib},
		{caches: 480 * mib, available: 64 << 30, want: 960 * mib},
		{caches: 2 << 30, available: 64 << 30, want: 1 << 30}, // bounded
		{caches: 32 * mib, available: 800 * mib, want: 100 * mib},
		{caches: 0, available: 0, want: 0},
	} {
		require.Equal(t, c.want, measureSize(c.caches, c.available), c)
	}
}

func TestReaders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cpu   CPU
		procs int
		want  int
	}{
		{CPU{Threads: 8}, 8, 8},
		{CPU{Threads: 8, Quota: 2.5}, 8, 3},
		{CPU{Threads: 8, Quota: 0.5}, 8, 1},
		{CPU{Threads: 8}, 2, 2},
		{CPU{}, 4, 1},
	} {
		require.Equal(t, c.want, readers(c.cpu, c.procs), c)
	}
}

// TestReadRate reads very little: how fast is not the point here.
func TestReadRate(t *testing.T) {
	t.Parallel()
	rate, err := readRate(t.Context(), 3, 1<<16)
	require.NoError(t, err)
	require.Positive(t, rate)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rate, err = readRate(ctx, 3, 1<<16)
	require.NoError(t, err)
	require.Zero(t, rate)
}

// TestMeasureNotes: a measurement that says little, or is not made, is named.
func TestMeasureNotes(t *testing.T) {
	t.Parallel()
	m := Machine{Memory: RAM{AvailableBytes: 64 << 20}}
	m.measureMemory(t.Context())
	require.Zero(t, m.Memory.BytesPerSecond)
	require.Equal(t, []string{"the rate of memory is not measured: too little is available"}, m.Notes)

	m = Machine{CPU: CPU{L3Bytes: 24 << 20}, Memory: RAM{AvailableBytes: measureShare * (40 << 20)}}
	m.measureMemory(t.Context())
	require.Positive(t, m.Memory.BytesPerSecond)
	require.Equal(t, []string{
		"the rate of memory is measured over 40 MiB, of which caches hold 24 MiB",
	}, m.Notes)
}

// TestFingerprint changes with what figures depend on, and with nothing else.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	base := func() Machine {
		return Machine{
			OS: "linux", Kernel: "6.1", CPU: CPU{Name: "chip", Cores: 4, Threads: 8},
			Memory: RAM{TotalBytes: 100, AvailableBytes: 50}, Accelerators: []Accelerator{{UUID: "a"}},
		}
	}
	want := base().Fingerprint()
	require.Len(t, want, 32)
	for name, change := range map[string]func(*Machine){
		"kernel": func(m *Machine) { m.Kernel = "6.2" },
		"cpu":    func(m *Machine) { m.CPU.Name = "other" },
		"cores":  func(m *Machine) { m.CPU.Cores = 2 },
		"quota":  func(m *Machine) { m.CPU.Quota = 2 },
		"memory": func(m *Machine) { m.Memory.TotalBytes = 200 },
		"limit":  func(m *Machine) { m.Memory.LimitBytes = 20 },
		"device": func(m *Machine) { m.Accelerators[0].UUID = "b" },
		"more":   func(m *Machine) { m.Accelerators = append(m.Accelerators, Accelerator{}) },
	} {
		m := base()
		change(&m)
		require.NotEqual(t, want, m.Fingerprint(), name)
	}
	m := base()
	m.Memory.AvailableBytes, m.CPU.PressurePercent, m.Notes = 1, 50, []string{"x"}
	m.Memory.BytesPerSecond = 9
	require.Equal(t, want, m.Fingerprint())
}

func TestKeep(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there")
	m := Machine{CPU: CPU{Name: "chip"}}
	require.False(t, m.recall(dir))
	require.Empty(t, m.Notes)
	m.Memory.BytesPerSecond = 12.5e9
	m.keep(dir)
	require.Empty(t, m.Notes)

	same := Machine{CPU: CPU{Name: "chip"}}
	require.True(t, same.recall(dir))
	require.InDelta(t, 12.5e9, same.Memory.BytesPerSecond, 0)
	other := Machine{CPU: CPU{Name: "other"}}
	require.False(t, other.recall(dir))
	require.Empty(t, other.Notes)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1)
}

// TestKeptDamaged: a file that this program did not write so is as good as none, and is named.
func TestKeptDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := Machine{CPU: CPU{Name: "chip"}, Memory: RAM{BytesPerSecond: 1e9}}
	m.keep(dir)
	path := filepath.Join(dir, keptName(m.Fingerprint()))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, data := range map[string]string{
		"cut":         string(good[:len(good)-4]),
		"empty":       "",
		"version":     strings.Replace(string(good), `"version":1`, `"version":2`, 1),
		"fingerprint": strings.Replace(string(good), m.Fingerprint()[:4], "0000", 1),
		"zero":        strings.Replace(string(good), "1000000000", "0", 1),
		"negative":    strings.Replace(string(good), "1000000000", "-1", 1),
		"absurd":      strings.Replace(string(good), "1000000000", "1e300", 1),
		"unknown":     strings.Replace(string(good), "{", `{"x":1,`, 1),
		"twice":       string(good) + string(good),
		"large":       string(good) + strings.Repeat(" ", keptBytesMax),
	} {
		require.NotEqual(t, string(good), data, name)
		require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
		got := Machine{CPU: CPU{Name: "chip"}}
		require.False(t, got.recall(dir), name)
		require.Zero(t, got.Memory.BytesPerSecond, name)
		require.Len(t, got.Notes, 1, name)
		require.Contains(t, got.Notes[0], "figures measured before are not used: ", name)
	}
	require.NoError(t, os.WriteFile(path, good, 0o600))
	got := Machine{CPU: CPU{Name: "chip"}}
	require.True(t, got.recall(dir))
}

// TestKeepFails: at whatever call the disk fails, an old file stays whole and nothing else is left
// that could be taken for one.
func TestKeepFails(t *testing.T) {
	t.Parallel()
	for _, op := range []disk.Op{
		disk.OpOpen, disk.OpWrite, disk.OpSync, disk.OpClose, disk.OpRename,
	} {
		path := t.TempDir()
		inner, err := disk.OpenDir(path)
		require.NoError(t, err)
		old := kept{keptVersion, "f", 1}
		require.NoError(t, writeKept(inner, old))
		dir := disk.NewFaulty(inner, disk.Faults{Fail: func(got disk.Op, _ string, _ int) error {
			if got == op {
				return disk.ErrInjected
			}
			return nil
		}})
		require.ErrorIs(t, writeKept(dir, kept{keptVersion, "f", 2}), disk.ErrInjected, op)
		require.Zero(t, dir.OpenFiles())
		got, err := readKept(inner, "f")
		require.NoError(t, err)
		require.Equal(t, old, got, op)
		names, err := os.ReadDir(path)
		require.NoError(t, err)
		require.Len(t, names, 1, op)
		require.NoError(t, dir.Close())
	}
}

// TestProbeMeasures: what was measured is kept, and measured again only when asked for.
func TestProbeMeasures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := tree(map[string]string{
		"proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 300000 kB\n",
		"proc/cpuinfo": "processor: 0\n",
	})
	probe := func(measure Measure) Machine {
		m, err := recordedHost(files, "amd64").probe(t.Context(), Options{Dir: dir, Measure: measure})
		require.NoError(t, err)
		return m
	}
	require.Zero(t, probe(MeasureNever).Memory.BytesPerSecond)
	first := probe(MeasureMissing)
	require.Positive(t, first.Memory.BytesPerSecond)
	require.Equal(t, first, probe(MeasureNever))
	require.Equal(t, first, probe(MeasureMissing))

	planted := first
	planted.Memory.BytesPerSecond = 1
	planted.keep(dir)
	require.InDelta(t, 1, probe(MeasureMissing).Memory.BytesPerSecond, 0)
	require.Greater(t, probe(MeasureAgain).Memory.BytesPerSecond, 1.0)
	require.Greater(t, probe(MeasureNever).Memory.BytesPerSecond, 1.0)
}
