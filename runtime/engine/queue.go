package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// task asks the owner goroutine for something. While it is in the queue it is its caller's, who may
// take it back; once the owner has claimed it, the owner sees it to its end.
type task struct {
	ctx       context.Context
	tenant    tenant
	priority  int
	submitted time.Time
	due       time.Time // zero without a deadline
	arrival   uint64
	share     *share // of the tenant; guarded by queue.mu, as is line
	line      *line  // nil while the task does not wait
	// begin is called by the owner. False means that there is no room yet: nothing has changed, and
	// the task is asked again. True means that the owner has claimed it, or that its caller took it
	// back.
	begin  func(*worker) bool
	waits  bool   // after begin said false: not for room, but for a prefix that is being computed
	tried  uint64 // the owner's count of changes when it last found no room, and one
	looked uint64 // the owner's look at the queue in which it was last asked
}

// queue holds the tasks that wait; fair orders them. It also counts who uses the model outside the
// owner goroutine, so that the model is freed after them.
type queue struct {
	wake chan struct{} // holds one value when the owner should look again

	mu     sync.Mutex
	fair   fair
	most   int // tasks waiting
	inside int // calls that use the model
	closed bool
}

func newQueue(most int) *queue {
	return &queue{most: most, wake: make(chan struct{}, 1)}
}

// signal lets the owner look again: something may have become possible.
func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
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
	q.signal()
}

// push queues a task, which then begins once unless it is taken back. Errors: KindBusy, KindClosed.
func (q *queue) push(t *task) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case q.fair.waiting >= q.most:
		return &infer.Error{
			Op: "submit", Kind: infer.KindBusy, Hint: "try again when a request has ended",
			Err: errors.New("the queue is full"),
		}
	}
	t.submitted = time.Now()
	if d, ok := t.ctx.Deadline(); ok {
		// On the monotonic clock: dues compare rightly when the wall clock was set in between.
		t.due = t.submitted.Add(d.Sub(t.submitted))
	}
	q.fair.arrive(t)
	q.signal()
	return nil
}

// charge counts what a task got, in weighted tokens.
func (q *queue) charge(t *task, weighted int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fair.charge(t.share, weighted)
}

// insert puts x behind those of its priority or a higher one.
func insert[T any](list []T, x T, priority func(T) int) []T {
	at := slices.IndexFunc(list, func(o T) bool { return priority(o) < priority(x) })
	if at < 0 {
		at = len(list)
	}
	return slices.Insert(list, at, x)
}

// claim takes a task out of the queue, for the owner to run or for its caller to take back: whoever
// comes first. Its place is free at once. False means that the other one has it.
func (q *queue) claim(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.line == nil {
		return false
	}
	q.fair.leave(t)
	return true
}

// tasks appends those that wait to dst, in the order that holds until one is charged.
func (q *queue) tasks(dst []*task) []*task {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fair.tasks(dst)
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fair.waiting
}

// over says that the queue is closed, empty, and that nobody uses the model.
func (q *queue) over() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && q.inside == 0 && q.fair.waiting == 0
}

// close refuses further calls and tasks. Tasks that wait still begin.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}
