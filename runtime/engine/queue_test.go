package engine

import (
	"testing"

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
		var model []*task
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				n := &task{priority: rapid.IntRange(-2, 2).Draw(t, "priority")}
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
			"pop": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip("it would wait")
				}
				require.Same(t, model[0], q.pop())
				model = model[1:]
			},
			"take back": func(t *rapid.T) {
				if len(model) == 0 {
					require.False(t, q.takeBack(&task{}))
					return
				}
				i := rapid.IntRange(0, len(model)-1).Draw(t, "which")
				n := model[i]
				require.True(t, q.takeBack(n))
				require.False(t, q.takeBack(n))
				model = append(model[:i:i], model[i+1:]...)
			},
		})
		q.close()
		for _, n := range model {
			require.Same(t, n, q.pop(), "what waits is still served")
		}
		require.Nil(t, q.pop())
	})
}

// TestQueueClose: the owner goes only after those who use the model.
func TestQueueClose(t *testing.T) {
	t.Parallel()
	q := newQueue(1)
	require.NoError(t, q.enter())
	gone := make(chan *task)
	go func() { gone <- q.pop() }()
	q.close()
	q.close()
	require.Equal(t, infer.KindClosed, infer.KindOf(q.enter()))
	require.Equal(t, infer.KindClosed, infer.KindOf(q.push(&task{})))
	select {
	case <-gone:
		t.Fatal("the owner went while the model was in use")
	default:
	}
	q.leave()
	require.Nil(t, <-gone)
}
