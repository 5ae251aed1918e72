package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Bounds of the estimate.
const (
	microBatchDefault = 512
	headsMax          = 1 << 12
)

// need is what a load allocates, in bytes. Mapped weights are not in it: the system can read them
// again.
type need struct {
	cache   int64
	compute int64 // at least
	weights int64 // those that must be read into memory: adapters, and with LoadRead the model's
	all     int64 // what the weights would need there
	tokens  int   // of one request
	cells   int   // of the cache
	smaller bool  // a cache of q8_0 would be smaller, and possible
}

// MemoryUse is what the model and its context hold, by type of buffer, once the requests before it
// are done. The buffer of logits has grown to the most that a step had.
func (e *Engine) MemoryUse(ctx context.Context) (all []llama.MemoryUse, err error) {
	err = e.call(ctx, "memory", time.Time{}, 0, nil,
		func(_ context.Context, w *worker, _ kv.Admission) (err error) {
			all, err = w.c.MemoryUse()
			return err
		})
	return all, fail("memory", err)
}

// checkMemory refuses a load whose buffers exceed the memory at hand, and a cache type that the
// model cannot have.
func (o *Options) checkMemory(shape gguf.Shape, tokens int, adapters int64) (need, error) {
	n, err := o.need(shape, tokens, adapters)
	if err != nil {
		return n, err
	}
	memory, err := device.AvailableMemory()
	if err != nil {
		return n, nil //nolint:nilerr // no answer is no reason to refuse
	}
	return n, n.within(memory.AvailableBytes, memory.Source)
}

// AutoLoad is what llama.LoadAuto comes to for an engine whose weights and other buffers take so
// many bytes: llama.LoadRead where the processor computes, huge pages are to be had and half of the
// free memory stays free; else llama.LoadAuto, which maps the file. llama.Start comes before it.
func AutoLoad(weights, others int64, cpuOnly bool) llama.LoadMode {
	memory, err := device.AvailableMemory()
	if err != nil || !device.HugePages() || add(weights, others) > memory.AvailableBytes/2 ||
		!cpuOnly && hasGPU() {
		return llama.LoadAuto
	}
	return llama.LoadRead
}

// hasGPU says whether llama.cpp would put layers elsewhere than into the host's memory.
func hasGPU() bool {
	devices, err := llama.Devices()
	return err != nil || slices.ContainsFunc(devices, func(d llama.Device) bool {
		return d.Type == llama.DeviceGPU || d.Type == llama.DeviceIntegratedGPU
	})
}

func (o *Options) need(shape gguf.Shape, tokens int, adapters int64) (need, error) {
	n := need{
		tokens: tokens, cells: o.cells(tokens), weights: adapters,
		all: add(shape.TensorBytes, adapters),
	}
	n.compute = o.computeBytes(shape, n.cells)
	if o.Load == llama.LoadRead || o.Load == llama.LoadLock {
		n.weights = n.all
	}
	name := cmp.Or(o.KVType, "f16")
	cache, err := cacheBytes(shape, name, n.cells, o.SmallWindow)
	if errors.Is(err, gguf.ErrCacheType) {
		return n, &infer.Error{
			Op: "open", Kind: infer.KindInvalid, Field: "KV type", Hint: "use f16", Err: err,
		}
	}
	if err != nil {
		return n, fail("open", err)
	}
	n.cache = cache
	small, err := cacheBytes(shape, "q8_0", n.cells, o.SmallWindow)
	n.smaller = err == nil && small < cache
	return n, nil
}

// computeBytes is what one micro-batch needs for attention over a full context: for each of its
// tokens a mask over the context, one for all layers and one for those with a window, and without
// flash attention the scores of one layer's heads. Measured on the pin, this is all that grows with
// the context; some tens of MiB that do not are left out.
func (o *Options) computeBytes(shape gguf.Shape, tokens int) int64 {
	micro := min(cmp.Or(o.MicroBatch, microBatchDefault), tokens)
	if !shape.Causal {
		micro = tokens // it reads a whole text at once
	}
	perCell, heads := 2, 0
	if o.NoFlash {
		perCell = 4
	}
	if shape.Window > 0 {
		perCell *= 2
	}
	if o.NoFlash {
		for _, l := range shape.Layers {
			heads = max(heads, l.Heads)
		}
		perCell += 4 * min(heads, headsMax)
	}
	cells := int64(micro) * int64(tokens) // 2^52 at most: see llama.ContextTokensMax
	if cells > math.MaxInt64/int64(perCell) {
		return math.MaxInt64
	}
	return cells * int64(perCell)
}

// cacheBytes is the cost of a cache. That of the windows is kept at full length, too, unless small
// says that it holds only the window and one micro-batch.
func cacheBytes(shape gguf.Shape, name string, tokens int, small bool) (int64, error) {
	kind, ok := gguf.ParseTensorType(name)
	if !ok {
		return 0, fmt.Errorf("no size is known for the KV type %q", name)
	}
	cache, err := shape.CacheSize(kind, kind)
	if small {
		cache.Window = min(cache.Window+512, tokens)
	} else {
		cache.Window = tokens
	}
	return cache.Bytes(int64(tokens)), err
}

// within refuses a need above what is free.
func (n need) within(free int64, source string) error {
	if n.cache <= free && n.compute <= free-n.cache && n.weights <= free-n.cache-n.compute {
		return nil
	}
	context := add(n.cache, n.compute)
	e := &infer.Error{
		Op: "open", Kind: infer.KindNoMemory, Field: "context", Hint: "use a smaller --ctx",
		Err: fmt.Errorf("%d tokens of context need %d MiB, %d MiB are free (%s)",
			n.cells, context>>20, free>>20, source),
	}
	if n.smaller && n.cache > n.compute {
		e.Hint += ", or --kv-type q8_0"
	}
	if n.weights > 0 {
		e.Err = fmt.Errorf("the weights need %d MiB and %d tokens of context %d MiB, %d MiB are "+
			"free (%s)", n.weights>>20, n.cells, context>>20, free>>20, source)
	}
	if n.weights > free {
		e.Field, e.Hint = "model", "let the file be mapped, or choose a smaller model"
	}
	return e
}

// add is a+b, or the largest number where that is too large.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
