package engine

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestBefore: priority, then the tenant served least, then the deadline, then arrival.
func TestBefore(t *testing.T) {
	t.Parallel()
	now := time.Now()
	much, little, late := &share{served: 9, since: 1}, &share{since: 2}, &share{since: 3}
	want := []*task{
		{arrival: 9, share: much, priority: 1},
		{arrival: 8, share: little, due: now},
		{arrival: 7, share: little, due: now.Add(time.Second)},
		{arrival: 2, share: little},
		{arrival: 6, share: little},
		{arrival: 3, share: late, due: now},
		{arrival: 1, share: much, due: now},
		{arrival: 5, share: much},
		{arrival: 1, share: little, due: now, priority: -1},
	}
	rapid.Check(t, func(t *rapid.T) {
		got := rapid.Permutation(want).Draw(t, "order")
		slices.SortFunc(got, before)
		require.Equal(t, want, got)
	})
}

// TestLift: a tenant that begins to wait starts with the least of those that wait, or the last
// that did, and keeps what it had in excess.
func TestLift(t *testing.T) {
	t.Parallel()
	f := &fair{}
	come := func(name string) *task {
		n := &task{tenant: tenant{salt: name}}
		f.arrive(n)
		return n
	}
	a := come("a")
	a.share.served += 50
	b := come("b")
	require.EqualValues(t, 50, b.share.served, "the least of those that wait")
	b.share.served += 20
	require.EqualValues(t, 50, come("c").share.served)
	require.EqualValues(t, 50, come("a").share.served, "it waits already")
	f = &fair{}
	a = come("a")
	f.leave(a)
	a.share.served += 30
	b = come("b")
	require.EqualValues(t, 30, b.share.served, "nobody waits: the last that did")
	a.share.served += 5
	require.EqualValues(t, 35, come("a").share.served, "what it had in excess stays")

}

// TestTenantsMax: a tenant that waits is never forgotten; of the others, those that owe least.
func TestTenantsMax(t *testing.T) {
	t.Parallel()
	f := &fair{}
	for i := range tenantsMax {
		n := &task{tenant: tenant{scope: strconv.Itoa(i)}}
		f.arrive(n)
		if i%2 == 0 {
			n.share.served += int64(1 + i)
			f.leave(n)
		}
	}
	require.Len(t, f.shares, tenantsMax)
	f.arrive(&task{tenant: tenant{scope: "new"}})
	require.Len(t, f.shares, tenantsMax)
	require.NotContains(t, f.shares, tenant{scope: "0"})
	require.Contains(t, f.shares, tenant{scope: "2"})
	for i := range 2 * tenantsMax {
		f.arrive(&task{tenant: tenant{salt: strconv.Itoa(i)}})
	}
	require.Contains(t, f.shares, tenant{scope: "1"}, "it waits")
	require.NotContains(t, f.shares, tenant{scope: "2"})
}

// demand is a request of TestFairBound.
type demand struct {
	task
	prompt, answer int
}

// TestFairBound: whatever two tenants ask for, and whatever others do, while both wait all the time
// neither gets more than 2U ahead of the other in any span of time: Sheng et al., theorem 4.4.
func TestFairBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(1, 4).Draw(t, "slots")
		promptMax := rapid.IntRange(1, 60).Draw(t, "longest prompt")
		answerMax := rapid.IntRange(1, 40).Draw(t, "longest answer")
		bound := 2 * (promptWeight*promptMax + answerWeight*slots*answerMax)
		q := newQueue(1 << 16)
		demands := map[*task]*demand{}
		submit := func(name string) {
			d := &demand{
				prompt: rapid.IntRange(1, promptMax).Draw(t, "prompt"),
				answer: rapid.IntRange(1, answerMax).Draw(t, "answer"),
			}
			d.ctx, d.tenant.salt = context.Background(), name
			require.NoError(t, q.push(&d.task))
			demands[&d.task] = d
		}
		backlog := func() { // so much that a claim leaves one
			for _, name := range []string{"a", "b"} {
				for s := q.fair.shares[tenant{salt: name}]; s == nil || s.waiting < 2; {
					submit(name)
					s = q.fair.shares[tenant{salt: name}]
				}
			}
		}
		got := map[string]int{}
		least, most := 0, 0 // of got["a"] - got["b"] so far
		var running []*demand
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "a third one") {
				submit("c")
			}
			for len(running) < slots {
				backlog()
				next := demands[q.tasks(nil)[0]]
				require.True(t, q.claim(&next.task))
				q.charge(&next.task, promptWeight*next.prompt)
				got[next.tenant.salt] += promptWeight * next.prompt
				running = append(running, next)
			}
			running = slices.DeleteFunc(running, func(d *demand) bool {
				q.charge(&d.task, answerWeight)
				got[d.tenant.salt] += answerWeight
				d.answer--
				return d.answer == 0
			})
			ahead := got["a"] - got["b"]
			least, most = min(least, ahead), max(most, ahead)
			require.LessOrEqual(t, most-least, bound)
		}
	})
}
