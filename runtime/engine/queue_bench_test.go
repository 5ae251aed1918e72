package engine

import (
	"context"
	"fmt"
	"strconv"
	"testing"
)

// BenchmarkQueue measures a look at a queue of so many tasks, of so many tenants, after the first
// one was taken and its tenant charged, and another has come.
func BenchmarkQueue(b *testing.B) {
	for _, tasks := range []int{64, 1024, QueueMax} {
		for _, tenants := range []int{1, 16, tasks} {
			b.Run(fmt.Sprintf("tasks=%d/tenants=%d", tasks, tenants), func(b *testing.B) {
				q := newQueue(tasks)
				push := func(i int) {
					t := &task{ctx: context.Background(), tenant: tenant{salt: strconv.Itoa(i % tenants)}}
					if err := q.push(t); err != nil {
						b.Fatal(err)
					}
				}
				for i := range tasks {
					push(i)
				}
				var all []*task
				next := tasks
				for b.Loop() {
					all = q.tasks(all[:0])
					q.claim(all[0])
					q.charge(all[0], 100)
					push(next)
					next++
				}
			})
		}
	}
}
