package engine_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// TestR4PublicTokens: of two equal prompts under two salts exactly the public prefix is shared: in
// cells, from memory, and after a restart from disk.
func TestR4PublicTokens(t *testing.T) {
	for _, shared := range []bool{false, true} {
		for _, public := range []int{1, 33, 64, 119} {
			o := engine.Options{
				Paths:    []string{writeModel(t, gguftest.TinyModel(1))},
				CacheDir: t.TempDir() + "/cache", Sequences: 1, Shared: shared, RAM: 1 << 20,
			}
			e := start(t, o)
			prompt := func(seed uint64, k infer.KVPolicy) (string, infer.Cached) {
				text, f := answer(t, e, infer.Request{
					Tokens: someTokens(seed, 120), MaxTokens: 3, IgnoreEOS: true, KV: k,
				})
				return text, f.Usage.Cached
			}
			tenant := func(salt string) infer.KVPolicy {
				return infer.KVPolicy{Salt: salt, PublicTokens: public}
			}
			cold, c := prompt(1, tenant("a"))
			require.Zero(t, c)
			warm, c := prompt(1, tenant("b"))
			require.Equal(t, infer.Cached{Live: public}, c)
			closeTexts(t, shared, cold, warm)
			_, c = prompt(1, infer.KVPolicy{Salt: "c"})
			require.Zero(t, c, "it declares nothing as public")
			prompt(2, infer.KVPolicy{Scope: "other"}) // the one sequence is another's now
			warm, c = prompt(1, tenant("d"))
			require.Equal(t, infer.Cached{RAM: public}, c)
			closeTexts(t, shared, cold, warm)
			_, c = prompt(1, tenant("a"))
			require.Equal(t, 119, c.Live+c.RAM, "its own is not lost")
			require.NoError(t, e.Close())

			e = start(t, o)
			warm, c = prompt(1, tenant("e"))
			require.Equal(t, infer.Cached{Disk: public}, c)
			closeTexts(t, shared, cold, warm)
			_, c = prompt(1, tenant("a"))
			require.Equal(t, 119, c.Live+c.RAM+c.Disk)
			require.NoError(t, e.Close())
		}
	}
}

// closeTexts compares answers that do not depend on where cells lie; in a shared buffer they may.
func closeTexts(t *testing.T, shared bool, want, got string) {
	t.Helper()
	if !shared {
		require.Equal(t, want, got)
	}
}

// TestR4PublicNeverMore: whatever tenants ask, with whatever public prefixes, nobody is served a
// token that lies behind what both it and another tenant declared as public.
func TestR4PublicNeverMore(t *testing.T) {
	for _, shared := range []bool{false, true} {
		e := start(t, engine.Options{Sequences: 3, Shared: shared, RAM: 1 << 20})
		r := rand.New(rand.NewPCG(7, 11))
		var asked []infer.Request
		reused := 0
		for range 150 {
			q := infer.Request{MaxTokens: 1, IgnoreEOS: true}
			q.Tokens = append(someTokens(1, 20+r.IntN(80)), someTokens(uint64(r.IntN(3)), 20)...)
			q.KV.Salt = []string{"", "a", "b", "c"}[r.IntN(4)]
			if q.KV.Salt != "" {
				q.KV.PublicTokens = r.IntN(min(60, len(q.Tokens)))
			}
			_, f := answer(t, e, q)
			most := 0
			for _, other := range asked {
				most = max(most, mayShare(q, other))
			}
			c := f.Usage.Cached
			require.LessOrEqual(t, c.Live+c.RAM, most, "%+v", q.KV)
			if reused += c.Live + c.RAM; q.KV.Salt == "" {
				q.KV.PublicTokens = 1 << 20
			}
			asked = append(asked, q)
		}
		require.Greater(t, reused, 1000)
	}
}

// mayShare is how much of a prompt another one's may serve.
func mayShare(a, b infer.Request) int {
	same := 0
	for same < min(len(a.Tokens)-1, len(b.Tokens)) && a.Tokens[same] == b.Tokens[same] {
		same++
	}
	switch {
	case a.KV.Salt == b.KV.Salt:
		return same
	case a.KV.Salt == "":
		return min(same, b.KV.PublicTokens)
	}
	return min(same, a.KV.PublicTokens, b.KV.PublicTokens)
}

// TestR4PublicSystem: the system prompt is public and the first word behind it is not, also where
// that begins like the text that the engine finds the border with.
func TestR4PublicSystem(t *testing.T) {
	const plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
	const system = "Answer in few words."
	e := openTiny(t, func(o *engine.Options) {
		o.Template, o.Sequences, o.RAM = plain, 2, 1<<20
	})
	ask := func(salt, text string, k infer.KVPolicy) infer.Cached {
		k.Salt = salt
		_, f := answer(t, e, infer.Request{
			Messages: []infer.Message{
				{Role: infer.RoleSystem, Content: system}, {Role: infer.RoleUser, Content: text},
			},
			MaxTokens: 1, IgnoreEOS: true, KV: k,
		})
		return f.Usage.Cached
	}
	public := infer.KVPolicy{PublicSystem: true}
	want := 1 + len("system: "+system+"\nuser: ") // BOS and a token for each character
	for i, text := range []string{"?", "? and !", "!", "!?", "Why?", "."} {
		salts := []string{string(rune('a' + i)), string(rune('A' + i))}
		first := ask(salts[0], text, public)
		require.LessOrEqual(t, first.Live+first.RAM, want, text)
		second := ask(salts[1], text, public)
		require.Equal(t, want, second.Live+second.RAM, text)
		require.Zero(t, ask(salts[1]+"x", text, infer.KVPolicy{}), text)
	}

	t.Run("a conversation without one has nothing public", func(t *testing.T) {
		for _, salt := range []string{"p", "q"} {
			_, f := answer(t, e, infer.Request{
				Messages:  []infer.Message{{Role: infer.RoleUser, Content: "the same words"}},
				MaxTokens: 1, IgnoreEOS: true, KV: infer.KVPolicy{Salt: salt, PublicSystem: true},
			})
			require.Zero(t, f.Usage.Cached)
		}
	})
}

// TestPublicRefused: a length beyond the prompt is the caller's mistake, not a longer secret.
func TestPublicRefused(t *testing.T) {
	e := openTiny(t, nil)
	r := infer.Request{Tokens: someTokens(1, 50), MaxTokens: 1, IgnoreEOS: true}
	r.KV = infer.KVPolicy{Salt: "a", PublicTokens: 50}
	answer(t, e, r)
	r.KV.PublicTokens = 51
	_, _, err := collect(t.Context(), e, r)
	require.ErrorContains(t, err, "kv.public_tokens: 51 of 50 tokens")
	require.Equal(t, infer.KindInvalid, infer.KindOf(err))
	require.NotEmpty(t, infer.HintOf(err))
}

// TestR4PublicWindow: a model with a sliding window shares a public prefix from disk, too: a
// checkpoint is taken where it ends.
func TestR4PublicWindow(t *testing.T) {
	o := engine.Options{
		Paths: []string{writeModel(t, tinyWindowModel())}, CacheDir: t.TempDir() + "/cache",
	}
	r := infer.Request{Tokens: someTokens(1, 150), MaxTokens: 2, IgnoreEOS: true}
	r.KV = infer.KVPolicy{Salt: "a", PublicTokens: 100}
	e := start(t, o)
	answer(t, e, r)
	require.NoError(t, e.Close())
	e = start(t, o)
	r.KV.Salt, r.Tokens = "b", slices.Concat(r.Tokens[:100], someTokens(2, 30))
	_, f := answer(t, e, r)
	c := f.Usage.Cached
	require.Equal(t, 100, c.Live+c.RAM+c.Disk, "%+v", c)
}
