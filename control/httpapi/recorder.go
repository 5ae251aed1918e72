package httpapi

import (
	"bytes"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
)

// recorder is the writer of one answer: it counts, keeps a copy where one is wanted, and gives the
// client so long to take each write.
type recorder struct {
	http.ResponseWriter
	control *http.ResponseController
	x       *exchange
	timeout time.Duration
	status  int // 0: nothing was written
	bytes   int64
	kept    *bytes.Buffer // nil: no copy is wanted
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.allow()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	if w.kept != nil {
		if w.kept.Len()+n > outcomeBytesMax {
			w.kept = nil
		} else {
			w.kept.Write(p[:n])
		}
	}
	return n, err
}

// FlushError sends what was written.
func (w *recorder) FlushError() error {
	w.allow()
	return w.control.Flush()
}

// allow begins the time that the client has to take what comes. A recorder of a test has none.
func (w *recorder) allow() { _ = w.control.SetWriteDeadline(w.x.s.o.Now().Add(w.timeout)) }

// Unwrap lets http.ResponseController find what is below.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// writeJSON writes a whole answer. That a client does not take it is no error of anyone.
func (x *exchange) writeJSON(status int, v any) {
	data, err := json.Marshal(v, lenient)
	if err != nil {
		x.s.o.Logger.Error("an answer cannot be written as JSON", "request", x.id, "error", err)
		status, data = http.StatusInternalServerError, []byte(`{"error":{"code":"internal_error"}}`)
	}
	x.w.Header().Set("Content-Type", "application/json")
	x.w.WriteHeader(status)
	_, _ = x.w.Write(append(data, '\n'))
}

// errorBody is an error in OpenAI's shape.
func errorBody(f *fault) any {
	type object struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}
	e := object{Message: f.message, Type: "invalid_request_error", Code: f.code}
	if f.param != "" {
		e.Param = &f.param
	}
	switch {
	case f.status == http.StatusTooManyRequests:
		e.Type = "rate_limit_error"
	case f.status == http.StatusForbidden:
		e.Type = "permission_error"
	case f.status >= http.StatusInternalServerError:
		e.Type = "server_error"
	}
	return map[string]object{"error": e}
}
