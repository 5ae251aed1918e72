package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/infer"
)

// TestResponsesRefused: what that interface has and this server has not is refused by name.
func TestResponsesRefused(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	for _, c := range []refusal{
		{`"input":[]`, "input"},
		{`"x":1`, "x"},
		{`"input":"a","store":true`, "store"},
		{`"input":"a","previous_response_id":"resp_1"`, "previous_response_id"},
		{`"input":"a","conversation":"c"`, "conversation"},
		{`"input":"a","background":true`, "background"},
		{`"input":"a","truncation":"auto"`, "truncation"},
		{`"input":"a","include":["reasoning.encrypted_content"]`, "include[0]"},
		{`"input":"a","top_logprobs":1`, "top_logprobs"},
		{`"input":"a","max_output_tokens":0`, "max_output_tokens"},
		{`"input":"a","temperature":3`, "temperature"},
		{`"input":"a","reasoning":{"summary":"auto"}`, "reasoning.summary"},
		{`"input":"a","reasoning":{"effort":"most"}`, "reasoning.effort"},
		{`"input":"a","text":{"verbosity":"low"}`, "text.verbosity"},
		{`"input":"a","text":{"format":{"type":"xml"}}`, "text.format.type"},
		{`"input":"a","text":{"format":{"type":"json_schema","schema":{}}}`, "text.format.name"},
		{`"input":"a","text":{"format":{"type":"json_schema","name":"n"}}`, "text.format.schema"},
		{`"input":"a","tools":[{"type":"web_search"}]`, "tools[0].type"},
		{`"input":"a","tools":[{"type":"function","name":"f","x":1}]`, "tools[0].x"},
		{`"input":"a","tools":[{"type":"function"}]`, "tools[0].name"},
		{`"input":[{"type":"image_generation_call"}]`, "input[0].type"},
		{`"input":[{"role":"user","content":[{"type":"input_image"}]}]`, "input[0].content[0].type"},
		{`"input":[{"type":"reasoning","encrypted_content":"x"}]`, "input[0].encrypted_content"},
	} {
		w := h.ask(t, "POST", "/v1/responses", `{"model":"m",`+c.more+`}`)
		require.Equal(t, 400, w.Code, "%s: %s", c.more, w.Body)
		_, param := errorOf(t, w)
		require.Equal(t, c.param, param, "%s: %s", c.more, w.Body)
	}
	require.Empty(t, h.models.b.asked)
}

// TestAnthropicRefused is the same for Anthropic's: the message begins with the field at fault.
func TestAnthropicRefused(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	user := `"messages":[{"role":"user","content":"a"}]`
	tool := `,"tools":[{"name":"f","input_schema":{"type":"object"}}]`
	for _, c := range []refusal{
		{user, "max_tokens"},
		{`"max_tokens":1`, "messages"},
		{`"max_tokens":0,` + user, "max_tokens"},
		{`"max_tokens":1,"x":1,` + user, "x"},
		{`"max_tokens":1,"container":"c",` + user, "container"},
		{`"max_tokens":1,"mcp_servers":[{}],` + user, "mcp_servers"},
		{`"max_tokens":1,"thinking":{"type":"x"},` + user, "thinking.type"},
		{
			`"max_tokens":1,"thinking":{"type":"enabled","budget_tokens":1024},` + user,
			"thinking.budget_tokens",
		},
		{`"max_tokens":1,"stop_sequences":[""],` + user, "stop_sequences"},
		{`"max_tokens":1,"tool_choice":{"type":"x"},` + user + tool, "tool_choice.type"},
		{`"max_tokens":1,"tool_choice":{"type":"tool","name":"g"},` + user + tool, "tool_choice"},
		{`"max_tokens":1,"tools":[{"type":"bash_20250124","name":"bash"}],` + user, "tools[0].type"},
		{`"max_tokens":1,"tools":[{"name":""}],` + user, "tools[0].name"},
		{`"max_tokens":1,"messages":[{"role":"system","content":"a"}]`, "messages[0].role"},
		{
			`"max_tokens":1,"messages":[{"role":"user","content":[{"type":"image"}]}]`,
			"messages[0].content[0].type",
		},
		{`"max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"a"},` +
			`{"type":"tool_result","tool_use_id":"t"}]}]`, "messages[0].content[1].type"},
		{
			`"max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"tool_result"}]}]`,
			"messages[0].content[0].type",
		},
		{`"max_tokens":1,"system":[{"type":"image"}],` + user, "system[0].type"},
	} {
		w := h.ask(t, "POST", "/v1/messages", `{"model":"m",`+c.more+`}`)
		require.Equal(t, 400, w.Code, "%s: %s", c.more, w.Body)
		kind, message := anthropicErrorOf(t, w.Body.Bytes())
		require.Equal(t, "invalid_request_error", kind)
		require.True(t, strings.HasPrefix(message, c.param+": "), "%s: %s", c.more, message)
	}
	require.Empty(t, h.models.b.asked)
}

func anthropicErrorOf(t *testing.T, body []byte) (kind, message string) {
	t.Helper()
	var out struct {
		Type      string
		RequestID string `json:"request_id"`
		Error     struct{ Type, Message string }
	}
	require.NoError(t, json.Unmarshal(body, &out))
	require.Equal(t, "error", out.Type)
	require.NotEmpty(t, out.RequestID)
	return out.Error.Type, out.Error.Message
}

// TestAnthropicKinds: each status has its type; too much to do is 529.
func TestAnthropicKinds(t *testing.T) {
	t.Parallel()
	for kind, want := range map[infer.Kind]struct {
		status int
		name   string
	}{
		infer.KindTooLong: {400, "invalid_request_error"}, infer.KindBusy: {429, "rate_limit_error"},
		infer.KindLost: {529, "overloaded_error"}, infer.KindInternal: {500, "api_error"},
	} {
		h := serve(t, func(_ *httpapi.Options, b *fake) {
			b.run = script(nil, &infer.Error{Kind: kind})
		})
		w := h.ask(t, "POST", "/v1/messages",
			`{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}]}`)
		require.Equal(t, want.status, w.Code)
		name, _ := anthropicErrorOf(t, w.Body.Bytes())
		require.Equal(t, want.name, name)
	}
}

// TestN8Silence: neither logs nor metrics nor refusals hold what was asked or answered.
func TestN8Silence(t *testing.T) {
	t.Parallel()
	secret := "xyzzy"
	h := serve(t, func(_ *httpapi.Options, b *fake) {
		b.run = saying(infer.Chunk{Text: secret, Tokens: 1}, final(secret))
	})
	for path, body := range map[string]string{
		"/v1/chat/completions": `"messages":[{"role":"user","content":"xyzzy"}],"user":"xyzzy"`,
		"/v1/completions":      `"prompt":"xyzzy"`,
		"/v1/responses":        `"input":"xyzzy","stream":true`,
		"/v1/messages": `"max_tokens":1,"messages":[{"role":"user","content":"xyzzy"}],` +
			`"metadata":{"user_id":"xyzzy"}`,
		"/v1/embeddings": `"input":"xyzzy"`,
		"/tokenize":      `"content":"xyzzy"`,
	} {
		require.Equal(t, 200, h.ask(t, "POST", path, `{"model":"m",`+body+`}`).Code, path)
		w := h.ask(t, "POST", path, `{"model":"m",`+body+`,"n_predict":1}`)
		require.Equal(t, 400, w.Code, path)
		require.NotContains(t, w.Body.String(), secret)
	}
	w := h.ask(t, "GET", "/metrics", "")
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), `llamacpp:tokens_predicted_total{model="m"}`)
	require.Contains(t, w.Body.String(),
		`norion_http_requests_total{route="POST /v1/completions",status="400"} 1`)
	require.NotContains(t, w.Body.String()+h.logs.String(), secret)
	require.Contains(t, h.logs.String(), "user=")
}

// TestOpenAPI: the document has every route of the table and no other, with the fields that each
// one reads.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	var doc struct {
		Paths map[string]map[string]struct {
			Rule string `json:"x-norion-rule"`
			Body struct {
				Content map[string]struct {
					Schema struct{ Properties map[string]any }
				}
			} `json:"requestBody"`
		}
	}
	w := h.ask(t, "GET", "/openapi.json", "")
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &doc))
	listed := 0
	for _, methods := range doc.Paths {
		listed += len(methods)
	}
	require.Len(t, h.Routes(), listed)
	for _, rt := range h.Routes() {
		path := strings.Replace(rt.Path, "...}", "}", 1)
		op, ok := doc.Paths[path][strings.ToLower(rt.Method)]
		require.True(t, ok, "%s %s", rt.Method, rt.Path)
		require.Equal(t, rt.Rule, op.Rule)
		if rt.Method == "POST" {
			require.Contains(t, op.Body.Content["application/json"].Schema.Properties, "model", rt.Path)
		}
	}
	chat := doc.Paths["/v1/chat/completions"]["post"].Body.Content["application/json"].Schema
	for _, field := range []string{"messages", "temperature", "dry_base", "grammar", "tool_choice"} {
		require.Contains(t, chat.Properties, field)
	}
}
