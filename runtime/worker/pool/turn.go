package pool

import (
	"cmp"
	"slices"
	"time"
)

// place is a request that waits for a model.
type place struct {
	n  uint64 // places are counted in the order in which requests come
	at time.Time
}

// enqueue puts one more request behind those that wait for a model. mu is held.
func (p *Pool) enqueue(s *slot) place {
	p.asked++
	mine := place{p.asked, time.Now()}
	s.queue = append(s.queue, mine)
	return mine
}

// dequeue takes a request away. When it gave up, others may go on. mu is held.
func (p *Pool) dequeue(s *slot, mine place, gaveUp bool) {
	s.queue = slices.DeleteFunc(s.queue, func(o place) bool { return o.n == mine.n })
	if gaveUp {
		p.change()
	}
}

// before says that a request waits for this model which came before all those for another.
func (s *slot) before(other *slot) bool {
	return len(s.queue) > 0 && (len(other.queue) == 0 || s.queue[0].n < other.queue[0].n)
}

// turn is the model that is to be loaded before all others, since a request has waited longest for
// it, and for its term at least; nil when there is none. mu is held.
func (p *Pool) turn() (first *slot) {
	for _, s := range p.slots {
		if s.backend == nil && !s.moving && len(s.queue) > 0 && (first == nil || s.before(first)) {
			first = s
		}
	}
	if first == nil || time.Since(first.queue[0].at) < p.term {
		return nil
	}
	return first
}

// yields says that a loaded model is in the way of the one whose turn it is, so that a request must
// wait. Of those that have had their term, the ones that were loaded first make room. Requests that
// came before all that wait for the other model do not yield. mu is held.
func (p *Pool) yields(s, turn *slot, mine place) bool {
	if turn == nil || mine.n < turn.queue[0].n {
		return false
	}
	missing := turn.Bytes - p.left()
	var loaded []*slot
	for _, other := range p.slots {
		switch {
		case other.backend == nil:
		case other.moving: // it is being unloaded
			missing -= other.Bytes
		case time.Since(other.since) >= p.term:
			loaded = append(loaded, other)
		}
	}
	slices.SortFunc(loaded, func(a, b *slot) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.Name, b.Name))
	})
	for _, other := range loaded {
		if missing <= 0 {
			return false
		}
		if other == s {
			return true
		}
		missing -= other.Bytes
	}
	return false
}
