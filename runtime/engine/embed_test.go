package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// TestEmbedTogether: texts that are computed together get the vectors that each gets alone, for
// every pooling. Other shapes of the same matrices are rounded in another order, so the vectors are
// close, not equal; flash attention rounds its sums to half the bits.
func TestEmbedTogether(t *testing.T) {
	texts := make([]string, 0, 23)
	for i := range cap(texts) {
		texts = append(texts, strings.Repeat(fmt.Sprint("text ", i, " "), 1+i*5%9))
	}
	for i := range uint32(8) {
		pooling, flash := i/2, i%2 == 1
		delta := 1e-4
		if flash {
			delta = 1e-3
		}
		f := gguftest.TinyEncoder(1).With(gguftest.KV{Key: "bert.pooling_type", Value: pooling})
		one := openFile(t, f, func(o *engine.Options) { o.ContextTokens, o.NoFlash = 0, !flash })
		want := make([][]float32, len(texts))
		for i, text := range texts {
			v, err := one.Embed(t.Context(), []string{text})
			require.NoError(t, err)
			want[i] = v[0]
		}
		for _, sequences := range []int{1, 2, 3, 7, 64, 100} {
			e := openFile(t, f, func(o *engine.Options) {
				o.ContextTokens, o.Sequences, o.NoFlash = 0, sequences, !flash
			})
			got, err := e.Embed(t.Context(), texts)
			require.NoError(t, err)
			require.Len(t, got, len(texts))
			for i := range got {
				require.InDeltaSlice(t, want[i], got[i], delta, "%d of %d sequences", i, sequences)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err = e.Embed(ctx, texts)
			require.Equal(t, infer.KindCanceled, infer.KindOf(err))
		}
	}
}
