package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/runtime/infer"
)

// TestE3Values: every field refuses what is out of range by its own name, before the backend hears
// of it.
func TestE3Values(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	floats := []string{
		"temperature", "top_p", "frequency_penalty", "presence_penalty", "min_p", "typical_p",
		"top_n_sigma", "xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent",
		"repeat_penalty", "dry_multiplier", "dry_base", "mirostat_tau", "mirostat_eta",
	}
	ints := []string{
		"seed", "max_tokens", "max_completion_tokens", "n", "top_logprobs", "top_k", "repeat_last_n",
		"dry_allowed_length", "dry_penalty_last_n", "mirostat",
	}
	try := func(field, value string) {
		w := h.chat(t, fmt.Sprintf(`,"logprobs":true,%q:%s`, field, value))
		require.Equal(t, 400, w.Code, "%s: %s", field, value)
		_, param := errorOf(t, w)
		require.Equal(t, field, param, "%s: %s", field, value)
	}
	for _, f := range floats {
		for _, v := range []string{"-1e9", "1e9", "1e308", `"1"`, "[]", "true", "{}"} {
			try(f, v)
		}
	}
	for _, f := range ints {
		for _, v := range []string{"9223372036854775808", "1.5", "1e3", `"1"`, "[]", "false"} {
			try(f, v)
		}
		if f != "seed" {
			try(f, "-2147483649")
			try(f, "-2")
		}
	}
	for _, f := range []string{"temperature", "max_tokens"} { // no JSON at all
		for _, v := range []string{"NaN", "Infinity", "-Infinity", "01", "+1"} {
			w := h.chat(t, fmt.Sprintf(`,%q:%s`, f, v))
			require.Equal(t, 400, w.Code)
			code, _ := errorOf(t, w)
			require.Equal(t, "invalid_json", code)
		}
	}
	require.Empty(t, h.models.b.asked)
}

// TestE4JSON: what is no acceptable JSON is refused, however deep or doubled it is.
func TestE4JSON(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	deep := func(n int) string {
		return `,"chat_template_kwargs":{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for _, c := range []struct{ more, code, param string }{
		{`,"n":1,"n":1`, "invalid_json", "n"},
		{`,"temprature":1`, "unknown_parameter", "temprature"},
		{`,"messages":[]`, "invalid_json", "messages"},
		{deep(10000), "invalid_json", ""},
		{deep(httpapi.JSONDepthMax - 1), "invalid_json", ""}, // two of them are around it
		{`,"stream_options":{"x":1}`, "unknown_parameter", "stream_options.x"},
		{`,"user":"` + "\xff" + `"`, "invalid_json", "user"},
		{`,"user":"\ud800"`, "invalid_json", "user"},
		{`} {`, "invalid_json", ""},
		{`,`, "invalid_json", ""},
	} {
		w := h.chat(t, c.more)
		require.Equal(t, 400, w.Code, c.more[:min(60, len(c.more))])
		code, param := errorOf(t, w)
		require.Equal(t, c.code, code, "%s", w.Body)
		require.Equal(t, c.param, param, "%s", w.Body)
	}
	require.Equal(t, 200, h.chat(t, deep(httpapi.JSONDepthMax-2)).Code)
	for _, body := range []string{"", "{", "[]", "null", `"x"`, "1", `{"model":`} {
		w := h.ask(t, "POST", "/v1/chat/completions", body, "Content-Type", "application/json")
		require.Equal(t, 400, w.Code, body)
	}
}

// TestRefusedByName: nothing that is not supported is ignored.
func TestRefusedByName(t *testing.T) {
	t.Parallel()
	refused(t, []refusal{
		{`,"audio":{"voice":"x"}`, "audio"},
		{`,"functions":[]`, "functions"},
		{`,"function_call":"auto"`, "function_call"},
		{`,"store":true`, "store"},
		{`,"metadata":{"a":"b"}`, "metadata"},
		{`,"modalities":["text","audio"]`, "modalities"},
		{`,"service_tier":"flex"`, "service_tier"},
		{`,"web_search_options":{}`, "web_search_options"},
		{`,"prediction":{"type":"content","content":"x"}`, "prediction"},
		{`,"verbosity":"low"`, "verbosity"},
		{`,"stream_options":{"include_usage":true}`, "stream_options"},
		{
			`,"stream":true,"stream_options":{"include_obfuscation":true}`,
			"stream_options.include_obfuscation",
		},
		{`,"n":0`, "n"},
		{`,"n":65`, "n"},
		{`,"top_logprobs":2`, "top_logprobs"},
		{`,"max_tokens":1,"max_completion_tokens":2`, "max_tokens"},
		{`,"logit_bias":{"x":1}`, "logit_bias"},
		{`,"logit_bias":{"01":1}`, "logit_bias"},
		{`,"logit_bias":{"1":101}`, "logit_bias"},
		{`,"logit_bias":{"-1":1}`, "logit_bias"},
		{`,"stop":[""]`, "stop"},
		{`,"stop":[1]`, "stop[0]"},
		{`,"response_format":{}`, "response_format.type"},
		{`,"response_format":{"type":"xml"}`, "response_format.type"},
		{`,"response_format":{"type":"json_schema"}`, "response_format.json_schema"},
		{
			`,"response_format":{"type":"json_schema","json_schema":{"schema":{}}}`,
			"response_format.json_schema.name",
		},
		{
			`,"response_format":{"type":"json_schema","json_schema":{"name":"n"}}`,
			"response_format.json_schema.schema",
		},
		{
			`,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":[]}}`,
			"response_format.json_schema.schema",
		},
		{`,"response_format":{"type":"json_object"},"grammar":"root ::= \"x\""`, "grammar"},
		{`,"reasoning_effort":"most"`, "reasoning_effort"},
		{`,"kv":{"scope":"x"}`, "kv.scope"},
		{`,"kv":{"salt":"x"}`, "kv.salt"},
		{`,"speculate":"x"`, "speculate"},
	})
}

// refusal is what a request has more than others, and the parameter that the refusal names.
type refusal struct{ more, param string }

func refused(t *testing.T, all []refusal) {
	t.Helper()
	h := serve(t, nil)
	for _, c := range all {
		w := h.chat(t, c.more)
		require.Equal(t, 400, w.Code, "%s: %s", c.more, w.Body)
		_, param := errorOf(t, w)
		require.Equal(t, c.param, param, "%s: %s", c.more, w.Body)
	}
}

// TestToolsRefused: the same for tools.
func TestToolsRefused(t *testing.T) {
	t.Parallel()
	tool := `,"tools":[{"type":"function","function":{"name":"f"}}]`
	refused(t, []refusal{
		{`,"tools":[{"type":"custom"}]`, "tools[0].type"},
		{`,"tools":[{"type":"function","function":{}}]`, "tools[0].function.name"},
		{`,"tools":[{"type":"function","function":{"name":"a b"}}]`, "tools[0].function.name"},
		{
			`,"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]`,
			"tools[0].function.parameters",
		},
		{`,"tools":[{"type":"function","function":{"name":"f"}},` +
			`{"type":"function","function":{"name":"f"}}]`, "tools"},
		{`,"tool_choice":"required"`, "tool_choice"},
		{tool + `,"tool_choice":"any"`, "tool_choice"},
		{tool + `,"tool_choice":{"type":"function","function":{"name":"g"}}`, "tool_choice"},
		{tool + `,"tool_choice":{"type":"function"}`, "tool_choice.function.name"},
		{
			tool + `,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"any"}}`,
			"tool_choice.mode",
		},
		{tool + `,"grammar":"root ::= \"x\""`, "grammar"},
	})
}

// TestMessagesRefused: each role has its own fields.
func TestMessagesRefused(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	for _, c := range []struct{ messages, param string }{
		{``, "messages"},
		{`{}`, "messages[0].role"},
		{`{"role":"user"}`, "messages[0].content"},
		{`{"role":"user","content":null}`, "messages[0].content"},
		{`{"role":"assistant"}`, "messages[0].content"},
		{`{"role":"robot","content":"x"}`, "messages[0].role"},
		{`{"role":"function","name":"f","content":"x"}`, "messages[0].name"},
		{`{"role":"user","content":"x","name":"Ann"}`, "messages[0].name"},
		{`{"role":"user","content":"x","tool_calls":[{"id":"a"}]}`, "messages[0].tool_calls"},
		{`{"role":"user","content":1}`, "messages[0].content"},
		{
			`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}`,
			"messages[0].content[1].type",
		},
		{`{"role":"user","content":[{"text":"a"}]}`, "messages[0].content[0].type"},
		{`{"role":"user","content":[{"type":"text","text":"a","x":1}]}`, "messages[0].content[0].x"},
		{`{"role":"assistant","tool_calls":[{"type":"function"}]}`, "messages[0].tool_calls[0].id"},
		{
			`{"role":"assistant","tool_calls":[{"id":"a","type":"custom"}]}`,
			"messages[0].tool_calls[0].type",
		},
		{
			`{"role":"assistant","tool_calls":[{"id":"a","type":"function"}]}`,
			"messages[0].tool_calls[0].function.name",
		},
		{`{"role":"user","content":"x"},{"role":"tool","content":"x"}`, "messages[1].tool_call_id"},
		{
			`{"role":"user","content":"x"},{"role":"tool","content":"x","tool_call_id":"a"}`,
			"messages[1].tool_call_id",
		},
		{`{"role":"assistant","content":"x","audio":{"id":"a"}}`, "messages[0].audio"},
		{`{"role":"user","content":"x","weight":1}`, "messages[0].weight"},
	} {
		w := h.ask(t, "POST", "/v1/chat/completions", `{"model":"m","messages":[`+c.messages+`]}`)
		require.Equal(t, 400, w.Code, "%s: %s", c.messages, w.Body)
		_, param := errorOf(t, w)
		require.Equal(t, c.param, param, "%s: %s", c.messages, w.Body)
	}
}

// TestOtherBodiesRefused is the same for the other routes.
func TestOtherBodiesRefused(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	for _, c := range []struct{ path, body, param string }{
		{"/v1/completions", `{"model":"m"}`, "prompt"},
		{"/v1/completions", `{"model":"m","prompt":[]}`, "prompt"},
		{"/v1/completions", `{"model":"m","prompt":["a",1]}`, "prompt"},
		{"/v1/completions", `{"model":"m","prompt":[1,"a"]}`, "prompt"},
		{"/v1/completions", `{"model":"m","prompt":[-1]}`, "prompt"},
		{"/v1/completions", `{"model":"m","prompt":[99999999999]}`, "prompt"},
		{"/v1/completions", `{"model":"m","prompt":{"a":1}}`, "prompt"},
		{"/v1/completions", `{"model":"m","prompt":"a","suffix":"b"}`, "suffix"},
		{"/v1/completions", `{"model":"m","prompt":"a","best_of":2}`, "best_of"},
		{"/v1/completions", `{"model":"m","prompt":"a","echo":true,"logprobs":1}`, "echo"},
		{"/v1/completions", `{"model":"m","prompt":"a","logprobs":-1}`, "logprobs"},
		{"/v1/completions", `{"model":"m","prompt":"a","max_tokens":0}`, "max_tokens"},
		{"/v1/completions", `{"model":"m","prompt":["a","b"],"n":33}`, "n"},
		{"/v1/embeddings", `{"model":"m"}`, "input"},
		{"/v1/embeddings", `{"model":"m","input":[1,2]}`, "input[0]"},
		{"/v1/embeddings", `{"model":"m","input":"a","dimensions":3}`, "dimensions"},
		{"/v1/embeddings", `{"model":"m","input":"a","encoding_format":"hex"}`, "encoding_format"},
		{"/v1/embeddings", `{"model":"m","input":"a","task":"x"}`, "task"},
		{"/tokenize", `{"content":"a","x":1}`, "x"},
		{"/detokenize", `{"tokens":[999]}`, "tokens"},
		{"/detokenize", `{"tokens":["a"]}`, "tokens[0]"},
	} {
		w := h.ask(t, "POST", c.path, c.body)
		require.Equal(t, 400, w.Code, "%s: %s", c.body, w.Body)
		_, param := errorOf(t, w)
		require.Equal(t, c.param, param, "%s: %s", c.body, w.Body)
	}
	texts := strings.Repeat(`"a",`, httpapi.TextsMax)
	w := h.ask(t, "POST", "/v1/embeddings", `{"model":"m","input":[`+texts[:len(texts)-1]+`]}`)
	require.Equal(t, 200, w.Code)
	w = h.ask(t, "POST", "/v1/embeddings", `{"model":"m","input":[`+texts+`"a"]}`)
	require.Equal(t, 400, w.Code)
}

// TestToolsUnknown: a model whose template has no place for tools refuses them; it would not hear
// of them. Reasoning likewise.
func TestToolsUnknown(t *testing.T) {
	t.Parallel()
	h := serve(t, func(_ *httpapi.Options, b *fake) {
		b.info.Abilities.Tools, b.info.Abilities.Reasoning = false, false
	})
	for param, more := range map[string]string{
		"tools":            `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none"`,
		"reasoning_effort": `,"reasoning_effort":"high"`,
	} {
		code, got := errorOf(t, h.chat(t, more))
		require.Equal(t, "unsupported_parameter", code)
		require.Equal(t, param, got)
	}
	require.Equal(t, 200, h.chat(t, `,"reasoning_effort":"none"`).Code)
	require.Empty(t, h.models.b.asked[0].Tools)
}

// TestKinds: every kind of error has a status and a code; what is inside stays inside.
func TestKinds(t *testing.T) {
	t.Parallel()
	for kind, want := range map[infer.Kind]struct {
		status int
		code   string
		retry  bool
	}{
		infer.KindInvalid:     {400, "invalid_value", false},
		infer.KindTooLong:     {400, "context_length_exceeded", false},
		infer.KindUnsupported: {400, "unsupported_parameter", false},
		infer.KindNoTemplate:  {400, "no_chat_template", false},
		infer.KindModel:       {500, "invalid_model", false},
		infer.KindNoMemory:    {503, "not_enough_memory", true},
		infer.KindBusy:        {429, "queue_full", true},
		infer.KindDeadline:    {504, "deadline_exceeded", false},
		infer.KindClosed:      {503, "shutting_down", true},
		infer.KindLost:        {503, "engine_lost", true},
		infer.KindRecord:      {503, "record_unavailable", true},
		infer.KindMissing:     {500, "native_library_missing", false},
		infer.KindInternal:    {500, "internal_error", false},
		"some new kind":       {500, "internal_error", false},
	} {
		err := &infer.Error{Kind: kind, Hint: "do this", Err: fmt.Errorf("the secret %s", kind)}
		for _, where := range []string{"generate", "open"} {
			h := serve(t, nil)
			h.models.b.run = saying()
			if where == "open" {
				h.models.refused = err
			} else {
				h.models.b.run = script(nil, err)
			}
			w := h.chat(t, `,"stream":true`)
			require.Equal(t, want.status, w.Code, kind)
			code, _ := errorOf(t, w)
			require.Equal(t, want.code, code)
			require.Equal(t, want.retry, w.Header().Get("Retry-After") != "", kind)
			inside := want.status == 500 || kind == infer.KindRecord
			require.Equal(t, inside, !strings.Contains(w.Body.String(), "secret"), kind)
		}
	}
}

// TestNoModel: names that nobody has, and names that are none.
func TestNoModel(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	for _, name := range []string{
		"x", "../m", "m/../m", "/etc/passwd", "%2e%2e", `m\u0000`, strings.Repeat("a", 10<<10), "CON",
		"sha256:xyz", "M", " m", "m ",
	} {
		w := h.ask(t, "POST", "/v1/chat/completions",
			`{"model":"`+name+`","messages":[{"role":"user","content":"x"}]}`)
		require.Equal(t, 404, w.Code, name)
		code, param := errorOf(t, w)
		require.Equal(t, "model_not_found", code)
		require.Equal(t, "model", param)
		require.Less(t, w.Body.Len(), 300)
	}
	w := h.ask(t, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`)
	code, param := errorOf(t, w)
	require.Equal(t, "missing_required_parameter model", code+" "+param)
	for _, path := range []string{"/v1/models/x", "/v1/models/%2e%2e%2fm", "/v1/models/a%00"} {
		require.Equal(t, 404, h.ask(t, "GET", path, "").Code, path)
	}
}

// TestMethods: other methods and paths have errors of the same shape.
func TestMethods(t *testing.T) {
	t.Parallel()
	h := serve(t, nil)
	w := h.ask(t, "GET", "/v1/chat/completions", "")
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "POST", w.Header().Get("Allow"))
	code, _ := errorOf(t, w)
	require.Equal(t, "method_not_allowed", code)
	w = h.ask(t, "POST", "/v1/images", "{}")
	require.Equal(t, 404, w.Code)
	code, _ = errorOf(t, w)
	require.Equal(t, "unknown_url", code)
	w = h.ask(t, "POST", "/tokenize", `{}`, "Content-Type", "text/plain")
	require.Equal(t, 415, w.Code)
}
