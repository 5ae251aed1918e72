package engine_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// TestR7ParkedWindow: a deterministic answer of a model with a window that was parked, before the
// prompt has left the window and after it, has the numbers of one that was not.
func TestR7ParkedWindow(t *testing.T) {
	path := storetest.Model(t, "gemma3:270m")
	for _, small := range []bool{false, true} {
		for _, n := range []int{100, 507, 800} {
			t.Run(fmt.Sprintf("small=%t tokens=%d", small, n), func(t *testing.T) {
				e, err := engine.Open(t.Context(), engine.Options{
					Paths: []string{path}, ContextTokens: 1024, SmallWindow: small, RAM: 1 << 28,
					Threads: 2, // the processor's attention divides more than 512 cells among threads
				})
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, e.Close()) })
				r := deterministic(someTokens(uint64(n), n), 16)
				want, _, _ := steps(t, e, r)
				var got []infer.Logprob
				parked := 0
				for c, err := range e.Generate(t.Context(), r) {
					require.NoError(t, err)
					if got = append(got, c.Logprobs...); len(got) == 5 {
						answer(t, e, infer.Request{Prompt: "Urgent", MaxTokens: 2, Priority: 1})
					}
					if c.Final != nil {
						parked = c.Final.Usage.Parked
					}
				}
				require.Equal(t, 1, parked)
				require.Equal(t, want, got)
			})
		}
	}
}
