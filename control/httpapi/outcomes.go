package httpapi

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"io"
	"net/http"
	"sync"
	"time"
)

// Bounds of what is kept of answers to requests with an Idempotency-Key. It lives in memory: a
// restart forgets it.
const (
	outcomesMax          = 1024
	outcomeBytesMax      = 1 << 20 // a longer answer is not kept
	outcomesBytesMax     = 64 << 20
	outcomeAge           = time.Hour
	idempotencyBytesMax  = 255
	idempotencyKeyHeader = "Idempotency-Key"
)

// outcomes are the answers to requests with an Idempotency-Key. It is safe for concurrent use.
type outcomes struct {
	mu    sync.Mutex
	all   map[outcomeKey]*list.Element // of *outcome
	order list.List                    // oldest first
	bytes int
}

type outcomeKey struct{ salt, text string }

// outcome is one answer, or a place for one that is being made.
type outcome struct {
	key         outcomeKey
	request     [sha256.Size]byte // digest of path and body
	at          time.Time
	done        bool
	contentType string
	body        []byte
}

// once lets a request with an Idempotency-Key happen once: a second one gets the first one's
// answer, or is refused while that is being made. An answer that failed is not kept.
func (x *exchange) once(handle func(*exchange) error) error {
	text := x.r.Header.Get(idempotencyKeyHeader)
	if text == "" || x.r.Method != http.MethodPost {
		return handle(x)
	}
	if len(text) > idempotencyBytesMax {
		return refuse(codeInvalidValue, "", "%s has %d bytes, at most %d", idempotencyKeyHeader,
			len(text), idempotencyBytesMax)
	}
	body, err := x.readBody()
	if err != nil {
		return err
	}
	x.r.Body = io.NopCloser(bytes.NewReader(body))
	key := outcomeKey{x.key.salt(), text}
	digest := sha256.Sum256(append([]byte(x.route.path+"\n"), body...))
	before, err := x.s.outcomes.claim(key, digest, x.began)
	if err != nil {
		return err
	}
	if before != nil {
		h := x.w.Header()
		h.Set("Idempotent-Replayed", "true")
		h.Set("Content-Type", before.contentType)
		_, _ = x.w.Write(before.body) // whether the client takes it is its own affair
		return nil
	}
	whole := false
	defer func() {
		if !whole {
			x.s.outcomes.drop(key)
		}
	}()
	x.w.kept = &bytes.Buffer{}
	if err := handle(x); err != nil {
		return err
	}
	if kept := x.w.kept; kept != nil && x.failed == nil && x.w.status == http.StatusOK &&
		x.r.Context().Err() == nil {
		whole = true
		x.s.outcomes.keep(key, x.w.Header().Get("Content-Type"), kept.Bytes())
	}
	return nil
}

// claim gives the answer that a key has, or makes a place for one and returns nil.
func (o *outcomes) claim(key outcomeKey, request [sha256.Size]byte, now time.Time) (
	*outcome, error,
) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(now)
	e := o.all[key]
	if e == nil {
		if o.all == nil {
			o.all = map[outcomeKey]*list.Element{}
		}
		o.all[key] = o.order.PushBack(&outcome{key: key, request: request, at: now})
		return nil, nil
	}
	switch out := e.Value.(*outcome); {
	case out.request != request:
		return nil, &fault{
			status: http.StatusUnprocessableEntity, code: "idempotency_key_reused",
			message: "this Idempotency-Key came with another request before",
		}
	case !out.done:
		return nil, &fault{
			status: http.StatusConflict, code: "idempotency_in_progress", retry: retryAfter,
			message: "the first request with this Idempotency-Key is still being answered",
		}
	default:
		return out, nil
	}
}

// forget drops what is old, and the oldest of what is too much. Places of requests that are being
// answered stay.
func (o *outcomes) forget(now time.Time) {
	for e := o.order.Front(); e != nil; {
		next, out := e.Next(), e.Value.(*outcome)
		tooMuch := o.order.Len() >= outcomesMax || o.bytes > outcomesBytesMax-outcomeBytesMax
		if !tooMuch && now.Sub(out.at) < outcomeAge {
			return
		}
		if out.done {
			o.remove(e)
		}
		e = next
	}
}

func (o *outcomes) remove(e *list.Element) {
	out := o.order.Remove(e).(*outcome)
	o.bytes -= len(out.body)
	delete(o.all, out.key)
}

// keep fills the place of a key.
func (o *outcomes) keep(key outcomeKey, contentType string, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.all[key].Value.(*outcome)
	out.done, out.contentType, out.body = true, contentType, body
	o.bytes += len(body)
}

// drop gives the place of a key up.
func (o *outcomes) drop(key outcomeKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove(o.all[key])
}
