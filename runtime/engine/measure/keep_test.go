package measure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/plan"
)

// TestKeep writes figures down and reads them back; those of another machine, model or build, and
// damaged ones, count as none.
func TestKeep(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "machine")
	machine, model := strings.Repeat("a", 64), Key("", "sha256:1")
	f, err := Recall(dir, machine, model)
	require.NoError(t, err, "nothing was measured yet")
	require.Empty(t, f.Loads)
	f.Saw(plan.Load{Settings: "x", Devices: []plan.Bytes{{Weights: 1}}, Source: plan.SourceDryLoad})
	f.Saw(plan.Load{Settings: "y", Devices: []plan.Bytes{{Weights: 2}}, Source: plan.SourceMeasured})
	f.Saw(plan.Load{Settings: "x", Devices: []plan.Bytes{{Weights: 3}}, Source: plan.SourceMeasured})
	require.Len(t, f.Loads, 2, "a measured load replaces a dry one")
	require.NoError(t, f.Keep(dir))

	got, err := Recall(dir, machine, model)
	require.NoError(t, err)
	require.Equal(t, f, got)
	for _, other := range [][2]string{
		{strings.Repeat("a", 63) + "b", model}, {machine, Key("", "sha256:2")},
	} {
		none, err := Recall(dir, other[0], other[1])
		require.NoError(t, err)
		require.Empty(t, none.Loads)
	}
	other := f
	other.Build = "another"
	require.NoError(t, other.Keep(dir))
	got, err = Recall(dir, machine, model)
	require.NoError(t, err)
	require.Empty(t, got.Loads, "of another build of llama.cpp")

	name := filepath.Join(dir, fileName(machine, model))
	for _, text := range []string{"", "{", "{} {}", "[]"} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		got, err = Recall(dir, machine, model)
		require.Error(t, err, "%q", text)
		require.Empty(t, got.Loads)
		require.Equal(t, machine, got.Machine, "they can be used all the same")
	}
}

// TestCalibrated: rates replace those of the same device, threads and cache only.
func TestCalibrated(t *testing.T) {
	t.Parallel()
	var f Figures
	others := []plan.Calibration{
		{Device: "CUDA0", BytesPerSecond: 2},
		{Device: "CPU", Threads: 2, BytesPerSecond: 4},
		{Device: "CPU", KVType: "q8_0", BytesPerSecond: 5},
		{Device: "CPU", NoFlash: true},
	}
	f.Calibrated(plan.Calibration{Device: "CPU", BytesPerSecond: 1})
	for _, c := range others {
		f.Calibrated(c)
	}
	f.Calibrated(plan.Calibration{Device: "CPU", BytesPerSecond: 3})
	require.Equal(t, append(others, plan.Calibration{Device: "CPU", BytesPerSecond: 3}),
		f.Calibration)
}

// TestSaw keeps the latest loads, and no more than there is room for.
func TestSaw(t *testing.T) {
	t.Parallel()
	var f Figures
	for i := range loadsMax + 3 {
		f.Saw(plan.Load{Settings: strings.Repeat("x", i), Source: plan.SourceMeasured})
	}
	require.Len(t, f.Loads, loadsMax)
	require.Len(t, f.Loads[0].Settings, loadsMax+2)
}

// TestKey tells files without a digest apart by path, size and time.
func TestKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, os.WriteFile(path, []byte("a"), 0o600))
	before := Key(path, "")
	require.Equal(t, before, Key(path, ""))
	require.NoError(t, os.WriteFile(path, []byte("ab"), 0o600))
	require.NotEqual(t, before, Key(path, ""))
	require.Equal(t, Key("a", "sha256:1"), Key("b", "sha256:1"))
}

// FuzzParse: any file gives figures or an error.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"loads":[{"settings":"x","devices":[{"weights":1}]}]}`))
	f.Add([]byte(`{"verified":{"plan":{"devices":[{"name":"CPU"}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parse("name", data)
		if err != nil {
			require.Equal(t, Figures{}, got)
		}
	})
}
