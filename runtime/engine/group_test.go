package engine

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/infer"
)

// TestNextGroup: whatever comes, goes and falls behind, no group has two turns while another one
// that could be computed all the time has none.
func TestNextGroup(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var running []*generation
		step := 0
		passed := map[*group]map[*group]bool{} // by group: those that had a turn while it waited
		runnable := func(of *group) bool {
			return slices.ContainsFunc(running, func(g *generation) bool {
				return g.group == of && !g.full()
			})
		}
		pick := func() *generation {
			return running[rapid.IntRange(0, len(running)-1).Draw(t, "which")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				g := &generation{out: make(chan infer.Chunk, 2), group: &group{turn: step}}
				if len(running) > 0 && rapid.Bool().Draw(t, "joins") {
					g.group = pick().group
				}
				running = append(running, g)
			},
			"end": func(*rapid.T) {
				if len(running) > 0 {
					i := slices.Index(running, pick())
					running = slices.Delete(running, i, i+1)
				}
			},
			"read on, or not": func(*rapid.T) {
				if len(running) == 0 {
					return
				}
				if g := pick(); len(g.out) > 0 {
					<-g.out
				} else {
					g.out <- infer.Chunk{}
				}
			},
			"": func(t *rapid.T) {
				for of := range passed {
					if !runnable(of) {
						delete(passed, of)
					}
				}
				step++
				next := nextGroup(running, step)
				for _, g := range running {
					require.False(t, next == nil && !g.full(), "one could be computed")
					if !g.full() && passed[g.group] == nil {
						passed[g.group] = map[*group]bool{}
					}
				}
				if next == nil {
					return
				}
				require.True(t, runnable(next))
				delete(passed, next)
				for _, by := range passed {
					require.False(t, by[next], "a second turn")
					by[next] = true
				}
				next.turn = step
				require.NotSame(t, next, nextGroup(running, step), "twice in one step")
			},
		})
	})
}
