package bench

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

func TestPhysicalCores(t *testing.T) {
	t.Parallel()
	siblings := func(masks ...string) fstest.MapFS {
		fs := fstest.MapFS{}
		for i, m := range masks {
			name := "sys/devices/system/cpu/cpu" + string(rune('0'+i)) + "/topology/thread_siblings"
			fs[name] = &fstest.MapFile{Data: []byte(m)}
		}
		return fs
	}
	for _, tt := range []struct {
		name       string
		fs         fstest.MapFS
		processors int
		want       int
	}{
		{"two threads a core", siblings("3", "3", "c", "c"), 4, 2},
		{"one thread a core", siblings("1", "2", "4"), 3, 3},
		{"unknown and few", fstest.MapFS{}, 4, 4},
		{"unknown and many", fstest.MapFS{}, 12, 6},
	} {
		require.Equal(t, tt.want, physicalCores(tt.fs, tt.processors), tt.name)
	}
	require.Positive(t, DefaultThreads())
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		devices            []llama.Device
		cpu, gpu, backends string
	}{
		{[]llama.Device{{Name: "CPU", Description: "EPYC"}}, "EPYC", "", "CPU"},
		{
			[]llama.Device{
				{Name: "CUDA0", Description: "H200", Type: llama.DeviceGPU},
				{Name: "CUDA1", Description: "H200", Type: llama.DeviceGPU},
				{Name: "BLAS", Description: "OpenBLAS", Type: llama.DeviceAccelerator},
				{Name: "CPU", Description: "Xeon"},
			},
			"OpenBLAS, Xeon", "H200, H200", "CUDA,BLAS",
		},
	} {
		cpu, gpu, backends := describe(tt.devices)
		require.Equal(t, tt.cpu, cpu)
		require.Equal(t, tt.gpu, gpu)
		require.Equal(t, tt.backends, backends)
	}
}

func TestThisBuildAndMachine(t *testing.T) {
	t.Parallel()
	require.NoError(t, llama.Start(nil))
	b, err := ThisBuild()
	require.NoError(t, err)
	require.NotEmpty(t, b.LlamaCommit)
	require.NotEmpty(t, b.NativeStamp)
	m := ThisMachine()
	require.NotEmpty(t, m.CPU)
	require.Positive(t, m.Processors)
}
