package httpapi

import (
	"bytes"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// sse writes server-sent events (HTML Living Standard, section 9.2). Events gather until flush.
type sse struct {
	x   *exchange
	buf bytes.Buffer
	enc *jsontext.Encoder
}

func newSSE(x *exchange) *sse { return &sse{x: x} }

// begun says that a part of the stream has left.
func (w *sse) begun() bool { return w.x.w.status != 0 }

// event adds an event with a JSON value, and with a name unless that is "".
func (w *sse) event(name string, v any) error {
	if name != "" {
		w.buf.WriteString("event: " + name + "\n")
	}
	w.buf.WriteString("data: ")
	if w.enc == nil {
		w.enc = jsontext.NewEncoder(&w.buf, lenient)
	}
	w.enc.Reset(&w.buf, lenient)
	if err := json.MarshalEncode(w.enc, v, lenient); err != nil {
		return err
	}
	if n := w.buf.Len(); w.buf.Bytes()[n-1] == '\n' { // the encoder's own
		w.buf.Truncate(n - 1)
	}
	w.buf.WriteString("\n\n")
	return nil
}

// done adds the mark that ends OpenAI's streams.
func (w *sse) done() { w.buf.WriteString("data: [DONE]\n\n") }

// comment adds what clients pass over; it keeps a connection open.
func (w *sse) comment() { w.buf.WriteString(": keep-alive\n\n") }

// flush sends what has gathered. The error means that the client does not take it.
func (w *sse) flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	if !w.begun() {
		h := w.x.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // proxies of the nginx kind would hold events back
		w.x.w.WriteHeader(http.StatusOK)
	}
	_, err := w.x.w.Write(w.buf.Bytes())
	w.buf.Reset()
	if err != nil {
		return err
	}
	return w.x.w.FlushError()
}
