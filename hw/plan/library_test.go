package plan

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

// shapeOf and machineOf read the library.
func shapeOf(t testing.TB, name string) gguf.Shape {
	t.Helper()
	s, err := Shape(name)
	require.NoError(t, err)
	return s
}

func machineOf(t testing.TB, name string) device.Machine {
	t.Helper()
	m, err := Machine(name)
	require.NoError(t, err)
	return m
}

// TestModelSizes compares the tensors of each library shape with the size of the published file,
// which has a header of a few MiB besides, and with the published number of parameters.
func TestModelSizes(t *testing.T) {
	t.Parallel()
	parameters := map[string]float64{ // in thousands of millions
		"llama-3.1-8b-q4_k_m": 8.03, "llama-3.3-70b-q4_k_m": 70.55, "qwen3-0.6b-q8_0": 0.596,
		"mixtral-8x7b-q4_k_m": 46.70, "deepseek-v3-671b-q4_k_m": 671.03, "gemma-3-27b-q4_k_m": 27.01,
	}
	require.Len(t, Models(), len(parameters))
	for _, name := range Models() {
		data, err := entry("models", name)
		require.NoError(t, err)
		var m modelFile
		require.NoError(t, strict(data, &m))
		require.NotEmpty(t, m.Source)
		s := shapeOf(t, name)
		require.NoError(t, checkShape(s), name)
		require.InEpsilon(t, parameters[name], float64(s.Parameters)/1e9, 0.002, name)
		require.InEpsilon(t, m.FileBytes, s.TensorBytes, 0.012, name)
		require.True(t, gguf.KnownArchitecture(s.Architecture))
	}
	_, err := Shape("llama-9b")
	require.ErrorIs(t, err, ErrUnknown)
}

// TestMachines reads all machines of the library.
func TestMachines(t *testing.T) {
	t.Parallel()
	require.Len(t, Machines(), 9)
	for _, name := range Machines() {
		m := machineOf(t, name)
		require.NotZero(t, m.CPU.PerformanceCores, name)
		require.NotZero(t, m.Memory.BytesPerSecond, name)
		for _, a := range m.Accelerators {
			require.LessOrEqual(t, a.FreeBytes, a.TotalBytes)
		}
	}
	_, err := Machine("cray")
	require.ErrorIs(t, err, ErrUnknown)
}

func TestReadMachine(t *testing.T) {
	t.Parallel()
	m, err := ReadMachine([]byte(`{"source": "here", "memory": {"available_bytes": 5}}`))
	require.NoError(t, err)
	require.EqualValues(t, 5, m.Memory.AvailableBytes)
	for name, text := range map[string]string{
		"empty": "", "a list": "[]", "two": `{"memory": {"available_bytes": 5}}{}`,
		"another field":  `{"memory": {"available_bytes": 5}, "gpus": []}`,
		"no memory":      `{}`,
		"negative":       `{"memory": {"available_bytes": -5}}`,
		"negative total": `{"memory": {"available_bytes": 5, "total_bytes": -1}}`,
		"a huge one":     `{"memory": {"available_bytes": 9000000000000000000}}`,
		"no name":        `{"memory": {"available_bytes": 5}, "accelerators": [{}]}`,
		"named CPU":      `{"memory": {"available_bytes": 5}, "accelerators": [{"name": "cpu"}]}`,
		"twice": `{"memory": {"available_bytes": 5}, "accelerators": [
			{"name": "A"}, {"name": "a"}]}`,
		"free": `{"memory": {"available_bytes": 5}, "accelerators": [
			{"name": "A", "free_bytes": -1}]}`,
		"rate": `{"memory": {"available_bytes": 5}, "accelerators": [
			{"name": "A", "bytes_per_second": -1}]}`,
		"cores": `{"memory": {"available_bytes": 5}, "cpu": {"cores": -1}}`,
		"ops":   `{"memory": {"available_bytes": 5}, "cpu": {"int8_ops_per_second": -1}}`,
	} {
		_, err := ReadMachine([]byte(text))
		require.ErrorIs(t, err, ErrMachine, name)
	}
}
