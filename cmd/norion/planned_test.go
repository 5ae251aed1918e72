package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/llama"
)

// planFor plans a model of the library for a machine of the library, as options ask.
func planFor(t *testing.T, model, machine string, o *engine.Options) plan.Plan {
	t.Helper()
	shape, err := plan.Shape(model)
	require.NoError(t, err)
	m, err := plan.Machine(machine)
	require.NoError(t, err)
	p, err := plan.Make(shape, m, wishOf(o))
	require.NoError(t, err)
	return p
}

// TestAdopt: a plan decides what options leave open, and nothing that they say.
func TestAdopt(t *testing.T) {
	t.Parallel()
	o := engine.Options{Paths: []string{"x"}, Sequences: 2}
	p := planFor(t, "llama-3.1-8b-q4_k_m", "desktop-8gb", &o)
	require.Regexp(t, `^plan: \d+ layers on CUDA0 \(.*\), .* tokens/s \(formula\)`, planLine(p))
	adopt(p, &o)
	require.Equal(t, p.GPULayers, o.GPULayers)
	require.Equal(t, []string{"CUDA0"}, o.Devices)
	require.Equal(t, p.ContextTokens, o.ContextTokens)
	require.Equal(t, p.Threads, o.Threads)
	require.Equal(t, 2, o.Sequences)
	require.False(t, o.CPUOnly)
	require.NoError(t, o.Validate())

	said := engine.Options{
		Paths: []string{"x"}, ContextTokens: 512, KVType: "q8_0", Threads: 3, MicroBatch: 64,
		GPULayers: 5, Load: llama.LoadRead, NoFlash: false, Sequences: 1,
	}
	o = said
	p = planFor(t, "llama-3.1-8b-q4_k_m", "desktop-8gb", &o)
	adopt(p, &o)
	require.Equal(t, 5, p.GPULayers, "the plan knows")
	require.Equal(t, said.ContextTokens, o.ContextTokens)
	require.Equal(t, said.KVType, o.KVType)
	require.Equal(t, said.Threads, o.Threads)
	require.Equal(t, said.MicroBatch, o.MicroBatch)
	require.Equal(t, said.GPULayers, o.GPULayers)
	require.Equal(t, said.Load, o.Load)

	o = engine.Options{Paths: []string{"x"}, CPUOnly: true}
	adopt(p, &o)
	require.True(t, o.CPUOnly)
	require.Empty(t, o.Devices)
}

// TestAdoptShrinks: a context that nobody asked for shrinks for the layers, and that is said.
func TestAdoptShrinks(t *testing.T) {
	t.Parallel()
	o := engine.Options{Paths: []string{"x"}, Sequences: 8}
	p := planFor(t, "llama-3.1-8b-q4_k_m", "desktop-8gb", &o)
	adopt(p, &o)
	line := planLine(p)
	require.Less(t, o.ContextTokens, 4096)
	require.GreaterOrEqual(t, o.ContextTokens, leastContext)
	require.Contains(t, line, "context ")
	require.Contains(t, line, " in place of 4096")
}

// FuzzPlanFile: any file gives options that are valid or refused, or an error.
func FuzzPlanFile(f *testing.F) {
	f.Add(`{"devices":[{"name":"CPU"}],"context_tokens":512,"threads":2}`)
	f.Add(`{"devices":[{"name":"CUDA0"},{"name":"CPU"}],"gpu_layers":-3,"tensor_split":[1,2]}`)
	f.Add(`{"overrides":[{"pattern":"(","buffer":"CPU"}],"devices":[{}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlan(text)
		if err != nil {
			return
		}
		o := engine.Options{Paths: []string{"x"}}
		adopt(p, &o)
		require.NotEmpty(t, planLine(p))
		_ = o.Validate() // either is fine, but it comes back
		_, err = json.Marshal(p)
		require.NoError(t, err)
	})
}
