package engine

import (
	"errors"
	"fmt"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
)

// need is what a load allocates, in bytes. Mapped weights are not in it: the system can read them
// again.
type need struct {
	cache   int64
	weights int64 // 0 when they are mapped
	tokens  int   // of the cache
	smaller bool  // a cache of q8_0 would be smaller, and possible
}

// checkMemory refuses a load whose buffers exceed the memory at hand, and a cache type that the
// model cannot have.
func (o *Options) checkMemory(shape gguf.Shape, tokens int) error {
	n, err := o.need(shape, tokens)
	if err != nil {
		return err
	}
	memory, err := device.AvailableMemory()
	if err != nil {
		return nil //nolint:nilerr // no answer is no reason to refuse
	}
	return n.within(memory.AvailableBytes, memory.Source)
}

func (o *Options) need(shape gguf.Shape, tokens int) (need, error) {
	n := need{tokens: tokens}
	if o.NoMap {
		n.weights = shape.TensorBytes
	}
	name := o.KVType
	if name == "" {
		name = "f16"
	}
	cache, err := cacheBytes(shape, name, tokens, o.SmallWindow)
	if errors.Is(err, gguf.ErrCacheType) {
		return n, &infer.Error{
			Op: "open", Kind: infer.KindInvalid, Field: "KV type", Hint: "use f16", Err: err,
		}
	}
	if err != nil {
		return n, fail("open", err)
	}
	n.cache = cache
	small, err := cacheBytes(shape, "q8_0", tokens, o.SmallWindow)
	n.smaller = err == nil && small < cache
	return n, nil
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
	if n.cache <= free && n.weights <= free-n.cache {
		return nil
	}
	e := &infer.Error{
		Op: "open", Kind: infer.KindNoMemory, Field: "context", Hint: "use a smaller --ctx",
		Err: fmt.Errorf("%d tokens of context need %d MiB, %d MiB are free (%s)",
			n.tokens, n.cache>>20, free>>20, source),
	}
	if n.smaller {
		e.Hint += ", or --kv-type q8_0"
	}
	if n.weights > 0 {
		e.Err = fmt.Errorf("the weights need %d MiB and %d tokens of context %d MiB, %d MiB are "+
			"free (%s)", n.weights>>20, n.tokens, n.cache>>20, free>>20, source)
	}
	if n.weights > free {
		e.Field, e.Hint = "model", "let the file be mapped, or choose a smaller model"
	}
	return e
}
