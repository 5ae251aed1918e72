//go:build cgo

package llama

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

var weatherTools = []Tool{
	{Name: "get_weather", Parameters: json.RawMessage(
		`{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`)},
	{Name: "now", Parameters: json.RawMessage(`{"type":"object","properties":{}}`)},
}

func promptOf(t testing.TB, template string, change func(*ChatRequest)) *ChatPrompt {
	t.Helper()
	r := ChatRequest{Messages: user("Weather in Bern?"), Tools: weatherTools, ParallelTools: true}
	if change != nil {
		change(&r)
	}
	p, err := newTemplate(t, pinned(t, template)).Render(r)
	require.NoError(t, err)
	return &p
}

// counter gives ids that tests can expect.
func counter() func() string {
	n := 0
	return func() string { n++; return fmt.Sprintf("id%d", n) }
}

// stream feeds an answer in pieces and returns what the deltas add up to, and the final message.
func stream(t testing.TB, p *ChatPrompt, pieces []string) (told, final ChatMessage) {
	t.Helper()
	c, err := p.NewParser(counter())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	told.Role = "assistant"
	add := func(d ChatDelta) {
		told.Content += d.Content
		told.Reasoning += d.Reasoning
		for _, call := range d.ToolCalls {
			if call.Index == len(told.ToolCalls) {
				require.NotEmpty(t, call.Name)
				require.NotEmpty(t, call.ID)
				told.ToolCalls = append(told.ToolCalls, ToolCall{ID: call.ID, Name: call.Name})
			} else {
				require.Empty(t, call.Name)
				require.Empty(t, call.ID)
			}
			told.ToolCalls[call.Index].Arguments += call.Arguments
		}
	}
	for _, piece := range pieces {
		d, err := c.Add(piece)
		require.NoError(t, err)
		add(d)
	}
	final, d, err := c.Finish()
	require.NoError(t, err)
	add(d)
	return told, final
}

func bytesAsPieces(s string) []string {
	var out []string
	for i := range len(s) {
		out = append(out, s[i:i+1])
	}
	return out
}

func assistant(content, reasoning string, calls ...ToolCall) ChatMessage {
	return ChatMessage{
		Role: "assistant", Content: content, Reasoning: reasoning, ToolCalls: calls,
	}
}

func TestChatParser(t *testing.T) {
	t.Parallel()
	bern := ToolCall{"id1", "get_weather", `{"city": "Bern"}`}
	zurich := ToolCall{"id2", "get_weather", `{"city": "Zürich"}`}
	hermes := func(city string) string {
		return "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"" + city +
			"\"}}\n</tool_call>"
	}
	for _, tt := range []struct {
		name, template, answer string
		want                   ChatMessage
	}{
		{"plain", "Qwen-Qwen2.5-7B-Instruct", "Grüße 😀!", assistant("Grüße 😀!", "")},
		{"empty", "Qwen-Qwen2.5-7B-Instruct", "", assistant("", "")},
		{"call", "Qwen-Qwen2.5-7B-Instruct", hermes("Bern"), assistant("", "", bern)},
		{
			"parallel", "Qwen-Qwen2.5-7B-Instruct", hermes("Bern") + "\n" + hermes("Zürich"),
			assistant("", "", bern, zurich),
		},
		{
			"text before", "Qwen-Qwen2.5-7B-Instruct", "I look.\n" + hermes("Bern"),
			assistant("I look.\n", "", bern),
		},
		{
			"reasoning", "Qwen-Qwen3-0.6B", "<think>\nHm.\n</think>\n\nGrey.",
			assistant("Grey.", "Hm.\n"),
		},
		{
			"reasoning and call", "Qwen-Qwen3-0.6B", "<think>\nHm.\n</think>\n\n" + hermes("Bern"),
			assistant("", "Hm.\n", bern),
		},
		{
			"reasoning opened by the prompt", "Qwen-QwQ-32B", "Hm.\n</think>\n\nGrey.",
			assistant("\n\nGrey.", "\nHm.\n"),
		},
		{"channels", "openai-gpt-oss-120b", "<|channel|>analysis<|message|>Hm.<|end|>" +
			"<|start|>assistant<|channel|>final<|message|>Grey.", assistant("Grey.", "Hm.")},
		{"channel call", "openai-gpt-oss-120b", "<|channel|>commentary to=functions.get_weather " +
			"<|constrain|>json<|message|>{\"city\": \"Bern\"}", assistant("", "", bern)},
		{
			"elements", "Qwen3-Coder", "<tool_call>\n<function=get_weather>\n<parameter=city>\nBern\n" +
				"</parameter>\n</function>\n</tool_call>",
			assistant("", "", ToolCall{"id1", "get_weather", `{"city":"Bern"}`}),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := promptOf(t, tt.template, nil)
			_, whole := stream(t, p, []string{tt.answer})
			normalise(&whole)
			want := tt.want
			normalise(&want)
			require.Equal(t, want, whole)
			told, final := stream(t, p, bytesAsPieces(tt.answer))
			require.Equal(t, final, told)
			normalise(&final)
			require.Equal(t, want, final)
		})
	}
}

// normalise writes arguments without blanks.
func normalise(m *ChatMessage) {
	for i := range m.ToolCalls {
		var v any
		if json.Unmarshal([]byte(m.ToolCalls[i].Arguments), &v) == nil {
			data, _ := json.Marshal(v)
			m.ToolCalls[i].Arguments = string(data)
		}
	}
}

// TestChatParserPartial: a call's arguments grow while they are generated.
func TestChatParserPartial(t *testing.T) {
	t.Parallel()
	p := promptOf(t, "Qwen-Qwen2.5-7B-Instruct", nil)
	c, err := p.NewParser(counter())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	for _, step := range []struct {
		add  string
		want ChatDelta
	}{
		{"Well.", ChatDelta{Content: "Well."}},
		{"\n<tool", ChatDelta{}},
		{"_call>\n{\"name\": \"get_wea", ChatDelta{}},
		{"ther\", \"arguments\": {\"ci", ChatDelta{ToolCalls: []ToolCallDelta{
			{0, "id1", "get_weather", `{"ci`},
		}}},
		{"ty\": \"Be", ChatDelta{ToolCalls: []ToolCallDelta{{Index: 0, Arguments: `ty": "Be`}}}},
		{"rn\"}}\n</tool_call>", ChatDelta{ToolCalls: []ToolCallDelta{
			{Index: 0, Arguments: `rn"}`},
		}}},
	} {
		d, err := c.Add(step.add)
		require.NoError(t, err)
		d.Content = trimLine(d.Content)
		require.Equal(t, step.want, d, step.add)
	}
}

func trimLine(s string) string {
	if s == "\n" {
		return ""
	}
	return s
}

// TestChatParserBadAnswers: an answer of the wrong shape loses nothing.
func TestChatParserBadAnswers(t *testing.T) {
	t.Parallel()
	p := promptOf(t, "Qwen-Qwen2.5-7B-Instruct", func(r *ChatRequest) {
		r.ToolChoice = ToolRequired
	})
	for _, text := range []string{
		"<tool_call>\n{\"name\": 7}", "<tool_call>\n{\"name\": \"nope\", ",
	} {
		m, err := p.Parse(text, false)
		require.ErrorIs(t, err, Parse, text)
		require.Equal(t, text, m.Content)
		_, err = p.Parse(text, true)
		require.NoError(t, err, text)
	}
	deep := make([]byte, answerDepthMax+1)
	for i := range deep {
		deep[i] = '['
	}
	_, err := p.Parse(string(deep), false)
	require.ErrorContains(t, err, "nest")
	free := promptOf(t, "Qwen-Qwen2.5-7B-Instruct", nil)
	m, err := free.Parse(string(deep[1:]), false)
	require.NoError(t, err)
	require.Len(t, m.Content, answerDepthMax)

	c, err := free.NewParser(nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, err = c.Add(string(make([]byte, AnswerBytesMax)))
	require.NoError(t, err)
	_, err = c.Add("x")
	require.ErrorIs(t, err, Parse)
}

func TestChatParserBytes(t *testing.T) {
	t.Parallel()
	p := promptOf(t, "Qwen-Qwen2.5-7B-Instruct", nil)
	told, final := stream(t, p, []string{"a\xf0\x9f", "\x98", "\x80b\xff", "c\xe2\x82"})
	require.Equal(t, "a😀b\uFFFDc\uFFFD", final.Content)
	require.Equal(t, final, told)
	_, msg := stream(t, p, []string{"x"})
	require.Empty(t, msg.ToolCalls)

	own, err := p.NewParser(nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, own.Close()) }()
	require.NotEqual(t, own.ids(), own.ids())
}

// TestChatParserContinue: a continued answer is told from where it goes on.
func TestChatParserContinue(t *testing.T) {
	t.Parallel()
	p := promptOf(t, "Qwen-Qwen3-0.6B", func(r *ChatRequest) {
		r.Tools, r.Continue = nil, ContinueContent
		r.Messages = append(r.Messages, ChatMessage{Role: "assistant", Content: "One, two,"})
	})
	told, final := stream(t, p, []string{" thr", "ee."})
	require.Equal(t, " three.", told.Content)
	require.Equal(t, "One, two, three.", final.Content)
}

// TestChatParserIDs: an id that was told stays, though the model gives its own later.
func TestChatParserIDs(t *testing.T) {
	t.Parallel()
	p := promptOf(t, "mistralai-Mistral-Nemo-Instruct-2407", nil)
	text := `[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "123456789"}]`
	_, final := stream(t, p, []string{text})
	require.Equal(t, "123456789", final.ToolCalls[0].ID)
	told, final := stream(t, p, bytesAsPieces(text))
	require.Equal(t, "id1", final.ToolCalls[0].ID)
	require.Equal(t, final, told)
}
