package plan

import (
	"math"
	"slices"
)

// span is what one accelerator holds: items [from, to), and of their routed experts those of
// [keep, to); those before are in the host's memory.
type span struct{ device, from, keep, to int }

// placement says where each item goes: those before start to the host, the others to spans in the
// order of the devices, as llama.cpp splits a model by layers.
type placement struct {
	start  int
	spans  []span
	time   int64 // picoseconds of the request that the plan is chosen for
	host   int64 // bytes of the host's memory
	copies int64 // how often each device keeps the inputs of a graph
	borrow bool  // weights of the host are copied to accelerators for a prefill
}

// deviceOf says where an item and its routed experts are; 0 is the host.
func (p *placement) deviceOf(item int) (dense, experts int) {
	for _, s := range p.spans {
		if item >= s.from && item < s.to {
			if item < s.keep {
				return s.device, 0
			}
			return s.device, s.device
		}
	}
	return 0, 0
}

// crossings counts how often a step goes from one device to another.
func (p *placement) crossings() int {
	n := len(p.spans)
	if p.start == 0 {
		n = max(0, n-1)
	}
	for _, s := range p.spans {
		n += 2 * (s.keep - s.from)
	}
	return n
}

// place is a device as the search sees it. Place 0 is the host.
type place struct {
	budget  int64
	unified bool // its bytes are the host's
}

// search finds the fastest placement within the budgets. It is exact for the given order of the
// devices: dynamic programming over them and the item at which each ends.
type search struct {
	z      *sizes
	t      *timing
	places []place
	host   int64 // what of the host's memory may be used

	full   bool // every item and expert goes to an accelerator
	only   int  // so many items on accelerators and no others; -1: any
	copies int64

	dense, hosted, experts []int64 // sums of the bytes of the first items, caches included
}

func newSearch(z *sizes, t *timing, places []place, only int) *search {
	s := &search{z: z, t: t, places: places, host: places[0].budget, only: only, copies: 1}
	n := len(z.dense)
	dense, hosted := make([]int64, n), make([]int64, n)
	for i := range n {
		dense[i], hosted[i] = z.dense[i]+z.kv[i], z.host[i]+z.kv[i]
	}
	s.dense, s.hosted, s.experts = prefix(dense), prefix(hosted), prefix(z.experts)
	return s
}

// partial is the state of the search: the best ways to place the items before one, on the first
// devices.
type partial struct {
	time, host int64
	fill       int64 // the fullest accelerator, in thousandths
	before     *partial
	span       span
	start      int
}

// best gives the fastest placement, or nil when none fits. Of those that are as fast, it takes the
// one that leaves every accelerator the most room.
func (s *search) best(full bool) *placement {
	s.full, s.copies = full, 1
	if full && len(s.places) > 2 {
		s.copies = 4 // llama.cpp computes micro-batches in a pipeline
	}
	last := s.run(false)
	if last == nil || last.host > s.host {
		last = s.run(true)
	}
	if last == nil || last.host > s.host {
		return nil
	}
	return s.placement(last)
}

// least gives the placement that needs least of the host's memory, whatever the host has.
func (s *search) least() *placement {
	s.full, s.copies = false, 1
	s.host = math.MaxInt64
	var best *partial
	for _, p := range s.states(true) {
		if best == nil || p.host < best.host {
			best = p
		}
	}
	if best == nil {
		return nil
	}
	return s.placement(best)
}

func (s *search) run(frontier bool) *partial {
	states := s.states(frontier)
	if len(states) == 0 {
		return nil
	}
	return states[0]
}

// states gives the ways to place all items. Without frontier it is only the fastest, without regard
// to the host's memory; with it, all that trade time for the host's memory within its budget.
func (s *search) states(frontier bool) []*partial {
	n := len(s.z.dense)
	now := make([][]*partial, n+1)
	for start := range n + 1 {
		if s.full && start > 0 || s.only >= 0 && start != n-min(s.only, n) {
			continue
		}
		host := s.hosted[start] + s.experts[start] + s.hostFixed(start > 0)
		p := &partial{time: s.t.dense[0][start] + s.t.experts[0][start], host: host, start: start}
		if !frontier || host <= s.host {
			now[start] = []*partial{p}
		}
	}
	for d := 1; d < len(s.places); d++ {
		next := make([][]*partial, n+1)
		for from := range n + 1 {
			for _, p := range now[from] {
				next[from] = insert(next[from], p, frontier)
			}
			if len(now[from]) > 0 {
				s.extend(now[from], next, d, from, frontier)
			}
		}
		now = next
	}
	return now[n]
}

// hostFixed is what the host's memory holds wherever the items go.
func (s *search) hostFixed(layers bool) int64 {
	return s.z.input + s.z.outputs + s.z.hostCompute(layers || !s.full)
}

// extend adds spans on device d that begin at from to the states there.
func (s *search) extend(states []*partial, next [][]*partial, d, from int, frontier bool) {
	n, crossing := len(s.z.dense), answerTokens*picoseconds(crossingSeconds)
	for to := from + 1; to <= n; to++ {
		left := s.places[d].budget - (s.dense[to] - s.dense[from]) -
			s.z.compute(to == n, !s.full, s.copies)
		if left < 0 {
			return
		}
		keep := from
		if s.experts[to]-s.experts[from] > left {
			if s.full {
				return
			}
			keep = s.keepFrom(from, to, left)
		}
		routed := s.experts[to] - s.experts[keep]
		used := s.places[d].budget - left + routed
		host := s.experts[keep] - s.experts[from]
		if s.places[d].unified {
			host += used
		}
		time := s.t.dense[d][to] - s.t.dense[d][from] + s.t.experts[d][to] - s.t.experts[d][keep] +
			s.t.experts[0][keep] - s.t.experts[0][from] + crossing*int64(2*(keep-from))
		fill := used * 1000 / max(1, s.places[d].budget)
		for _, p := range states {
			entered := time
			if p.start > 0 || p.before != nil {
				entered += crossing
			}
			q := partial{
				time: p.time + entered, host: p.host + host, fill: max(p.fill, fill), before: p,
				span: span{d, from, keep, to}, start: p.start,
			}
			if frontier && q.host > s.host {
				continue
			}
			if at := next[to]; !frontier && len(at) > 0 && !q.better(at[0]) {
				continue
			}
			next[to] = insert(next[to], &q, frontier)
		}
	}
}

// keepFrom is the first item from which on the routed experts have room.
func (s *search) keepFrom(from, to int, room int64) int {
	n, _ := slices.BinarySearchFunc(s.experts[from:to+1], room, func(before, room int64) int {
		if s.experts[to]-before > room {
			return -1
		}
		return 1
	})
	return from + n
}

// better orders by time, then by how full the fullest accelerator is, then by the host's memory.
func (p *partial) better(q *partial) bool {
	if p.time != q.time {
		return p.time < q.time
	}
	if p.fill != q.fill {
		return p.fill < q.fill
	}
	return p.host < q.host
}

// insert keeps what no other state beats, the fastest first: in time alone, or with frontier in
// time and the host's memory.
func insert(all []*partial, p *partial, frontier bool) []*partial {
	if !frontier {
		if len(all) == 0 || p.better(all[0]) {
			return []*partial{p}
		}
		return all
	}
	at := 0
	for ; at < len(all) && !p.better(all[at]); at++ {
		if all[at].host <= p.host {
			return all
		}
	}
	end := at
	for end < len(all) && all[end].host >= p.host {
		end++
	}
	return slices.Replace(all, at, end, p)
}

func (s *search) placement(last *partial) *placement {
	p := &placement{
		start: last.start, time: last.time, host: last.host, copies: s.copies, borrow: !s.full,
	}
	for at := last; at.before != nil; at = at.before {
		p.spans = append(p.spans, at.span)
	}
	slices.Reverse(p.spans)
	return p
}
