package plan

import "fmt"

// Load is what a load of the model was seen to take on this machine. Where a plan comes to the same
// settings, its bytes come from here.
type Load struct {
	Settings string  `json:"settings"` // as Plan.Settings
	Devices  []Bytes `json:"devices"`  // in the order of Plan.Devices, without overhead
	Source   Source  `json:"source"`   // SourceMeasured or SourceDryLoad
}

// Settings are all of a plan that its bytes depend on, as one line.
func (p *Plan) Settings() string {
	names := make([]string, len(p.Devices))
	for i, d := range p.Devices {
		names[i] = d.Name
	}
	return fmt.Sprintf("context=%d cells=%d window=%d sequences=%d layout=%s kv=%s flash=%t "+
		"ubatch=%d outputs=%d devices=%q layers=%d split=%v overrides=%v", p.ContextTokens, p.Cells,
		p.WindowCells, p.Sequences, p.Layout, p.KVType, p.Flash, p.MicroBatch, p.Outputs, names,
		p.GPULayers, p.TensorSplit, p.Overrides)
}

// recall puts the bytes of a known load in place of the computed ones: those of a real load before
// those of a dry one.
func (p *Plan) recall(loads []Load) {
	settings := p.Settings()
	for _, l := range loads {
		if l.Settings != settings || len(l.Devices) != len(p.Devices) ||
			p.MemorySource == SourceMeasured || l.Source != SourceMeasured &&
			p.MemorySource == SourceDryLoad {
			continue
		}
		p.MemorySource = l.Source
		for i, b := range l.Devices {
			b.Overhead = p.Devices[i].Bytes.Overhead
			p.Devices[i].Bytes = b
		}
	}
}

// checkLoads refuses figures that no load can have.
func checkLoads(loads []Load) error {
	for _, l := range loads {
		for _, b := range l.Devices {
			for _, n := range []int64{b.Weights, b.KV, b.Compute, b.Output} {
				if n < 0 || n > bytesMax {
					return fault(ErrWish, "loads", "measure again", "%d bytes", n)
				}
			}
		}
		if l.Source != SourceMeasured && l.Source != SourceDryLoad {
			return fault(ErrWish, "loads", "measure again", "a source %.20q", l.Source)
		}
	}
	return nil
}
