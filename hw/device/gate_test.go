package device

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const manifest = `{"version": 1, "os": ["linux", "darwin"], "arch": ["amd64"],
	"cpu_features": ["avx2", "fma"], "cores": 4, "memory_bytes": 8589934592,
	"accelerator_bytes": 17179869184, "accelerator_kinds": ["cuda", "rocm"]}`

func TestParseManifest(t *testing.T) {
	t.Parallel()
	x, err := ParseManifest([]byte(manifest))
	require.NoError(t, err)
	require.Equal(t, Manifest{
		Version: 1, OS: []string{"linux", "darwin"}, Arch: []string{"amd64"},
		CPUFeatures: []string{"avx2", "fma"}, Cores: 4, MemoryBytes: 8 << 30,
		AcceleratorBytes: 16 << 30, AcceleratorKinds: []string{"cuda", "rocm"},
	}, x)
}

func TestParseManifestRefuses(t *testing.T) {
	t.Parallel()
	names := func(n int) string {
		return `["linux"` + strings.Repeat(`,"linux"`, n-1) + `]`
	}
	for _, c := range []struct{ text, field, message string }{
		{"", "", "no JSON object"},
		{"[]", "", "no JSON object"},
		{`{"version": 1, "cores": 1`, "", "EOF"},
		{`{"version": 1, "cores": 1} x`, "", "something follows"},
		{`{"version": 1, "cores": 1, "Cores": 2}`, "", `"cores" stands there twice`},
		{`{"version": 1, "colour": "red"}`, "", "unknown field"},
		{`{"version": 1, "cores": "four"}`, "", "cannot unmarshal"},
		{`{"version": 1, "cores": 1.5}`, "", "cannot unmarshal"},
		{`{"cores": 1}`, "version", "it is 0"},
		{`{"version": 2, "cores": 1}`, "version", "it is 2"},
		{`{"version": 1}`, "", "it asks for nothing"},
		{`{"version": 1, "os": ["Linux"]}`, "os", `"Linux" is not known`},
		{`{"version": 1, "os": ` + names(listMax+1) + `}`, "os", "more than 64 names"},
		{`{"version": 1, "arch": ["x86_64"]}`, "arch", "not known"},
		{`{"version": 1, "cpu_features": ["AVX2"]}`, "cpu_features", "not known"},
		{`{"version": 1, "cores": -1}`, "cores", "outside 0..16384"},
		{`{"version": 1, "cores": 16385}`, "cores", "outside 0..16384"},
		{`{"version": 1, "memory_bytes": -1}`, "memory_bytes", "outside"},
		{`{"version": 1, "memory_bytes": 1125899906842625}`, "memory_bytes", "outside"},
		{`{"version": 1, "accelerator_kinds": ["cuda"]}`, "accelerator_kinds", "without their memory"},
		{`{"version": 1, "accelerator_kinds": ["gpu"]}`, "accelerator_kinds", "not known"},
		{strings.Repeat(" ", ManifestBytesMax+1), "", "more than 65536 bytes"},
	} {
		_, err := ParseManifest([]byte(c.text))
		require.ErrorIs(t, err, ErrManifest, c.text)
		require.ErrorContains(t, err, c.message)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, c.field, e.Field, c.text)
	}
	for _, text := range []string{
		`{"version": 1, "os": ` + names(listMax) + `}`, `{"version": 1, "cores": 16384}`,
		`{"version": 1, "memory_bytes": 1125899906842624}`,
	} {
		_, err := ParseManifest([]byte(text))
		require.NoError(t, err)
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	x, err := ParseManifest([]byte(manifest))
	require.NoError(t, err)
	m := Machine{
		OS: "linux", Arch: "amd64", CPU: CPU{Cores: 4, Features: []string{"avx", "avx2", "fma"}},
		Memory: RAM{TotalBytes: 16 << 30},
		Accelerators: []Accelerator{
			{Name: "CUDA0", Kind: "cuda", TotalBytes: 8 << 30},
			{Name: "CUDA1", Kind: "cuda", TotalBytes: 8 << 30},
		},
	}
	checks := Gate(m, x)
	require.NoError(t, Unmet(checks))
	require.Equal(t, Check{"memory_bytes", "8192 MiB", "16384 MiB", true}, checks[5])

	for _, c := range []struct {
		change func(*Machine)
		want   Check
	}{
		{func(m *Machine) { m.OS = "windows" }, Check{"os", "linux or darwin", "windows", false}},
		{func(m *Machine) { m.OS = "" }, Check{"os", "linux or darwin", "unknown", false}},
		{func(m *Machine) { m.Arch = "arm64" }, Check{"arch", "amd64", "arm64", false}},
		{
			func(m *Machine) { m.CPU.Features = []string{"fma"} },
			Check{"cpu_features", "avx2", "no avx2", false},
		},
		{func(m *Machine) { m.CPU.Cores = 3 }, Check{"cores", "4", "3", false}},
		{
			func(m *Machine) { m.Memory.TotalBytes = 0 },
			Check{"memory_bytes", "8192 MiB", "unknown", false},
		},
		{
			func(m *Machine) { m.Memory.LimitBytes = 1 << 30 }, // of a control group
			Check{"memory_bytes", "8192 MiB", "1024 MiB", false},
		},
		{
			func(m *Machine) { m.Accelerators[0].Kind = "vulkan" },
			Check{"accelerator_bytes", "16384 MiB of cuda or rocm", "8192 MiB of cuda or rocm", false},
		},
		{
			func(m *Machine) { m.Accelerators[0].Name = "" }, // llama.cpp does not use it
			Check{"accelerator_bytes", "16384 MiB of cuda or rocm", "8192 MiB of cuda or rocm", false},
		},
	} {
		worse := m
		worse.Accelerators = slices.Clone(m.Accelerators)
		c.change(&worse)
		checks := Gate(worse, x)
		require.Contains(t, checks, c.want)
		err := Unmet(checks)
		require.ErrorIs(t, err, ErrUnmet)
		require.ErrorContains(t, err, c.want.Field+": "+c.want.Wanted+" wanted, "+c.want.Here+" here")
	}
}

// TestGateIsMonotone: more of anything never turns a met need into one that is not.
func TestGateIsMonotone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		bytes := rapid.Int64Range(0, memoryBytesMax)
		x := Manifest{
			Cores: rapid.IntRange(0, 64).Draw(r, "cores"), MemoryBytes: bytes.Draw(r, "memory"),
			AcceleratorBytes: bytes.Draw(r, "accelerator"),
		}
		m := Machine{
			CPU:          CPU{Cores: rapid.IntRange(0, 64).Draw(r, "has cores")},
			Memory:       RAM{TotalBytes: bytes.Draw(r, "has memory")},
			Accelerators: []Accelerator{{Name: "CUDA0", TotalBytes: bytes.Draw(r, "has accelerator")}},
		}
		more := m
		more.CPU.Cores++
		more.Memory.TotalBytes++
		more.Accelerators = append(slices.Clone(m.Accelerators), m.Accelerators[0])
		less, now := Gate(m, x), Gate(more, x)
		require.Len(r, now, len(less))
		for i := range less {
			require.False(r, less[i].Met && !now[i].Met)
		}
	})
}

// FuzzParseManifest: what is accepted is within bounds and reads back as it was.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifest))
	f.Add([]byte(`{"version": 1, "cores": 1, "cores": 1}`))
	f.Add([]byte(`{"version": 1, "os": [null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := ParseManifest(data)
		if err != nil {
			require.ErrorIs(t, err, ErrManifest)
			require.Zero(t, x)
			return
		}
		require.NotEmpty(t, Gate(Machine{}, x))
		require.Error(t, Unmet(Gate(Machine{}, x)))
		written, err := json.Marshal(x)
		require.NoError(t, err)
		back, err := ParseManifest(written)
		require.NoError(t, err)
		again, err := json.Marshal(back)
		require.NoError(t, err)
		require.Equal(t, string(written), string(again))
	})
}

// TestParseMachine: what a probe writes is read back as it was.
func TestParseMachine(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/machines/*.txtar")
	require.NoError(t, err)
	for _, path := range paths {
		_, files := recorded(t, path)
		m := recordedHost(files, "amd64").machine()
		data, err := json.Marshal(m)
		require.NoError(t, err)
		back, err := ParseMachine(data)
		require.NoError(t, err, path)
		require.Equal(t, m, back, path)
	}
}

func TestParseMachineRefuses(t *testing.T) {
	t.Parallel()
	for text, field := range map[string]string{
		``: "", `{"os": 1}`: "", `{"no": 1}`: "", `{"os": "linux", "OS": "darwin"}`: "",
		`{"memory": {"total_bytes": -1}}`:                             "memory.total_bytes",
		`{"memory": {"total_bytes": 1, "available_bytes": 2}}`:        "memory.available_bytes",
		`{"cpu": {"quota": -0.5}}`:                                    "cpu.quota",
		`{"cpu": {"cores": 2, "threads": 1}}`:                         "cpu",
		`{"cpu": {"threads": 16385}}`:                                 "cpu.threads",
		`{"cpu": {"cores": 1, "threads": 1, "performance_cores": 2}}`: "cpu",
		`{"accelerators": [{"total_bytes": 1, "free_bytes": 2}]}`:     "accelerators[0].free_bytes",
		`{"accelerators": [{}, {"bytes_per_second": -1}]}`:            "accelerators[1].bytes_per_second",
		`{"numa": [{"id": -1}]}`:                                      "numa[0].id",
		`{"kernel": "` + strings.Repeat("x", MachineBytesMax) + `"}`:  "",
	} {
		_, err := ParseMachine([]byte(text))
		require.ErrorIs(t, err, ErrMachine)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, field, e.Field)
	}
}

// TestEveryNumberIsChecked: a field that is added to a machine cannot be left out of the checks.
func TestEveryNumberIsChecked(t *testing.T) {
	t.Parallel()
	m := Machine{NUMA: []Node{{}}, Accelerators: []Accelerator{{}}}
	want := countNumbers(reflect.TypeFor[Machine]())
	require.Len(t, m.numbers(), want)
}

// countNumbers counts the numbers of a struct and of the structs in it. The lists of threads and of
// processes are the system's.
func countNumbers(typ reflect.Type) (n int) {
	for f := range typ.Fields() {
		kind := f.Type
		if kind.Kind() == reflect.Slice {
			kind = kind.Elem()
		}
		switch {
		case kind == reflect.TypeFor[Process](), f.Type == reflect.TypeFor[[]int]():
		case kind.Kind() == reflect.Struct:
			n += countNumbers(kind)
		case kind.Kind() == reflect.Int, kind.Kind() == reflect.Int64, kind.Kind() == reflect.Float64:
			n++
		}
	}
	return n
}

// TestManifestPage: the page of the command line has every field of a manifest.
func TestManifestPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	for f := range reflect.TypeFor[Manifest]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		require.Contains(t, string(page), fmt.Sprintf("%q", name))
	}
}
