// Package pool keeps several models within a budget of memory: it loads a model when it is asked
// for, unloads one that nobody used for a while, and the least recently used ones when another
// needs the room. Models that have no room together take turns. It owns the loaded models and their
// use counts. It must not know how a model is found, loaded or run, nor who asks.
//
// Locks: Pool.mu is not held while a model is loaded or unloaded.
package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Model is a model that can be loaded.
type Model struct {
	Name  string
	Bytes int64 // that it takes when it is loaded; counts only with a budget
	// Open loads it. The pool calls unload once, when nobody uses the backend any more.
	Open func(context.Context) (b infer.Backend, unload func() error, err error)
}

// Options configures a Pool.
type Options struct {
	Models      []Model
	BudgetBytes int64         // that all loaded models may take together; 0: no bound
	Idle        time.Duration // after which an unused model is unloaded; 0: never
	// Turn is how long a model waits for room that others use before they take no more requests. One
	// that was loaded less than this ago takes them all the same. 0: 10 s.
	Turn   time.Duration
	Logger *slog.Logger // nil is silent
}

const turnDefault = 10 * time.Second

// ErrNoModel is the error of Acquire for a name that no model has.
var ErrNoModel = errors.New("no such model")

// Pool holds models. It is safe for concurrent use.
type Pool struct {
	budget int64
	idle   time.Duration
	term   time.Duration // Options.Turn
	log    *slog.Logger
	slots  map[string]*slot // does not change
	idlers sync.WaitGroup   // of unloads that timers began

	mu      sync.Mutex
	closed  bool
	failed  error         // unloading
	uses    uint64        // counts all; a slot's lastUse is compared with others'
	asked   uint64        // counts requests
	changed chan struct{} // closed and replaced when a slot has changed
}

// slot is one model. Its fields but the first are guarded by Pool.mu.
type slot struct {
	Model
	backend infer.Backend // nil unless it is loaded
	unload  func() error
	moving  bool // it is being loaded or, with a backend, unloaded, and its bytes count
	users   int
	lastUse uint64
	since   time.Time   // it is loaded
	queue   []place     // requests that wait for it, the first one first
	timer   *time.Timer // of an unused one
}

// New makes a pool with nothing loaded. The error is an *infer.Error: KindNoMemory for a model that
// does not fit the budget alone, KindInvalid for a name that comes twice or a negative bound.
func New(o Options) (*Pool, error) {
	p := &Pool{
		budget: o.BudgetBytes, idle: o.Idle, term: cmp.Or(o.Turn, turnDefault), log: o.Logger,
		slots: map[string]*slot{}, changed: make(chan struct{}),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if o.BudgetBytes < 0 || o.Idle < 0 || o.Turn < 0 {
		return nil, &infer.Error{
			Op: "pool", Kind: infer.KindInvalid, Field: "budget", Hint: "0 is no bound",
			Err: errors.New("a bound is negative"),
		}
	}
	for _, m := range o.Models {
		switch {
		case p.slots[m.Name] != nil:
			return nil, &infer.Error{
				Op: "pool", Kind: infer.KindInvalid, Field: "model", Hint: "name each model once",
				Err: fmt.Errorf("%s comes twice", m.Name),
			}
		case o.BudgetBytes > 0 && m.Bytes > o.BudgetBytes:
			return nil, &infer.Error{
				Op: "pool", Kind: infer.KindNoMemory, Field: "memory",
				Hint: "allow more memory, or use a smaller context or model",
				Err: fmt.Errorf("%s takes %d bytes, and %d are allowed", m.Name, m.Bytes,
					o.BudgetBytes),
			}
		}
		p.slots[m.Name] = &slot{Model: m}
	}
	return p, nil
}

// Acquire gives a model, loaded first where need be, until release is called, once. It waits while
// models in use leave no room: no longer than for the turns of models that were asked for earlier,
// each of which lasts Options.Turn, the requests that run then, and a load. The error is that of
// Model.Open, wraps ErrNoModel, or is an *infer.Error of KindClosed or of the end of ctx.
func (p *Pool) Acquire(ctx context.Context, name string) (
	b infer.Backend, release func(), err error,
) {
	s := p.slots[name]
	if s == nil {
		return nil, nil, fmt.Errorf("%w: %q", ErrNoModel, name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	mine := p.enqueue(s)
	defer func() { p.dequeue(s, mine, err != nil) }()
	for {
		turn := p.turn()
		absent := s.backend == nil && !s.moving && (turn == nil || turn == s)
		switch {
		case p.closed:
			return nil, nil, &infer.Error{
				Op: "load", Kind: infer.KindClosed, Err: errors.New("models are being unloaded"),
			}
		case s.backend != nil && !s.moving && !p.yields(s, turn, mine):
			return s.backend, p.use(s), nil
		case absent && p.left() >= s.Bytes:
			if err := p.load(ctx, s); err != nil {
				return nil, nil, err
			}
			continue
		}
		if victim := p.victim(s); absent && victim != nil {
			p.drop(victim)
			continue
		}
		if err := p.wait(ctx); err != nil {
			return nil, nil, err
		}
	}
}

// use counts one more user of a loaded model, and gives what ends that. mu is held.
func (p *Pool) use(s *slot) (release func()) {
	p.awake(s)
	s.users++
	p.touch(s)
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		s.users--
		p.touch(s)
		p.rest(s)
		p.change()
	})
}

// awake ends the time of rest. mu is held.
func (p *Pool) awake(s *slot) {
	if s.timer != nil && s.timer.Stop() {
		p.idlers.Done()
	}
	s.timer = nil
}

func (p *Pool) touch(s *slot) {
	p.uses++
	s.lastUse = p.uses
}

// rest begins the time after which an unused model is unloaded. mu is held.
func (p *Pool) rest(s *slot) {
	if p.idle == 0 || s.users > 0 || p.closed {
		return
	}
	used := s.lastUse
	p.idlers.Add(1)
	s.timer = time.AfterFunc(p.idle, func() {
		defer p.idlers.Done()
		p.mu.Lock()
		defer p.mu.Unlock()
		if s.lastUse == used && s.backend != nil && !s.moving && s.users == 0 {
			p.drop(s)
		}
	})
}

// left is what the budget leaves beside the models that are there. mu is held.
func (p *Pool) left() int64 {
	if p.budget == 0 {
		return math.MaxInt64
	}
	left := p.budget
	for _, other := range p.slots {
		if other.backend != nil || other.moving {
			left -= other.Bytes
		}
	}
	return left
}

// victim is the least recently used model that can make room for another, or nil. mu is held.
func (p *Pool) victim(s *slot) (victim *slot) {
	for _, other := range p.slots {
		if other.backend != nil && !other.moving && other.users == 0 && !other.before(s) &&
			(victim == nil || other.lastUse < victim.lastUse) {
			victim = other
		}
	}
	return victim
}

// load loads a model. Where it finds no memory after all, the least recently used one that nobody
// uses is unloaded, and it is tried once more. mu is held, but for the loading itself.
func (p *Pool) load(ctx context.Context, s *slot) error {
	s.moving = true
	p.change()
	err := p.open(ctx, s)
	if infer.KindOf(err) == infer.KindNoMemory && !p.closed {
		if victim := p.victim(s); victim != nil {
			p.log.Warn("a model found no memory: another one is unloaded, and it is loaded again",
				"model", s.Name, "unloaded", victim.Name, "error", err)
			p.drop(victim)
			err = p.open(ctx, s)
		}
	}
	s.moving = false
	p.change()
	if err == nil && p.closed { // Close waits for it
		p.drop(s)
	}
	return err
}

// open opens a model. mu is held, but for the opening itself.
func (p *Pool) open(ctx context.Context, s *slot) error {
	p.mu.Unlock()
	b, unload, err := s.Open(ctx)
	p.mu.Lock()
	if err == nil {
		s.backend, s.unload, s.since = b, unload, time.Now()
	}
	return err
}

// drop unloads a model that nobody uses. mu is held, but for the unloading itself. What goes wrong
// with it is the unload's to tell.
func (p *Pool) drop(s *slot) {
	s.moving = true
	p.mu.Unlock()
	err := s.unload()
	p.mu.Lock()
	s.moving, s.backend, s.unload = false, nil, nil
	p.failed = errors.Join(p.failed, err)
	p.change()
}

// change wakes whoever waits. mu is held.
func (p *Pool) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait waits for a change. mu is held, but for the waiting itself.
func (p *Pool) wait(ctx context.Context) error {
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		kind := infer.KindCanceled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			kind = infer.KindDeadline
		}
		return &infer.Error{
			Op: "load", Kind: kind, Hint: "models in use left no room", Err: context.Cause(ctx),
		}
	}
}

// Peek gives a model if it is loaded, or nil, without using it: the pool may unload it meanwhile.
func (p *Pool) Peek(name string) infer.Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.slots[name]; s != nil && !s.moving {
		return s.backend
	}
	return nil
}

// Close unloads all models, those in use too, and refuses to load any more. It returns what
// went wrong with any unloading since the pool was made.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.change()
	for _, s := range p.slots {
		p.awake(s)
	}
	for s := p.present(); s != nil; s = p.present() {
		if s.moving {
			_ = p.wait(context.Background()) // it has no end
		} else {
			p.drop(s)
		}
	}
	p.mu.Unlock()
	p.idlers.Wait()
	p.mu.Lock()
	return p.failed
}

// present is a model that is loaded, or else one that is being loaded or unloaded, or nil. mu is
// held.
func (p *Pool) present() (moving *slot) {
	for _, s := range p.slots {
		switch {
		case s.moving:
			moving = s
		case s.backend != nil:
			return s
		}
	}
	return moving
}
