package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// writeLora writes an adapter of rank 1 over one tensor of TinyModel, of 32 x 32 values.
func writeLora(t testing.TB, path, tensor string, value float32) {
	t.Helper()
	line := func(name string, dims ...uint64) gguftest.Tensor {
		f := gguftest.F32(name, dims...)
		f.Data = nil
		for i := range f.Size / 4 {
			v := math.Float32bits(value * float32(i%7-3))
			f.Data = binary.LittleEndian.AppendUint32(f.Data, v)
		}
		return f
	}
	f := gguftest.File{
		KVs: []gguftest.KV{
			{Key: "general.architecture", Value: "llama"},
			{Key: "general.type", Value: "adapter"},
			{Key: "adapter.type", Value: "lora"},
			{Key: "adapter.lora.alpha", Value: float32(1)},
		},
		Tensors: []gguftest.Tensor{line(tensor+".lora_a", 32, 1), line(tensor+".lora_b", 1, 32)},
	}
	require.NoError(t, os.WriteFile(path, f.Bytes(), 0o600))
}

// loras are adapters that all change what TinyModel says.
func loras(t testing.TB) map[string]engine.Lora {
	t.Helper()
	out, dir := map[string]engine.Lora{}, t.TempDir()
	for name, tensor := range map[string]string{
		"query": "blk.0.attn_q.weight", "output": "blk.1.attn_output.weight",
	} {
		out[name] = engine.Lora{Path: filepath.Join(dir, name+".gguf")}
		writeLora(t, out[name].Path, tensor, 0.4)
	}
	return out
}

// adapterSets differ in names or scales.
func adapterSets() [][]infer.Adapter {
	return [][]infer.Adapter{
		nil,
		{{Name: "query"}},
		{{Name: "output"}},
		{{Name: "query", Scale: -2}},
		{{Name: "output"}, {Name: "query", Scale: 0.5}},
	}
}

// TestAdapters: requests with different adapters that run at once each get the tokens that they get
// alone, and a set is switched to no more often than its group has a turn.
func TestAdapters(t *testing.T) {
	for name, shared := range map[string]bool{"streams": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			o := engine.Options{
				Paths: []string{writeModel(t, gguftest.TinyModel(1))}, Adapters: loras(t),
				Sequences: 6, Shared: shared,
			}
			var requests []infer.Request
			var alone []string
			for i, set := range append(adapterSets(), adapterSets()[1]) {
				r := infer.Request{
					Prompt:    fmt.Sprint("request ", i/len(adapterSets())),
					MaxTokens: 25, IgnoreEOS: true, Adapters: set,
				}
				e := start(t, o)
				require.Equal(t, []string{"output", "query"}, e.Info().Adapters)
				text, _ := answer(t, e, r)
				require.NotContains(t, alone, text, "each set changes the answer")
				requests, alone = append(requests, r), append(alone, text)
			}
			e := start(t, o)
			texts, _ := together(t, e, requests)
			for i, text := range texts {
				if shared { // rounding differs
					require.Equal(t, alone[i][:3], text[:3], "request %d", i)
				} else {
					require.Equal(t, alone[i], text, "request %d", i)
				}
			}
			s := stats(t, e).Totals
			require.Positive(t, s.Switched)
			require.LessOrEqual(t, s.Switched, s.Steps)
		})
	}
}

// TestAdapterTurns: every group has one step in each round, its members share it, and adapters are
// switched only where the set changes.
func TestAdapterTurns(t *testing.T) {
	e := start(t, engine.Options{Adapters: loras(t), Sequences: 5})
	r := infer.Request{Prompt: "x", MaxTokens: 20, IgnoreEOS: true}
	with := func(set []infer.Adapter, deterministic bool) infer.Request {
		r := r
		r.Prompt += fmt.Sprint(len(set))
		r.Adapters, r.KV.Deterministic = set, deterministic
		r.KV.NoReuse = true
		return r
	}
	query, other := adapterSets()[1], adapterSets()[2]
	turns := e.Turns(t, with(nil, false), with(query, false), with(query, true), with(query, false),
		with(other, false))
	groups := [][]int{{0}, {1, 3}, {2}, {4}}
	require.GreaterOrEqual(t, len(turns), 20*len(groups))
	for i, step := range turns[:20*len(groups)] {
		require.Equal(t, groups[i%len(groups)], step, "step %d", i)
	}
	// Each round ends with other adapters, begins with none, and has the same ones in between.
	require.EqualValues(t, 3*20-1, stats(t, e).Totals.Switched)

	before := stats(t, e).Totals.Switched
	e.Turns(t, with(query, false), with(query, false), with(query, true))
	require.EqualValues(t, 2, stats(t, e).Totals.Switched-before, "back from other, and to query")
}

// TestAdapterPrefixes: a prefix is used again within a set of adapters only, wherever it lies.
func TestAdapterPrefixes(t *testing.T) {
	ask := func(e *engine.Engine, set []infer.Adapter) (string, infer.Cached) {
		text, f := answer(t, e, infer.Request{
			Prompt: strings.Repeat("the same prompt ", 6), MaxTokens: 8, IgnoreEOS: true, Adapters: set,
		})
		return text, f.Usage.Cached
	}
	sets, most := adapterSets(), 6*len("the same prompt ")
	for place, o := range map[string]engine.Options{
		"live": {Sequences: 5}, "ram": {Sequences: 1, RAM: 1 << 20},
		"disk": {Sequences: 1, CacheDir: filepath.Join(t.TempDir(), "cache")},
	} {
		t.Run(place, func(t *testing.T) {
			o.Paths = []string{writeModel(t, gguftest.TinyModel(1))}
			o.Adapters = loras(t)
			e := start(t, o)
			var texts []string
			for _, set := range sets {
				text, cached := ask(e, set)
				require.Zero(t, cached, "%v", set)
				texts = append(texts, text)
			}
			if place == "disk" {
				require.NoError(t, e.Close())
				e = start(t, o)
			}
			for i, set := range sets {
				slices.Reverse(set) // the order of names says nothing
				text, cached := ask(e, set)
				require.Equal(t, texts[i], text, "%v", set)
				require.GreaterOrEqual(t, cached.Live+cached.RAM+cached.Disk, most-1, "%v", set)
				switch place {
				case "ram":
					require.Positive(t, cached.RAM)
				case "disk":
					require.Positive(t, cached.Disk)
				}
			}
			if place != "disk" {
				return
			}
			require.NoError(t, e.Close())
			writeLora(t, o.Adapters["query"].Path, "blk.1.attn_q.weight", 0.25)
			_, cached := ask(start(t, o), sets[1])
			require.Zero(t, cached, "another adapter has come in its place")
		})
	}
}

// TestAdapterParked: a request with adapters that was parked for one without goes on as if nothing
// had been, and one that is canceled leaves nothing behind.
func TestAdapterParked(t *testing.T) {
	e := start(t, engine.Options{Adapters: loras(t), RAM: 1 << 20})
	r := endless()
	r.Adapters = adapterSets()[1]
	want, _ := answer(t, e, r)
	urgent := infer.Request{Prompt: "Hello", MaxTokens: 9, IgnoreEOS: true, Priority: 1}
	plain, _ := answer(t, e, urgent)
	r.KV.NoReuse, urgent.KV.NoReuse = true, true
	text, final := "", &infer.Final{}
	for c, err := range e.Generate(t.Context(), r) {
		require.NoError(t, err)
		if text == "" {
			got, _ := answer(t, e, urgent)
			require.Equal(t, plain, got)
		}
		if text += c.Text; c.Final != nil {
			final = c.Final
		}
	}
	require.Positive(t, final.Usage.Parked)
	require.Equal(t, want, text)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range e.Generate(ctx, r) {
		if cancel(); err != nil {
			require.Equal(t, infer.KindCanceled, infer.KindOf(err))
		}
	}
	got, _ := answer(t, e, urgent)
	require.Equal(t, plain, got)
	busy, promised, problem := e.Books()
	require.NoError(t, problem)
	require.Zero(t, busy+promised)
}

// TestAdaptersOnTop: those of a request come on top of those of every request, and Score has the
// latter only.
func TestAdaptersOnTop(t *testing.T) {
	all := loras(t)
	path := writeModel(t, gguftest.TinyModel(1))
	always := start(t, engine.Options{
		Paths: []string{path}, Loras: []engine.Lora{all["output"]}, Adapters: all,
	})
	asked := start(t, engine.Options{Paths: []string{path}, Adapters: all})
	r := infer.Request{Prompt: "hello", MaxTokens: 25, IgnoreEOS: true}
	r.Adapters = []infer.Adapter{{Name: "query"}}
	got, _ := answer(t, always, r)
	r.Adapters = append(r.Adapters, infer.Adapter{Name: "output"})
	want, _ := answer(t, asked, r)
	require.Equal(t, want, got)

	score := func(e *engine.Engine) float64 {
		s, err := e.Score(t.Context(), infer.ScoreRequest{Text: "some words"})
		require.NoError(t, err)
		return s.Sum
	}
	fresh := start(t, engine.Options{Paths: []string{path}, Loras: []engine.Lora{all["output"]}})
	plain := start(t, engine.Options{Paths: []string{path}})
	require.InDelta(t, score(fresh), score(always), 0)
	require.InDelta(t, score(plain), score(asked), 0)
	require.NotEqual(t, score(plain), score(fresh))
}

// TestAdapterScales: a scale that a request leaves out is that of the options, and 1 without one.
func TestAdapterScales(t *testing.T) {
	all := loras(t)
	path := writeModel(t, gguftest.TinyModel(1))
	say := func(scale, asked float32) string {
		e := start(t, engine.Options{
			Paths:    []string{path},
			Adapters: map[string]engine.Lora{"a": {Path: all["query"].Path, Scale: scale}},
		})
		text, _ := answer(t, e, infer.Request{
			Prompt: "hello", MaxTokens: 25, IgnoreEOS: true,
			Adapters: []infer.Adapter{{Name: "a", Scale: asked}},
		})
		return text
	}
	require.Equal(t, say(0, 1), say(0, 0))
	require.Equal(t, say(0, -2), say(-2, 0))
	require.Equal(t, say(0, -2), say(3, -2))
	require.NotEqual(t, say(0, 1), say(0, -2))
}

func TestAdapterRefusals(t *testing.T) {
	all := loras(t)
	nan := float32(math.NaN())
	for name, asked := range map[string][]infer.Adapter{
		"unknown": {{Name: "other"}}, "unknown one of two": {{Name: "query"}, {Name: "other"}},
		"no name": {{}}, "twice": {{Name: "query"}, {Name: "query", Scale: 2}},
		"not a number": {{Name: "query", Scale: nan}},
	} {
		_, _, err := collect(t.Context(), start(t, engine.Options{Adapters: all}),
			infer.Request{Prompt: "x", Adapters: asked})
		bad, ok := errors.AsType[*infer.Error](err)
		require.True(t, ok, name)
		assert.Equal(t, infer.KindInvalid, bad.Kind, name)
		assert.Equal(t, "adapters", bad.Field, name)
		if strings.HasPrefix(name, "unknown") {
			assert.Contains(t, bad.Hint, "[output query]")
		}
	}
	_, _, err := collect(t.Context(), start(t, engine.Options{}),
		infer.Request{Prompt: "x", Adapters: []infer.Adapter{{Name: "query"}}})
	require.Equal(t, infer.KindInvalid, infer.KindOf(err))
	require.Contains(t, infer.HintOf(err), "open the engine with adapters")

	model := writeModel(t, gguftest.TinyModel(1))
	many := map[string]engine.Lora{}
	for i := range engine.LorasMax {
		many[fmt.Sprint(i)] = all["query"]
	}
	for name, o := range map[string]engine.Options{
		"no name":      {Adapters: map[string]engine.Lora{"": all["query"]}},
		"not a number": {Adapters: map[string]engine.Lora{"a": {Path: all["query"].Path, Scale: nan}}},
		"too strong":   {Adapters: map[string]engine.Lora{"a": {Path: all["query"].Path, Scale: 1e9}}},
		"too many":     {Adapters: many, Loras: []engine.Lora{all["query"]}},
		"no adapter":   {Adapters: map[string]engine.Lora{"a": {Path: model}}},
		"no file":      {Adapters: map[string]engine.Lora{"a": {Path: model + "x"}}},
	} {
		o.Paths = []string{model}
		_, err := engine.Open(t.Context(), o)
		bad, ok := errors.AsType[*infer.Error](err)
		require.True(t, ok, name)
		assert.Contains(t, []infer.Kind{infer.KindInvalid, infer.KindModel}, bad.Kind, name)
		assert.True(t, strings.HasPrefix(bad.Field, "adapter"), "%s: %s", name, bad.Field)
		assert.NotEmpty(t, bad.Hint, name)
	}
}

// TestDeterministicPace: steps of deterministic prompts say nothing of steps of answers.
func TestDeterministicPace(t *testing.T) {
	e := start(t, engine.Options{MicroBatch: 64})
	answer(t, e, infer.Request{
		Tokens: someTokens(1, 200), MaxTokens: 1, IgnoreEOS: true,
		KV: infer.KVPolicy{Deterministic: true},
	})
	require.Zero(t, e.DecodePace(t))
	answer(t, e, infer.Request{Prompt: "x", MaxTokens: 3, IgnoreEOS: true})
	require.Positive(t, e.DecodePace(t))
}
