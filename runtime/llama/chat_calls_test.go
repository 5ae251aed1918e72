//go:build cgo

package llama_test

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// callRequest asks for a tool.
func callRequest(choice llama.ToolChoice, parallel bool) llama.ChatRequest {
	return llama.ChatRequest{
		Messages:   []llama.ChatMessage{{Role: "user", Content: "How is it in Bern?"}},
		ToolChoice: choice, ParallelTools: parallel,
		Tools: []llama.Tool{{
			Name: "weather", Description: "tells the weather",
			Parameters: json.RawMessage(`{"type": "object", "properties": {` +
				`"city": {"type": "string"}}, "required": ["city"]}`),
		}},
	}
}

// TestParallelToolsOff: the grammar of an answer with one call ends after it, whether a call is
// required or the model's choice, and else another may follow.
func TestParallelToolsOff(t *testing.T) {
	m := model(t, smol)
	const call = "<tool_call>\n" +
		`{"name": "weather", "arguments": {"city": "Bern"}}` + "\n</tool_call>"
	for _, name := range []string{"Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B"} {
		text, err := llama.PinnedTemplate(name)
		require.NoError(t, err)
		chat, err := llama.NewChat(m, text)
		require.NoError(t, err)
		defer func() { require.NoError(t, chat.Close()) }()
		for _, choice := range []llama.ToolChoice{llama.ToolRequired, llama.ToolAuto} {
			for _, parallel := range []bool{false, true} {
				r := callRequest(choice, parallel)
				r.NoThinking = true
				p, err := chat.Render(r)
				require.NoError(t, err)
				s := newSampler(t, m, llama.SamplerParams{
					TopP: 1, TypicalP: 1, PenaltyRepeat: 1, Grammar: p.Grammar,
				})
				accept := func(text string) error {
					tokens, err := m.Tokenize(text, false, true)
					require.NoError(t, err)
					for _, token := range tokens {
						if err := s.Accept(token, true); err != nil {
							return err
						}
					}
					return nil
				}
				require.NoError(t, accept(call), "%s, %s", name, choice)
				err = accept("\n" + call)
				if parallel {
					require.NoError(t, err, "%s, %s", name, choice)
				} else {
					requireCode(t, llama.BadGrammar, err, name, choice)
				}
			}
		}
	}
}

// TestNoTemplateRepeatsACall looks into the grammars of all templates for what repeats a call.
func TestNoTemplateRepeatsACall(t *testing.T) {
	t.Parallel()
	repeats := regexp.MustCompile(`(?m)^.* ::= .*\(([^()]* )?tool-call[^()]*\)[+*{].*$`)
	seen := 0
	for _, name := range llama.PinnedTemplates() {
		text, err := llama.PinnedTemplate(name)
		require.NoError(t, err)
		chat, err := llama.NewChatTemplate(llama.ChatTemplate{Text: text, BOS: "<s>", EOS: "</s>"})
		require.NoError(t, err)
		defer func() { require.NoError(t, chat.Close()) }()
		for _, choice := range []llama.ToolChoice{llama.ToolRequired, llama.ToolAuto} {
			one, err := chat.Render(callRequest(choice, false))
			if err != nil {
				continue // a template may refuse the conversation
			}
			require.Empty(t, repeats.FindString(one.Grammar.Text), "%s, %s", name, choice)
			many, err := chat.Render(callRequest(choice, true))
			require.NoError(t, err)
			if repeats.MatchString(many.Grammar.Text) {
				seen++
			}
		}
	}
	require.Greater(t, seen, 20, "the expression finds nothing")
}
