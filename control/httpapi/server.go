package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Server answers requests. It is an http.Handler, safe for concurrent use.
type Server struct {
	o        Options
	routes   []route
	mux      *http.ServeMux
	hosts    map[string]bool
	metrics  *metrics
	budgets  budgets
	waits    waits
	outcomes outcomes
	room     chan struct{} // holds one value for each request in flight
	draining atomic.Bool
	openAPI  []byte
}

// New makes a server. The error is an *infer.Error.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{o: o.withDefaults(), hosts: map[string]bool{}, mux: http.NewServeMux()}
	s.room = make(chan struct{}, s.o.InFlight)
	for _, h := range s.o.Hosts {
		s.hosts[strings.ToLower(strings.Trim(h, "[]"))] = true
	}
	s.routes = s.table()
	var err error
	inFlight := func() float64 { return float64(len(s.room)) }
	if s.metrics, err = newMetrics(s.o.Registry, inFlight); err != nil {
		return nil, &infer.Error{Op: "metrics", Kind: infer.KindInvalid, Field: "registry", Err: err}
	}
	if s.openAPI, err = document(s.routes); err != nil {
		return nil, &infer.Error{Op: "describe", Kind: infer.KindInternal, Err: err}
	}
	methods := map[string][]string{}
	for i := range s.routes {
		rt := &s.routes[i]
		methods[rt.path] = append(methods[rt.path], rt.method)
		s.mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) {
			w.(*recorder).x.enter(rt, r) // ServeHTTP gave the mux this writer
		})
	}
	for path, allowed := range methods {
		slices.Sort(allowed)
		s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			w.(*recorder).x.fail(&fault{
				status: http.StatusMethodNotAllowed, code: "method_not_allowed",
				message: "this path takes " + strings.Join(allowed, ", "),
			})
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.(*recorder).x.fail(&fault{
			status: http.StatusNotFound, code: "unknown_url",
			message: "there is no such path; GET /openapi.json lists them",
		})
	})
	return s, nil
}

// HTTP gives a server for listeners, with limits on headers and on idle connections. Its base
// context ends all requests.
func (s *Server) HTTP(base context.Context) *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    HeaderBytesMax - headerSlack,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
	}
}

// headerSlack is what net/http reads beyond MaxHeaderBytes before it refuses.
const headerSlack = 4096

// Drain refuses new requests from now on; those in flight go on. /ready says so, and /health
// still answers.
func (s *Server) Drain() { s.draining.Store(true) }

// exchange is one request on its way through the server. It belongs to the goroutine that serves
// the request.
type exchange struct {
	s     *Server
	w     *recorder
	r     *http.Request
	route *route // nil until it is known
	id    string
	key   *Key // nil where there are no keys
	began time.Time

	model     string // as the log and the metrics name it
	release   func() // of the backend; nil
	perPrompt int    // choices; 0 means 1
	usage     infer.Usage
	finishes  []string // of the answers
	user      string   // digest of the end user's name that the client gave
	failed    *fault
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, r: r, began: s.o.Now(), id: requestID(r)}
	x.w = &recorder{
		ResponseWriter: w, control: http.NewResponseController(w), x: x, timeout: s.o.WriteTimeout,
	}
	h := w.Header()
	h.Set("X-Request-Id", x.id)
	h.Set("Request-Id", x.id) // Anthropic's name for it
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	defer x.end()
	defer x.contain()
	if err := x.checkHost(); err != nil {
		x.fail(err)
		return
	}
	if done := x.crossOrigin(); done {
		return
	}
	s.mux.ServeHTTP(x.w, r)
}

// requestID takes the client's id where it is harmless, and else draws one.
func requestID(r *http.Request) string {
	const most = 128
	given := r.Header.Get("X-Request-Id")
	if given != "" && len(given) <= most && !strings.ContainsFunc(given, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') &&
			c != '-' && c != '_' && c != '.'
	}) {
		return given
	}
	return newID("req_")
}

// newID draws an id that nobody can guess.
func newID(prefix string) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// enter is what happens once the route is known.
func (x *exchange) enter(rt *route, r *http.Request) {
	x.route, x.r = rt, r
	if rt.rule != public {
		if err := x.admit(); err != nil {
			x.fail(err)
			return
		}
		select {
		case x.s.room <- struct{}{}:
			defer func() { <-x.s.room }()
		default:
			x.fail(&fault{
				status: http.StatusTooManyRequests, code: codeBusy,
				message: fmt.Sprintf("%d requests are in flight; try again soon", x.s.o.InFlight),
			})
			return
		}
	}
	defer x.close()
	if err := x.once(rt.handle); err != nil {
		x.fail(err)
	}
}

// close lets go of the backend.
func (x *exchange) close() {
	if x.release != nil {
		x.release()
		x.release = nil
	}
}

// contain keeps a panic of a handler to its own request. What was begun is cut off, so that no
// client takes it for whole.
func (x *exchange) contain() {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	x.s.o.Logger.Error("a handler panicked", "request", x.id, "panic", fmt.Sprintf("%T", p),
		"stack", string(debug.Stack()))
	begun := x.w.status != 0
	x.fail(&infer.Error{Op: "serve", Kind: infer.KindInternal, Err: errPanic})
	if begun {
		panic(http.ErrAbortHandler)
	}
}

var errPanic = errors.New("a handler panicked")

// fail writes an error in the route's dialect, if nothing was written yet.
func (x *exchange) fail(err error) {
	f := faultOf(err)
	x.failed = f
	if x.w.status != 0 || f.status == statusClientClosed {
		return
	}
	h := x.w.Header()
	retry := f.retry
	if f.code == codeBusy {
		retry = x.s.waits.retry(x.model, x.s.o.Now())
	}
	if retry > 0 {
		h.Set("Retry-After", fmt.Sprint(int64((retry+time.Second-1)/time.Second)))
	}
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="norion"`)
	}
	body := errorBody(f)
	status := f.status
	if x.route != nil && x.route.anthropic {
		status, body = anthropicError(f, x.id)
	}
	x.writeJSON(status, body)
}

// end logs and counts a request.
func (x *exchange) end() {
	took := x.s.o.Now().Sub(x.began)
	pattern := "none"
	if x.route != nil {
		pattern = x.route.method + " " + x.route.path
	}
	status := x.w.status
	if status == 0 {
		status = statusClientClosed
	}
	x.s.metrics.request(pattern, status, took)
	x.s.budgets.charge(x.key, x.s.o.Now(), x.usage.PromptTokens+x.usage.CompletionTokens)
	attrs := []slog.Attr{
		slog.String("request", x.id), slog.String("route", pattern), slog.Int("status", status),
		slog.Int64("bytes", x.w.bytes), slog.Duration("took", took),
	}
	if x.key != nil {
		attrs = append(attrs, slog.String("key", x.key.ID))
	}
	if x.user != "" {
		attrs = append(attrs, slog.String("user", x.user))
	}
	if x.model != "" {
		c := x.usage.Cached
		attrs = append(attrs, slog.String("model", x.model),
			slog.Int("prompt_tokens", x.usage.PromptTokens),
			slog.Int("cached_tokens", c.Live+c.RAM+c.Disk),
			slog.Int("answer_tokens", x.usage.CompletionTokens),
			slog.Duration("ttft", x.usage.Timings.TTFT), slog.Any("finish", x.finishes))
	}
	level := slog.LevelInfo
	if f := x.failed; f != nil {
		attrs = append(attrs, slog.String("code", f.code), slog.String("param", f.param))
		if f.status >= http.StatusInternalServerError {
			level = slog.LevelError
			attrs = append(attrs, slog.Any("cause", f.cause))
		}
	}
	x.s.o.Logger.LogAttrs(context.Background(), level, "request", attrs...)
}
