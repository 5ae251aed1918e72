package engine_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// openChat starts the tiny model with a template that ships with llama.cpp.
func openChat(t *testing.T, template string) *engine.Engine {
	t.Helper()
	text, err := llama.PinnedTemplate(template)
	require.NoError(t, err)
	return openTiny(t, func(o *engine.Options) { o.Template, o.ContextTokens = text, 2048 })
}

// told joins the chunks of an answer.
func told(t *testing.T, chunks []infer.Chunk) (infer.Message, *infer.Final) {
	t.Helper()
	m := infer.Message{Role: infer.RoleAssistant}
	for i, c := range chunks {
		m.Content += c.Text
		m.Reasoning += c.Reasoning
		for _, d := range c.ToolCalls {
			if d.Index == len(m.ToolCalls) {
				m.ToolCalls = append(m.ToolCalls, infer.ToolCall{ID: d.ID, Name: d.Name})
			}
			m.ToolCalls[d.Index].Arguments += d.Arguments
		}
		require.Equal(t, i == len(chunks)-1, c.Final != nil)
	}
	final := chunks[len(chunks)-1].Final
	tokens := 0
	for _, c := range chunks {
		tokens += c.Tokens
	}
	require.Equal(t, final.Usage.CompletionTokens, tokens)
	return m, final
}

var weather = infer.Tool{
	Name: "get_weather", Description: "The weather in a city.",
	Parameters: json.RawMessage(`{"type": "object", "required": ["city"],
		"additionalProperties": false,
		"properties": {"city": {"type": "string", "enum": ["Bern", "Oslo"]}}}`),
}

// required is a request whose answer is a call. A template may let the model speak before it, so
// the tag and the line break that begin a call are made likely, and the end where it is allowed.
func required(t *testing.T, e *engine.Engine) infer.Request {
	t.Helper()
	begin, err := e.Tokenize(t.Context(), "<tool_call>\n<|im_end|>",
		infer.TokenizeOptions{ParseSpecial: true})
	require.NoError(t, err)
	require.Len(t, begin, 3)
	return infer.Request{
		Messages: ask("How is it in Bern?"), Tools: []infer.Tool{weather}, MaxTokens: 200,
		ToolChoice: infer.ToolRequired,
		Sampling: infer.Sampling{
			LogitBias: map[infer.TokenID]float32{
				begin[0].ID: 100, begin[1].ID: 115, begin[2].ID: 120,
			},
			PresencePenalty: 100, PenaltyLastN: 4,
		},
	}
}

func ask(text string) []infer.Message {
	return []infer.Message{{Role: infer.RoleUser, Content: text}}
}

// TestTools: a required call comes from any model, as deltas and whole.
func TestTools(t *testing.T) {
	e := openChat(t, "Qwen-Qwen2.5-7B-Instruct")
	require.True(t, e.Info().Abilities.Tools)
	for i, change := range []func(*infer.Request){
		func(*infer.Request) {},
		func(r *infer.Request) { r.SpecialText = true },
		func(r *infer.Request) { r.Logprobs = true },
		func(r *infer.Request) { r.Sampling.Temperature, r.Sampling.Seed = 0.01, 5 },
		func(r *infer.Request) { r.Stop = []string{"never met"} },
	} {
		r := required(t, e)
		change(&r)
		_, chunks, err := collect(t.Context(), e, r)
		require.NoError(t, err)
		m, final := told(t, chunks)
		require.Equal(t, infer.FinishTools, final.Reason, "%d: %q", i, m)
		require.NotEmpty(t, final.Answer.ToolCalls)
		require.Equal(t, "get_weather", final.Answer.ToolCalls[0].Name)
		require.Regexp(t, `^\{\s*"city"\s*:\s*"(Bern|Oslo)"\s*\}$`,
			final.Answer.ToolCalls[0].Arguments)
		require.NotEmpty(t, final.Answer.ToolCalls[0].ID)
		require.Equal(t, m, final.Answer, "the deltas add up")
	}
}

// TestToolsCut: at every length, and at a stop text within the call, what was told is the answer.
func TestToolsCut(t *testing.T) {
	e := openChat(t, "Qwen-Qwen2.5-7B-Instruct")
	r := required(t, e)
	_, chunks, err := collect(t.Context(), e, r)
	require.NoError(t, err)
	_, whole := told(t, chunks)
	for n := 1; n < min(whole.Usage.CompletionTokens-1, 120); n += 5 {
		r.MaxTokens = n
		_, chunks, err := collect(t.Context(), e, r)
		require.NoError(t, err)
		m, final := told(t, chunks)
		require.Equal(t, infer.FinishLength, final.Reason)
		require.Equal(t, m, final.Answer, "cut after %d tokens", n)
	}
	r.MaxTokens, r.Stop = 0, []string{`"city"`}
	_, chunks, err = collect(t.Context(), e, r)
	require.NoError(t, err)
	m, final := told(t, chunks)
	require.Equal(t, infer.FinishStop, final.Reason)
	require.Equal(t, `"city"`, final.Stop)
	require.Equal(t, m, final.Answer)
}

// TestToolsFree: what a model says between or instead of calls, however it looks, is told as it
// is answered.
func TestToolsFree(t *testing.T) {
	for _, template := range []string{"Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B"} {
		e := openChat(t, template)
		for seed := range uint32(25) {
			r := infer.Request{
				Messages: ask("hi"), Tools: []infer.Tool{weather}, MaxTokens: 60,
				Sampling: infer.Sampling{Temperature: 1.5, Seed: seed + 1},
			}
			if seed%2 == 0 { // make tags likely
				r.Sampling.LogitBias = map[infer.TokenID]float32{}
				for id := range infer.TokenID(4) {
					r.Sampling.LogitBias[infer.TokenID(e.Info().Vocabulary)-1-id] = 6
				}
			}
			_, chunks, err := collect(t.Context(), e, r)
			require.NoError(t, err, "seed %d", seed)
			m, final := told(t, chunks)
			require.Equal(t, m, final.Answer, "%s, seed %d", template, seed)
		}
	}
}

// TestToolsAndSchema: a schema is kept to, or refused; never forgotten.
func TestToolsAndSchema(t *testing.T) {
	for _, template := range []string{"Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B"} {
		e := openChat(t, template)
		r := infer.Request{
			Messages: ask("hi"), MaxTokens: 200, NoReasoning: true,
			Constraint: infer.Constraint{Schema: json.RawMessage(`{"enum": ["red", "green"]}`)},
			Sampling:   infer.Sampling{Temperature: 1.5, Seed: 3},
		}
		_, chunks, err := collect(t.Context(), e, r)
		require.NoError(t, err)
		_, final := told(t, chunks)
		require.Regexp(t, `^"(red|green)"\s*$`, final.Answer.Content, template)
		r.Tools = []infer.Tool{weather}
		_, chunks, err = collect(t.Context(), e, r)
		if err == nil {
			_, final = told(t, chunks)
			if len(final.Answer.ToolCalls) == 0 {
				require.Regexp(t, `^"(red|green)"\s*$`, final.Answer.Content, template)
			}
		} else {
			require.Equal(t, infer.KindInvalid, infer.KindOf(err), "%v", err)
		}
		r.Constraint = infer.Constraint{Grammar: `root ::= "x"`}
		_, _, err = collect(t.Context(), e, r)
		require.Equal(t, infer.KindInvalid, infer.KindOf(err), "a grammar replaces the tools' own")
		r.ToolChoice = infer.ToolNone
		_, chunks, err = collect(t.Context(), e, r)
		require.NoError(t, err)
		_, final = told(t, chunks)
		require.Equal(t, "x", final.Answer.Content+final.Answer.Reasoning)
	}
}

// TestReasoning: what the model says before its closing tag is reasoning, after it content.
func TestReasoning(t *testing.T) {
	e := openChat(t, "Qwen-Qwen3-0.6B")
	require.True(t, e.Info().Abilities.Reasoning)
	r := infer.Request{
		Messages:   ask("hi"),
		Constraint: infer.Constraint{Grammar: `root ::= "<think>\nhm, a < b\n</think>\n\nyes"`},
	}
	_, chunks, err := collect(t.Context(), e, r)
	require.NoError(t, err)
	m, final := told(t, chunks)
	require.Equal(t, "hm, a < b", strings.TrimSpace(final.Answer.Reasoning))
	require.Equal(t, "yes", final.Answer.Content)
	require.Equal(t, m, final.Answer)
	for n := 1; n < final.Usage.CompletionTokens; n++ {
		r.MaxTokens = n
		_, chunks, err := collect(t.Context(), e, r)
		require.NoError(t, err)
		m, final := told(t, chunks)
		require.Equal(t, m, final.Answer, "cut after %d tokens", n)
	}
}

// TestParserPace: a long answer is parsed less often than a token comes, at most parseShare times
// for each doubling or so, and still told as it grows.
func TestParserPace(t *testing.T) {
	e := openChat(t, "Qwen-Qwen3-0.6B")
	r := infer.Request{
		Messages: ask("hi"), Constraint: infer.Constraint{Grammar: "root ::= [a-y]{1500} \"z\""},
	}
	_, chunks, err := collect(t.Context(), e, r)
	require.NoError(t, err)
	m, final := told(t, chunks)
	require.Equal(t, m, final.Answer)
	require.Len(t, final.Answer.Content+final.Answer.Reasoning, 1501)
	require.Less(t, len(chunks), 900)
	for _, c := range chunks {
		require.LessOrEqual(t, c.Tokens, 1+1501/256)
	}
}
