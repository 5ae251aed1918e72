package engine

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/infer"
)

// TestQueue compares random calls with a sorted list.
func TestQueue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const most = 4
		q := newQueue(most)
		model := []*task{}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				n := &task{ctx: t.Context(), priority: rapid.IntRange(-2, 2).Draw(t, "priority")}
				err := q.push(n)
				if len(model) == most {
					require.Equal(t, infer.KindBusy, infer.KindOf(err))
					return
				}
				require.NoError(t, err)
				at := 0
				for at < len(model) && model[at].priority >= n.priority {
					at++
				}
				model = append(model[:at], append([]*task{n}, model[at:]...)...)
			},
			"claim": func(t *rapid.T) {
				require.Equal(t, model, q.tasks([]*task{}))
				if len(model) == 0 {
					require.False(t, q.claim(&task{}))
					return
				}
				i := rapid.IntRange(0, len(model)-1).Draw(t, "which")
				n := model[i]
				require.True(t, q.claim(n))
				require.False(t, q.claim(n), "the other one comes too late")
				model = append(model[:i:i], model[i+1:]...)
			},
		})
		q.close()
		for _, n := range model {
			require.False(t, q.over(), "what waits is still served")
			require.True(t, q.claim(n))
		}
		require.True(t, q.over())
	})
}

// TestQueueClose: the owner goes only after those who use the model.
func TestQueueClose(t *testing.T) {
	t.Parallel()
	q := newQueue(1)
	require.NoError(t, q.enter())
	require.False(t, q.over())
	q.close()
	q.close()
	<-q.wake
	require.Equal(t, infer.KindClosed, infer.KindOf(q.enter()))
	require.Equal(t, infer.KindClosed, infer.KindOf(q.push(&task{ctx: t.Context()})))
	require.False(t, q.over(), "the model is in use")
	q.leave()
	<-q.wake
	require.True(t, q.over())
}

// TestC1Queue: what the queue orders and measures by is not the wall clock. Order is by number,
// whatever the times of arrival say, and times have a reading of the monotonic clock (C1).
func TestC1Queue(t *testing.T) {
	t.Parallel()
	q := newQueue(8)
	wall := time.Now().Round(0) // no monotonic reading, as a deadline from a message
	ctx, cancel := context.WithDeadline(t.Context(), wall.Add(time.Hour))
	defer cancel()
	first, second := &task{ctx: ctx}, &task{ctx: t.Context()}
	third, fourth := &task{ctx: t.Context()}, &task{ctx: t.Context()}
	for _, n := range []*task{first, second, third, fourth} {
		require.NoError(t, q.push(n))
		require.False(t, n.submitted == n.submitted.Round(0), "a monotonic reading")
	}
	require.False(t, first.due == first.due.Round(0), "of the deadline, too")
	second.submitted = wall.AddDate(1, 0, 0) // the clock was set forward, and then back
	third.submitted = wall.Add(-time.Hour)
	require.Equal(t, []*task{first, second, third, fourth}, q.tasks(nil))
}
