package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// fault is an error as a client sees it: its status, and the fields of OpenAI's error object.
type fault struct {
	status  int
	code    string
	param   string // the field at fault, or ""
	message string
	retry   time.Duration // when to try again; 0: do not, or of codeBusy as waits say
	cause   error         // for the log only
}

// Error gives the message that the client sees.
func (f *fault) Error() string { return f.message }

// Unwrap returns the cause, which the client does not see.
func (f *fault) Unwrap() error { return f.cause }

// Codes of faults that are not in the table of kinds. Those of OpenAI where it has one.
const (
	codeInvalidValue = "invalid_value"
	codeInvalidType  = "invalid_type"
	codeMissing      = "missing_required_parameter"
	codeUnknown      = "unknown_parameter"
	codeUnsupported  = "unsupported_parameter"
	codeNoModel      = "model_not_found"
	codeBusy         = "queue_full"
)

// retryAfter is when a client may try again whom something else than a full queue turned away.
const retryAfter = time.Second

// refuse is the refusal of one field.
func refuse(code, param, format string, args ...any) *fault {
	return &fault{
		status: http.StatusBadRequest, code: code, param: param,
		message: fmt.Sprintf(format, args...),
	}
}

// unsupported refuses a field that is known and cannot be honoured.
func unsupported(param, hint string) *fault {
	return refuse(codeUnsupported, param, "'%s' is not supported by this server%s", param,
		joined(": ", hint))
}

func missing(param string) *fault {
	return refuse(codeMissing, param, "'%s' is required", param)
}

// joined puts sep before text, unless there is none.
func joined(sep, text string) string {
	if text == "" {
		return ""
	}
	return sep + text
}

// kindFaults say how each kind of package infer looks from outside.
var kindFaults = map[infer.Kind]fault{
	infer.KindInvalid:     {status: http.StatusBadRequest, code: codeInvalidValue},
	infer.KindTooLong:     {status: http.StatusBadRequest, code: "context_length_exceeded"},
	infer.KindUnsupported: {status: http.StatusBadRequest, code: codeUnsupported},
	infer.KindNoTemplate:  {status: http.StatusBadRequest, code: "no_chat_template"},
	infer.KindModel:       {status: http.StatusInternalServerError, code: "invalid_model"},
	infer.KindNoMemory: {
		status: http.StatusServiceUnavailable, code: "not_enough_memory", retry: 10 * time.Second,
	},
	infer.KindBusy:     {status: http.StatusTooManyRequests, code: codeBusy}, // waits say when
	infer.KindDeadline: {status: http.StatusGatewayTimeout, code: "deadline_exceeded"},
	infer.KindCanceled: {status: statusClientClosed, code: "canceled"},
	infer.KindClosed: {
		status: http.StatusServiceUnavailable, code: "shutting_down", retry: retryAfter,
	},
	infer.KindLost: {
		status: http.StatusServiceUnavailable, code: "engine_lost", retry: retryAfter,
	},
	infer.KindRecord: {
		status: http.StatusServiceUnavailable, code: "record_unavailable", retry: retryAfter,
	},
	infer.KindMissing:  {status: http.StatusInternalServerError, code: "native_library_missing"},
	infer.KindInternal: {status: http.StatusInternalServerError, code: "internal_error"},
}

// statusClientClosed is nginx's code for a client that went away: it is in logs and metrics only.
const statusClientClosed = 499

// faultOf turns any error into what a client may see of it.
func faultOf(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	if errors.Is(err, ErrNoModel) {
		return &fault{
			status: http.StatusNotFound, code: codeNoModel, param: "model", cause: err,
			message: "this server has no such model; GET /v1/models lists those it has",
		}
	}
	kind := infer.KindOf(err)
	if errors.Is(err, context.Canceled) && kind == infer.KindInternal {
		kind = infer.KindCanceled
	}
	f, ok := kindFaults[kind]
	if !ok {
		f = kindFaults[infer.KindInternal]
	}
	f.cause, f.message = err, string(kind)
	e, ok := errors.AsType[*infer.Error](err)
	if !ok || f.status == http.StatusInternalServerError || kind == infer.KindRecord {
		return &f // what is inside may name paths
	}
	f.param = e.Field
	if e.Err != nil {
		f.message = e.Err.Error()
	}
	f.message += joined("; ", e.Hint)
	f.message = strings.ToValidUTF8(f.message, "\uFFFD")
	return &f
}

// named gives the param of a fault the name that a dialect has for it.
func (f *fault) named(names map[string]string) *fault {
	head, rest := f.param, ""
	if i := strings.IndexAny(f.param, "[."); i > 0 {
		head, rest = f.param[:i], f.param[i:]
	}
	name, ok := names[head]
	if !ok {
		return f
	}
	out := *f
	out.param = name + rest
	return &out
}
