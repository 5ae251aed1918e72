package engine

import (
	"slices"
	"time"
)

// When there is a look at another number of threads, and what comes of it.
const (
	lookSteps = 3
	lookGain  = 0.9                    // its steps must take less than so much of these
	lookLost  = 1.5                    // a step that takes more than so much of these ends a look
	lookMin   = 500 * time.Millisecond // between two looks; doubled while they find nothing
	lookMax   = 8 * time.Second
)

// threads chooses how many threads compute a step beside other programs. Threads that wait for one
// another spin; where another program has one of their processors, all wait for that one, and two
// engines with as many threads as processors slow each other down tenfold (docs/measurements.md).
// The sign is that the system takes a processor away in every step. Then the engine looks: some
// steps of answers with half the threads, beside as many with those it has. With fewer than the
// most it looks at twice as many now and then. The owner goroutine alone uses it; the zero value
// leaves the threads as they are.
type threads struct {
	most, batch int // of a decode step and of a prefill, with no other program
	n           int // of a decode step

	kind  int             // of the steps in last and seen: answers in a step
	last  []time.Duration // the latest steps with n threads, at most lookSteps
	taken int             // of them and before, in a row, in which a processor was taken away

	other int             // being looked at; 0: none
	seen  []time.Duration // its steps
	next  time.Time       // not before that is there another look
	wait  time.Duration   // until the next one after this
}

func newThreads(most, batch int) threads {
	return threads{most: most, batch: batch, n: most, wait: lookMin}
}

// now is how many threads the next step is computed with: the most for one that must not depend on
// other programs. It is 0 where there is no choice.
func (t *threads) now(deterministic bool) int {
	switch {
	case deterministic:
		return t.most
	case t.other > 0:
		return t.other
	}
	return t.n
}

// forBatch is how many threads compute a prefill where n compute a decode step.
func (t *threads) forBatch(n int) int { return max(1, t.batch*n/t.most) }

// note takes in that a step of so many answers, and of nothing else, took d, and whether the system
// gave a processor to another program meanwhile.
func (t *threads) note(at time.Time, answers int, d time.Duration, taken bool) {
	if t.most < 2 {
		return
	}
	if answers != t.kind { // steps are compared with their like
		t.kind, t.last, t.taken = answers, t.last[:0], 0
		t.other, t.seen = 0, t.seen[:0]
		return
	}
	if t.other > 0 {
		t.seen = append(t.seen, d)
		if len(t.seen) == lookSteps || float64(d) > lookLost*float64(median(t.last)) {
			t.decide(at)
		}
		return
	}
	if t.last = append(t.last, d); len(t.last) > lookSteps {
		t.last = slices.Delete(t.last, 0, 1)
	}
	if t.taken++; !taken {
		t.taken = 0
	}
	if len(t.last) < lookSteps || at.Before(t.next) {
		return
	}
	switch {
	case t.taken >= lookSteps && t.n > 1:
		t.other = t.n / 2
	case t.n < t.most:
		t.other = min(2*t.n, t.most)
	}
}

// decide ends a look, or goes on with fewer threads yet: half of them may still be too many.
func (t *threads) decide(at time.Time) {
	switch {
	case float64(median(t.seen)) < lookGain*float64(median(t.last)):
		t.n, t.wait = t.other, lookMin
	case 1 < t.other && t.other < t.n:
		t.other, t.seen = t.other/2, t.seen[:0]
		return
	default:
		t.wait = min(2*t.wait, lookMax)
	}
	t.next = at.Add(t.wait)
	t.other, t.seen, t.last, t.taken = 0, t.seen[:0], t.last[:0], 0
}

// median may sort the times.
func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
