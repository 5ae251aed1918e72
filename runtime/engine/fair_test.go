package engine

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestOrder: priority, then the tenant served least, then the deadline, then arrival.
func TestOrder(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
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
		f := &fair{}
		for _, n := range rapid.Permutation(want).Draw(t, "order") {
			f.wait(n)
		}
		require.Equal(t, want, f.tasks(nil))
	})
}

// TestFairModel compares random calls with a list that is sorted each time.
func TestFairModel(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		f := &fair{}
		tenants := map[tenant]bool{}
		var waiting []*task
		var running []*task
		level := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				n := &task{
					tenant:   tenant{salt: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "tenant")},
					priority: rapid.IntRange(-1, 1).Draw(t, "priority"),
				}
				if after := rapid.IntRange(0, 3).Draw(t, "due"); after > 0 {
					n.due = now.Add(time.Duration(after))
				}
				waits := slices.ContainsFunc(waiting, func(o *task) bool { return o.tenant == n.tenant })
				had := int64(0)
				if s := f.shares[n.tenant]; s != nil {
					had = s.served
				}
				if len(waiting) > 0 {
					level = slices.MinFunc(waiting, func(a, b *task) int {
						return cmp.Compare(a.share.served, b.share.served)
					}).share.served
				}
				f.arrive(n)
				if !waits {
					had = max(had, level)
				}
				require.Equal(t, had, n.share.served)
				waiting, tenants[n.tenant] = append(waiting, n), true
			},
			"leave": func(t *rapid.T) {
				if len(waiting) == 0 {
					t.Skip("nobody waits")
				}
				i := rapid.IntRange(0, len(waiting)-1).Draw(t, "which")
				f.leave(waiting[i])
				running = append(running, waiting[i])
				level = waiting[i].share.served
				waiting = slices.Delete(waiting, i, i+1)
			},
			"charge": func(t *rapid.T) {
				if len(running) == 0 {
					t.Skip("nobody runs")
				}
				n := rapid.SampledFrom(running).Draw(t, "whom")
				f.charge(n.share, rapid.IntRange(0, 9).Draw(t, "tokens"))
				level = running[len(running)-1].share.served
			},
			"": func(t *rapid.T) {
				slices.SortFunc(waiting, func(a, b *task) int {
					return cmp.Or(
						cmp.Compare(b.priority, a.priority),
						cmp.Compare(a.share.served, b.share.served),
						cmp.Compare(a.share.since, b.share.since),
						compareTasks(a, b),
					)
				})
				require.Equal(t, len(waiting), f.waiting)
				require.True(t, slices.Equal(waiting, f.tasks(nil)))
				require.Len(t, f.shares, len(tenants))
			},
		})
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
	f.charge(a.share, 50)
	b := come("b")
	require.EqualValues(t, 50, b.share.served, "the least of those that wait")
	f.charge(b.share, 20)
	require.EqualValues(t, 50, come("c").share.served)
	require.EqualValues(t, 50, come("a").share.served, "it waits already")
	f = &fair{}
	a = come("a")
	f.leave(a)
	f.charge(a.share, 30)
	b = come("b")
	require.EqualValues(t, 30, b.share.served, "nobody waits: the last that did")
	f.charge(a.share, 5)
	require.EqualValues(t, 35, come("a").share.served, "what it had in excess stays")
}

// TestTenantsMax: a tenant that waits is never forgotten; of the others, those that owe least are,
// so that after any crowd only so many are left.
func TestTenantsMax(t *testing.T) {
	t.Parallel()
	f := &fair{}
	var crowd []*task
	for i := range 3 * tenantsMax {
		n := &task{tenant: tenant{scope: strconv.Itoa(i)}}
		f.arrive(n)
		f.charge(n.share, i)
		crowd = append(crowd, n)
	}
	require.Len(t, f.shares, 3*tenantsMax, "they wait")
	for _, n := range crowd[1:] {
		f.leave(n)
	}
	require.Len(t, f.shares, tenantsMax+1)
	require.Contains(t, f.shares, tenant{scope: "0"}, "it waits")
	require.Contains(t, f.shares, tenant{scope: strconv.Itoa(3*tenantsMax - 1)})
	require.NotContains(t, f.shares, tenant{scope: "1"})
	n := &task{tenant: tenant{salt: "new"}}
	f.arrive(n)
	f.leave(n)
	require.Len(t, f.shares, tenantsMax+1)
	require.Contains(t, f.shares, tenant{salt: "new"}, "it runs now")
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
				for waiting := 0; waiting < 2; {
					waiting = 0
					for _, n := range q.tasks(nil) {
						if n.tenant.salt == name {
							waiting++
						}
					}
					if waiting < 2 {
						submit(name)
					}
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
