package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// pingMisses in a row are a hang. One may be this process's own: it was stopped itself, and its
// timer ended before it could read the answer.
const pingMisses = 2

// stepChecks is how many times within StepTimeout a child's steps are looked at.
const stepChecks = 20

// watch condemns a child that no longer answers pings, or whose model no longer comes to the end of
// a step, until ctx ends.
func (w *Worker) watch(ctx context.Context, c *child) *sync.WaitGroup {
	var all sync.WaitGroup
	pings := w.watchPings(ctx, c)
	all.Go(func() { <-pings })
	all.Go(func() {
		c.watch(ctx, "step", w.o.StepTimeout/stepChecks, w.o.StepTimeout, 1, func(ctx context.Context) {
			_, _ = ask[infer.Stats](ctx, c, "stats", &nothing{}) // whatever it answers, it does
		})
	})
	return &all
}

// watchPings condemns a child that no longer answers, until ctx ends.
func (w *Worker) watchPings(ctx context.Context, c *child) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.watch(ctx, "ping", w.o.PingEvery, w.o.PingTimeout, pingMisses, func(ctx context.Context) {
			_, _ = ask[nothing](ctx, c, "ping", &nothing{}) // whatever it answers, it does
		})
	}()
	return done
}

// watch has f ask the child every so often. The child is condemned when the answer took longer than
// limit so many times in a row.
func (c *child) watch(
	ctx context.Context, what string, every, limit time.Duration, misses int,
	f func(context.Context),
) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for missed := 0; missed < misses; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-c.exited:
			return
		}
		limited, cancel := context.WithTimeout(ctx, limit)
		f(limited)
		late := errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil
		cancel()
		if missed++; !late {
			missed = 0
		}
	}
	c.condemn(fmt.Errorf("it hangs: %d %s checks in a row without an answer within %s", misses,
		what, limit))
}
