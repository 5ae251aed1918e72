package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// expertTensors matches the names of routed experts, as llama.cpp's --cpu-moe does.
const expertTensors = `\.ffn_(up|down|gate|gate_up)_(ch|)exps`

// plan writes a choice down.
func (p *planner) plan(c *choice) Plan {
	w := p.wish
	out := Plan{
		Architecture: p.shape.Architecture, ContextTokens: c.context, Sequences: w.Sequences,
		Cells: c.z.cells * c.z.streams, WindowCells: c.z.windowCells * c.z.streams,
		KVType: c.kvType, Layout: w.Layout, Flash: !w.NoFlash, MicroBatch: int(c.z.micro),
		Outputs: w.Outputs, Priority: w.Priority,
		GPULayers: len(c.z.dense) - c.where.start, Overrides: p.overrides(c),
		Threads: p.threads, BatchThreads: p.batch, MemorySource: SourceFormula,
		DepthTokens: w.DepthTokens, RequestSeconds: seconds(c.where.time),
	}
	out.Decode, out.DecodeAll, out.Prefill = c.t.speeds(c.where)
	out.Devices = p.weigh(c)
	if len(p.devices) > 1 {
		for _, d := range out.Devices[:len(p.devices)] {
			out.TensorSplit = append(out.TensorSplit, d.Layers)
		}
	}
	out.recall(w.Loads)
	host := out.Devices[len(out.Devices)-1]
	p.memoryPolicy(&out, host)
	out.Changes = p.changes(c)
	out.Alternatives = p.alternatives(c)
	out.Reasons = p.reasons(c, &out)
	return out
}

// weigh gives the bytes of each device.
func (p *planner) weigh(c *choice) []Device {
	var out []Device
	host := Device{
		Name: hostName, FreeBytes: p.machine.Memory.AvailableBytes, BudgetBytes: p.places[0].budget,
		Layers: c.where.start,
	}
	last := len(c.z.dense) - 1
	for i := range c.where.start {
		host.Bytes.Weights += c.z.host[i] + c.z.experts[i]
		host.Bytes.KV += c.z.kv[i]
		if c.z.experts[i] > 0 {
			host.ExpertLayers++
		}
	}
	host.Bytes.Weights += c.z.input
	host.Bytes.Compute = c.z.hostCompute(c.where.start > 0 || c.where.borrow)
	host.Bytes.Output, host.Bytes.Overhead = c.z.outputs, overheadOf(hostName)
	for d, a := range p.devices {
		v := Device{Name: a.Name, FreeBytes: a.FreeBytes, BudgetBytes: p.places[d+1].budget}
		for _, s := range c.where.spans {
			if s.device != d+1 {
				continue
			}
			v.Layers = s.to - s.from
			for i := s.from; i < s.to; i++ {
				v.Bytes.Weights += c.z.dense[i]
				v.Bytes.KV += c.z.kv[i]
				switch {
				case c.z.experts[i] == 0:
				case i < s.keep:
					host.Bytes.Weights += c.z.experts[i]
					host.ExpertLayers++
				default:
					v.Bytes.Weights += c.z.experts[i]
					v.ExpertLayers++
				}
			}
			v.Bytes.Compute = c.z.compute(s.to > last, c.where.borrow, c.where.copies)
			v.Bytes.Overhead = overheadOf(a.Kind)
		}
		out = append(out, v)
	}
	return append(out, host)
}

// overrides keeps the routed experts of some layers in the host's memory.
func (p *planner) overrides(c *choice) []Override {
	var layers []string
	kept := false
	for _, s := range c.where.spans {
		for i := s.from; i < s.to; i++ {
			switch {
			case c.z.experts[i] == 0:
			case i < s.keep:
				layers = append(layers, strconv.Itoa(i))
			default:
				kept = true
			}
		}
	}
	switch {
	case len(layers) == 0:
		return nil
	case !kept:
		return []Override{{expertTensors, hostName}}
	}
	return []Override{{`blk\.(` + strings.Join(layers, "|") + `)` + expertTensors, hostName}}
}

// memoryPolicy chooses how weights come into the host's memory and stay there.
func (p *planner) memoryPolicy(out *Plan, host Device) {
	m := p.machine
	total, half := host.Bytes.Total(), m.Memory.AvailableBytes/2
	computes := host.Layers > 0 || host.ExpertLayers > 0
	out.Load = LoadMap
	if computes && out.GPULayers == 0 && m.Memory.HugePages && total <= half {
		out.Load = LoadRead
	}
	if p.wish.Load != "" {
		out.Load = p.wish.Load
	}
	out.Lock = computes && m.Memory.SwapBytes > 0 && total <= half && out.Priority == Latency
	if computes && len(m.NUMA) > 1 {
		out.NUMA = NUMADistribute
	}
}

// changes says what differs from the wish.
func (p *planner) changes(c *choice) []Change {
	w := p.wish
	why := "nothing else fits"
	if c.full {
		why = "all layers fit on accelerators with it"
	}
	var out []Change
	if c.kvType != w.KVTypes[0] {
		out = append(out, Change{"KV type", w.KVTypes[0], c.kvType, why})
	}
	if c.context != w.ContextTokens {
		out = append(out, Change{
			"context", strconv.Itoa(w.ContextTokens), strconv.Itoa(c.context), why,
		})
	}
	return out
}

// alternatives are what else could be had where the plan is less than was asked, or leaves layers
// to the host.
func (p *planner) alternatives(c *choice) []Alternative {
	w := p.wish
	if len(p.devices) == 0 || w.GPULayers != nil || c.full && len(p.changes(c)) == 0 {
		return nil
	}
	var out []Alternative
	add := func(other *choice, err error, format string, args ...any) {
		if err != nil || other == nil ||
			other.context == c.context && other.kvType == c.kvType {
			return
		}
		decode, _, _ := other.t.speeds(other.where)
		out = append(out, Alternative{
			fmt.Sprintf(format, args...), other.context, other.kvType,
			len(other.z.dense) - other.where.start, decode,
		})
	}
	asked, err := p.try(w, w.ContextTokens, w.KVTypes[0], false)
	add(asked, err, "as asked, with what does not fit left to the host")
	if !w.NoFlash && !slices.Contains(w.KVTypes, "q8_0") {
		other, err := p.try(w, w.ContextTokens, "q8_0", true)
		add(other, err, "a KV cache of q8_0: all layers on accelerators")
	}
	if !c.full {
		other, err := p.largest(w, c.kvType, min(blockCells, w.ContextTokens), true)
		if other != nil {
			add(other, err, "a context of %d tokens: all layers on accelerators", other.context)
		}
	}
	return out
}
