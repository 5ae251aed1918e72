package plan

import (
	"math"
	"slices"

	"github.com/norion/norion/runtime/gguf"
)

// MiB and the like are for constants in this package.
const (
	mib = 1 << 20
	gib = 1 << 30
)

// tooMuch stands for all sums that no machine can hold. A few hundred of them do not overflow.
const tooMuch = 1 << 53

// times multiplies without overflow, up to tooMuch. No factor is negative.
func times(factors ...int64) int64 {
	out := int64(1)
	for _, f := range factors {
		switch {
		case f == 0:
			return 0
		case out > tooMuch/f:
			out = tooMuch
		default:
			out *= f
		}
	}
	return min(out, tooMuch)
}

func roundUp(n, step int64) int64 { return (n + step - 1) / step * step }

// sizes is what a model needs with one context and KV type, in bytes, before anything is placed.
// Item i is layer i; the last item is the output layer, which llama.cpp counts as a layer, too.
type sizes struct {
	cells       int64 // of one stream
	streams     int64
	windowCells int64 // of one stream, in layers with a sliding window; 0 where there are none
	micro       int64 // tokens of a micro-batch

	dense   []int64 // weights of an item on an accelerator, without routed experts
	experts []int64 // routed experts of an item
	host    []int64 // as dense, but in the host's memory, where an output may reuse the input
	kv      []int64 // cache or state of an item

	input   int64 // tables in the host's memory that are only looked up
	copied  int64 // the largest tensor of the host that an accelerator may borrow for a prefill
	masks   int64 // attention masks
	work    int64 // scratch of layers
	logits  int64 // scratch of the output layer
	embed   int64 // scratch of the input
	outputs int64 // the buffer of logits in the host's memory
}

// sizesOf computes sizes. Errors: ErrWish where the model cannot have the KV type.
func sizesOf(s gguf.Shape, w Wish, context int, kvType string) (*sizes, error) {
	z := &sizes{cells: roundUp(int64(context), blockCells), streams: int64(w.Sequences)}
	if w.Layout == Shared {
		z.cells = max(int64(context), int64(w.Cells))
		if w.Cells == 0 {
			z.cells = int64(context) * int64(w.Sequences)
		}
		z.cells, z.streams = roundUp(z.cells, blockCells), 1
	}
	z.micro = min(int64(w.MicroBatch), z.cells*z.streams)
	if !s.Causal {
		z.micro = z.cells // it reads a whole text at once
	}
	if s.Window > 0 {
		z.windowCells = z.windowOf(s.Window, w)
	}
	if err := z.layers(s, w, kvType); err != nil {
		return nil, err
	}
	z.scratch(s, w)
	return z, nil
}

// windowOf is llama_kv_cache_iswa's size: the window of each sequence that shares the buffer and
// one micro-batch.
func (z *sizes) windowOf(window int, w Wish) int64 {
	if w.FullWindow {
		return z.cells
	}
	sharing := int64(1)
	if w.Layout == Shared {
		sharing = int64(w.Sequences)
	}
	return roundUp(min(z.cells, times(int64(window), sharing)+z.micro), blockCells)
}

func (z *sizes) layers(s gguf.Shape, w Wish, kvType string) error {
	n := len(s.Layers) + 1
	z.dense, z.experts, z.host, z.kv = make([]int64, n), make([]int64, n), make([]int64, n),
		make([]int64, n)
	kind, _ := gguf.ParseTensorType(kvType)
	for i, l := range s.Layers {
		if i >= len(s.Layers)-s.DraftLayers {
			break // layers that draft are not loaded
		}
		token, err := s.LayerCache(i, kind, kind)
		if err != nil {
			return fault(ErrWish, "KV type", "use f16", "%w", err)
		}
		cells := z.cells
		if l.Window > 0 {
			cells = z.windowOf(l.Window, w)
		}
		z.dense[i], z.experts[i] = l.Bytes-l.ExpertBytes, l.ExpertBytes
		z.host[i] = z.dense[i]
		z.kv[i] = times(token, cells, z.streams) + times(l.StateBytes, int64(w.Sequences))
		z.copied = max(z.copied, l.LargestBytes)
	}
	z.dense[n-1] = s.OutputBytes + s.OtherBytes
	z.host[n-1] = z.dense[n-1]
	if s.OutputBytes == 0 {
		z.dense[n-1] += s.InputBytes
	}
	z.input = s.InputBytes + s.TableBytes
	return nil
}

// tiled is what a matrix takes in the order in which a processor's AMX reads it, which is another
// than that of a table: at most an eighth more, as q8_0 gets sums for each block.
func tiled(bytes int64) int64 { return times(bytes, 9) / 8 }

// scratchFixed is what the indices of a micro-batch take, and rounding.
const scratchFixed = 64 << 10

// scratch is the peak of the graph allocator, which docs/plan.md derives: the largest of what lives
// at once while a feed-forward block, a mixture of experts, attention without flash or the logits
// are computed.
func (z *sizes) scratch(s gguf.Shape, w Wish) {
	width := int64(s.EmbeddingLength)
	var heads, query, rows, forward int64
	for _, l := range s.Layers {
		heads = max(heads, int64(l.Heads))
		query = max(query, int64(l.Heads)*int64(l.KeyLength))
		rows = max(rows, int64(l.KVHeads)*int64(l.KeyLength+l.ValueLength))
		if l.ExpertTensors == 0 {
			forward = max(forward, int64(l.FeedForward))
		}
	}
	latent := slices.ContainsFunc(s.Layers, func(l gguf.Layer) bool {
		return l.Cached && l.ValueLength == 0
	})
	perCell := int64(2) // a mask of f16
	if w.NoFlash {
		perCell = 4
	}
	z.masks = times(z.micro, perCell, z.cells+z.windowCells)
	values := 3*forward + 3*width + max(width, query)
	if latent {
		values = max(values, 5*query/2+4*width)
	}
	if used := int64(s.ExpertsUsed); used > 0 {
		routed := used * int64(s.ExpertLength)
		values = max(values, 3*routed+3*width+max(width, query), 2*used*width+routed+3*width)
	}
	z.work = times(4, z.micro, values)
	if w.NoFlash {
		z.work = max(z.work, times(4, z.micro, heads, z.cells)+times(4, z.micro, 3*query+3*width+rows))
	}
	z.work += scratchFixed
	outputs := int64(w.Outputs)
	if !s.Causal {
		outputs = 0
	}
	z.logits = times(4, outputs, int64(s.VocabularySize)) + times(4, outputs, 3*width)
	z.embed = times(4, z.micro, width) + scratchFixed
	z.outputs = times(4, outputs, int64(s.VocabularySize))
}

// compute is the scratch of an accelerator. borrows says that weights of the host are copied to it
// for a prefill; copies is how often the inputs of a graph are kept.
func (z *sizes) compute(output, borrows bool, copies int64) int64 {
	n := z.work
	if output {
		n = max(n, z.logits)
	}
	if borrows {
		n += z.copied
	}
	return n + times(z.masks, copies)
}

// hostCompute is the scratch of the host, which always looks up the input.
func (z *sizes) hostCompute(layers bool) int64 {
	if layers {
		return max(z.work, z.logits) + z.masks
	}
	return z.embed + z.masks
}

// overheadOf is what a device takes besides: the context and kernels of its driver, or the process.
func overheadOf(kind string) int64 {
	switch kind {
	case "cuda", "rocm":
		return 384 * mib
	case "metal":
		return 64 * mib
	case hostName:
		return 48 * mib
	}
	return 192 * mib
}

// budgetOf is what a plan may use of free bytes. It is rounded down to a step, so that a change of
// a few MiB does not change the plan.
func budgetOf(free, reserve, reserveMax int64) int64 {
	if reserve == 0 {
		reserve = min(free/16, reserveMax)
	}
	left := max(0, free-reserve)
	step := int64(1)
	for step < 64*mib && step*2 <= left/32 {
		step *= 2
	}
	return left / step * step
}

// prefix gives the sums of the first i elements, saturated.
func prefix(all []int64) []int64 {
	out := make([]int64, len(all)+1)
	for i, v := range all {
		out[i+1] = min(out[i]+v, math.MaxInt64/4)
	}
	return out
}
