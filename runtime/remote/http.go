package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/sony/gobreaker/v2"

	"github.com/norion/norion/runtime/infer"
)

// Bounds of what is read of an endpoint.
const (
	BodyBytesMax  = 64 << 20 // of a whole answer
	LineBytesMax  = 4 << 20  // of one line of a stream
	errorBytesMax = 64 << 10 // of the text of an error
)

// A breaker leaves an endpoint alone that failed so often in a row, for a while.
const (
	failuresMax = 5
	breakTime   = 10 * time.Second
)

// Why a call's context ends, besides its caller.
var (
	errClosed = errors.New("the backend was closed")
	errSilent = errors.New("the endpoint has fallen silent")
)

func transport() http.RoundTripper {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}
}

func newBreaker() *gobreaker.TwoStepCircuitBreaker[any] {
	return gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Timeout:     breakTime,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresMax },
		// What the caller ended says nothing about the endpoint.
		IsExcluded: func(err error) bool {
			kind := infer.KindOf(err)
			return kind == infer.KindCanceled || kind == infer.KindClosed || kind == infer.KindDeadline
		},
		IsSuccessful: func(err error) bool {
			kind := infer.KindOf(err)
			return kind != infer.KindLost && kind != infer.KindInternal
		},
	})
}

// call is one request to the endpoint. One goroutine uses it.
type call struct {
	op     string
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool // no longer waits for Close
	quiet  *time.Timer // ends ctx when nothing comes
	most   time.Duration
	tell   func(error) // the breaker, how it ended
	body   io.ReadCloser
}

// begin sends a request, again where it did not run, and gives its answer of status 200. The caller
// ends the call.
func (b *Backend) begin(ctx context.Context, op, method, path string, body any) (*call, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, &infer.Error{Op: op, Kind: infer.KindInvalid, Err: err}
		}
	}
	for attempt := 0; ; attempt++ {
		c, wait, err := b.attempt(ctx, op, method, path, data)
		if err == nil {
			return c, nil
		}
		if wait == 0 { // doubled each time, and spread
			wait = time.Millisecond + rand.N(100*time.Millisecond<<attempt)
		}
		if wait < 0 || wait > b.o.RetryWait || attempt >= b.o.Retries {
			return nil, err
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
		case <-b.base.Done():
		}
		again.Stop()
	}
}

// attempt sends a request once. wait says when it may be sent again: 0 is soon, and below 0 is
// never, since it may have run.
func (b *Backend) attempt(ctx context.Context, op, method, path string, body []byte) (
	_ *call, wait time.Duration, err error,
) {
	c := &call{op: op, most: b.o.Silence, tell: func(error) {}}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.stop = context.AfterFunc(b.base, func() { c.cancel(errClosed) })
	c.quiet = time.AfterFunc(b.o.FirstByte, func() { c.cancel(errSilent) })
	if b.base.Err() != nil {
		c.cancel(errClosed)
	}
	if c.ctx.Err() != nil {
		return nil, -1, c.end(c.ctx.Err())
	}
	tell, err := b.breaker.Allow()
	if err != nil {
		return nil, -1, c.end(&infer.Error{
			Op: op, Kind: infer.KindLost, Hint: "it is tried again within " + breakTime.String(),
			Err: fmt.Errorf("the endpoint failed %d times in a row: %w", failuresMax, err),
		})
	}
	c.tell = tell
	r, err := http.NewRequestWithContext(c.ctx, method, b.o.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, -1, c.end(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if b.o.Key != "" {
		r.Header.Set("Authorization", "Bearer "+b.o.Key)
	}
	answer, err := b.client.Do(r)
	if err != nil {
		wait = -1
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			wait = 0 // it has not left
		}
		return nil, wait, c.end(err)
	}
	c.body = answer.Body
	if answer.StatusCode == http.StatusOK {
		return c, 0, nil
	}
	err, wait = refusal(op, answer.StatusCode, answer.Header, io.LimitReader(c, errorBytesMax))
	return nil, wait, c.end(err)
}

// Read reads of the answer. Each byte that comes gives the endpoint new time.
func (c *call) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if n > 0 {
		c.quiet.Reset(c.most)
	}
	return n, err
}

// end ends a call and gives err its type; nil stays nil. Only the first end counts.
func (c *call) end(err error) error {
	cause := context.Cause(c.ctx)
	c.quiet.Stop()
	c.stop()
	c.cancel(nil)
	if c.body != nil {
		_ = c.body.Close() // it was read, or is given up
	}
	_, typed := errors.AsType[*infer.Error](err)
	switch {
	case err == nil:
	case errors.Is(cause, errClosed):
		err = &infer.Error{Op: c.op, Kind: infer.KindClosed}
	case errors.Is(cause, errSilent):
		err = &infer.Error{Op: c.op, Kind: infer.KindLost, Hint: "try again", Err: cause}
	case errors.Is(cause, context.DeadlineExceeded):
		err = &infer.Error{Op: c.op, Kind: infer.KindDeadline, Err: cause}
	case cause != nil:
		err = &infer.Error{Op: c.op, Kind: infer.KindCanceled, Err: cause}
	case !typed:
		err = &infer.Error{Op: c.op, Kind: infer.KindLost, Hint: "is the endpoint running?", Err: err}
	}
	c.tell(err)
	c.tell = func(error) {}
	return err
}

// get asks for one JSON value.
func (b *Backend) get(ctx context.Context, op, method, path string, body, into any) error {
	c, err := b.begin(ctx, op, method, path, body)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(c, BodyBytesMax+1))
	switch {
	case err != nil:
	case len(data) > BodyBytesMax:
		err = garbage(op, fmt.Errorf("an answer of more than %d bytes", BodyBytesMax))
	default:
		if err = json.Unmarshal(data, into); err != nil {
			err = garbage(op, err)
		}
	}
	return c.end(err)
}

// garbage is the error of an answer that cannot be understood.
func garbage(op string, err error) error {
	return &infer.Error{
		Op: op, Kind: infer.KindInternal, Hint: "does the endpoint speak OpenAI's interface?",
		Err: fmt.Errorf("the endpoint's answer makes no sense: %w", err),
	}
}
