package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// worker is the state of the owner goroutine: which requests run, and what they wait for.
type worker struct {
	e     *Engine
	c     *llama.Context
	cells *cells // nil for a model that keeps no cache

	running []*generation // have a sequence, by admission
	parked  []*generation // had one, by priority and then by time
	changes uint64        // counts what may have made room
	tasks   []*task       // scratch of admitNext
	looks   uint64        // at the queue
	step    stepState
	base    *group      // of requests that name no adapters
	applied *adapterSet // that the context has
	idle    idlers
	visits  int          // that run now: 0 or 1
	totals  infer.Totals // without Requests
	ages    ages
	threads threads

	mu      sync.Mutex
	solo    *generation // the only one in the step that runs
	aborted bool
}

// serve admits requests and computes one step after another until the engine is closed.
func (w *worker) serve() {
	q := w.e.queue
	for {
		w.observe()
		w.sweep()
		w.admit()
		if w.advance() || w.unstick() {
			continue
		}
		if len(w.running)+len(w.parked) == 0 {
			w.tidy()
			if q.over() {
				return
			}
		}
		select {
		case <-q.wake:
		case reply := <-w.e.asked:
			reply <- w.stats()
		}
	}
}

// unstick ends the latest request when all that run want cells that the others have, and none can
// be parked: then no step would ever come.
func (w *worker) unstick() bool {
	if len(w.running) == 0 {
		return false
	}
	again := false
	for _, g := range w.running {
		if g.full() {
			return false // its reader will wake the owner
		}
		again = g.behind.Swap(false) || again // it has read on since the step was made up
	}
	if again {
		return true
	}
	w.finish(w.running[len(w.running)-1], nil, &infer.Error{
		Op: "generate", Kind: infer.KindBusy, Field: "cells",
		Hint: "use a larger cache, or fewer requests at once",
		Err:  errors.New("the requests that run have all cells, and each wants more"),
	})
	return true
}

// sweep ends the requests whose time is over, and finds those whose reader fell behind: they can be
// parked now.
func (w *worker) sweep() {
	for _, g := range w.running {
		behind := g.full()
		if behind && !g.stalled {
			w.changes++
		}
		g.stalled = behind
	}
	for _, list := range [][]*generation{w.running, w.parked} {
		for i := len(list) - 1; i >= 0; i-- {
			if g := list[i]; g.ctx.Err() != nil {
				w.finish(g, nil, ended("generate", g.ctx))
			}
		}
	}
}

// admit begins what waits, in the queue's order, as far as there is room. Parked requests come
// first among their equals. Who finds no room holds up those behind it, so that it is not passed
// for ever.
func (w *worker) admit() {
	w.looks++
	// Who comes while others begin is for the next look: answers go on in between.
	for n := w.e.queue.length(); w.admitNext() && n > 1; n-- {
	}
}

// admitNext begins the first task that this look at the queue has not asked yet; false when there
// is none, or no room.
func (w *worker) admitNext() bool {
	w.tasks = w.e.queue.tasks(w.tasks[:0])
	for _, t := range w.tasks {
		if t.looked == w.looks {
			continue
		}
		t.looked = w.looks
		if !w.resume(t.priority) || t.tried == w.changes+1 {
			return false
		}
		for !t.begin(w) {
			if t.waits {
				break // for a prefix that is being computed: others may pass
			}
			if !w.makeRoom(t.priority) {
				t.tried = w.changes + 1
				return false
			}
		}
		if !t.waits {
			return true // it was charged, so the order is another
		}
	}
	if len(w.tasks) == 0 {
		w.resume(-infer.PriorityMax)
	}
	return false
}

// resume brings parked requests of at least this priority back, but for those whose answer nobody
// reads; false means that one has to wait.
func (w *worker) resume(priority int) bool {
	for {
		i := slices.IndexFunc(w.parked, func(g *generation) bool {
			return g.r.Priority >= priority && !g.full()
		})
		if i < 0 {
			return true
		}
		g := w.parked[i]
		if g.tried == w.changes+1 {
			return false
		}
		a, err := w.cells.cache.Resume(g.blob)
		if errors.Is(err, kv.ErrUnknown) { // what it had is gone, or was not kept
			a, err = w.cells.cache.Begin(g.kvRequest(g.held))
		}
		switch {
		case errors.Is(err, kv.ErrNoRoom):
			if !w.makeRoom(g.r.Priority) {
				g.tried = w.changes + 1
				return false
			}
			continue
		case err != nil:
			w.finish(g, nil, fail("generate", err))
			continue
		}
		g.pending = slices.Concat(g.held[a.Reused:], g.pending)
		w.parked = slices.Delete(w.parked, i, i+1)
		w.totals.Resumed++
		w.start(g, a, g.held)
	}
}

// makeRoom gives up something for a request of this priority: it parks a request that is less
// urgent, or one whose answer nobody reads. When nothing runs, it forgets what is idle.
func (w *worker) makeRoom(priority int) bool {
	if w.cells == nil {
		return false
	}
	for i := len(w.running) - 1; i >= 0; i-- {
		g := w.running[i]
		if (g.r.Priority < priority || g.full() && g.r.Priority <= priority) && w.park(g) {
			return true
		}
	}
	if len(w.running) > 0 {
		return false
	}
	freed := false
	for s := range kv.Seq(w.c.Info().Sequences) {
		if w.cells.cache.Sequence(s).State == kv.Idle {
			w.cells.drop(s)
			freed = true
		}
	}
	return freed
}

// park takes a request's cells away, to be resumed later.
func (w *worker) park(g *generation) bool {
	held := slices.Clone(w.cells.cache.Tokens(g.seq))
	id, ops, ok := w.vacate(g, len(held))
	if !ok {
		return false
	}
	g.held, g.blob = held, id
	if err := w.cells.run(ops); err != nil {
		w.cells.drop(g.seq) // it will be computed again
	}
	w.running = slices.DeleteFunc(w.running, func(o *generation) bool { return o == g })
	w.parked = insert(w.parked, g, func(g *generation) int { return g.r.Priority })
	g.seq, g.usage.Parked = kv.NoSeq, g.usage.Parked+1
	w.totals.Parked++
	w.changes++
	return true
}

// vacate plans that a request loses its cells: they are saved to memory, or where that would change
// a deterministic answer, dropped to be computed again.
func (w *worker) vacate(g *generation, held int) (kv.BlobID, []kv.Op, bool) {
	books := w.cells.cache
	if g.restorable(held) {
		id, ops, err := books.Park(g.seq)
		return id, ops, err == nil
	}
	if books.Stats().RAM.Budget == 0 {
		return 0, nil, false // nobody is parked
	}
	w.e.log.Debug("a parked request will be computed again", "tokens", held)
	return 0, books.Drop(g.seq), true
}

// start gives a request its sequence, with what the admission found of tokens.
func (w *worker) start(g *generation, a kv.Admission, tokens []kv.Token) {
	g.seq, g.group = a.Seq, w.group(g)
	w.running = append(w.running, g)
	if err := w.cells.run(a.Ops); err != nil {
		w.e.log.Warn("a prefix is computed again", "error", err)
		g.pending = slices.Concat(tokens[:a.Reused], g.pending)
		w.cells.cold(a.Seq)
		a = kv.Admission{Seq: a.Seq}
	}
	if g.usage.Parked > 0 {
		return // the prompt has been counted
	}
	g.usage.Cached = cached(a)
	w.reused(g.usage.Cached)
}

// cached counts what an admission found, by where it lay.
func cached(a kv.Admission) infer.Cached {
	c := infer.Cached{Moved: a.Moved}
	switch a.Source {
	case kv.Live:
		c.Live = a.Reused
	case kv.RAM, kv.Partial:
		c.RAM = a.Reused
	case kv.Disk:
		c.Disk = a.Reused
	}
	return c
}

// finish ends a request: with its final chunk, or an error. What it computed stays for others.
func (w *worker) finish(g *generation, final *infer.Final, err error) {
	if g.seq != kv.NoSeq {
		g.usage.Cells = w.cells.cache.Length(g.seq)
		w.cells.end(g)
		w.running = slices.DeleteFunc(w.running, func(o *generation) bool { return o == g })
	} else if i := slices.Index(w.parked, g); i >= 0 {
		w.cells.cache.Release(g.blob)
		w.parked = slices.Delete(w.parked, i, i+1)
	}
	g.seq = kv.NoSeq
	w.changes++
	if g.unwatch != nil {
		g.unwatch()
	}
	if err != nil {
		g.err = err
	} else {
		final.Usage = g.usage
		g.final = infer.Chunk{Final: final, Tokens: g.unsent}
	}
	g.free()
	close(g.out)
}

// tidy does what can wait for idle time.
func (w *worker) tidy() {
	if w.cells == nil {
		return
	}
	if err := w.cells.keep(); err != nil {
		w.e.log.Warn("idle state was not kept", "error", err)
	}
}

// interrupt is called when a request's context ends, by any goroutine. A step that computes for
// that request alone is aborted; one that others share is waited for.
func (w *worker) interrupt(g *generation) {
	w.mu.Lock()
	if w.solo == g {
		w.aborted = true
		w.c.Abort()
	}
	w.mu.Unlock()
	w.e.queue.signal()
}

// alone says for whom alone the next step computes, nil for several.
func (w *worker) alone(g *generation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.solo = g
	if g == nil && w.aborted {
		w.aborted = false
		w.c.Resume()
	}
}

// visit is a task that has the context to itself from its begin to its end.
type visit struct {
	task
	e    *Engine
	op   string
	cost int         // tokens, those that are reused included
	need *kv.Request // the sequence that it wants, nil for none
	run  func(context.Context, *worker, kv.Admission) error
	done chan error
}

// begin runs the visit if there is room for it.
func (v *visit) begin(w *worker) bool {
	a := kv.Admission{Seq: kv.NoSeq}
	if v.need != nil {
		var err error
		a, err = w.cells.cache.Begin(*v.need)
		if errors.Is(err, kv.ErrNoRoom) {
			return false
		}
		if err != nil {
			if v.e.queue.claim(&v.task) {
				v.done <- fail(v.op, err)
			}
			return true
		}
	}
	if !v.e.queue.claim(&v.task) {
		if v.need != nil {
			w.cells.abandon(a)
		}
		return true
	}
	v.e.queue.charge(&v.task, promptWeight*(v.cost-a.Reused))
	stop := w.abortOn(v.ctx)
	w.visits = 1
	err := w.visit(v, a)
	w.visits = 0
	stop()
	if err != nil && v.ctx.Err() != nil {
		err = ended(v.op, v.ctx)
	}
	if v.need != nil {
		w.cells.settle(a.Seq)
		w.cells.cache.End(a.Seq)
	}
	w.changes++
	v.done <- fail(v.op, err)
	return true
}

func (w *worker) visit(v *visit, a kv.Admission) error {
	w.c.Batch().Reset()
	if err := w.adapt(w.base.set); err != nil {
		return err
	}
	if v.need == nil {
		return v.run(v.ctx, w, a)
	}
	if err := w.cells.run(a.Ops); err != nil {
		w.cells.cold(a.Seq)
		a.Reused, a.Source = 0, kv.Nowhere
	}
	w.reused(cached(a))
	return v.run(v.ctx, w, a)
}

// abortOn lets the end of ctx interrupt a running computation. The returned stop is called when
// the computation is over: after it, ctx has no more effect.
func (w *worker) abortOn(ctx context.Context) (stop func()) {
	aborted := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		w.c.Abort()
		close(aborted)
	})
	return func() {
		if !cancel() {
			<-aborted
			w.c.Resume()
		}
	}
}

// call runs a visit that computes so many tokens on the owner goroutine and waits for it.
func (e *Engine) call(ctx context.Context, op string, deadline time.Time, cost int,
	need *kv.Request, run func(context.Context, *worker, kv.Admission) error,
) error {
	ctx, cancel := e.bind(ctx, deadline)
	defer cancel(context.Canceled)
	if ctx.Err() != nil {
		return ended(op, ctx)
	}
	v := &visit{e: e, op: op, cost: cost, need: need, run: run, done: make(chan error, 1)}
	v.ctx, v.task.begin = ctx, v.begin
	if err := e.queue.push(&v.task); err != nil {
		return err
	}
	select {
	case err := <-v.done:
		return err
	case <-ctx.Done():
		if e.queue.claim(&v.task) {
			return ended(op, ctx)
		}
		return <-v.done // it runs, and ends by itself
	}
}
