package httpapi

import (
	"sync"
	"time"
)

// Bounds of what a client is told that met a full queue.
const (
	retryLeast = time.Second
	retryMost  = 2 * time.Minute
	waitsLife  = 5 * time.Minute // after which what was measured tells nothing any more
)

// waits measures how long answers wait to begin, for each model and, by the name "", for all. It is
// safe for concurrent use.
type waits struct {
	mu sync.Mutex
	of map[string]wait // by name of a loaded model
}

type wait struct {
	mean time.Duration
	at   time.Time // of the last one
}

// observe takes what one answer of a model waited. The mean follows as a round-trip time does:
// RFC 6298, section 2, with its gain of 1/8.
func (w *waits) observe(model string, now time.Time, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[string]wait{}
	}
	for _, name := range []string{model, ""} {
		mean := took
		if before := w.of[name]; fresh(before, now) {
			mean = before.mean + (took-before.mean)/8
		}
		w.of[name] = wait{mean, now}
	}
}

// retry is when a client that found a model's queue full should come back: after the time that
// answers of late had to wait, within bounds. Where no answer began of late that is soon.
func (w *waits) retry(model string, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last := w.of[model]; fresh(last, now) {
		return min(max(last.mean, retryLeast), retryMost)
	}
	return retryLeast
}

// fresh says that a measurement still tells something. One of the future, before the clock was set
// back, does not.
func fresh(w wait, now time.Time) bool {
	age := now.Sub(w.at)
	return age >= 0 && age < waitsLife
}
