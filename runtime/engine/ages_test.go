package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAges: the age of a use is never more than it is, and exact while nothing was forgotten.
func TestAges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var a ages
		now := time.Unix(1000, 0)
		at := []time.Time{now} // of each use, from 1
		for range rapid.IntRange(1, 3*agesMax).Draw(rt, "steps") {
			now = now.Add(time.Second)
			for range len(at) % 3 {
				at = append(at, now)
			}
			at = append(at, now)
			a.note(uint64(len(at)-1), now)
			a.note(uint64(len(at)-1), now.Add(time.Hour)) // nothing new
		}
		require.LessOrEqual(rt, len(a), agesMax)
		use := rapid.IntRange(1, len(at)-1).Draw(rt, "use")
		want := now.Sub(at[use])
		got := a.since(uint64(use), now)
		require.LessOrEqual(rt, got, want)
		if len(at) < agesMax {
			require.Equal(rt, want, got)
		}
		require.Zero(rt, a.since(uint64(len(at)), now), "not yet noted")
	})
}
