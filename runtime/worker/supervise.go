package worker

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// supervise keeps a child running until Close, or until too many in a row have ended.
func (w *Worker) supervise(c *child) {
	defer close(w.done)
	row := row{min: w.o.BackoffMin, max: w.o.BackoffMax, most: w.o.Restarts, stable: w.o.Stable}
	for {
		began := time.Now()
		if c != nil && w.tend(c) {
			return
		}
		var wait time.Duration
		var ok bool
		if c != nil {
			wait, ok = row.next(time.Since(began))
			w.become(nil, nil)
		} else {
			wait, ok = row.next(0)
		}
		if !ok {
			w.log.Error("a worker is given up", "restarts", w.o.Restarts)
			w.become(nil, &infer.Error{
				Op: "worker", Kind: infer.KindLost, Hint: "see the log; norion serve tries again on SIGUSR1",
				Err: fmt.Errorf("the model's process ended %d times in a row", w.o.Restarts+1),
			})
		}
		if !w.pause(wait, ok) {
			return
		}
		c = w.again(&row, ok)
	}
}

// tend waits for the end of a child. It reports true when that was the end of the worker.
func (w *Worker) tend(c *child) (last bool) {
	watching, stop := context.WithCancel(w.life)
	watched := w.watch(watching, c)
	select {
	case <-c.exited:
	case <-w.life.Done():
		last = true
	}
	stop()
	watched.Wait()
	if last {
		w.result = c.stop(w.o.StopTimeout)
		w.become(nil, closed("worker"))
		return true
	}
	c.wait()
	return false
}

// pause waits before a restart: for a while, or until Revive says so. It reports false at Close.
func (w *Worker) pause(wait time.Duration, timed bool) bool {
	var over <-chan time.Time
	if timed {
		t := time.NewTimer(wait)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-over:
	case <-w.revive:
	case <-w.life.Done():
		w.become(nil, closed("worker"))
		return false
	}
	return true
}

// again starts another child, or returns nil. What it cannot load, requests hear of until the next
// attempt.
func (w *Worker) again(row *row, counted bool) *child {
	if !counted { // it was given up, and revived
		row.n = 0
		w.become(nil, nil)
	}
	w.mu.Lock()
	w.state.restarts++
	w.mu.Unlock()
	c, err := w.start(w.life)
	if err == nil && !same(c.info, w.info) {
		c.condemn(errors.New("the model's file has changed"))
		c.wait()
		c, err = nil, &infer.Error{
			Op: "worker", Kind: infer.KindModel, Hint: "start the server anew",
			Err: errors.New("the model's file is another one than at first"),
		}
	}
	if err != nil {
		w.log.Error("a worker could not start", "error", err)
		w.become(nil, err)
		return nil
	}
	w.become(c, nil)
	return c
}

// same says that two loads gave the same model with the same limits.
func same(a, b infer.Info) bool {
	a.Notes, b.Notes = nil, nil // such as that the disk is full
	return reflect.DeepEqual(a, b)
}

// start starts a child and waits until its model is loaded.
func (w *Worker) start(ctx context.Context) (*child, error) {
	ctx, cancel := context.WithTimeout(ctx, w.o.LoadTimeout)
	defer cancel()
	if err := w.o.prepare(); err != nil {
		return nil, err
	}
	c, err := newChild(&w.o, w.log)
	if err != nil {
		if _, ok := errors.AsType[*infer.Error](err); ok {
			return nil, err
		}
		return nil, &infer.Error{Op: "start", Kind: infer.KindInternal, Err: err}
	}
	m := &loading{Engine: w.o.Engine, Confine: w.o.Confine, Verbose: w.o.Engine.Logger != nil}
	watching, stop := context.WithCancel(ctx)
	watched := w.watchPings(watching, c)
	err = c.load(ctx, m, w.o.Engine.Progress)
	stop()
	<-watched
	if err == nil {
		return c, nil
	}
	typed, ok := errors.AsType[*infer.Error](err)
	c.condemn(errStopped)
	c.wait()
	if ok {
		return nil, typed
	}
	return nil, &infer.Error{
		Op: "load", Kind: infer.KindLost, Hint: "its last words are in the log; it may lack memory",
		Err: fmt.Errorf("the model's process ended while it loaded: %s", exitText(c.exit)),
	}
}

// row counts children that ended soon after one another.
type row struct {
	min, max, stable time.Duration
	most, n          int
}

// next says how long to wait before the next child, or that there shall be none.
func (r *row) next(lived time.Duration) (wait time.Duration, ok bool) {
	if lived >= r.stable {
		r.n = 0
	}
	if r.n == r.most {
		return 0, false
	}
	wait = r.min
	for range r.n {
		wait = min(2*wait, r.max)
	}
	r.n++
	return wait, true
}
