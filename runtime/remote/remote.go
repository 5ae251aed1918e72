// Package remote is the infer.Backend over an endpoint that speaks OpenAI's interface, such as
// llama-server, vLLM or another norion. It owns the connections, learns at Open what the endpoint
// can do, refuses by name what it cannot, and bounds all that it reads and waits for. It must not
// know any engine, file or process.
package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/norion/norion/runtime/infer"
)

// Options name an endpoint. Zero elsewhere than in URL means the default that is named.
type Options struct {
	URL   string // such as http://127.0.0.1:8080; a /v1 at its end is left out
	Model string // as the endpoint calls it; "" means the only one it has
	Key   string // sent as a bearer token; it is in no error

	FirstByte time.Duration // for an answer to begin, its prompt computed; 0: 5 minutes
	Silence   time.Duration // between two bytes of an answer; 0: 1 minute
	Retries   int           // of requests that did not run; 0: 2, -1: none
	RetryWait time.Duration // the longest wait before a retry; 0: 10 seconds

	// Transport carries requests; nil: one of its own, with a connection timeout of 10 seconds.
	Transport http.RoundTripper
}

func (o Options) filled() Options {
	o.FirstByte = cmp.Or(o.FirstByte, 5*time.Minute)
	o.Silence = cmp.Or(o.Silence, time.Minute)
	o.Retries = max(cmp.Or(o.Retries, 2), 0)
	o.RetryWait = cmp.Or(o.RetryWait, 10*time.Second)
	o.URL = strings.TrimSuffix(strings.TrimSuffix(o.URL, "/"), "/v1")
	if o.Transport == nil {
		o.Transport = transport()
	}
	return o
}

// retriesMost bounds Options.Retries.
const retriesMost = 10

// Validate refuses options that cannot be used. The error is an *infer.Error that names the field.
func (o *Options) Validate() error {
	refuse := func(field, hint, format string, args ...any) error {
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: field, Hint: hint,
			Err: fmt.Errorf(format, args...),
		}
	}
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return refuse("url", "write it as http://127.0.0.1:8080", "not the address of a server")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return refuse("url", "give a key apart", "it has a user, a query or a fragment")
	case strings.ContainsAny(o.Key, "\r\n\x00"):
		return refuse("key", "", "it is not one line")
	case o.FirstByte < 0 || o.Silence < 0 || o.RetryWait < 0:
		return refuse("timeout", "0 is the default", "negative")
	case o.Retries < -1 || o.Retries > retriesMost:
		return refuse("retries", "-1 is none", "%d is outside -1..%d", o.Retries, retriesMost)
	}
	return nil
}

// Backend runs requests at an endpoint. It implements infer.Backend.
type Backend struct {
	o       Options
	client  *http.Client
	breaker *gobreaker.TwoStepCircuitBreaker[any]
	dialect dialect
	info    infer.Info

	base   context.Context // ends with Close
	cancel context.CancelFunc
}

// Open asks the endpoint what it is and can do. The error is an *infer.Error: KindLost where it
// does not answer, KindModel where it has no such model.
func Open(ctx context.Context, o Options) (*Backend, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b := &Backend{o: o.filled()}
	b.base, b.cancel = context.WithCancel(context.Background())
	b.client = &http.Client{
		Transport: b.o.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { // it would take the key along
			return http.ErrUseLastResponse
		},
	}
	b.breaker = newBreaker()
	if err := b.probe(ctx); err != nil {
		_ = b.Close() // which cannot fail
		return nil, err
	}
	return b, nil
}

// Info implements infer.Backend. It says what was learned at Open.
func (b *Backend) Info() infer.Info { return b.info }

// Score implements infer.Backend: OpenAI's interface has no way to score a text.
func (b *Backend) Score(_ context.Context, r infer.ScoreRequest) (infer.Scores, error) {
	if err := r.Validate(); err != nil {
		return infer.Scores{}, err
	}
	return infer.Scores{}, unsupported("score", "")
}

// Close implements infer.Backend. Requests that run end with KindClosed.
func (b *Backend) Close() error {
	b.cancel()
	b.client.CloseIdleConnections()
	return nil
}

// unsupported is the refusal of what the endpoint cannot do.
func unsupported(op, field string) *infer.Error {
	return &infer.Error{
		Op: op, Kind: infer.KindUnsupported, Field: field,
		Hint: "leave it out, or ask a model that runs on this machine",
		Err:  errors.New("the remote endpoint cannot be told this"),
	}
}
