package engine_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// Of Gemma as these tests run it.
const (
	gemmaWindow = 512
	gemmaMark   = 512 // length of a prompt at which its checkpoint is taken
)

// gemmaEngines runs a test with Gemma on a full cache, and on one of the window without memory for
// checkpoints and with it. The micro-batch makes the window's cells few.
func gemmaEngines(t *testing.T, run func(*testing.T, engine.Options)) {
	for _, x := range []struct {
		small bool
		ram   int64
	}{{false, 0}, {true, 0}, {true, 1 << 28}} {
		t.Run(fmt.Sprintf("small=%t ram=%d", x.small, x.ram), func(t *testing.T) {
			run(t, engine.Options{
				Paths: []string{storetest.Model(t, "gemma3:270m")}, ContextTokens: 1024, MicroBatch: 64,
				SmallWindow: x.small, RAM: x.ram,
			})
		})
	}
}

// reuses asks with what is there and cold. The first computes what it has not reused, and nothing
// else; both answers come from the same context.
func reuses(t *testing.T, e *engine.Engine, tokens []infer.TokenID, cached int, what string) {
	t.Helper()
	r := infer.Request{Tokens: tokens, MaxTokens: 6}
	warm, u, _ := steps(t, e, r)
	require.Equal(t, cached, u.Cached.Live+u.Cached.RAM+u.Cached.Disk, "%s: %+v", what, u)
	require.Equal(t, len(tokens)-cached, u.Computed, "%s: %+v", what, u)
	r.KV.NoReuse = true
	cold, _, _ := steps(t, e, r)
	closeWithin(t, rounding(engine.Options{}), cold, warm, what)
}

// TestGemmaBorder: the last place where the window still has all that a prompt sees, and the place
// one token before it: there it is computed again, from the checkpoint if there is one. A full
// cache answers every cut.
func TestGemmaBorder(t *testing.T) {
	gemmaEngines(t, func(t *testing.T, o engine.Options) {
		e := start(t, o)
		base := someTokens(1, 900)
		whole := infer.Request{Tokens: base, MaxTokens: 2, KV: infer.KVPolicy{NoReuse: true}}
		_, _, _ = steps(t, e, whole)
		first := e.PosMin(t)
		border, before := first+gemmaWindow, 0
		if o.SmallWindow {
			require.Positive(t, first)
			if o.RAM > 0 {
				before = gemmaMark
			}
		} else {
			require.Zero(t, first)
			border = gemmaWindow - 100
			before = border - 1
		}
		branch := func(cut int) []infer.TokenID {
			return append(base[:cut:cut], someTokens(2, 5)...)
		}
		reuses(t, e, branch(border), border, "at the border")
		_, _, _ = steps(t, e, whole)
		require.Equal(t, first, e.PosMin(t))
		reuses(t, e, branch(border-1), before, "before the border")
	})
}
