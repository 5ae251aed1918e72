package remote

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// apiError is OpenAI's error object, in the variants of llama-server, vLLM and norion.
type apiError struct {
	Message string         `json:"message"`
	Type    string         `json:"type"`
	Param   string         `json:"param"`
	Code    jsontext.Value `json:"code"` // a text, or a status
}

// refusal turns an answer of another status than 200 into a typed error. wait says when the request
// may be sent again, as attempt does.
func refusal(op string, status int, h http.Header, body io.Reader) (err error, wait time.Duration) {
	var a struct {
		Error *apiError `json:"error"`
		apiError
	}
	data, readErr := io.ReadAll(body)
	if json.Unmarshal(data, &a) != nil || a.Error == nil {
		a.Error = &a.apiError // vLLM once had it without the name around
	}
	e := a.Error.typed(op, status)
	if e.Err == nil || a.Error.Message == "" {
		e.Err = fmt.Errorf("status %d", status)
	}
	switch {
	case readErr != nil:
		return e, -1
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return e, retryAfter(h)
	}
	return e, -1
}

// retryAfter reads how many seconds an endpoint asks for; 0 where it does not say.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 || n > int(time.Hour/time.Second) {
		return 0
	}
	return time.Duration(n) * time.Second
}

// codes are error codes and types that say more than their status.
var codes = map[string]infer.Kind{
	"context_length_exceeded":   infer.KindTooLong,
	"exceed_context_size_error": infer.KindTooLong, // llama-server
	"unsupported_parameter":     infer.KindUnsupported,
	"not_supported_error":       infer.KindUnsupported, // llama-server
	"no_chat_template":          infer.KindNoTemplate,
	"model_not_found":           infer.KindModel,
	"invalid_model":             infer.KindModel,
	"not_enough_memory":         infer.KindNoMemory,
	"deadline_exceeded":         infer.KindDeadline,
	"shutting_down":             infer.KindLost,
	"engine_lost":               infer.KindLost,
}

// statuses are the kinds of statuses, where no code says more.
var statuses = map[int]infer.Kind{
	http.StatusBadRequest:            infer.KindInvalid,
	http.StatusUnprocessableEntity:   infer.KindInvalid,
	http.StatusUnauthorized:          infer.KindInvalid,
	http.StatusForbidden:             infer.KindInvalid,
	http.StatusNotFound:              infer.KindUnsupported,
	http.StatusMethodNotAllowed:      infer.KindUnsupported,
	http.StatusRequestEntityTooLarge: infer.KindTooLong,
	http.StatusRequestTimeout:        infer.KindDeadline,
	http.StatusTooManyRequests:       infer.KindBusy,
	http.StatusNotImplemented:        infer.KindUnsupported,
	http.StatusBadGateway:            infer.KindLost,
	http.StatusServiceUnavailable:    infer.KindBusy,
	http.StatusGatewayTimeout:        infer.KindDeadline,
}

// fields are those of infer.Request whose name differs at an endpoint.
var fields = map[string]string{
	"messages": "prompt", "response_format": "schema", "json_schema": "schema",
	"max_completion_tokens": "max_tokens", "input": "texts", "content": "text",
}

// messageMax bounds the words of an endpoint that come into an error.
const messageMax = 500

// typed gives an endpoint's error the kind of its code, or else of its status.
func (a *apiError) typed(op string, status int) *infer.Error {
	code := strings.Trim(string(a.Code), `"`)
	kind, ok := codes[code]
	if !ok {
		kind, ok = codes[a.Type]
	}
	if !ok && strings.Contains(a.Message, "maximum context length") { // vLLM
		kind, ok = infer.KindTooLong, true
	}
	if !ok {
		kind, ok = statuses[status]
	}
	if !ok {
		kind = infer.KindInternal
	}
	e := &infer.Error{Op: op, Kind: kind, Field: a.Param}
	if i := strings.IndexAny(e.Field, "[."); i > 0 && fields[e.Field[:i]] != "" {
		e.Field = fields[e.Field[:i]] + e.Field[i:]
	} else if name := fields[e.Field]; name != "" {
		e.Field = name
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		e.Field, e.Hint = "key", "give a key that the endpoint takes"
	}
	words := strings.ToValidUTF8(a.Message, "\uFFFD")
	if len(words) > messageMax {
		words = strings.ToValidUTF8(words[:messageMax], "") + "..."
	}
	if words != "" {
		e.Err = fmt.Errorf("the endpoint says: %s", words)
	}
	return e
}
