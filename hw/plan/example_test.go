package plan_test

import (
	"errors"
	"fmt"

	"github.com/norion/norion/hw/plan"
)

// A model of 8B on a card of 8 GB, which holds a context of 32768 tokens in q8_0 only.
func Example() {
	shape, err := plan.Shape("llama-3.1-8b-q4_k_m")
	if err != nil {
		fmt.Println(err)
		return
	}
	machine, err := plan.Machine("desktop-8gb")
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := plan.Make(shape, machine, plan.Wish{
		ContextTokens: 32768, KVTypes: []string{"f16", "q8_0"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.GPULayers, p.KVType)
	for _, reason := range p.Reasons {
		fmt.Println(reason)
	}

	_, err = plan.Make(shape, machine, plan.Wish{ContextTokens: 1 << 20})
	if e, ok := errors.AsType[*plan.Error](err); ok {
		fmt.Println(e.Kind, "-", e.Hint)
	}
	// Output:
	// 33 q8_0
	// All 33 layers fit on CUDA0: nothing is left to the host's slower memory.
	// The KV type is q8_0 in place of f16: all layers fit on accelerators with it.
	// Threads are 6, one for each physical core.
	// does not fit - try a context of 232704 tokens
}
