package engine_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store/storetest"
)

// windowRestarts runs a test on window models for each way in which their cells can lie, with a
// cache directory.
func windowRestarts(t *testing.T, run func(*testing.T, engine.Options)) {
	tiny := writeModel(t, tinyWindowModel())
	for _, small := range []bool{false, true} {
		for _, shared := range []bool{false, true} {
			o := engine.Options{
				Paths: []string{tiny}, ContextTokens: 512, MicroBatch: 64, Sequences: 2,
				SmallWindow: small, Shared: shared,
			}
			t.Run(fmt.Sprintf("tiny small=%t shared=%t", small, shared), func(t *testing.T) {
				o.CacheDir = t.TempDir() + "/cache"
				run(t, o)
			})
		}
		t.Run(fmt.Sprintf("gemma small=%t", small), func(t *testing.T) {
			run(t, engine.Options{
				Paths: []string{storetest.Model(t, "gemma3:270m")}, ContextTokens: 1024,
				SmallWindow: small, CacheDir: t.TempDir() + "/cache",
			})
		})
	}
}

// texts gives pieces of text in tokens, each call another one: to a real model language, since on
// drawn tokens its rounding alone moves a log-probability by 0.7 and more.
func texts(t *testing.T, o engine.Options) func(n int) []infer.TokenID {
	if o.MicroBatch > 0 { // the tiny model
		seed := uint64(0)
		return func(n int) []infer.TokenID {
			seed++
			return someTokens(seed, n)
		}
	}
	prose, err := os.ReadFile("../../docs/adr/0003-the-pin.md")
	require.NoError(t, err)
	e := start(t, o)
	tokens, err := e.Tokenize(t.Context(), string(prose), infer.TokenizeOptions{})
	require.NoError(t, err)
	require.NoError(t, e.Close())
	return func(n int) (out []infer.TokenID) {
		for _, token := range tokens[:n] {
			out = append(out, token.ID)
		}
		tokens = tokens[n:]
		return out
	}
}

// rounding is how far log-probabilities may be apart that were computed in chunks of other lengths:
// quantised weights make one flipped bit a difference of 0.1 and more, missing cells one of 2 and
// more.
func rounding(o engine.Options) float64 {
	if o.MicroBatch > 0 { // the tiny model
		return 0.02
	}
	return 0.7
}

// TestWindowRestart: after a restart, of a prompt that an earlier process knew only what is new is
// computed, and the token whose logits are wanted: of the same prompt, shorter and longer than the
// window, of the next turn of a talk, and of that once more. The answers are those of a cold run.
func TestWindowRestart(t *testing.T) {
	windowRestarts(t, func(t *testing.T, o engine.Options) {
		long := 150
		if o.ContextTokens > 512 {
			long = 600
		}
		text := texts(t, o)
		for _, n := range []int{40, long} {
			ask := func(tokens []infer.TokenID, computed int, what string) []infer.TokenID {
				e := start(t, o)
				r := infer.Request{Tokens: tokens, MaxTokens: 6}
				warm, u, _ := steps(t, e, r)
				require.LessOrEqual(t, u.Computed, computed, "%s: %+v", what, u)
				require.Equal(t, u.PromptTokens, u.Computed+u.Cached.Disk, "%s: %+v", what, u)
				r.KV.NoReuse = true
				cold, _, _ := steps(t, e, r)
				closeWithin(t, rounding(o), cold, warm, what)
				require.NoError(t, e.Close())
				return append(tokens[:len(tokens):len(tokens)], ids(warm)...)
			}
			prompt := text(n)
			talk := ask(prompt, n, "first")
			ask(prompt, 1, "the same prompt")
			next := slices.Concat(talk, text(20))
			ask(next, 21, "the next turn")
			ask(next, 1, "the next turn again")
			ask(prompt, 1, "the same prompt again")
		}
	})
}

// TestWindowRestartBranch: after a restart, a prompt that leaves an earlier one in its middle goes
// on from the last checkpoint before that place.
func TestWindowRestartBranch(t *testing.T) {
	windowRestarts(t, func(t *testing.T, o engine.Options) {
		every, n := 256, 400
		if o.MicroBatch == 0 {
			every, n = 512, 700
		}
		text := texts(t, o)
		base := text(n)
		e := start(t, o)
		_, _, _ = steps(t, e, infer.Request{Tokens: base, MaxTokens: 2})
		for _, cut := range []int{every - 1, every, n - 40} {
			require.NoError(t, e.Close())
			e = start(t, o)
			r := infer.Request{
				Tokens: append(base[:cut:cut], text(5)...), MaxTokens: 3,
			}
			warm, u, _ := steps(t, e, r)
			require.Equal(t, cut/every*every, u.Cached.Disk, "cut at %d: %+v", cut, u)
			require.Equal(t, u.PromptTokens, u.Computed+u.Cached.Disk, "cut at %d: %+v", cut, u)
			r.KV.NoReuse = true
			cold, _, _ := steps(t, e, r)
			closeWithin(t, rounding(o), cold, warm, "cut at %d", cut)
		}
		require.NoError(t, e.Close())
	})
}

// TestWindowRestartSystem: after a restart, a system prompt that conversations have in common is
// not computed again.
func TestWindowRestartSystem(t *testing.T) {
	windowRestarts(t, func(t *testing.T, o engine.Options) {
		o.Template = chatML
		system := long("You answer questions about boats.", 2)
		ask := func(question string, cached int) {
			e := start(t, o)
			r := infer.Request{MaxTokens: 3, Messages: []infer.Message{
				{Role: infer.RoleSystem, Content: system},
				{Role: infer.RoleUser, Content: question},
			}}
			tokens, err := e.Tokenize(t.Context(), system, infer.TokenizeOptions{})
			require.NoError(t, err)
			warm, u, _ := steps(t, e, r)
			require.GreaterOrEqual(t, u.Cached.Disk, cached*len(tokens), "%+v", u)
			require.Equal(t, u.PromptTokens, u.Computed+u.Cached.Disk, "%+v", u)
			r.KV.NoReuse = true
			cold, _, _ := steps(t, e, r)
			closeWithin(t, rounding(o), cold, warm)
			require.NoError(t, e.Close())
		}
		ask("Why does a keel help?", 0)
		ask("What is a mast?", 1)
	})
}

// TestCheckpointEvery: the checkpoints of the longest prompt take their share of the memory at
// most, and are no closer than a window.
func TestCheckpointEvery(t *testing.T) {
	for _, x := range []struct {
		tokens, window    int
		cellBytes, memory int64
		every             int
	}{
		{4096, 512, 1 << 14, 0, 0},
		{4096, 512, 1 << 14, 4<<23 - 1, 0},
		{4096, 512, 1 << 14, 4 << 23, 4096},
		{4096, 512, 1 << 14, 256 << 20, 512},
		{32768, 512, 1 << 14, 256 << 20, 4096},
		{32768, 512, 1 << 14, 1 << 40, 1024},
		{4096, 100, 1 << 14, 1 << 40, 256},
		{100, 1, 1, 1 << 20, 256},
	} {
		require.Equal(t, x.every, engine.CheckpointEvery(x.tokens, x.window, x.cellBytes, x.memory),
			"%+v", x)
	}
}
