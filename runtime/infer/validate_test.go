package infer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/infer"
)

func user(text string) []infer.Message {
	return []infer.Message{{Role: infer.RoleUser, Content: text}}
}

// TestBounds sets one field at a time to its bound, which is accepted, and one past it.
func TestBounds(t *testing.T) {
	t.Parallel()
	type R = infer.Request
	for _, c := range []struct {
		field string
		set   func(r *R, n int)
		max   int
	}{
		{"max_tokens", func(r *R, n int) { r.MaxTokens = n }, infer.TokensMax},
		{
			"stop", func(r *R, n int) { r.Stop = strings.Split(strings.Repeat("x,", n-1)+"x", ",") },
			infer.StopsMax,
		},
		{"stop", func(r *R, n int) { r.Stop = []string{strings.Repeat("x", n)} }, infer.StopBytesMax},
		{
			"top_logprobs", func(r *R, n int) { r.Logprobs, r.TopLogprobs = true, n },
			infer.TopLogprobsMax,
		},
		{"priority", func(r *R, n int) { r.Priority = n }, infer.PriorityMax},
		{"priority", func(r *R, n int) { r.Priority = -n }, infer.PriorityMax},
		{"prompt", func(r *R, n int) { r.Prompt = strings.Repeat("x", n) }, infer.PromptBytesMax},
		{"messages", func(r *R, n int) {
			r.Prompt, r.Messages = "", nil
			for range n {
				r.Messages = append(r.Messages, user("x")...)
			}
		}, infer.MessagesMax},
		{"tools", func(r *R, n int) {
			r.Prompt, r.Messages, r.Tools = "", user("x"), make([]infer.Tool, n)
			for i := range r.Tools {
				r.Tools[i].Name = fmt.Sprint("f", i)
			}
		}, infer.ToolsMax},
		{
			"tokens", func(r *R, n int) { r.Prompt, r.Tokens = "", make([]infer.TokenID, n) },
			infer.TokensMax,
		},
		{
			"grammar", func(r *R, n int) { r.Constraint.Grammar = strings.Repeat("x", n) },
			infer.ConstraintBytesMax,
		},
		{"schema", func(r *R, n int) {
			r.Constraint.Schema = json.RawMessage(strings.Repeat(" ", n-2) + "{}")
		}, infer.ConstraintBytesMax},
		{"mirostat", func(r *R, n int) { r.Sampling.Mirostat = n }, 2},
		{
			"dry_sequence_breakers", func(r *R, n int) { r.Sampling.DRYBreakers = make([]string, n) },
			infer.DRYBreakersMax,
		},
		{"logit_bias", func(r *R, n int) {
			r.Sampling.LogitBias = map[infer.TokenID]float32{}
			for i := range n {
				r.Sampling.LogitBias[infer.TokenID(i)] = 1
			}
		}, infer.LogitBiasMax},
	} {
		t.Run(fmt.Sprint(c.field, c.max), func(t *testing.T) {
			t.Parallel()
			r := R{Prompt: "x"}
			c.set(&r, c.max)
			require.NoError(t, r.Validate())
			r = R{Prompt: "x"}
			c.set(&r, c.max+1)
			e, ok := errors.AsType[*infer.Error](r.Validate())
			require.True(t, ok)
			require.Equal(t, c.field, e.Field)
			require.Contains(t, []infer.Kind{infer.KindInvalid, infer.KindTooLong}, e.Kind)
		})
	}
}

// TestAdapters: a name comes once and is not empty, and a scale is a number within bounds.
func TestAdapters(t *testing.T) {
	t.Parallel()
	most := []infer.Adapter{
		{Name: "x", Scale: infer.AdapterScaleMax}, {Name: "y", Scale: -infer.AdapterScaleMax},
	}
	for i := range infer.AdaptersMax - len(most) {
		most = append(most, infer.Adapter{Name: fmt.Sprint(i)})
	}
	require.NoError(t, (&infer.Request{Prompt: "x", Adapters: most}).Validate())
	for _, bad := range [][]infer.Adapter{
		{{}},
		{{Name: "a"}, {Name: "b"}, {Name: "a", Scale: 2}},
		{{Name: "a", Scale: float32(math.NaN())}},
		{{Name: "a", Scale: float32(math.Inf(-1))}},
		{{Name: "a", Scale: infer.AdapterScaleMax + 1}},
		{{Name: "a", Scale: -infer.AdapterScaleMax - 1}},
		append(most, infer.Adapter{Name: "z"}),
	} {
		r := infer.Request{Prompt: "x", Adapters: bad}
		e, ok := errors.AsType[*infer.Error](r.Validate())
		require.True(t, ok, "%v", bad)
		require.Equal(t, infer.KindInvalid, e.Kind)
		require.Equal(t, "adapters", e.Field)
		require.NotEmpty(t, e.Hint)
	}
}

// TestE3SamplingNumbers puts every impossible number into every floating-point field.
func TestE3SamplingNumbers(t *testing.T) {
	t.Parallel()
	fields := 0
	v := reflect.ValueOf(infer.Sampling{})
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.Float32 {
			continue
		}
		fields++
		for _, x := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e30, -1e30} {
			s := infer.Sampling{}
			reflect.ValueOf(&s).Elem().Field(i).SetFloat(x)
			require.Equal(t, infer.KindInvalid, infer.KindOf(s.Validate()),
				"%s = %v", v.Type().Field(i).Name, x)
		}
	}
	require.Equal(t, 16, fields)
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.Int {
			continue
		}
		for _, x := range []int64{math.MinInt64, -2, math.MaxInt64} {
			s := infer.Sampling{}
			reflect.ValueOf(&s).Elem().Field(i).SetInt(x)
			require.Equal(t, infer.KindInvalid, infer.KindOf(s.Validate()),
				"%s = %v", v.Type().Field(i).Name, x)
		}
	}
	for _, bias := range []map[infer.TokenID]float32{
		{-1: 0}, {1: float32(math.NaN())}, {1: float32(math.Inf(1))},
	} {
		s := infer.Sampling{LogitBias: bias}
		require.Error(t, s.Validate())
	}
	ban := infer.Sampling{LogitBias: map[infer.TokenID]float32{1: float32(math.Inf(-1))}}
	require.NoError(t, ban.Validate())
	normal := infer.DefaultSampling()
	require.NoError(t, normal.Validate())
	require.False(t, normal.Greedy())
	require.True(t, infer.Sampling{}.Greedy())
}

func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	object := json.RawMessage(`{"type":"object"}`)
	for _, c := range []struct {
		name  string
		r     infer.Request
		field string
	}{
		{"nothing", infer.Request{}, "prompt"},
		{"two inputs", infer.Request{Prompt: "x", Messages: user("x")}, "prompt"},
		{"prompt bytes", infer.Request{Prompt: "\xff"}, "prompt"},
		{"message bytes", infer.Request{Messages: user("\xff")}, "messages[0].content"},
		{"role", infer.Request{Messages: []infer.Message{{Role: "boss"}}}, "messages[0].role"},
		{"empty stop", infer.Request{Prompt: "x", Stop: []string{""}}, "stop"},
		{"alternatives alone", infer.Request{Prompt: "x", TopLogprobs: 1}, "top_logprobs"},
		{"negative answer", infer.Request{Prompt: "x", MaxTokens: -1}, "max_tokens"},
		{
			"tools with a prompt",
			infer.Request{Prompt: "x", Tools: []infer.Tool{{Name: "f"}}},
			"tools",
		},
		{
			"nameless tool",
			infer.Request{Messages: user("x"), Tools: []infer.Tool{{}}},
			"tools[0].name",
		},
		{"tool parameters", infer.Request{Messages: user("x"), Tools: []infer.Tool{
			{Name: "f", Parameters: json.RawMessage("{")},
		}}, "tools[0].parameters"},
		{
			"required tool",
			infer.Request{Messages: user("x"), ToolChoice: infer.ToolRequired},
			"tool_choice",
		},
		{"tool choice", infer.Request{Messages: user("x"), ToolChoice: "maybe"}, "tool_choice"},
		{"two constraints", infer.Request{Prompt: "x", Constraint: infer.Constraint{
			Grammar: "root ::= \"x\"", Schema: object,
		}}, "grammar"},
		{"grammar with tools", infer.Request{
			Messages: user("x"), Tools: []infer.Tool{{Name: "f"}},
			Constraint: infer.Constraint{Grammar: "root ::= \"x\""},
		}, "grammar"},
		{"schema", infer.Request{Prompt: "x", Constraint: infer.Constraint{
			Schema: json.RawMessage("{"),
		}}, "schema"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e, ok := errors.AsType[*infer.Error](c.r.Validate())
			require.True(t, ok)
			require.Equal(t, infer.KindInvalid, e.Kind)
			require.Equal(t, c.field, e.Field)
		})
	}
	for _, r := range []infer.ScoreRequest{
		{},
		{Text: "\xff"},
		{Text: "x", Context: "\xff"},
		{Text: "x", TopLogprobs: -1},
		{Text: "x", TopLogprobs: infer.TopLogprobsMax + 1},
		{Text: strings.Repeat("x", infer.PromptBytesMax+1)},
	} {
		require.Error(t, r.Validate())
	}
	good := infer.ScoreRequest{Text: "x", TopLogprobs: infer.TopLogprobsMax}
	require.NoError(t, good.Validate())
}

func TestError(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	err := fmt.Errorf("wrapped: %w", &infer.Error{
		Op: "load", Kind: infer.KindModel, Field: "file", Hint: "try another", Err: cause,
	})
	require.ErrorIs(t, err, infer.KindModel)
	require.ErrorIs(t, err, cause)
	require.NotErrorIs(t, err, infer.KindBusy)
	require.Equal(t, infer.KindModel, infer.KindOf(err))
	require.Equal(t, "try another", infer.HintOf(err))
	require.Equal(t, "wrapped: load: invalid model: file: cause", err.Error())
	require.Equal(t, infer.Kind(""), infer.KindOf(nil))
	require.Equal(t, infer.KindBusy, infer.KindOf(infer.KindBusy))
	require.Equal(t, infer.KindInternal, infer.KindOf(context.Canceled))
	require.Empty(t, infer.HintOf(cause))
	require.NoError(t, errors.Unwrap(&infer.Error{Kind: infer.KindBusy}))
	require.ErrorIs(t, &infer.Error{Kind: infer.KindBusy}, infer.KindBusy)
}

func TestRates(t *testing.T) {
	t.Parallel()
	u := infer.Usage{
		PromptTokens: 100, CompletionTokens: 11, Cached: infer.Cached{Live: 40, RAM: 5, Disk: 5},
		Timings: infer.Timings{Prefill: time.Second, Decode: 2 * time.Second},
	}
	require.InDelta(t, 50, u.PrefillRate(), 1e-9)
	require.InDelta(t, 5, u.DecodeRate(), 1e-9)
	require.Zero(t, infer.Usage{}.PrefillRate())
	require.Zero(t, infer.Usage{CompletionTokens: 1, Timings: u.Timings}.DecodeRate())
	rapid.Check(t, func(t *rapid.T) {
		u := infer.Usage{
			PromptTokens:     rapid.IntRange(0, 1<<20).Draw(t, "prompt"),
			CompletionTokens: rapid.IntRange(0, 1<<20).Draw(t, "completion"),
			Cached:           infer.Cached{Live: rapid.IntRange(0, 1<<21).Draw(t, "live")},
			Timings: infer.Timings{
				Prefill: time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "prefill")),
				Decode:  time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "decode")),
			},
		}
		for _, rate := range []float64{u.PrefillRate(), u.DecodeRate()} {
			if math.IsNaN(rate) || math.IsInf(rate, 0) || rate < 0 {
				t.Fatalf("rate %v of %+v", rate, u)
			}
		}
	})
}

func TestSpeculate(t *testing.T) {
	t.Parallel()
	for value, ok := range map[infer.Speculation]bool{
		"": true, "off": true, "on": true, "adaptive": true, "On": false, "yes": false,
	} {
		r := infer.Request{Prompt: "x", Speculate: value}
		err := r.Validate()
		if ok {
			require.NoError(t, err)
			continue
		}
		e, is := errors.AsType[*infer.Error](err)
		require.True(t, is, "%q", value)
		require.Equal(t, infer.KindInvalid, e.Kind)
		require.Equal(t, "speculate", e.Field)
	}
}

// TestR4KVPolicy: what would share more or less than its words say is refused.
func TestR4KVPolicy(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", infer.ScopeBytesMax)
	for _, c := range []struct {
		kv    infer.KVPolicy
		field string // "" for one that is accepted
	}{
		{infer.KVPolicy{Scope: long, Salt: long, PublicTokens: infer.TokensMax}, ""},
		{infer.KVPolicy{Salt: "a", PublicSystem: true, ReuseChunks: infer.TokensMax}, ""},
		{infer.KVPolicy{Scope: long + "x"}, "kv.scope"},
		{infer.KVPolicy{Salt: long + "x"}, "kv.salt"},
		{infer.KVPolicy{Salt: "a", PublicTokens: -1}, "kv.public_tokens"},
		{infer.KVPolicy{Salt: "a", PublicTokens: infer.TokensMax + 1}, "kv.public_tokens"},
		{infer.KVPolicy{Salt: "a", PublicTokens: 1, PublicSystem: true}, "kv.public_tokens"},
		{infer.KVPolicy{PublicTokens: 1}, "kv.public_tokens"},
		{infer.KVPolicy{PublicSystem: true}, "kv.public_system"},
		{infer.KVPolicy{ReuseChunks: -1}, "kv.reuse_chunks"},
		{infer.KVPolicy{ReuseChunks: infer.TokensMax + 1}, "kv.reuse_chunks"},
		{infer.KVPolicy{ReuseChunks: 1, NoReuse: true}, "kv.reuse_chunks"},
	} {
		r := infer.Request{Messages: user("x"), KV: c.kv}
		err := r.Validate()
		if c.field == "" {
			require.NoError(t, err)
			continue
		}
		e, ok := errors.AsType[*infer.Error](err)
		require.True(t, ok, "%+v", c.kv)
		require.Equal(t, infer.KindInvalid, e.Kind)
		require.Equal(t, c.field, e.Field)
		require.NotEmpty(t, e.Hint)
	}
	r := infer.Request{Prompt: "x", KV: infer.KVPolicy{Salt: "a", PublicSystem: true}}
	e, ok := errors.AsType[*infer.Error](r.Validate())
	require.True(t, ok)
	require.Equal(t, "kv.public_system", e.Field)
}
