package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// writerState belongs to the writer's goroutine.
type writerState struct {
	versions map[streamKey]int64 // newest versions of streams
	data     []byte
	dirty    bool // the checkpoint lags behind
}

type streamKey struct {
	scope event.Scope
	name  string
}

// versionsMax bounds the versions that the writer remembers.
const versionsMax = 1 << 14

// write is the writer's goroutine: it commits what waits, in groups, and keeps the checkpoint from
// lagging behind for longer than l.after.
func (l *Ledger) write() {
	defer close(l.done)
	ctx := context.Background()
	timer := time.NewTimer(l.after)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case q := <-l.requests:
			clean := !l.state.dirty
			l.commit(ctx, l.group(q))
			if clean && l.state.dirty {
				timer.Reset(l.after)
			}
		case <-timer.C:
			if l.state.dirty && l.checkpoint() != nil {
				timer.Reset(l.after)
			}
		case answer := <-l.signing:
			answer <- l.checkpoint()
		case <-l.stop:
			for len(l.requests) > 0 {
				l.commit(ctx, l.group(<-l.requests))
			}
			return
		}
	}
}

// group adds to q what waits too.
func (l *Ledger) group(q *request) []*request {
	group, events := []*request{q}, len(q.events)
	for events < groupEventsMax {
		select {
		case q := <-l.requests:
			group = append(group, q)
			events += len(q.events)
		default:
			return group
		}
	}
	return group
}

// Sign brings the signed checkpoint up to date with what was acknowledged. It happens by itself
// within Options.CheckpointAfter. Errors: ErrUnavailable, ErrClosed, ErrCanceled.
func (l *Ledger) Sign(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case l.signing <- answer:
		return wrap("sign", <-answer)
	case <-ctx.Done():
		return wrap("sign", ctx.Err())
	case <-l.done:
		return errClosed()
	}
}

// checkpoint signs for all that is recorded. A full disk is waited out; any other failure of the
// disk ends writing, since what a failed sync left behind is unknown.
func (l *Ledger) checkpoint() error {
	if e := l.failure.Load(); e != nil {
		return e
	}
	err := l.publish(l.tree.Load(), event.Digest{})
	switch {
	case err == nil:
		l.state.dirty = false
	case full(err):
		l.degraded.Store("the checkpoint lags behind: " + err.Error())
	default:
		l.fail(err)
	}
	return err
}

// fail ends writing until the ledger is opened again.
func (l *Ledger) fail(err error) {
	e := &Error{Op: "append", Kind: ErrUnavailable, Err: err, Hint: hintDisk}
	l.failure.CompareAndSwap(nil, e)
}

// commit appends a group in one transaction and answers each of its requests.
func (l *Ledger) commit(ctx context.Context, group []*request) {
	group = slices.DeleteFunc(group, func(q *request) bool {
		return !q.taken.CompareAndSwap(false, true) // the caller gave up
	})
	if e := l.failure.Load(); e != nil {
		for _, q := range group {
			q.result <- result{err: e}
		}
		return
	}
	t := l.tree.Load().clone()
	results := make([]result, len(group))
	err := l.store.Update(ctx, func(w storage.Writer) (err error) {
		for i, q := range group {
			a := &adding{l: l, w: w, q: q, ctx: ctx}
			if t, results[i], err = a.add(t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		clear(l.state.versions)
		if !full(err) && !errors.Is(err, storage.ErrBusy) {
			l.fail(err)
		}
		for _, q := range group {
			q.result <- result{err: wrap("append", err)}
		}
		return
	}
	if t.size > l.tree.Load().size {
		l.tree.Store(t)
		l.state.dirty = true
	}
	for i, q := range group {
		q.result <- results[i]
	}
}
