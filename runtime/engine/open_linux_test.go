package engine_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
)

// callers notes the threads of the system that call it.
type callers map[int]bool

func (c callers) Evict(v kv.View) ([]kv.Span, error) {
	c[syscall.Gettid()] = true
	return kv.SinkWindow{Sinks: 4, Window: 16}.Evict(v)
}

// TestOneThread: the thread that loads a model computes with it, too. OpenMP has a team for each,
// and two are more threads than there are processors.
func TestOneThread(t *testing.T) {
	for range 8 { // goroutines may share a thread by chance
		seen := callers{}
		e := openTiny(t, func(o *engine.Options) {
			o.Evict = seen
			o.Progress = func(float32) bool {
				seen[syscall.Gettid()] = true
				return true
			}
		})
		require.Len(t, seen, 1, "the load")
		_, f := answer(t, e, infer.Request{Prompt: "hello", MaxTokens: 300, IgnoreEOS: true})
		require.Positive(t, f.Usage.Evicted)
		require.Len(t, seen, 1, "the load and the steps")
		require.NoError(t, e.Close())
	}
}
