package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// adapter is a loaded LoRA file.
type adapter struct {
	lora    *llama.Lora
	scale   float32 // unless a request names another
	version string  // of the file
}

// adapterSet is what applies to a step: Options.Loras, and what a request names. It does not
// change.
type adapterSet struct {
	key    string // the digest of files and scales, the same in another process; "" for none
	loras  []*llama.Lora
	scales []float32
}

func newAdapterSet(list []adapter) *adapterSet {
	s, digest := &adapterSet{}, sha256.New()
	for _, a := range list {
		s.loras, s.scales = append(s.loras, a.lora), append(s.scales, a.scale)
		fmt.Fprintf(digest, "%v %s\n", a.scale, a.version)
	}
	if len(list) > 0 {
		s.key = hex.EncodeToString(digest.Sum(nil))
	}
	return s
}

// validateAdapters refuses names and scales that no request could mean.
func (o *Options) validateAdapters() error {
	for name, l := range o.Adapters {
		scale := float64(l.Scale)
		if name != "" && math.Abs(scale) <= infer.AdapterScaleMax { // written so that NaN fails
			continue
		}
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: "adapters",
			Hint: "give each a name, and a scale or 0 for 1",
			Err:  fmt.Errorf("name %.40q, scale %v", name, l.Scale),
		}
	}
	return nil
}

// loadAdapters loads the adapters and lets those of every request apply.
func (e *Engine) loadAdapters(o *Options, c *llama.Context) error {
	load := func(l Lora) (adapter, error) {
		lora, err := e.model.LoadLora(l.Path)
		if err != nil {
			return adapter{}, err
		}
		e.loras = append(e.loras, lora)
		return adapter{lora, cmp.Or(l.Scale, 1), versions(l.Path)}, nil
	}
	for _, l := range o.Loras {
		a, err := load(l)
		if err != nil {
			return err
		}
		e.always = append(e.always, a)
	}
	e.named = map[string]adapter{}
	for name, l := range o.Adapters {
		a, err := load(l)
		if err != nil {
			return err
		}
		e.named[name] = a
	}
	e.base = newAdapterSet(e.always)
	return c.SetLoras(e.base.loras, e.base.scales)
}

// readAdapters finds the set of a request, which infer has validated. It has the order of the
// names, so that it has one key.
func (e *Engine) readAdapters(asked []infer.Adapter) (*adapterSet, error) {
	if len(asked) == 0 {
		return e.base, nil
	}
	asked = slices.SortedFunc(slices.Values(asked), func(a, b infer.Adapter) int {
		return cmp.Compare(a.Name, b.Name)
	})
	list := slices.Clone(e.always)
	for _, ask := range asked {
		a, ok := e.named[ask.Name]
		if !ok {
			hint := fmt.Sprintf("use one of %v", e.info.Adapters)
			if len(e.named) == 0 {
				hint = "open the engine with adapters, or name none"
			}
			return nil, &infer.Error{
				Op: "generate", Kind: infer.KindInvalid, Field: "adapters", Hint: hint,
				Err: fmt.Errorf("unknown %.40q", ask.Name),
			}
		}
		a.scale = cmp.Or(ask.Scale, a.scale)
		list = append(list, a)
	}
	return newAdapterSet(list), nil
}

// adapt lets a set apply to what is computed from now on, if it does not yet. What is in the cache
// stays as it was computed. A switch itself only replaces a list, but it has the next computation
// plan anew (llama_context::set_adapters_lora and sched_reserve of the pin): it waits for the
// backends, drops the last graph, makes a scheduler, and builds and allocates the graph of a full
// micro-batch twice and that of a decode once. That does not grow with prompts, but with the layers
// and adapters, and comes with each switch; so there is none between steps of one set.
func (w *worker) adapt(set *adapterSet) error {
	if set.key == w.applied.key {
		return nil
	}
	if err := w.c.SetLoras(set.loras, set.scales); err != nil {
		return err
	}
	w.applied, w.step.switched = set, true
	w.totals.Switched++
	return nil
}
