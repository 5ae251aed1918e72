package engine

import (
	"cmp"
	"math"
	"slices"
	"sort"
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

// tenantsMax is how many tenants that do not wait are remembered.
const tenantsMax = 1024

// tenant is who requests are fairly shared between: those who share no prefixes.
type tenant struct{ scope, salt string }

// share is what one tenant has had.
type share struct {
	tenant tenant
	served int64   // weighted tokens; what was lifted counts as served
	since  uint64  // the arrival with which the tenant last began to wait
	lines  []*line // none while it does not wait
}

// line is what one tenant waits for at one priority, in order.
type line struct {
	share    *share
	priority int
	tasks    []*task
}

// fair is the Virtual Token Counter of that paper, algorithm 2: who waits and was served least is
// next. Between two tenants that wait all the time, service differs by no more than 2U, with
// U = promptWeight x the longest prompt + answerWeight x the answers that run at once (theorem
// 4.4). A tenant that begins to wait is lifted to the least of those that wait already, or to the
// last that did: it cannot save up, and what it had in excess it still owes. The zero value is
// ready. Not for concurrent use.
type fair struct {
	shares   map[tenant]*share
	idle     map[*share]bool // those of shares that do not wait
	lines    []*line         // in order
	waiting  int             // tasks
	last     *share          // of the task that left last
	arrivals uint64
}

// arrive gives a task its number and the share that it is served from, and lets it wait.
func (f *fair) arrive(t *task) {
	f.arrivals++
	t.arrival = f.arrivals
	s := f.shares[t.tenant]
	if s == nil {
		s = f.remember(t.tenant)
	}
	if len(s.lines) == 0 {
		delete(f.idle, s)
		s.served, s.since = max(s.served, f.level()), t.arrival
	}
	t.share = s
	f.wait(t)
}

func (f *fair) remember(of tenant) *share {
	if f.shares == nil {
		f.shares, f.idle = map[tenant]*share{}, map[*share]bool{}
	}
	s := &share{tenant: of}
	f.shares[of] = s
	return s
}

// level is what a tenant that begins to wait is lifted to.
func (f *fair) level() int64 {
	switch {
	case len(f.lines) == 0 && f.last == nil:
		return 0
	case len(f.lines) == 0:
		return f.last.served
	}
	least := int64(math.MaxInt64)
	for rest := f.lines; len(rest) > 0; { // of each priority the first
		least = min(least, rest[0].share.served)
		rest = rest[sort.Search(len(rest), func(i int) bool {
			return rest[i].priority < rest[0].priority
		}):]
	}
	return least
}

// wait puts a task into the line of its tenant and priority.
func (f *fair) wait(t *task) {
	s := t.share
	i := slices.IndexFunc(s.lines, func(l *line) bool { return l.priority == t.priority })
	if i < 0 {
		i = len(s.lines)
		s.lines = append(s.lines, &line{share: s, priority: t.priority})
		f.lines = place(f.lines, s.lines[i], compareLines)
	}
	t.line = s.lines[i]
	t.line.tasks = place(t.line.tasks, t, compareTasks)
	f.waiting++
}

// leave takes a task off those that wait: it begins, or its caller took it back.
func (f *fair) leave(t *task) {
	s, l := t.share, t.line
	t.line = nil
	l.tasks = remove(l.tasks, t, compareTasks)
	if len(l.tasks) == 0 {
		f.lines = remove(f.lines, l, compareLines)
		s.lines = slices.DeleteFunc(s.lines, func(o *line) bool { return o == l })
	}
	if len(s.lines) == 0 {
		f.idle[s] = true
		f.forget(s)
	}
	f.waiting--
	f.last = s
}

// forget drops a tenant, where too many are idle: of all but one, the one that was served least,
// for it owes least.
func (f *fair) forget(except *share) {
	if len(f.idle) <= tenantsMax {
		return
	}
	var least *share
	for s := range f.idle {
		if s != except && (least == nil || s.served < least.served ||
			s.served == least.served && s.since < least.since) {
			least = s
		}
	}
	delete(f.idle, least)
	delete(f.shares, least.tenant)
}

// charge counts what a tenant got, in weighted tokens.
func (f *fair) charge(s *share, weighted int) {
	for _, l := range s.lines {
		f.lines = remove(f.lines, l, compareLines)
	}
	s.served += int64(weighted)
	for _, l := range s.lines {
		f.lines = place(f.lines, l, compareLines)
	}
}

// tasks appends those that wait to dst, in order.
func (f *fair) tasks(dst []*task) []*task {
	for _, l := range f.lines {
		dst = append(dst, l.tasks...)
	}
	return dst
}

// compareLines orders lines: higher priority first; then the tenant that was served least, of
// equals the one that waits longer.
func compareLines(a, b *line) int {
	return cmp.Or(
		cmp.Compare(b.priority, a.priority),
		cmp.Compare(a.share.served, b.share.served),
		cmp.Compare(a.share.since, b.share.since),
	)
}

// compareTasks orders the tasks of a line: the earliest deadline, and then by arrival.
func compareTasks(a, b *task) int {
	return cmp.Or(compareDue(a.due, b.due), cmp.Compare(a.arrival, b.arrival))
}

// place puts x into a sorted list.
func place[T any](list []T, x T, compare func(a, b T) int) []T {
	at, _ := slices.BinarySearchFunc(list, x, compare)
	return slices.Insert(list, at, x)
}

// remove takes x out of a sorted list.
func remove[T any](list []T, x T, compare func(a, b T) int) []T {
	at, _ := slices.BinarySearchFunc(list, x, compare)
	return slices.Delete(list, at, at+1)
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
