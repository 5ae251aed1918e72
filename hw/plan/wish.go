package plan

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

// Priority is what a plan is chosen for.
type Priority string

const (
	// Latency wants one request answered soonest: 512 tokens of prompt and 128 of answer.
	Latency Priority = "latency"
	// Throughput wants such requests in all sequences at once answered soonest.
	Throughput Priority = "throughput"
	// Memory takes the smallest KV type that is allowed, and a micro-batch of 128.
	Memory Priority = "memory"
	// Quality gives up speed before the context or the first KV type.
	Quality Priority = "quality"
)

// Layout is how the KV cells of several sequences lie; see kv.Layout.
type Layout string

const (
	Shared  Layout = "shared"  // one unified buffer for all sequences
	Streams Layout = "streams" // one stream of cells for each sequence
)

// Defaults and bounds of a Wish.
const (
	contextDefault    = 4096
	microBatchDefault = 512
	microBatchSmall   = 128
	outputsDefault    = 32
	contextMax        = 1 << 27
	sequencesMax      = 256 // as llama.cpp
	microBatchMax     = 1 << 16
	outputsMax        = 1 << 16
	threadsMax        = 512 // as llama.cpp
	blockCells        = 256 // llama.cpp rounds cells up to this
)

// Wish is what the user wants. The zero value wants one sequence of 4096 tokens, or as many as the
// model was trained with if that is less, with a KV cache of f16 in streams, flash attention, and
// the least latency.
type Wish struct {
	ContextTokens int `json:"context_tokens,omitempty"` // of each sequence
	// ContextMin allows a smaller context, down to so many tokens, where all layers then fit on
	// accelerators, or where nothing fits otherwise. 0: the context may not shrink.
	ContextMin int `json:"context_min,omitempty"`
	Sequences  int `json:"sequences,omitempty"`
	// KVTypes are those allowed for keys and values, the preferred one first, in ggml's names.
	KVTypes []string `json:"kv_types,omitempty"`
	Layout  Layout   `json:"layout,omitempty"`
	Cells   int      `json:"cells,omitempty"` // of a shared buffer; 0: ContextTokens x Sequences
	NoFlash bool     `json:"no_flash,omitempty"`
	// FullWindow keeps all tokens in layers with a sliding window, so that a text can be cut back
	// anywhere.
	FullWindow bool `json:"full_window,omitempty"`
	Outputs    int  `json:"outputs,omitempty"`     // of one step; 0: 32, or Sequences if more
	MicroBatch int  `json:"micro_batch,omitempty"` // tokens computed at once; 0: 512
	// DepthTokens in a sequence's cache is where speeds are predicted; 0: half of the context.
	DepthTokens int      `json:"depth_tokens,omitempty"`
	Priority    Priority `json:"priority,omitempty"`
	// ReserveBytes stay free on each device; 0: a sixteenth of what is free, at most 512 MiB on an
	// accelerator and 1 GiB of the host's memory.
	ReserveBytes int64 `json:"reserve_bytes,omitempty"`
	// Devices are the names of the accelerators that may be used; nil: all that make it faster. The
	// name CPU alone allows none.
	Devices []string `json:"devices,omitempty"`

	// Choices that the user has made; zero values leave them to the planner.
	GPULayers    *int   `json:"gpu_layers,omitempty"` // as n_gpu_layers: the output counts as one
	Threads      int    `json:"threads,omitempty"`
	BatchThreads int    `json:"batch_threads,omitempty"`
	Load         string `json:"load,omitempty"` // read or mmap

	// Calibration is what was measured on this machine. It overrides the constants.
	Calibration []Calibration `json:"calibration,omitempty"`
	// Loads are those of this model that were measured on this machine.
	Loads []Load `json:"loads,omitempty"`
}

// Calibration is what a device was measured to reach with a model of this kind.
type Calibration struct {
	Device  string `json:"device"`             // as Accelerator.Name, or CPU
	Threads int    `json:"threads,omitempty"`  // of CPU, for which the figures hold; 0: for any
	KVType  string `json:"kv_type,omitempty"`  // for which they hold; "": for any
	NoFlash bool   `json:"no_flash,omitempty"` // without flash attention
	// BytesPerSecond of weights read while decoding, and of the cache where it has no rate.
	BytesPerSecond      float64 `json:"bytes_per_second,omitempty"`
	CacheBytesPerSecond float64 `json:"cache_bytes_per_second,omitempty"`
	// StepOpsPerSecond are those of decoding, which add to the time of what is read; 0: the longer
	// of the two counts. OpsPerSecond are those of prefill. Both are two for each parameter in use
	// and token.
	StepOpsPerSecond float64 `json:"step_ops_per_second,omitempty"`
	OpsPerSecond     float64 `json:"ops_per_second,omitempty"`
}

// hostName is what the processor is called among devices.
const hostName = "CPU"

// withDefaults fills in the zero values.
func (w Wish) withDefaults(s gguf.Shape) Wish {
	if w.ContextTokens == 0 {
		w.ContextTokens = contextDefault
		if s.ContextLength > 0 {
			w.ContextTokens = min(s.ContextLength, contextDefault)
		}
	}
	w.DepthTokens = cmp.Or(w.DepthTokens, w.ContextTokens/2)
	w.Sequences = cmp.Or(w.Sequences, 1)
	w.Layout = cmp.Or(w.Layout, Streams)
	w.Priority = cmp.Or(w.Priority, Latency)
	w.Outputs = cmp.Or(w.Outputs, max(outputsDefault, w.Sequences))
	if w.MicroBatch == 0 {
		w.MicroBatch = microBatchDefault
		if w.Priority == Memory {
			w.MicroBatch = microBatchSmall
		}
	}
	if len(w.KVTypes) == 0 {
		w.KVTypes = []string{"f16"}
	}
	return w
}

// check refuses values that cannot be used; defaults are filled in.
func (w *Wish) check() error {
	for _, f := range []struct {
		name            string
		value, min, max int
	}{
		{"context", w.ContextTokens, 1, contextMax},
		{"least context", w.ContextMin, 0, w.ContextTokens},
		{"depth", w.DepthTokens, 0, w.ContextTokens},
		{"sequences", w.Sequences, 1, sequencesMax},
		{"cells", w.Cells, 0, contextMax},
		{"outputs", w.Outputs, 1, outputsMax},
		{"micro-batch", w.MicroBatch, 1, microBatchMax},
		{"threads", w.Threads, 0, threadsMax},
		{"batch threads", w.BatchThreads, 0, threadsMax},
	} {
		if f.value < f.min || f.value > f.max {
			return fault(ErrWish, f.name, "", "%d is not from %d to %d", f.value, f.min, f.max)
		}
	}
	switch {
	case w.GPULayers != nil && *w.GPULayers < 0:
		return fault(ErrWish, "gpu layers", "leave it out for as many as fit", "%d", *w.GPULayers)
	case w.ReserveBytes < 0:
		return fault(ErrWish, "reserve", "0 is the default", "%d bytes", w.ReserveBytes)
	case w.Layout != Shared && w.Layout != Streams:
		return fault(ErrWish, "layout", "use shared or streams", "%q", w.Layout)
	case w.Load != "" && w.Load != LoadRead && w.Load != LoadMap:
		return fault(ErrWish, "load", "use read or mmap", "%q", w.Load)
	case !slices.Contains([]Priority{Latency, Throughput, Memory, Quality}, w.Priority):
		return fault(ErrWish, "priority", "use latency, throughput, memory or quality", "%q", w.Priority)
	}
	return w.checkTypes()
}

func (w *Wish) checkTypes() error {
	for _, name := range w.KVTypes {
		t, ok := gguf.ParseTensorType(name)
		if !ok {
			return fault(ErrWish, "KV type", "use f16 or q8_0", "no type %q", name)
		}
		if block, _ := t.Block(); block > 1 && w.NoFlash {
			return fault(ErrWish, "KV type", "use f16, or flash attention",
				"%s needs flash attention", name)
		}
	}
	for _, c := range w.Calibration {
		for _, v := range []float64{
			c.BytesPerSecond, c.CacheBytesPerSecond, c.StepOpsPerSecond, c.OpsPerSecond,
		} {
			if !rate(v) {
				return fault(ErrWish, "calibration", "measure again", "%s: a rate of %v", c.Device, v)
			}
		}
	}
	return checkLoads(w.Loads)
}

// rate says whether a number can be a rate; 0 is unknown.
func rate(v float64) bool { return v >= 0 && v <= 1e18 }

// bytesMax is above the memory of any machine and the size of any model.
const bytesMax = 1 << 50

// checkMachine refuses figures that cannot be true.
func checkMachine(m device.Machine) error {
	bytes := func(field string, values ...int64) error {
		for _, v := range values {
			if v < 0 || v > bytesMax {
				return fault(ErrMachine, field, "", "%d bytes", v)
			}
		}
		return nil
	}
	if err := bytes("memory", m.Memory.AvailableBytes, m.Memory.TotalBytes, m.Memory.SwapBytes,
		m.Memory.LimitBytes); err != nil {
		return err
	}
	if m.Memory.AvailableBytes == 0 {
		return fault(ErrMachine, "memory", "say what is available", "no memory is available")
	}
	c := m.CPU
	if c.Cores < 0 || c.PerformanceCores < 0 || c.Threads < 0 || c.Quota < 0 || math.IsNaN(c.Quota) {
		return fault(ErrMachine, "cpu", "", "%d cores, %d of them fast, %d threads, a quota of %v",
			c.Cores, c.PerformanceCores, c.Threads, c.Quota)
	}
	if !rate(c.Int8OpsPerSecond) || !rate(m.Memory.BytesPerSecond) {
		return fault(ErrMachine, "cpu", "leave out what is not known",
			"%v operations and %v bytes a second", c.Int8OpsPerSecond, m.Memory.BytesPerSecond)
	}
	names := map[string]bool{}
	for _, a := range m.Accelerators {
		if err := bytes(a.Name, a.FreeBytes, a.TotalBytes, a.ReservedBytes); err != nil {
			return err
		}
		name := strings.ToUpper(a.Name)
		if name == "" || name == hostName || names[name] {
			return fault(ErrMachine, "accelerators", "give each a name of its own", "the name %q", a.Name)
		}
		names[name] = true
		if !rate(a.BytesPerSecond) || !rate(a.FloatOpsPerSecond) || !rate(a.LinkBytesPerSecond) {
			return fault(ErrMachine, a.Name, "leave out what is not known",
				"%v bytes, %v operations and %v bytes of its link a second",
				a.BytesPerSecond, a.FloatOpsPerSecond, a.LinkBytesPerSecond)
		}
	}
	return nil
}

// checkShape refuses figures that no model has; those of a file that gguf read always pass.
func checkShape(s gguf.Shape) error {
	if n := len(s.Layers); n == 0 || n > gguf.LayersMax || s.DraftLayers < 0 || s.DraftLayers >= n {
		return fault(ErrModel, "layers", "", "%d layers, %d of them for drafts", n, s.DraftLayers)
	}
	for _, v := range []int64{s.InputBytes, s.TableBytes, s.OutputBytes, s.OtherBytes} {
		if v < 0 || v > bytesMax {
			return fault(ErrModel, "tensors", "", "%d bytes", v)
		}
	}
	if s.EmbeddingLength < 0 || s.EmbeddingLength > 1<<24 || s.VocabularySize < 0 ||
		s.VocabularySize > gguf.VocabularyMax || s.Experts < 0 || s.Experts > gguf.ExpertsMax ||
		s.ExpertsUsed < 0 || s.ExpertsUsed > s.Experts || s.ExpertLength < 0 || s.ExpertLength > 1<<24 {
		return fault(ErrModel, "sizes", "", "an embedding of %d, %d tokens, %d of %d experts of %d",
			s.EmbeddingLength, s.VocabularySize, s.ExpertsUsed, s.Experts, s.ExpertLength)
	}
	for i, l := range s.Layers {
		if l.Heads < 0 || l.Heads > 1<<16 || l.KVHeads < 0 || l.KVHeads > 1<<16 || l.KeyLength < 0 ||
			l.KeyLength > 1<<20 || l.ValueLength < 0 || l.ValueLength > 1<<20 || l.FeedForward < 0 ||
			l.FeedForward > 1<<24 || l.Window < 0 || l.Bytes < 0 || l.Bytes > bytesMax ||
			l.ExpertBytes < 0 || l.ExpertBytes > l.Bytes || l.Parameters < 0 ||
			l.ExpertParameters < 0 || l.ExpertParameters > l.Parameters || l.LargestBytes < 0 ||
			l.LargestBytes > l.Bytes || l.StateBytes < 0 {
			return fault(ErrModel, "layers", "", "layer %d: %+v", i, l)
		}
	}
	return nil
}
