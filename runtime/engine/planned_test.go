package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// TestApply: each field of a plan reaches the load.
func TestApply(t *testing.T) {
	t.Parallel()
	o := engine.Options{Batch: 64, Devices: []string{"left from before"}}
	o.Apply(plan.Plan{
		ContextTokens: 512, Sequences: 3, Cells: 900, KVType: "q8_0", Layout: plan.Shared,
		Flash: true, MicroBatch: 128, GPULayers: 7, TensorSplit: []int{4, 3},
		Overrides: []plan.Override{{Pattern: "exps", Buffer: "CPU"}}, Threads: 2, BatchThreads: 4,
		Load: plan.LoadRead, Lock: true, NUMA: plan.NUMADistribute,
		Devices: []plan.Device{{Name: "A"}, {Name: "B"}, {Name: "CPU"}},
	})
	require.Equal(t, engine.Options{
		ContextTokens: 512, Sequences: 3, Cells: 900, Shared: true, KVType: "q8_0", Batch: 64,
		MicroBatch: 128, GPULayers: 7, TensorSplit: []float32{4, 3}, Devices: []string{"A", "B"},
		Overrides: []llama.BufferOverride{{Pattern: "exps", Buffer: "CPU"}},
		Threads:   2, ThreadsBatch: 4, Load: llama.LoadLock, Distribute: true,
	}, o)
	o.Apply(plan.Plan{Load: plan.LoadMap, Devices: []plan.Device{{Name: "CPU"}}})
	require.Equal(t, engine.Options{
		Batch: 64, CPUOnly: true, NoFlash: true, Load: llama.LoadMap,
	}, o)
}

// TestDistribute: over memory nodes or not, the answer is the same.
func TestDistribute(t *testing.T) {
	r := infer.Request{Prompt: "hello", MaxTokens: 20, IgnoreEOS: true}
	before, _ := answer(t, openTiny(t, nil), r)
	after, _ := answer(t, openTiny(t, func(o *engine.Options) { o.Distribute = true }), r)
	require.Equal(t, before, after)
}
