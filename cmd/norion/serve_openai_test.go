package main

import (
	"context"
	"encoding/json"
	"io"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store/storetest"
)

// serveReal serves a real model and gives OpenAI's client for it.
func serveReal(t *testing.T, name string) *openai.Client {
	t.Helper()
	s := &served{
		t: t, err: &announced{ready: make(chan struct{})}, code: make(chan int, 1),
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
	client := openai.NewClient(option.WithBaseURL(s.address()+"/v1/"), option.WithAPIKey("none"),
		option.WithMaxRetries(0))
	return &client
}

// TestOpenAIClient has OpenAI's own client ask a real model: whole and streamed, with
// log-probabilities, a schema, a stop, and what is refused.
func TestOpenAIClient(t *testing.T) {
	t.Parallel()
	c := serveReal(t, "smollm2:135m")
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
