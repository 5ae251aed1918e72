package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// task is one visit to the owner goroutine. While it is in the queue it is its caller's, who may
// take it back; once popped it is the owner's, who runs it to its end.
type task struct {
	ctx       context.Context
	priority  int
	submitted time.Time
	run       func(*worker)
}

// queue holds the tasks that wait, higher priority first, then by arrival. It also counts who
// uses the model outside the owner goroutine, so that the model is freed after them.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []*task
	most    int // tasks waiting
	inside  int // calls that use the model
	closed  bool
}

func newQueue(most int) *queue {
	q := &queue{most: most}
	q.changed.L = &q.mu
	return q
}

// enter admits a call that uses the model; leave ends it. Between them no caller's code runs, so
// Close need not wait for a reader.
func (q *queue) enter() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errClosed
	}
	q.inside++
	return nil
}

func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inside--
	q.changed.Signal()
}

// push queues a task, which then runs once unless it is taken back. Errors: KindBusy, KindClosed.
func (q *queue) push(t *task) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case len(q.waiting) >= q.most:
		return &infer.Error{
			Op: "submit", Kind: infer.KindBusy, Hint: "try again when a request has ended",
			Err: errors.New("the queue is full"),
		}
	}
	t.submitted = time.Now()
	at := slices.IndexFunc(q.waiting, func(o *task) bool { return o.priority < t.priority })
	if at < 0 {
		at = len(q.waiting)
	}
	q.waiting = slices.Insert(q.waiting, at, t)
	q.changed.Signal()
	return nil
}

// takeBack takes a task out; its place is free at once. False means that the owner has it.
func (q *queue) takeBack(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := slices.Index(q.waiting, t)
	if at < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, at, at+1)
	return true
}

// pop waits for the next task. Nil means that the queue is closed and nobody uses the model.
func (q *queue) pop() *task {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if len(q.waiting) > 0 {
			t := q.waiting[0]
			q.waiting = slices.Delete(q.waiting, 0, 1)
			return t
		}
		if q.closed && q.inside == 0 {
			return nil
		}
		q.changed.Wait()
	}
}

// close refuses further calls and tasks. Tasks that wait are still popped.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Signal()
}
