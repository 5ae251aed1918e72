package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store/storetest"
)

// serveReal serves a real model and gives OpenAI's client for it.
func serveReal(t *testing.T, name string) (*served, *openai.Client) {
	t.Helper()
	s := &served{
		t: t, err: &announced{ready: make(chan struct{})}, code: make(chan int, 1),
		client: http.DefaultClient,
	}
	var stop context.CancelFunc
	s.ctx, stop = context.WithCancel(t.Context())
	a := newApp(t.TempDir(), io.Discard, s.err)
	args := []string{
		"serve", storetest.Model(t, name), "-t", "1", "--port", "0", "--ctx", "1024", "--cpu",
	}
	go func() { s.code <- a.main(s.ctx, args) }()
	select {
	case <-s.err.ready:
	case code := <-s.code:
		stop()
		t.Fatalf("it ended with %d: %s", code, s.err)
	}
	t.Cleanup(func() {
		stop()
		require.Zero(t, <-s.code, s.err)
	})
	s.url = s.address()
	client := openai.NewClient(option.WithBaseURL(s.url+"/v1/"), option.WithAPIKey("none"),
		option.WithMaxRetries(0))
	return s, &client
}

// TestAnthropicAndTokens asks a real model for what OpenAI's client has no words for.
func TestAnthropicAndTokens(t *testing.T) {
	t.Parallel()
	s, c := serveReal(t, "smollm2:135m")
	models, err := c.Models.List(t.Context())
	require.NoError(t, err)
	ask := `{"model":"` + models.Data[0].ID + `","max_tokens":12,"temperature":0,"messages":` +
		`[{"role":"user","content":"What is the capital of France? One word."}]`
	code, body := s.ask("POST", "/v1/messages", "", ask+"}")
	require.Equal(t, 200, code, body)
	var whole struct {
		Content []struct{ Type, Text string }
		Usage   struct {
			Input int `json:"input_tokens"`
		}
		Stop string `json:"stop_reason"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &whole))
	require.Contains(t, whole.Content[0].Text, "Paris")
	require.Equal(t, "end_turn", whole.Stop)
	code, body = s.ask("POST", "/v1/messages", "", ask+`,"stream":true}`)
	require.Equal(t, 200, code, body)
	require.Contains(t, body, "event: message_stop")

	code, body = s.ask("POST", "/v1/messages/count_tokens", "",
		strings.Replace(ask, `"max_tokens":12,"temperature":0,`, "", 1)+"}")
	require.Equal(t, 200, code, body)
	require.JSONEq(t, fmt.Sprintf(`{"input_tokens":%d}`, whole.Usage.Input), body)

	code, body = s.ask("POST", "/tokenize", "", `{"content":"Hello there"}`)
	require.Equal(t, 200, code, body)
	var tokens struct{ Tokens []int }
	require.NoError(t, json.Unmarshal([]byte(body), &tokens))
	back, err := json.Marshal(tokens)
	require.NoError(t, err)
	code, body = s.ask("POST", "/detokenize", "", strings.ToLower(string(back)))
	require.Equal(t, 200, code, body)
	require.JSONEq(t, `{"content":"Hello there"}`, body)
}

// TestOpenAIClient has OpenAI's own client ask a real model: whole and streamed, with
// log-probabilities, a schema, a stop, and what is refused.
func TestOpenAIClient(t *testing.T) {
	t.Parallel()
	_, c := serveReal(t, "smollm2:135m")
	models, err := c.Models.List(t.Context())
	require.NoError(t, err)
	require.Len(t, models.Data, 1)
	model := models.Data[0].ID

	ask := openai.ChatCompletionNewParams{
		Model: model,
		Messages: []openai.ChatCompletionMessageParamUnion{
			openai.SystemMessage("You answer with one word."),
			openai.UserMessage("What is the capital of France?"),
		},
		Temperature: openai.Float(0), MaxCompletionTokens: openai.Int(12), Seed: openai.Int(7),
		Logprobs: openai.Bool(true), TopLogprobs: openai.Int(2),
	}
	whole, err := c.Chat.Completions.New(t.Context(), ask)
	require.NoError(t, err)
	answer := whole.Choices[0]
	require.Contains(t, answer.Message.Content, "Paris")
	require.Len(t, answer.Logprobs.Content, int(whole.Usage.CompletionTokens))
	require.Len(t, answer.Logprobs.Content[0].TopLogprobs, 2)
	require.Equal(t, whole.Usage.TotalTokens, whole.Usage.PromptTokens+whole.Usage.CompletionTokens)

	ask.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := c.Chat.Completions.NewStreaming(t.Context(), ask)
	var all openai.ChatCompletionAccumulator
	for stream.Next() {
		require.True(t, all.AddChunk(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, answer.Message.Content, all.Choices[0].Message.Content)
	require.Equal(t, answer.FinishReason, all.Choices[0].FinishReason)
	require.Equal(t, whole.Usage.CompletionTokens, all.Usage.CompletionTokens)
	require.Positive(t, all.Usage.PromptTokensDetails.CachedTokens)

	text, err := c.Completions.New(t.Context(), openai.CompletionNewParams{
		Model:  openai.CompletionNewParamsModel(model),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("One, two, three,")},
		Stop: openai.CompletionNewParamsStopUnion{
			OfStringArray: []string{" five"},
		},
		Temperature: openai.Float(0), MaxTokens: openai.Int(16),
	})
	require.NoError(t, err)
	require.Equal(t, " four,", text.Choices[0].Text)
	schemaAndRefusal(t, c, ask)
}

// schemaAndRefusal asks for a document of a schema, and for a model that is not there.
func schemaAndRefusal(t *testing.T, c *openai.Client, ask openai.ChatCompletionNewParams) {
	t.Helper()
	ask.StreamOptions, ask.Logprobs = openai.ChatCompletionStreamOptionsParam{}, openai.Bool(false)
	ask.TopLogprobs, ask.MaxCompletionTokens = openai.Int(0), openai.Int(60)
	ask.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{
		JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
			Name: "city", Strict: openai.Bool(true),
			Schema: json.RawMessage(`{"type":"object","properties":{"city":{"type":"string",` +
				`"maxLength":20}},"required":["city"],"additionalProperties":false}`),
		},
	}
	whole, err := c.Chat.Completions.New(t.Context(), ask)
	require.NoError(t, err)
	var city struct {
		City *string `json:"city"`
	}
	require.NoError(t, json.Unmarshal([]byte(whole.Choices[0].Message.Content), &city))
	require.NotNil(t, city.City)

	ask.Model = "gpt-4o"
	_, err = c.Chat.Completions.New(t.Context(), ask)
	var refused *openai.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 404, refused.StatusCode)
	require.Equal(t, "model_not_found", refused.Code)
}
