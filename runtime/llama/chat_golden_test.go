//go:build cgo

package llama

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store/storetest"
)

// conversation is a line of testdata/chat/conversations.json; Request is the body of a request in
// OpenAI's format, as the peer server took it.
type conversation struct {
	Name    string `json:"name"`
	Request struct {
		Messages []struct {
			Role       string          `json:"role"`
			Content    json.RawMessage `json:"content"`
			Reasoning  string          `json:"reasoning_content"`
			Name       string          `json:"name"`
			ToolCallID string          `json:"tool_call_id"`
			ToolCalls  []struct {
				ID       string   `json:"id"`
				Function ToolCall `json:"function"`
			} `json:"tool_calls"`
		} `json:"messages"`
		Tools []struct {
			Function Tool `json:"function"`
		} `json:"tools"`
		ToolChoice ToolChoice                 `json:"tool_choice"`
		Parallel   *bool                      `json:"parallel_tool_calls"`
		Prompt     *bool                      `json:"add_generation_prompt"`
		Continue   string                     `json:"continue_final_message"`
		Args       map[string]json.RawMessage `json:"chat_template_kwargs"`
		Format     struct {
			Schema struct {
				Schema json.RawMessage `json:"schema"`
			} `json:"json_schema"`
		} `json:"response_format"`
	} `json:"request"`
}

func conversations(t testing.TB) []conversation {
	data, err := os.ReadFile("testdata/chat/conversations.json")
	require.NoError(t, err)
	var table []conversation
	require.NoError(t, json.Unmarshal(data, &table))
	require.NotEmpty(t, table)
	return table
}

// request turns the body into a ChatRequest the way the peer server reads it.
func (c *conversation) request(t testing.TB, info ChatInfo, now time.Time) ChatRequest {
	in := &c.Request
	r := ChatRequest{
		ToolChoice: in.ToolChoice, ParallelTools: info.ParallelToolCalls, Args: in.Args,
		Schema: in.Format.Schema.Schema, Now: now,
		Continue: map[string]Continuation{
			"": ContinueNone, "content": ContinueContent, "reasoning_content": ContinueReasoning,
		}[in.Continue],
	}
	if in.Parallel != nil {
		r.ParallelTools = *in.Parallel
	}
	r.NoPrompt = in.Prompt != nil && !*in.Prompt
	if string(in.Args["enable_thinking"]) == "false" {
		r.NoThinking = true
	}
	for _, m := range in.Messages {
		out := ChatMessage{
			Role: m.Role, Reasoning: m.Reasoning, Name: m.Name, ToolCallID: m.ToolCallID,
		}
		if len(m.Content) > 0 && m.Content[0] == '[' {
			var parts []struct{ Text string }
			require.NoError(t, json.Unmarshal(m.Content, &parts))
			for _, p := range parts {
				out.Parts = append(out.Parts, p.Text)
			}
		} else if len(m.Content) > 0 {
			require.NoError(t, json.Unmarshal(m.Content, &out.Content))
		}
		for _, call := range m.ToolCalls {
			call.Function.ID = call.ID
			out.ToolCalls = append(out.ToolCalls, call.Function)
		}
		r.Messages = append(r.Messages, out)
	}
	for _, tool := range in.Tools {
		r.Tools = append(r.Tools, tool.Function)
	}
	return r
}

type goldenFile struct {
	Recorded   int64                        `json:"recorded"`
	Renderings map[string]map[string]string `json:"renderings"`
}

func readGolden(t testing.TB) goldenFile {
	data, err := os.ReadFile("testdata/chat/golden.json")
	require.NoError(t, err)
	var g goldenFile
	require.NoError(t, json.Unmarshal(data, &g))
	return g
}

func loadVocabulary(t testing.TB, name string) *Model {
	m, err := LoadModel(t.Context(), ModelParams{
		Paths: []string{storetest.Model(t, name)}, VocabularyOnly: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// TestChatGolden compares every rendering with what the pinned llama.cpp's own server answered.
func TestChatGolden(t *testing.T) {
	g := readGolden(t)
	now := time.Unix(g.Recorded, 0).UTC()
	table := conversations(t)
	smol, gemma := loadVocabulary(t, "smollm2:135m"), loadVocabulary(t, "gemma3:270m")
	require.Len(t, g.Renderings, len(PinnedTemplates())+2)
	names := append([]string{"smollm2:135m", "gemma3:270m"}, PinnedTemplates()...)
	var compared, refused atomic.Int32
	t.Run("all", func(t *testing.T) {
		for i, name := range names {
			if sanitized && i%12 != 0 {
				continue // the sanitizers make it slow, and see the same code each time
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				model, template := smol, ""
				switch name {
				case "smollm2:135m":
				case "gemma3:270m":
					model, template = gemma, pinned(t, "google-gemma-2-2b-it")
				default:
					template = pinned(t, name)
				}
				c, err := NewChat(model, template)
				require.NoError(t, err)
				require.Len(t, g.Renderings[name], len(table))
				for i := range table {
					want := g.Renderings[name][table[i].Name]
					if compareRendering(t, c, name, &table[i], want, now) {
						compared.Add(1)
					} else {
						refused.Add(1)
					}
				}
				require.NoError(t, c.Close())
			})
		}
	})
	t.Logf("%d renderings equal, %d refusals", compared.Load(), refused.Load())
}

func pinned(t testing.TB, name string) string {
	text, err := PinnedTemplate(name)
	require.NoError(t, err)
	return text
}

// compareRendering says whether there was a rendering to compare.
func compareRendering(t *testing.T, c *Chat, template string, conv *conversation, want string,
	now time.Time,
) bool {
	t.Helper()
	where := conv.Name
	r := conv.request(t, c.Info(), now)
	if len(r.Tools) > 0 && r.ToolChoice != ToolNone && !c.Info().Tools {
		_, err := c.Render(r)
		require.ErrorIs(t, err, Unsupported, where)
		return false
	}
	p, err := c.Render(r)
	if reason, refusal := strings.CutPrefix(want, "! "); refusal {
		require.Error(t, err, where)
		require.True(t, errors.Is(err, Template) || errors.Is(err, Invalid), "%s: %v", where, err)
		if !strings.Contains(err.Error(), firstWords(reason)) {
			t.Errorf("%s: %v, want %s", where, err, reason)
		}
		return false
	}
	require.NoError(t, err, where)
	sum := sha256.Sum256([]byte(p.Text))
	got := fmt.Sprintf("%d %s", len(p.Text), hex.EncodeToString(sum[:8]))
	file := strings.ReplaceAll(template, ":", "-") + "." + conv.Name + ".txt"
	if text, err := os.ReadFile(filepath.Join("testdata/chat/full", file)); err == nil {
		require.Equal(t, string(text), p.Text, where)
	}
	if got != want {
		t.Errorf("%s: %s, want %s:\n%q", where, got, want, p.Text)
	}
	return true
}

func firstWords(s string) string { return s[:min(len(s), 40)] }
