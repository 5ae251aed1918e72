package engine

import (
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/llama"
)

// Apply makes the load what a plan says: devices, layers, cache, threads and load mode. What no
// plan decides stays as it is: adapters, batch, window, parking.
func (o *Options) Apply(p plan.Plan) {
	o.ContextTokens, o.Sequences = p.ContextTokens, p.Sequences
	o.Shared, o.Cells = p.Layout == plan.Shared, 0
	if o.Shared {
		o.Cells = int(p.Cells)
	}
	o.KVType, o.NoFlash, o.MicroBatch = p.KVType, !p.Flash, p.MicroBatch
	o.Threads, o.ThreadsBatch = p.Threads, p.BatchThreads
	o.Load, o.Distribute = loadMode(p), p.NUMA == plan.NUMADistribute
	o.CPUOnly, o.GPULayers = p.GPULayers == 0, p.GPULayers
	o.Devices, o.TensorSplit, o.Overrides = nil, nil, nil
	if o.CPUOnly {
		return
	}
	for _, d := range p.Devices[:max(0, len(p.Devices)-1)] { // the last one is the host
		o.Devices = append(o.Devices, d.Name)
	}
	for _, layers := range p.TensorSplit {
		o.TensorSplit = append(o.TensorSplit, float32(layers))
	}
	for _, v := range p.Overrides {
		o.Overrides = append(o.Overrides, llama.BufferOverride{Pattern: v.Pattern, Buffer: v.Buffer})
	}
}

func loadMode(p plan.Plan) llama.LoadMode {
	switch {
	case p.Load == plan.LoadRead && p.Lock:
		return llama.LoadLock
	case p.Load == plan.LoadRead:
		return llama.LoadRead
	case p.Lock:
		return llama.LoadMapLock
	}
	return llama.LoadMap
}
