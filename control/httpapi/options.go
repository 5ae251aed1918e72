package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/norion/norion/runtime/infer"
)

// Models gives the backends that requests name. It is safe for concurrent use.
type Models interface {
	// List describes the models that can be asked for, in the order in which they are shown. It does
	// not block.
	List() []Model
	// Open gives the backend of a model, and loads it first where need be. The caller calls release
	// once, when it no longer uses the backend, which it never closes. The error is an *infer.Error,
	// or wraps ErrNoModel.
	Open(ctx context.Context, name string) (b infer.Backend, release func(), err error)
}

// ErrNoModel is the error of Models.Open for a name that is not in the list.
var ErrNoModel = errors.New("no such model")

// Model is one entry of the list.
type Model struct {
	Name    string
	Created time.Time   // of its file, or when it was added
	Info    *infer.Info // nil while it is not loaded
}

// Bounds of what clients may send. Each is tested at its value and one above.
const (
	HeaderBytesMax = 64 << 10 // of all headers together
	JSONDepthMax   = 64       // of any body
	ChoicesMax     = 64       // answers of one request: prompts x n
	TextsMax       = 2048     // of one request for embeddings
	NameBytesMax   = 256      // of a model's name
	bodyBytesMost  = 1 << 30
	inFlightMost   = 1 << 20
)

// Options configures a Server. Models, Now and Logger are required; zero elsewhere means the
// default that is named.
type Options struct {
	Models Models
	Now    func() time.Time // the clock, of timestamps, budgets and durations
	Logger *slog.Logger     // never sees text of prompts or answers

	// Keys gives the keys of this moment. A nil function lets every caller in as an operator: that is
	// for listeners which only this machine, or only one user, can reach.
	Keys func() *Keyring
	// Hosts are the names and addresses, without ports, that a Host header may have.
	Hosts []string
	// Origins are the web origins, such as https://chat.example, whose pages may call.
	Origins []string

	BodyBytes      int64         // of a request; 0: 32 MiB
	InFlight       int           // requests at once, waiting ones included; 0: 256
	RequestTimeout time.Duration // from the first byte to the last of an answer; 0: 30 minutes
	BodyTimeout    time.Duration // for the whole body to come in; 0: 30 seconds
	WriteTimeout   time.Duration // for a client to take what was written; 0: 30 seconds
	KeepAlive      time.Duration // between comments on a stream that has nothing to say; 0: 10 s

	// Registry gets the server's metrics, and is what /metrics shows; nil: one of its own.
	Registry *prometheus.Registry
}

// withDefaults fills in what is zero.
func (o Options) withDefaults() Options {
	o.BodyBytes = cmp.Or(o.BodyBytes, 32<<20)
	o.InFlight = cmp.Or(o.InFlight, 256)
	o.RequestTimeout = cmp.Or(o.RequestTimeout, 30*time.Minute)
	o.BodyTimeout = cmp.Or(o.BodyTimeout, 30*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	o.KeepAlive = cmp.Or(o.KeepAlive, 10*time.Second)
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	return o
}

// Validate refuses options that cannot be used. The error is an *infer.Error that names the field.
func (o *Options) Validate() error {
	refuse := func(field, hint, format string, args ...any) error {
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: field, Hint: hint,
			Err: fmt.Errorf(format, args...),
		}
	}
	switch {
	case o.Models == nil || o.Now == nil || o.Logger == nil:
		return refuse("models", "", "models, a clock and a logger are required")
	case o.BodyBytes < 0 || o.BodyBytes > bodyBytesMost:
		return refuse("body limit", "", "%d is outside 0..%d", o.BodyBytes, bodyBytesMost)
	case o.InFlight < 0 || o.InFlight > inFlightMost:
		return refuse("in flight", "", "%d is outside 0..%d", o.InFlight, inFlightMost)
	}
	for _, d := range []time.Duration{
		o.RequestTimeout, o.BodyTimeout, o.WriteTimeout, o.KeepAlive,
	} {
		if d < 0 {
			return refuse("timeout", "0 is the default", "%s is negative", d)
		}
	}
	for _, h := range o.Hosts {
		if h == "" || strings.ContainsAny(h, "*/ ") {
			return refuse("host", "name each host; there are no wildcards", "%.80q", h)
		}
	}
	for _, origin := range o.Origins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
			u.Scheme+"://"+u.Host != origin {
			return refuse("origin", "write it as https://chat.example", "%.80q", origin)
		}
	}
	return nil
}
