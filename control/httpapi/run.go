package httpapi

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// open gives the backend that a request names, until the exchange ends.
func (x *exchange) open(name string) (infer.Backend, error) {
	if name == "" {
		return nil, missing("model")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	left := x.s.o.RequestTimeout - x.s.o.Now().Sub(x.began)
	ctx, cancel := context.WithTimeout(x.r.Context(), left)
	defer cancel()
	b, release, err := x.s.o.Models.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	x.model, x.release = name, release
	return b, nil
}

// checkName refuses what is no name of a model, before anybody looks it up.
func checkName(name string) error {
	fine := len(name) <= NameBytesMax && !strings.Contains(name, "..")
	for i, c := range []byte(name) {
		fine = fine && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			i > 0 && strings.IndexByte("._-:@/+", c) >= 0)
	}
	if fine {
		return nil
	}
	return &fault{
		status: 404, code: codeNoModel, param: "model",
		message: "this is no name of a model; GET /v1/models lists them",
	}
}

// only gives the name of the one model, for routes where llama-server's clients name none.
func (x *exchange) only(name string) string {
	if name != "" {
		return name
	}
	if all := x.s.o.Models.List(); len(all) == 1 {
		return all[0].Name
	}
	return ""
}

// complete sets what every generation has: id, deadline and tenant. It refuses a request that no
// backend could run.
func (x *exchange) complete(r *infer.Request) error {
	r.ID = x.id
	r.Deadline = x.began.Add(x.s.o.RequestTimeout)
	r.KV.Salt = x.key.salt()
	return r.Validate()
}

// choices gives n requests that differ in their seed alone.
func choices(r infer.Request, n int) []infer.Request {
	all := make([]infer.Request, n)
	for i := range all {
		all[i] = r
		if r.Sampling.Seed != 0 {
			all[i].Sampling.Seed = foldSeed(int64(r.Sampling.Seed) + int64(i))
		}
	}
	return all
}

// foldSeed maps any seed to one that the engine takes for a fixed one, most to themselves.
func foldSeed(seed int64) uint32 {
	if seed > 0 && seed < math.MaxUint32 {
		return uint32(seed)
	}
	h := uint64(seed)*0x9e3779b97f4a7c15 + 0x7f4a7c15
	h ^= h >> 32
	return uint32(h%(math.MaxUint32-1)) + 1
}

// event is one piece of one choice's answer, or the error that ended it.
type event struct {
	choice int
	chunk  infer.Chunk
	err    error
}

// generate runs requests side by side. Events come until all have ended or stop was called, which
// returns when nothing runs any more. A reader that takes no events holds the answers up.
func (x *exchange) generate(b infer.Backend, requests []infer.Request) (
	events <-chan event, stop func(),
) {
	ctx, cancel := context.WithCancel(x.r.Context())
	out := make(chan event, len(requests))
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() { x.pump(ctx, b, requests[i], i, out) })
	}
	go func() {
		all.Wait()
		close(out)
	}()
	return out, func() {
		cancel()
		for range out { //nolint:revive // the pumps close it
		}
	}
}

// pump hands the chunks of one request on.
func (x *exchange) pump(
	ctx context.Context, b infer.Backend, r infer.Request, choice int, out chan<- event,
) {
	send := func(e event) bool {
		select {
		case out <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	defer func() {
		if p := recover(); p != nil {
			x.s.o.Logger.Error("a backend panicked", "request", x.id)
			send(event{choice: choice, err: &infer.Error{
				Op: "generate", Kind: infer.KindInternal, Err: errors.New("the backend panicked"),
			}})
		}
	}()
	for c, err := range b.Generate(ctx, r) {
		if !send(event{choice, c, err}) || err != nil {
			return
		}
	}
}

// account adds what one answer cost. A prompt counts once, with the first of its choices.
func (x *exchange) account(e *event) {
	f := e.chunk.Final
	u := f.Usage
	x.finishes = append(x.finishes, string(f.Reason))
	x.s.metrics.answer(x.model, f)
	x.s.waits.observe(x.model, x.s.o.Now(), u.Timings.Queue)
	x.usage.CompletionTokens += u.CompletionTokens
	if e.choice == 0 {
		x.usage.Timings = u.Timings
	}
	if e.choice%max(x.perPrompt, 1) == 0 {
		x.usage.PromptTokens += u.PromptTokens
		x.usage.Cached.Live += u.Cached.Live
		x.usage.Cached.RAM += u.Cached.RAM
		x.usage.Cached.Disk += u.Cached.Disk
	}
}

// answer is one whole answer.
type answer struct {
	logprobs []infer.Logprob
	final    *infer.Final
}

// collect waits for whole answers, one for each request.
func (x *exchange) collect(b infer.Backend, requests []infer.Request) ([]answer, error) {
	events, stop := x.generate(b, requests)
	defer stop()
	answers := make([]answer, len(requests))
	left := len(requests)
	for e := range events {
		if e.err != nil {
			return nil, e.err
		}
		a := &answers[e.choice]
		a.logprobs = append(a.logprobs, e.chunk.Logprobs...)
		if e.chunk.Final != nil {
			x.account(&e)
			a.final = e.chunk.Final
			left--
		}
	}
	if left > 0 {
		return nil, x.gone()
	}
	return answers, nil
}

// gone is the error of answers that ended without an end: the client left, or the backend broke
// its promise.
func (x *exchange) gone() error {
	if err := x.r.Context().Err(); err != nil {
		return &infer.Error{Op: "generate", Kind: infer.KindCanceled, Err: err}
	}
	return &infer.Error{
		Op: "generate", Kind: infer.KindInternal, Err: errors.New("the answer has no end"),
	}
}

// dialect writes a stream in the events of one interface.
type dialect interface {
	begin(w *sse) error // before the first event, when the answer has begun
	piece(w *sse, e *event) error
	finish(w *sse) error
	broken(w *sse, f *fault) error // the stream ends early
}

// stream writes answers as they come. An error before the first byte is returned, so that it gets a
// status of its own; a later one becomes an event.
func (x *exchange) stream(b infer.Backend, requests []infer.Request, d dialect) error {
	events, stop := x.generate(b, requests)
	defer stop()
	w := newSSE(x)
	tick := time.NewTicker(x.s.o.KeepAlive)
	defer tick.Stop()
	begun := false
	for left := len(requests); left > 0; {
		select {
		case e, ok := <-events:
			if !ok {
				e.err = x.gone()
			}
			if err := x.write(w, d, &e, &begun); err != nil || x.failed != nil {
				return err
			}
			if e.chunk.Final != nil {
				left--
			}
			if len(events) > 0 {
				continue // they leave together
			}
			tick.Reset(x.s.o.KeepAlive)
		case <-tick.C:
			w.comment()
		}
		if err := w.flush(); err != nil {
			return &infer.Error{Op: "write", Kind: infer.KindCanceled, Err: err}
		}
	}
	if err := d.finish(w); err != nil {
		return err
	}
	return w.flush()
}

// write adds one event to the stream.
func (x *exchange) write(w *sse, d dialect, e *event, begun *bool) error {
	if e.err != nil {
		if !w.begun() {
			return e.err
		}
		x.failed = faultOf(e.err)
		if err := d.broken(w, x.failed); err != nil {
			return err
		}
		return w.flush()
	}
	if !*begun {
		*begun = true
		if err := d.begin(w); err != nil {
			return err
		}
	}
	if e.chunk.Final != nil {
		x.account(e)
	}
	return d.piece(w, e)
}
