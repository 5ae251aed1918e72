// Package plan decides where the layers of a model go, how many bytes that takes on each device,
// and how fast it will be: a pure function of a model's shape, a machine and a wish. docs/plan.md
// has the formulas and what they were taken from.
//
// It owns the placement and its predictions, and a library of machines and of shapes to plan for
// what is not here. It must not know how a model is loaded, nor read a file or ask the system.
//
// All values are plain; everything may be used concurrently.
package plan

import (
	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

// Ways to bring weights into the host's memory, and NUMA policies.
const (
	LoadRead       = "read"       // into memory of its own
	LoadMap        = "mmap"       // the file is mapped
	NUMADistribute = "distribute" // as --numa distribute: pages and threads over all nodes
)

// Plan is how to load a model, and what that comes to. It reads back from JSON as it was written.
type Plan struct {
	Architecture  string   `json:"architecture"`
	ContextTokens int      `json:"context_tokens"` // of each sequence
	Sequences     int      `json:"sequences"`
	Cells         int64    `json:"cells"`                  // of the KV cache, all streams together
	WindowCells   int64    `json:"window_cells,omitempty"` // of layers with a sliding window
	KVType        string   `json:"kv_type"`                // of keys and values
	Layout        Layout   `json:"layout"`
	Flash         bool     `json:"flash"`
	MicroBatch    int      `json:"micro_batch"`
	Outputs       int      `json:"outputs"`
	Priority      Priority `json:"priority"`

	// GPULayers is llama.cpp's n_gpu_layers: the last so many, of which the output is one.
	GPULayers int `json:"gpu_layers"`
	// TensorSplit has the number of layers for each accelerator in Devices, in their order.
	TensorSplit []int      `json:"tensor_split,omitempty"`
	Overrides   []Override `json:"overrides,omitempty"`

	Threads      int    `json:"threads"`        // of decoding
	BatchThreads int    `json:"batch_threads"`  // of prefill
	Load         string `json:"load"`           // LoadRead or LoadMap
	Lock         bool   `json:"lock,omitempty"` // keep the weights from being swapped out
	NUMA         string `json:"numa,omitempty"` // NUMADistribute, or "" for none

	// Devices are the accelerators that may be used, and last the host, whose name is CPU.
	Devices      []Device `json:"devices"`
	MemorySource Source   `json:"memory_source"` // of all bytes

	// Speeds, where so many tokens of a sequence are in the cache.
	DepthTokens int   `json:"depth_tokens"`
	Decode      Speed `json:"decode"`     // of one sequence alone
	DecodeAll   Speed `json:"decode_all"` // of all sequences together
	Prefill     Speed `json:"prefill"`    // of one prompt
	// RequestSeconds is the time that the plan was chosen by: a prompt of 512 tokens and an answer
	// of 128, in all sequences at once where throughput is wanted.
	RequestSeconds float64 `json:"request_seconds"`

	Changes      []Change      `json:"changes,omitempty"`
	Alternatives []Alternative `json:"alternatives,omitempty"`
	Reasons      []string      `json:"reasons"` // in the order in which they were decided
}

// Override places tensors whose name matches a regular expression, as llama.cpp's override-tensor.
type Override struct {
	Pattern string `json:"pattern"`
	Buffer  string `json:"buffer"`
}

// Device is what one device holds.
type Device struct {
	Name         string `json:"name"`
	Layers       int    `json:"layers"`        // the output counts as one
	ExpertLayers int    `json:"expert_layers"` // layers whose routed experts are here
	Bytes        Bytes  `json:"bytes"`
	FreeBytes    int64  `json:"free_bytes"`   // before
	BudgetBytes  int64  `json:"budget_bytes"` // of them, what a plan may use; Overhead is not in it
}

// Bytes are the bytes of one device by kind.
type Bytes struct {
	Weights  int64 `json:"weights"`
	KV       int64 `json:"kv"`       // and the state of recurrent layers
	Compute  int64 `json:"compute"`  // scratch of a micro-batch
	Output   int64 `json:"output"`   // the buffer of logits
	Overhead int64 `json:"overhead"` // of the driver, or of the process
}

// Total is the sum.
func (b Bytes) Total() int64 { return b.Weights + b.KV + b.Compute + b.Output + b.Overhead }

// Change is what differs from the wish.
type Change struct {
	Field string `json:"field"`
	Asked string `json:"asked"`
	Given string `json:"given"`
	Why   string `json:"why"`
}

// Alternative is another plan and what it would cost.
type Alternative struct {
	Change        string `json:"change"`
	ContextTokens int    `json:"context_tokens"`
	KVType        string `json:"kv_type"`
	GPULayers     int    `json:"gpu_layers"`
	Decode        Speed  `json:"decode"`
}

// Make plans a load. Errors, all of them *Error: ErrWish, ErrMachine, ErrModel, ErrDevice, and
// ErrNoFit with what would make it fit.
func Make(s gguf.Shape, m device.Machine, w Wish) (Plan, error) {
	if err := checkShape(s); err != nil {
		return Plan{}, err
	}
	if err := checkMachine(m); err != nil {
		return Plan{}, err
	}
	w = w.withDefaults(s)
	if err := w.check(); err != nil {
		return Plan{}, err
	}
	p, err := newPlanner(s, m, w)
	if err != nil {
		return Plan{}, err
	}
	c, err := p.choose()
	if err != nil {
		return Plan{}, err
	}
	return p.plan(c), nil
}
