package engine

import (
	"cmp"
	"math"
	"time"
)

// Weights of served tokens, as in Sheng et al., "Fairness in Serving Large Language Models", OSDI
// 2024: a token of an answer counts twice one of a prompt, for it takes a step of its own, while
// those of a prompt share theirs. On the processors measured so far it takes 1.6 to 6 times as
// long.
const (
	promptWeight = 1
	answerWeight = 2
)

// tenantsMax is how many tenants are remembered, unless more of them wait.
const tenantsMax = 1024

// tenant is who requests are fairly shared between: those who share no prefixes.
type tenant struct{ scope, salt string }

// share is what one tenant has had.
type share struct {
	served  int64  // weighted tokens; what was lifted counts as served
	waiting int    // tasks
	since   uint64 // the arrival with which the tenant last began to wait
}

// fair is the Virtual Token Counter of that paper, algorithm 2: who waits and was served least is
// next. Between two tenants that wait all the time, service differs by no more than 2U, with
// U = promptWeight x the longest prompt + answerWeight x the answers that run at once (theorem
// 4.4). A tenant that begins to wait is lifted to the least of those that wait already, or to the
// last that did: it cannot save up, and what it had in excess it still owes. The zero value is
// ready. Not for concurrent use.
type fair struct {
	shares   map[tenant]*share
	last     *share // of the task that left last
	arrivals uint64
}

// arrive gives a task its number and the share that it is served from.
func (f *fair) arrive(t *task) {
	f.arrivals++
	t.arrival = f.arrivals
	t.share = f.shares[t.tenant]
	if t.share == nil {
		t.share = f.remember(t.tenant)
	}
	if s := t.share; s.waiting == 0 {
		s.served, s.since = max(s.served, f.level()), t.arrival
	}
	t.share.waiting++
}

// level is what a tenant that begins to wait is lifted to.
func (f *fair) level() int64 {
	least := int64(math.MaxInt64)
	for _, s := range f.shares {
		if s.waiting > 0 {
			least = min(least, s.served)
		}
	}
	switch {
	case least < math.MaxInt64:
		return least
	case f.last != nil:
		return f.last.served
	}
	return 0
}

// remember adds a tenant. Where there are too many it forgets the one that does not wait and was
// served least: that one owes least.
func (f *fair) remember(of tenant) *share {
	if f.shares == nil {
		f.shares = map[tenant]*share{}
	}
	if len(f.shares) >= tenantsMax {
		var idle tenant
		least := int64(math.MaxInt64)
		for key, s := range f.shares {
			if s.waiting == 0 && s.served < least {
				idle, least = key, s.served
			}
		}
		if least < math.MaxInt64 {
			delete(f.shares, idle)
		}
	}
	s := &share{}
	f.shares[of] = s
	return s
}

// leave takes a task off those that wait: it begins, or its caller took it back.
func (f *fair) leave(t *task) {
	t.share.waiting--
	f.last = t.share
}

// before orders tasks: higher priority first; then the tenant that was served least, of equals the
// one that waits longer; of one tenant the earliest deadline, and then by arrival.
func before(a, b *task) int {
	return cmp.Or(
		cmp.Compare(b.priority, a.priority),
		cmp.Compare(a.share.served, b.share.served),
		cmp.Compare(a.share.since, b.share.since),
		compareDue(a.due, b.due),
		cmp.Compare(a.arrival, b.arrival),
	)
}

// compareDue puts the earlier of two deadlines first, and none last.
func compareDue(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}
