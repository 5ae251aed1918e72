// Package command is the infer.Backend over a user's program: one JSON value a line on its
// standard input and output (docs/format/command.md). It owns the program's process, which it
// starts, bounds, ends and starts again. It must not know any engine or network.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Options name a program. Zero elsewhere than in Command means the default that is named.
type Options struct {
	Command []string // the program and its arguments; no shell reads them
	Env     []string // its whole environment, as NAME=value; nil: none
	Dir     string   // where it runs; "": the current directory

	StartTime   time.Duration // until it says what it is; 0: 5 minutes
	FirstAnswer time.Duration // for an answer to begin; 0: 5 minutes
	Silence     time.Duration // between two lines of an answer; 0: 1 minute
	CancelTime  time.Duration // for it to end what was canceled; 0: 10 seconds
	StopTime    time.Duration // for it to end once its input has; 0: 5 seconds
	BackoffMin  time.Duration // before it is started again, doubled each time; 0: 100 ms
	BackoffMax  time.Duration // 0: 10 seconds

	Logger *slog.Logger // takes its standard error, line by line; nil is silent
}

func (o Options) filled() Options {
	o.StartTime = cmp.Or(o.StartTime, 5*time.Minute)
	o.FirstAnswer = cmp.Or(o.FirstAnswer, 5*time.Minute)
	o.Silence = cmp.Or(o.Silence, time.Minute)
	o.CancelTime = cmp.Or(o.CancelTime, 10*time.Second)
	o.StopTime = cmp.Or(o.StopTime, 5*time.Second)
	o.BackoffMin = cmp.Or(o.BackoffMin, 100*time.Millisecond)
	o.BackoffMax = max(cmp.Or(o.BackoffMax, 10*time.Second), o.BackoffMin)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
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
	if len(o.Command) == 0 || o.Command[0] == "" {
		return refuse("command", "name a program", "empty")
	}
	for _, v := range o.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return refuse("env", "write NAME=value", "an entry without a name")
		}
	}
	for _, t := range []time.Duration{
		o.StartTime, o.FirstAnswer, o.Silence, o.CancelTime, o.StopTime, o.BackoffMin, o.BackoffMax,
	} {
		if t < 0 {
			return refuse("timeout", "0 is the default", "%s is negative", t)
		}
	}
	return nil
}

// Backend runs requests in a program. It implements infer.Backend. Of a program that ends, the
// requests that run get KindLost, and the next one starts it again.
type Backend struct {
	o      Options
	info   infer.Info
	fields map[string]bool // of requests, that the program obeys

	base   context.Context // ends with Close
	cancel context.CancelFunc
	slots  chan struct{} // one for each request that the program takes at once

	mu     sync.Mutex
	closed bool
	ends   sync.WaitGroup // of calls that the program still has to end

	turn  chan struct{} // held by whoever uses what follows
	p     *process
	since time.Time // its start
	row   int       // ends in a row
	next  time.Time // no start before
}

// Open starts a program and asks what it is. The error is an *infer.Error: KindLost where it does
// not answer, KindInternal where it does not speak as it should.
func Open(ctx context.Context, o Options) (*Backend, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	b := &Backend{o: o.filled(), turn: make(chan struct{}, 1), slots: make(chan struct{}, 1)}
	b.base, b.cancel = context.WithCancel(context.Background())
	p, h, err := b.start(ctx)
	if err != nil {
		b.cancel()
		return nil, err
	}
	b.p, b.info, b.fields = p, h.Info, map[string]bool{}
	b.slots = make(chan struct{}, max(h.Info.Sequences, 1))
	for _, f := range h.Fields {
		b.fields[f] = true
	}
	b.info.Notes = append(b.info.Notes, "command: the program may do whatever its user may")
	return b, nil
}

// Info implements infer.Backend. It says what the program said at Open.
func (b *Backend) Info() infer.Info { return b.info }

// Close implements infer.Backend: the program's input ends, and what of it still runs after
// Options.StopTime is killed.
func (b *Backend) Close() error {
	b.cancel()
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.ends.Wait()
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.p != nil {
		b.p.stop(b.o.StopTime)
		b.p = nil
	}
	return nil
}

// Why a request ends, besides its caller.
var (
	errClosed = errors.New("the backend was closed")
	errSilent = errors.New("the program has fallen silent")
	errLeft   = errors.New("the loop was left")
)

// start starts the program and takes what it says of itself.
func (b *Backend) start(ctx context.Context) (*process, *hello, error) {
	b.since = time.Now()
	p, err := newProcess(&b.o)
	if err != nil {
		return nil, nil, &infer.Error{
			Op: "start", Kind: infer.KindLost, Field: "command",
			Hint: "is it there, and may it be run?", Err: err,
		}
	}
	a, err := b.one(ctx, p, "info", object{"version": Version}, b.o.StartTime)
	if err == nil && a.Info == nil {
		err = garbage("start", errors.New("it does not say what it is"))
	}
	if err == nil {
		err = a.Info.validate()
	}
	if err != nil {
		p.condemn(err)
		p.wait()
		return nil, nil, typed(ctx, b.base, "start", err)
	}
	return p, a.Info, nil
}

// process gives the one that runs, and starts one where there is none.
func (b *Backend) process(ctx context.Context, op string) (*process, error) {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-b.turn }()
	if b.base.Err() != nil {
		return nil, errClosed
	}
	if b.p != nil && b.p.runs() {
		return b.p, nil
	}
	if b.p != nil {
		b.p.wait()
		b.p = nil
		b.backOff()
	}
	if left := time.Until(b.next); left > 0 {
		return nil, &infer.Error{
			Op: op, Kind: infer.KindLost, Hint: fmt.Sprintf("it is started again in %s", left),
			Err: errors.New("the program has ended"),
		}
	}
	p, h, err := b.start(ctx)
	if err != nil {
		b.backOff()
		return nil, err
	}
	was := b.info
	was.Notes = was.Notes[:len(was.Notes)-1] // without our own
	if now := h.Info; !same(was, now) {
		p.condemn(errChanged)
		p.wait()
		b.backOff()
		return nil, &infer.Error{
			Op: op, Kind: infer.KindModel, Hint: "examine it anew: norion backends check",
			Err: errChanged,
		}
	}
	b.p = p
	return p, nil
}

// backOff puts the next start off, for longer each time. A process that lived for as long as the
// longest wait begins anew.
func (b *Backend) backOff() {
	if time.Since(b.since) > b.o.BackoffMax {
		b.row = 0
	}
	b.next = time.Now().Add(min(b.o.BackoffMin<<min(b.row, 20), b.o.BackoffMax))
	b.row++
}

var errChanged = errors.New("the program is another one than before")

func same(a, b infer.Info) bool {
	if len(a.Notes) == 0 && len(b.Notes) == 0 {
		a.Notes, b.Notes = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// ask sends one request and gives its answers to take until it returns an error or the last one was
// taken.
func (b *Backend) ask(
	ctx context.Context, op string, body object, take func(*answer) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.base, func() { cancel(errClosed) })()
	if b.base.Err() != nil {
		return typed(ctx, b.base, op, errClosed)
	}
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return typed(ctx, b.base, op, ctx.Err())
	}
	p, err := b.process(ctx, op)
	if err != nil {
		<-b.slots
		return typed(ctx, b.base, op, err)
	}
	c, err := p.begin(ctx, op, body)
	if err != nil {
		<-b.slots
		return typed(ctx, b.base, op, err)
	}
	err = b.answers(ctx, p, c, take)
	b.leave(p, c)
	return typed(ctx, b.base, op, err)
}

// leave gives up the place of a call once the program has ended it.
func (b *Backend) leave(p *process, c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.ended() || b.closed {
		<-b.slots
		return
	}
	b.ends.Go(func() {
		defer func() { <-b.slots }()
		p.end(b.base, c, b.o.CancelTime)
	})
}

// answers hands on the answers of a call.
func (b *Backend) answers(
	ctx context.Context, p *process, c *call, take func(*answer) error,
) error {
	limit := b.o.FirstAnswer
	for {
		a, err := c.next(ctx, p, limit)
		if err != nil {
			return err
		}
		if a.Error != nil {
			return a.Error.err(c.op)
		}
		if err := take(a); err != nil {
			if infer.KindOf(err) == infer.KindInternal && !errors.Is(err, errLeft) {
				p.condemn(err) // what it says is not to be trusted
			}
			return err
		}
		if a.last() {
			return nil
		}
		limit = b.o.Silence
	}
}

// one asks for one answer of a process that nobody else uses yet.
func (b *Backend) one(
	ctx context.Context, p *process, op string, body object, limit time.Duration,
) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.base, func() { cancel(errClosed) })()
	c, err := p.begin(ctx, op, body)
	if err != nil {
		return nil, err
	}
	a, err := c.next(ctx, p, limit)
	if err == nil && a.Error != nil {
		err = a.Error.err(op)
	}
	return a, err
}

// typed gives an error its type: what ended the caller or the backend comes first.
func typed(ctx, base context.Context, op string, err error) error {
	if err == nil || errors.Is(err, errLeft) {
		return err
	}
	cause := context.Cause(ctx)
	switch {
	case base.Err() != nil:
		return &infer.Error{Op: op, Kind: infer.KindClosed}
	case errors.Is(cause, context.DeadlineExceeded):
		return &infer.Error{Op: op, Kind: infer.KindDeadline, Err: cause}
	case cause != nil:
		return &infer.Error{Op: op, Kind: infer.KindCanceled, Err: cause}
	}
	if e, ok := errors.AsType[*infer.Error](err); ok {
		return e
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the program has ended")
	}
	return &infer.Error{
		Op: op, Kind: infer.KindLost, Hint: "the next request starts it again", Err: err,
	}
}

// Generate implements infer.Backend.
func (b *Backend) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		if err := b.generate(ctx, r, yield); err != nil && !errors.Is(err, errLeft) {
			yield(infer.Chunk{}, err)
		}
	}
}

func (b *Backend) generate(
	ctx context.Context, r infer.Request, yield func(infer.Chunk, error) bool,
) error {
	if err := r.Validate(); err != nil {
		return err
	}
	body, err := b.request(&r)
	if err != nil {
		return err
	}
	if !r.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
		defer cancel()
	}
	tokens := 0
	return b.ask(ctx, "generate", body, func(a *answer) error {
		if a.Chunk == nil {
			return garbage("generate", errors.New("an answer without a chunk"))
		}
		tokens += a.Chunk.Tokens
		if err := a.Chunk.validate(tokens); err != nil {
			return err
		}
		if !yield(infer.Chunk(*a.Chunk), nil) {
			return errLeft
		}
		return nil
	})
}
