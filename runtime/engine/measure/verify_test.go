package measure_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/engine/measure"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestVerify holds a plan for the processor against its load: the cache, the scratch and the logits
// are as predicted, and a second plan takes its bytes from the load.
func TestVerify(t *testing.T) {
	path := storetest.Model(t, "smollm2:135m")
	file, err := gguf.Open(path)
	require.NoError(t, err)
	shape, err := file.Shape()
	require.NoError(t, err)
	require.NoError(t, file.Close())
	machine, err := device.Probe(t.Context(), device.Options{})
	require.NoError(t, err)
	wish := plan.Wish{ContextTokens: 1024, Sequences: 2}
	p, err := plan.Make(shape, machine, wish)
	require.NoError(t, err)

	o := engine.Options{Paths: []string{path}, Model: "smollm2:135m"}
	dry, err := measure.Dry(t.Context(), p, o)
	require.NoError(t, err)
	r, err := measure.Verify(t.Context(), p, o)
	require.NoError(t, err)
	require.Len(t, r.Devices, 1)
	d := r.Devices[0]
	require.Equal(t, d.Predicted.KV, d.Measured.KV)
	require.Equal(t, d.Predicted.Output, d.Measured.Output)
	require.InEpsilon(t, d.Predicted.Compute, d.Measured.Compute, 0.08)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, d.Measured.Weights, 2*info.Size())
	require.Positive(t, d.Measured.Weights)
	require.Positive(t, r.Decode.Measured)
	require.Positive(t, r.DecodeAll.Measured)
	require.Positive(t, r.Prefill.Measured)
	require.Equal(t, measure.Depth(1024), r.PromptTokens)

	load, ok := r.Load()
	require.True(t, ok)
	require.Equal(t, load.Settings, dry.Settings)
	require.Equal(t, load.Devices, dry.Devices, "a dry load counts what a real one takes")
	wish.Loads = []plan.Load{dry}
	counted, err := plan.Make(shape, machine, wish)
	require.NoError(t, err)
	require.Equal(t, plan.SourceDryLoad, counted.MemorySource)
	wish.Loads = []plan.Load{load}
	again, err := plan.Make(shape, machine, wish)
	require.NoError(t, err)
	require.Equal(t, plan.SourceMeasured, again.MemorySource)
	require.Equal(t, d.Measured.Weights, again.Devices[0].Bytes.Weights)

	wish.DepthTokens = r.PromptTokens
	rates, err := r.Rates(shape, machine, wish)
	require.NoError(t, err)
	wish.Calibration = []plan.Calibration{rates}
	again, err = plan.Make(shape, machine, wish)
	require.NoError(t, err)
	require.Equal(t, plan.SourceMeasured, again.Decode.Source)
	require.InEpsilon(t, r.Decode.Measured, again.Decode.TokensPerSecond, 0.01)
	require.InEpsilon(t, r.Prefill.Measured, again.Prefill.TokensPerSecond, 0.01)
	wish.Threads = again.Threads + 1
	other, err := plan.Make(shape, machine, wish)
	require.NoError(t, err)
	require.NotEqual(t, plan.SourceMeasured, other.Decode.Source, "measured with other threads")

	wish.ContextTokens, wish.DepthTokens = 512, 0
	other, err = plan.Make(shape, machine, wish)
	require.NoError(t, err)
	require.Equal(t, plan.SourceFormula, other.MemorySource, "other settings are another load")
}
