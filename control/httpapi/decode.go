package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// strict are the rules of every body besides those of the package: no doubled names, no invalid
// UTF-8, no half of a surrogate pair, nothing behind the value.
var strict = json.RejectUnknownMembers(true)

// lenient are the rules of what is written: bytes of a model that are no UTF-8 become U+FFFD.
var lenient = json.JoinOptions(jsontext.AllowInvalidUTF8(true), json.Deterministic(true))

// decode reads one JSON object. The error is a *fault that names the field.
func decode(data []byte, into any) error {
	if tooDeep(data) {
		return refuse("invalid_json", "", "the body is nested deeper than %d", JSONDepthMax)
	}
	err := json.Unmarshal(data, into, strict)
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return withPointer(f, err)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		param := paramOf(e.JSONPointer)
		if errors.Is(e, json.ErrUnknownName) {
			return refuse(codeUnknown, param, "unknown parameter: '%s'", clip(param))
		}
		return refuse(codeInvalidType, param, "invalid value for '%s': %s", clip(param), semantics(e))
	}
	e, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return refuse("invalid_json", "", "the body is no JSON value")
	}
	why := "it is malformed"
	switch {
	case errors.Is(e, jsontext.ErrDuplicateName):
		why = "a name comes twice in one object"
	case errors.Is(e, io.ErrUnexpectedEOF):
		why = "it ends too early"
	case strings.Contains(e.Error(), "UTF-8") || strings.Contains(e.Error(), "surrogate"):
		why = "a text in it is not valid Unicode"
	}
	f := refuse("invalid_json", paramOf(e.JSONPointer), "the body is not acceptable JSON: %s", why)
	f.message += fmt.Sprintf(" (near byte %d)", e.ByteOffset)
	return f
}

// tooDeep counts brackets, so that nothing recurses over what is nested deeper than JSONDepthMax.
// Of a text that is no JSON it may say anything.
func tooDeep(data []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > JSONDepthMax {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// withPointer adds where in the body a type's own decoding refused a value.
func withPointer(f *fault, err error) error {
	e, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return f
	}
	out := *f
	out.param = joinParams(paramOf(e.JSONPointer), f.param)
	return &out
}

// joinParams names a field within another one.
func joinParams(outer, inner string) string {
	if outer == "" || inner == "" || inner[0] == '[' {
		return outer + inner
	}
	return outer + "." + inner
}

// semantics says why a value does not fit, without quoting it.
func semantics(e *json.SemanticError) string {
	want := ""
	if t := e.GoType; t != nil {
		switch t.Kind() {
		case reflect.String:
			want = "a string"
		case reflect.Bool:
			want = "true or false"
		case reflect.Float32, reflect.Float64:
			want = "a number within range"
		case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32:
			want = "a whole number within range"
		case reflect.Slice, reflect.Array:
			want = "an array"
		case reflect.Struct, reflect.Map:
			want = "an object"
		}
	}
	if want == "" {
		return "it has the wrong type"
	}
	return fmt.Sprintf("expected %s, got %s", want, kindName(e.JSONKind))
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	return "something else"
}

// paramOf writes a JSON pointer as OpenAI names fields: messages[0].content.
func paramOf(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		switch digits := strings.Trim(token, "0123456789") == ""; {
		case digits && b.Len() > 0:
			b.WriteString("[" + token + "]")
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
	}
	return clip(b.String())
}

// clip bounds what of a client's own words comes back to it.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// readBody reads a request's JSON within the limits of size and time.
func (x *exchange) readBody() ([]byte, error) {
	if t, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil ||
		t != "application/json" {
		return nil, &fault{
			status: http.StatusUnsupportedMediaType, code: "unsupported_media_type",
			message: "send the body as Content-Type: application/json",
		}
	}
	if e := x.r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, &fault{
			status: http.StatusUnsupportedMediaType, code: "unsupported_media_type",
			message: "send the body without Content-Encoding",
		}
	}
	control := http.NewResponseController(x.w)
	_ = control.SetReadDeadline(x.began.Add(x.s.o.BodyTimeout)) // a recorder of a test has none
	body := http.MaxBytesReader(x.w.ResponseWriter, x.r.Body, x.s.o.BodyBytes)
	data, err := io.ReadAll(body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &fault{
			status: http.StatusRequestEntityTooLarge, code: "request_too_large",
			message: fmt.Sprintf("the body has more than %d bytes", x.s.o.BodyBytes),
		}
	}
	if err != nil {
		return nil, &fault{
			status: http.StatusRequestTimeout, code: "body_timeout", cause: err,
			message: "the body did not come in whole, or not in time",
		}
	}
	// The deadline would otherwise end the watch for a client that goes away.
	_ = control.SetReadDeadline(time.Time{})
	return data, nil
}

// readJSON reads and decodes a request's body.
func (x *exchange) readJSON(into any) error {
	data, err := x.readBody()
	if err != nil {
		return err
	}
	return decode(data, into)
}
