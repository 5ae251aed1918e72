package engine

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// spinner is a program that decodes, on processors that it shares.
type spinner struct {
	threads
	at     time.Time // of its next step
	with   map[int]time.Duration
	random *rand.Rand
}

// step takes as long as it does with n threads while others have so many of the processors: where
// threads are more than those they take turns, and several of a step wait for one another, too.
func (e *spinner) step(processors, others int) {
	n := e.now(false)
	crowd := max(1, float64(n+others)/float64(processors))
	ms := 6 / float64(n) * crowd
	if n > 1 {
		ms += 6 / float64(n) * 20 * (crowd - 1)
	}
	d := time.Duration(ms * (1 + 0.05*e.random.Float64()) * 1e6)
	e.at = e.at.Add(d)
	e.with[n] += d
	e.note(e.at, 1, d, crowd > 1 || e.random.Float64() < 0.02)
}

// together lets programs decode side by side for so long.
func together(processors int, d time.Duration, all ...*spinner) {
	end := all[0].at.Add(d)
	for {
		next := all[0]
		for _, e := range all[1:] {
			if e.at.Before(next.at) {
				next = e
			}
		}
		if !next.at.Before(end) {
			return
		}
		others := 0
		for _, e := range all {
			if e != next {
				others += e.now(false)
			}
		}
		next.step(processors, others)
	}
}

func spinners(n, threads int) (all []*spinner) {
	for i := range n {
		all = append(all, &spinner{
			threads: newThreads(threads, threads), at: time.Unix(0, int64(i)*1e6),
			random: rand.New(rand.NewPCG(1, uint64(i))), //nolint:gosec // no secret
		})
	}
	return all
}

// share is how much of the time since the last call a program computed with n threads.
func (e *spinner) share(n int) float64 {
	all := time.Duration(0)
	for _, d := range e.with {
		all += d
	}
	return e.with[n].Seconds() / all.Seconds()
}

// TestThreads: alone an engine computes with all threads; several share the processors; and what is
// left alone has all of them again.
func TestThreads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ processors, tenants, threads int }{
		{2, 2, 1}, {4, 2, 2}, {8, 4, 2}, {16, 2, 8}, {3, 3, 1},
	} {
		all := spinners(c.tenants, c.processors)
		during := func(d time.Duration, of ...*spinner) {
			for _, e := range of {
				e.with = map[int]time.Duration{}
			}
			together(c.processors, d, of...)
		}
		first := all[0]
		during(10*time.Minute, first)
		require.Greater(t, first.share(c.processors), 0.99, "%+v alone", c)
		for _, e := range all {
			e.at = first.at
		}
		during(30*time.Second, all...) // they find out
		during(10*time.Minute, all...)
		for _, e := range all {
			require.Greater(t, e.share(c.threads), 0.9, "%+v together: %v", c, e.with)
		}
		during(30*time.Second, first)
		during(10*time.Minute, first)
		require.Greater(t, first.share(c.processors), 0.99, "%+v alone again", c)
	}
}

// TestThreadsAreKept: a deterministic step has all threads, one thread is no choice, and without
// the option nothing is chosen.
func TestThreadsAreKept(t *testing.T) {
	t.Parallel()
	all := spinners(2, 2)
	for _, e := range all {
		e.with = map[int]time.Duration{}
	}
	together(2, time.Minute, all...)
	require.Equal(t, 1, all[0].n)
	require.Equal(t, 2, all[0].now(true))
	one := newThreads(1, 1)
	for i := range 1000 {
		one.note(time.Unix(int64(i), 0), 1, time.Duration(1+i%7)*time.Second, true)
		require.Equal(t, 1, one.now(false))
	}
	var none threads
	none.note(time.Unix(1, 0), 1, time.Second, true)
	require.Zero(t, none.now(false))
	require.Zero(t, none.now(true))
	some := newThreads(6, 12)
	require.Equal(t, []int{12, 6, 2}, []int{some.forBatch(6), some.forBatch(3), some.forBatch(1)})
}
