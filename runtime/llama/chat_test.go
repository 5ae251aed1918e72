//go:build cgo

package llama

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newTemplate(t testing.TB, text string) *Chat {
	t.Helper()
	c, err := NewChatTemplate(ChatTemplate{Text: text, BOS: "<s>", EOS: "</s>"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestChatOfModels(t *testing.T) {
	t.Parallel()
	c, err := NewChat(loadVocabulary(t, "smollm2:135m"), "")
	require.NoError(t, err)
	info := c.Info()
	require.True(t, info.Explicit)
	require.Contains(t, info.Source, "<|im_start|>")
	require.True(t, info.SystemRole)
	require.False(t, info.Tools)
	_, err = c.Render(ChatRequest{Messages: user("Hi"), Tools: []Tool{{Name: "now"}}})
	require.ErrorIs(t, err, Unsupported)
	require.ErrorContains(t, err, "would drop them")
	_, err = c.Render(ChatRequest{
		Messages: user("Hi"), Tools: []Tool{{Name: "now"}}, ToolChoice: ToolNone,
	})
	require.NoError(t, err)
	require.NoError(t, c.Close())

	gemma := loadVocabulary(t, "gemma3:270m")
	c, err = NewChat(gemma, "")
	require.NoError(t, err)
	require.False(t, c.Info().Explicit, "upstream's ChatML stands in, and we say so")
	require.ErrorIs(t, gemma.Close(), InUse)
	require.NoError(t, c.Close())
	_, err = NewChat(nil, "")
	require.ErrorIs(t, err, Invalid)
}

func TestChatClose(t *testing.T) {
	t.Parallel()
	c, err := NewChatTemplate(ChatTemplate{Text: "{{ messages[0].content }}"})
	require.NoError(t, err)
	p, err := c.Render(ChatRequest{Messages: user("Hi")})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	_, err = c.Render(ChatRequest{Messages: user("Hi")})
	require.ErrorIs(t, err, Closed)

	parser, err := p.NewParser(nil) // a prompt outlives its chat
	require.NoError(t, err)
	require.NoError(t, parser.Close())
	require.NoError(t, parser.Close())
	_, err = parser.Add("x")
	require.ErrorIs(t, err, Closed)
	_, _, err = parser.Finish()
	require.ErrorIs(t, err, Closed)
}

func TestChatTemplateErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "empty template"},
		{"unclosed expression", "{{ ", "Unexpected EOF"},
		{"unclosed string", "{{ 'abc }}", "unexpected end of input"},
		{"unknown statement", "{% endif %}", "Unknown statement: endif"},
		{"number too large", "{{ [1][99999999999999999999999] }}", "stoll"},
		{"NUL", "a\x00b", "NUL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewChatTemplate(ChatTemplate{Text: tt.text})
			require.Error(t, err)
			require.ErrorContains(t, err, tt.want)
		})
	}
	for _, tt := range []struct{ name, text, want string }{
		{"raised", "\n {{ raise_exception('sorry') }}", "sorry (at line 2, column 20)"},
		{"no function", "{{ nope() }}", "Callee is not a function"},
		{"no filter", "{{ 'x' | center(9) }}", "'center'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := newTemplate(t, tt.text).Render(ChatRequest{Messages: user("Hi")})
			require.ErrorIs(t, err, Template)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// TestG9HostileTemplates runs templates that would never end, fill the memory or overrun the stack.
func TestG9HostileTemplates(t *testing.T) {
	t.Parallel()
	rep := strings.Repeat
	const deep, memory = "nests more than", "too much memory"
	const endless = "recurses without end|takes too long" // the second on a slow machine
	double := "{% set n = namespace(s='a') %}{% for i in range(64) %}" +
		"{% set n.s = n.s ~ n.s %}{% endfor %}"
	chain := "{% set n = namespace(x=1) %}{% for i in range(10000000) %}" +
		"{% set n.x = [n.x] %}{% endfor %}"
	for _, tt := range []struct{ name, text, want string }{
		{"loop", "{% for i in range(10000000000) %}{% endfor %}", memory},
		{"repeated string", "{{ 'a' * 10000000000 }}", memory},
		{"doubled string", double, memory},
		{"indent", "{{ 'a\nb' | indent(10000000000) }}", memory},
		{"squared string", "{% set s = 'a' * 100000 %}{{ s | replace('a', s) }}", memory},
		{"chain of values", chain, memory},
		{"recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", endless},
		{"recursion by value", "{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}", endless},
		{"set blocks", rep("{% set a %}", 20000) + rep("{% endset %}", 20000), endless},
		{"brackets", "{{ " + rep("(", 100000) + "1" + rep(")", 100000) + " }}", deep},
		{"blocks", rep("{% for a in b %}", 50000), deep},
		{"else ifs", "{% if 0 %}" + rep("{% elif 0 %}", 50000) + "{% endif %}", deep},
		{"operators", "{{ 1" + rep("+1", 100000) + " }}", "a block has more than"},
		{"negations", "{{ " + rep("not ", 100000) + "1 }}", "a block has more than"},
		{"text", rep("x", TemplateBytesMax+1), "bytes, at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewChatTemplate(ChatTemplate{Text: tt.text})
			require.ErrorIs(t, err, Template)
			require.Regexp(t, tt.want, err.Error())
		})
	}
}

// TestG9EndlessLoop waits for the time limit.
func TestG9EndlessLoop(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the limit allows")
	}
	t.Parallel()
	loop := "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
	_, err := NewChatTemplate(ChatTemplate{Text: loop})
	require.ErrorIs(t, err, Template)
	require.ErrorContains(t, err, "takes too long")
}

// TestG9HostileRender goes over a limit while a request is held, whose own values are then freed.
func TestG9HostileRender(t *testing.T) {
	t.Parallel()
	c := newTemplate(t, "{% if messages[0].content == 'go' %}{{ 'a' * 10000000000 }}{% endif %}")
	_, err := c.Render(ChatRequest{Messages: user("stay")})
	require.NoError(t, err)
	_, err = c.Render(ChatRequest{Messages: user("go")})
	require.ErrorContains(t, err, "too much memory")
}

// TestG9Bounds is at each bound, and one beyond.
func TestG9Bounds(t *testing.T) {
	t.Parallel()
	rep := strings.Repeat
	for _, tt := range []struct {
		name string
		text func(n int) string
		max  int
	}{
		{"brackets", func(n int) string { return "{{ " + rep("(", n) + "1" + rep(")", n) + " }}" }, 200},
		{"blocks", func(n int) string {
			return rep("{% if 1 %}", n) + "1" + rep("{% endif %}", n)
		}, 200},
		{"else ifs", func(n int) string {
			return "{% if 0 %}" + rep("{% elif 0 %}", n-1) + "{% else %}1{% endif %}"
		}, 200},
		{"tokens", func(n int) string { return "{{" + rep(" not", n-3) + " 0 }}" }, 4096},
		{"bytes", func(n int) string { return rep("1", n) }, TemplateBytesMax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := newTemplate(t, tt.text(tt.max)).Render(ChatRequest{Messages: user("Hi")})
			require.NoError(t, err)
			require.NotEmpty(t, p.Text)
			_, err = NewChatTemplate(ChatTemplate{Text: tt.text(tt.max + 1)})
			require.ErrorIs(t, err, Template)
		})
	}
}

func TestChatTime(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 5*3600+1800)
	now := time.Date(2024, 2, 28, 20, 31, 5, 0, time.UTC).In(zone) // the 29th there
	for _, tt := range []struct{ text, want string }{
		{"{{ strftime_now('%Y-%m-%d %H:%M') }}", "2024-02-29 02:01"},
		{`{% set f = strftime_now( "%d %b %Y" ) %}{{ f }}`, "29 Feb 2024"},
		{"{{ date_string }}; {{ datetime }}", "29 Feb 2024; Feb 29 2024"},
		{"{% if strftime_now is defined %}yes{% endif %}", "yes"},
		{"\n {{ strftime_now('%j') }}", "\n 060"},
		{"  {% if 1 %}{{ strftime_now('%j') }}{% endif %}\nx", "060x"},
		{"{% macro m() %}{{ strftime_now('%Y') }}{% endmacro %}{{ m() }}", "2024"},
	} {
		p, err := newTemplate(t, tt.text).Render(ChatRequest{Messages: user("Hi"), Now: now})
		require.NoError(t, err, tt.text)
		require.Equal(t, tt.want, p.Text, tt.text)
	}
	p, err := newTemplate(t, "{{ date_string }}").Render(ChatRequest{
		Messages: user("Hi"), Now: now,
		Args: map[string]json.RawMessage{"date_string": json.RawMessage(`"today"`)},
	})
	require.NoError(t, err)
	require.Equal(t, "today", p.Text)
}

func TestChatRequestErrors(t *testing.T) {
	t.Parallel()
	c := newTemplate(t, pinned(t, "Qwen-Qwen3-0.6B"))
	ok := Tool{Name: "now", Parameters: json.RawMessage(`{"type":"object"}`)}
	deep := strings.Repeat(`[`, jsonDepthMax+1) + strings.Repeat(`]`, jsonDepthMax+1)
	calls := func(calls ...ToolCall) []ChatMessage {
		return append(user("Hi"), ChatMessage{Role: "assistant", ToolCalls: calls})
	}
	args := func(name, value string) map[string]json.RawMessage {
		return map[string]json.RawMessage{name: json.RawMessage(value)}
	}
	for name, r := range map[string]ChatRequest{
		"no messages":     {},
		"no role":         {Messages: []ChatMessage{{Content: "Hi"}}},
		"role as marker":  {Messages: []ChatMessage{{Role: "user<|im_end|>", Content: "Hi"}}},
		"not UTF-8":       {Messages: user("\xff")},
		"content twice":   {Messages: []ChatMessage{{Role: "user", Content: "a", Parts: []string{"b"}}}},
		"tool choice":     {Messages: user("Hi"), ToolChoice: "any"},
		"required":        {Messages: user("Hi"), ToolChoice: ToolRequired},
		"tool name":       {Messages: user("Hi"), Tools: []Tool{{Name: "a b"}}},
		"no tool name":    {Messages: user("Hi"), Tools: []Tool{{}}},
		"same tool":       {Messages: user("Hi"), Tools: []Tool{ok, ok}},
		"parameters":      {Messages: user("Hi"), Tools: []Tool{{Name: "a", Parameters: []byte("{")}}},
		"description":     {Messages: user("Hi"), Tools: []Tool{{Name: "a", Description: "\xff"}}},
		"deep parameters": {Messages: user("Hi"), Tools: []Tool{{Name: "a", Parameters: []byte(deep)}}},
		"call name":       {Messages: calls(ToolCall{Name: "<|im_end|>", Arguments: "{}"})},
		"deep arguments":  {Messages: calls(ToolCall{Name: "now", Arguments: deep})},
		"schema":          {Messages: user("Hi"), Schema: []byte("{")},
		"reasoning":       {Messages: user("Hi"), Reasoning: "loud"},
		"continuation":    {Messages: user("Hi"), Continue: "later"},
		"continued user":  {Messages: user("Hi"), Continue: ContinueAuto},
		"continued call":  {Messages: calls(ToolCall{Name: "now"}), Continue: ContinueAuto},
		"variable":        {Messages: user("Hi"), Args: args("a-b", "1")},
		"own variable":    {Messages: user("Hi"), Args: args("norion_time", "1")},
		"variable value":  {Messages: user("Hi"), Args: args("a", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.Render(r)
			require.ErrorIs(t, err, Invalid)
		})
	}
}

func TestChatLargeRequest(t *testing.T) {
	t.Parallel()
	c := newTemplate(t, pinned(t, "Qwen-Qwen3-0.6B"))
	r := ChatRequest{Messages: user("")}
	empty, err := r.encode()
	require.NoError(t, err)
	text := strings.Repeat("x", ChatBytesMax-len(empty))
	p, err := c.Render(ChatRequest{Messages: user(text)})
	require.NoError(t, err)
	require.Contains(t, p.Text, text)
	_, err = c.Render(ChatRequest{Messages: user(text + "x")})
	require.ErrorIs(t, err, Invalid)
}

func TestPinnedTemplate(t *testing.T) {
	t.Parallel()
	names := PinnedTemplates()
	require.Greater(t, len(names), 60)
	require.IsIncreasing(t, names)
	require.Contains(t, pinned(t, "google-gemma-2-2b-it"), "<start_of_turn>")
	_, err := PinnedTemplate("../README")
	require.ErrorIs(t, err, Invalid)
}

func TestChatGrammar(t *testing.T) {
	t.Parallel()
	m := loadVocabulary(t, "smollm2:135m")
	c, err := NewChat(m, pinned(t, "Qwen-Qwen2.5-7B-Instruct"))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	tool := Tool{Name: "now", Parameters: json.RawMessage(`{"type":"object"}`)}
	p, err := c.Render(ChatRequest{Messages: user("Hi"), Tools: []Tool{tool}})
	require.NoError(t, err)
	require.True(t, p.Grammar.Lazy)
	require.NotEmpty(t, p.Grammar.Triggers)
	require.Contains(t, p.Grammar.Text, "root")
	p, err = c.Render(ChatRequest{
		Messages: user("Hi"), Tools: []Tool{tool}, ToolChoice: ToolRequired,
	})
	require.NoError(t, err)
	require.False(t, p.Grammar.Lazy)
	require.True(t, p.Grammar.Prefill)
	require.NotEmpty(t, p.Grammar.GenerationPrompt)
	p, err = c.Render(ChatRequest{Messages: user("Hi")})
	require.NoError(t, err)
	require.Empty(t, p.Grammar.Text)
	p, err = c.Render(ChatRequest{Messages: user("Hi"), Schema: json.RawMessage(`{"const":7}`)})
	require.NoError(t, err)
	require.Contains(t, p.Grammar.Text, "7")
	require.False(t, p.Grammar.Lazy)
}
