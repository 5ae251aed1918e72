package device

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write what probes say into testdata/machines")

// answerName is the file of a recorded machine that holds what a probe must say of it.
const answerName = "machine.json"

// recorded is the proc and sys tree of a machine in testdata.
func recorded(t testing.TB, path string) (*txtar.Archive, fstest.MapFS) {
	t.Helper()
	a, err := txtar.ParseFile(path)
	require.NoError(t, err)
	files := fstest.MapFS{}
	for _, f := range a.Files {
		if f.Name != answerName {
			files[f.Name] = &fstest.MapFile{Data: f.Data}
		}
	}
	return a, files
}

// recordedHost is a host that has nothing but a tree.
func recordedHost(files fstest.MapFS, arch string) host {
	return host{
		os: "linux", arch: arch, root: files, threads: 3,
		ask: func() processor { return processor{} },
	}
}

func TestRecordedMachines(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/machines/*.txtar")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 12)
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, files := recorded(t, path)
			arch := "amd64"
			if strings.Contains(path, "arm_") {
				arch = "arm64"
			}
			got, err := json.MarshalIndent(recordedHost(files, arch).machine(), "", "  ")
			require.NoError(t, err)
			i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == answerName })
			require.GreaterOrEqual(t, i, 0)
			if *rewrite {
				a.Files[i].Data = slices.Concat(got, []byte("\n"))
				require.NoError(t, os.WriteFile(path, txtar.Format(a), 0o644))
				return
			}
			require.JSONEq(t, string(a.Files[i].Data), string(got))
		})
	}
}

// TestProbeHere holds for every machine that runs the tests.
func TestProbeHere(t *testing.T) {
	t.Parallel()
	m, err := Probe(t.Context(), Options{})
	require.NoError(t, err)
	checkMachine(t, m)
	require.NotEmpty(t, m.OS)
	require.Positive(t, m.CPU.Cores)
	data, err := json.Marshal(m)
	require.NoError(t, err)
	var back Machine
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, m, back)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Probe(ctx, Options{})
	require.ErrorIs(t, err, context.Canceled)
}

// TestKernelAgrees compares what the kernel says of the processor with what the processor says.
func TestKernelAgrees(t *testing.T) {
	t.Parallel()
	h := thisHost()
	if h.root == nil {
		t.Skip("no proc on this system")
	}
	kernel := h.machine().CPU.Features
	for _, f := range askProcessor().features {
		require.Contains(t, kernel, f)
	}
}

// checkMachine wants what every machine must have.
func checkMachine(t require.TestingT, m Machine) {
	require.LessOrEqual(t, m.CPU.Cores, m.CPU.Threads)
	require.LessOrEqual(t, m.CPU.PerformanceCores, m.CPU.Cores)
	require.GreaterOrEqual(t, m.CPU.PerformanceCores, min(1, m.CPU.Cores))
	require.False(t, m.CPU.Quota < 0 || math.IsInf(m.CPU.Quota, 0) || math.IsNaN(m.CPU.Quota))
	require.GreaterOrEqual(t, m.CPU.L2Bytes, int64(0))
	require.GreaterOrEqual(t, m.CPU.L3Bytes, int64(0))
	require.True(t, slices.IsSorted(m.CPU.Features))
	require.GreaterOrEqual(t, m.Memory.AvailableBytes, int64(0))
	if m.Memory.LimitBytes > 0 {
		require.LessOrEqual(t, m.Memory.AvailableBytes, m.Memory.LimitBytes)
		require.Less(t, m.Memory.LimitBytes, m.Memory.TotalBytes)
	}
	for _, n := range m.NUMA {
		require.LessOrEqual(t, len(n.Threads), m.CPU.Threads)
	}
}

// TestDamagedTrees shows that no content of a file leads to more than an incomplete answer.
func TestDamagedTrees(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/machines/*.txtar")
	require.NoError(t, err)
	rapid.Check(t, func(r *rapid.T) {
		_, files := recorded(t, rapid.SampledFrom(paths).Draw(r, "machine"))
		names := make([]string, 0, len(files))
		for name := range files {
			names = append(names, name)
		}
		slices.Sort(names)
		for range rapid.IntRange(1, 8).Draw(r, "damages") {
			name := rapid.SampledFrom(names).Draw(r, "file")
			data := rapid.OneOf(
				rapid.SampledFrom([]string{
					"", "-1", "9223372036854775807", "99999999999999999999", "0-16383", "3-1", "max",
					"1 0", "0::/../..", "NaN", "some avg10=1e400 ", "MemTotal: 1 kB\n", "18014398509481983K",
				}),
				rapid.String(),
			).Draw(r, "content")
			files[name] = &fstest.MapFile{Data: []byte(data)}
		}
		checkMachine(r, recordedHost(files, "amd64").machine())
	})
}

func TestParseList(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]int{
		"0": {0}, "0-3": {0, 1, 2, 3}, "0-1,8,10-11": {0, 1, 8, 10, 11}, "4,2,2": {2, 4},
		"": nil, "-1": nil, "3-1": nil, "0-x": nil, "0-16383": intersect(upTo(1<<14), upTo(1<<14)),
		"0-16384": nil, "1,,2": nil,
	} {
		require.Equal(t, want, parseList(text), text)
	}
}

func upTo(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

func TestCacheBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"48K\n": 48 << 10, "32M": 32 << 20, "512": 512, "": 0, "K": 0, "-1K": 0,
		"99999999999K": 0, "1G": 0,
	} {
		require.Equal(t, want, cacheBytes(tree(map[string]string{"size": text}), "size"), text)
	}
}

// TestBoardName: the device tree ends its texts with a zero byte.
func TestBoardName(t *testing.T) {
	t.Parallel()
	root := tree(map[string]string{
		"proc/device-tree/model": "Radxa ROCK 5B\x00", "proc/cpuinfo": "processor : 0\n",
	})
	require.Equal(t, "Radxa ROCK 5B", readCPUInfo(root).name)
}

// TestUnknownSystem: where there is neither proc nor sys, the processor itself is asked.
func TestUnknownSystem(t *testing.T) {
	t.Parallel()
	h := host{
		os: "plan9", arch: "amd64", threads: 8, memory: func() (RAM, error) { return RAM{}, ErrUnknown },
		ask: func() processor {
			return processor{name: "chip", features: []string{"avx2"}, cores: 4, l2: 1 << 20, l3: 8 << 20}
		},
	}
	require.Equal(t, Machine{
		OS: "plan9", Arch: "amd64", CPU: CPU{
			Name: "chip", Features: []string{"avx2"}, Cores: 4, PerformanceCores: 4, Threads: 8,
			L2Bytes: 1 << 20, L3Bytes: 8 << 20,
		},
		Notes: []string{"memory: available memory is not known on this system"},
	}, h.machine())
}

// TestPressure reads the kernel's form of pressure, and nothing else.
func TestPressure(t *testing.T) {
	t.Parallel()
	const some = "some avg10=12.50 avg60=1.00 avg300=0.00 total=9\n"
	const full = "full avg10=3.00 avg60=0.00 avg300=0.00 total=9\n"
	for text, want := range map[string]float64{
		some + full:              12.5,
		full:                     0,
		"some avg10=101 avg60=0": 0,
		"some avg10=NaN avg60=0": 0,
		"":                       0,
	} {
		root := tree(map[string]string{"proc/pressure/cpu": text})
		require.InDelta(t, want, readPressure(root, "cpu"), 0, text)
	}
}

// BenchmarkProbe is a probe of this machine: without and with a file of measured figures.
func BenchmarkProbe(b *testing.B) {
	for _, c := range []struct{ name, dir string }{{"cold", ""}, {"kept", b.TempDir()}} {
		b.Run(c.name, func(b *testing.B) {
			m, err := Probe(b.Context(), Options{})
			require.NoError(b, err)
			if c.dir != "" {
				m.Memory.BytesPerSecond = 1
				m.keep(c.dir)
			}
			for b.Loop() {
				if _, err := Probe(b.Context(), Options{Dir: c.dir}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkProbeServer is a probe of a machine with 256 threads, from files.
func BenchmarkProbeServer(b *testing.B) {
	const cores = 128
	dir := b.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(b, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(b, os.WriteFile(path, []byte(text+"\n"), 0o600))
	}
	write(cpuTree+"/online", "0-255")
	write("proc/self/status", "Cpus_allowed_list:\t0-255")
	write("proc/meminfo", "MemTotal: 1000000000 kB\nMemAvailable: 900000000 kB")
	for cpu := range 2 * cores {
		core := cpu % cores
		pair := fmt.Sprintf("%d,%d", core, core+cores)
		write(cpuFile(cpu, "topology/thread_siblings_list"), pair)
		write(cpuFile(cpu, "cpufreq/cpuinfo_max_freq"), "3700000")
		for i, c := range [][3]string{
			{"2", "1024K", pair}, {"3", "262144K", []string{"0-63,128-191", "64-127,192-255"}[core/64]},
		} {
			at := fmt.Sprintf("cache/index%d/", i)
			write(cpuFile(cpu, at+"level"), c[0])
			write(cpuFile(cpu, at+"size"), c[1])
			write(cpuFile(cpu, at+"shared_cpu_list"), c[2])
		}
	}
	h := recordedHost(nil, "amd64")
	h.root = os.DirFS(dir)
	var m Machine
	for b.Loop() {
		m = h.machine()
	}
	require.Equal(b, cores, m.CPU.Cores)
	require.Equal(b, int64(512<<20), m.CPU.L3Bytes)
}
