package house_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// lattice says what each room may import. Each line is "rooms < rooms": the rooms on the right may
// import those on the left and whatever those may import. What is not listed is forbidden, and so
// is a room that is not listed. A change needs an ADR in docs/adr.
const lattice = `
NONE < hw/clock hw/disk runtime/infer runtime/gguf runtime/llama control/event control/stats
NONE < third_party/native docs/house docs/house/count
hw/clock hw/disk < hw/device kv
runtime/gguf hw/device < hw/plan
runtime/gguf hw/disk < runtime/store
kv hw/disk < kv/snapshot
runtime/infer < runtime/remote runtime/command runtime/conform
runtime/infer runtime/gguf runtime/llama kv kv/snapshot < runtime/engine
hw/clock hw/disk hw/device hw/plan < runtime/engine
runtime/engine < runtime/worker
control/event hw/disk < control/ledger
control/ledger < control/gate
control/event control/stats control/gate runtime/infer < CONTROL
CONTROL < control/evolve control/trace
control/evolve control/trace < control/loop
control/loop < control/httpapi
runtime/worker runtime/remote runtime/command runtime/conform runtime/store < bench
hw/plan kv/snapshot control/httpapi < bench
bench < cmd
`

// controlRooms is what CONTROL stands for in the lattice.
const controlRooms = "control/gene control/route control/memory control/reflect " +
	"control/experience control/drift control/load control/danger control/pool control/learn " +
	"control/recurse"

// testEdges are imports that only test files may have besides: the conformance suite, and the
// models and made-up model files that a test needs.
const testEdges = `
runtime/gguf < runtime/llama
runtime/conform < runtime/engine runtime/worker runtime/remote runtime/command
runtime/store < runtime/gguf runtime/llama runtime/engine runtime/worker
`

// parseEdges gives, for each room, the rooms named directly.
func parseEdges(text string) map[string][]string {
	direct := map[string][]string{}
	for _, line := range lines(strings.TrimSpace(text)) {
		line = strings.ReplaceAll(line, "CONTROL", controlRooms)
		left, right, _ := strings.Cut(line, " < ")
		for _, room := range strings.Fields(right) {
			if direct[room] == nil {
				direct[room] = []string{}
			}
			if left != "NONE" {
				direct[room] = append(direct[room], strings.Fields(left)...)
			}
		}
	}
	return direct
}

// mayImport follows the edges down.
func mayImport(direct map[string][]string, from, to string) bool {
	return slices.ContainsFunc(direct[from], func(next string) bool {
		return next == to || mayImport(direct, next, to)
	})
}

// roomOf is the longest listed room that holds a package, or "".
func roomOf(direct map[string][]string, pkg string) string {
	for room := pkg; room != "." && room != ""; {
		if _, ok := direct[room]; ok {
			return room
		}
		i := strings.LastIndexByte(room, '/')
		room = room[:max(i, 0)]
	}
	return ""
}

func latticeRule(files tree) []string {
	direct, extra := parseEdges(lattice), parseEdges(testEdges)
	var found []string
	for _, g := range files.goFiles() {
		from := roomOf(direct, g.pkg)
		if from == "" {
			found = append(found, fmt.Sprintf("%s: no such room in the lattice: %s", g.name, g.pkg))
			continue
		}
		for _, spec := range g.file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			pkg, internal := strings.CutPrefix(name, module+"/")
			if err != nil || !internal {
				continue
			}
			to := roomOf(direct, pkg)
			if to == from || to != "" && mayImport(direct, from, to) ||
				g.test && slices.Contains(extra[from], to) {
				continue
			}
			found = append(found, fmt.Sprintf("%s:%d: %s may not import %s",
				g.name, g.line(spec.Pos()), from, pkg))
		}
	}
	return found
}

// TestLattice checks the table itself: no cycle, and the consequences that must hold.
func TestLattice(t *testing.T) {
	t.Parallel()
	direct := parseEdges(lattice)
	for room, lower := range direct {
		require.False(t, mayImport(direct, room, room), "%s imports itself", room)
		for _, r := range lower {
			require.Contains(t, direct, r, "%s names an unknown room", room)
		}
	}
	for room := range direct {
		if strings.HasPrefix(room, "control/") {
			for _, lower := range []string{"kv", "runtime/engine", "runtime/llama", "runtime/gguf"} {
				require.False(t, mayImport(direct, room, lower), "%s must not see %s", room, lower)
			}
		}
		if strings.HasPrefix(room, "runtime/") || strings.HasPrefix(room, "hw/") {
			require.False(t, mayImport(direct, room, "control/event"), "%s sees control", room)
		}
	}
	for _, edge := range [][2]string{
		{"cmd", "control/httpapi"},
		{"cmd", "runtime/store"},
		{"bench", "runtime/llama"},
		{"runtime/worker", "runtime/engine"},
		{"runtime/engine", "kv"},
		{"control/httpapi", "runtime/infer"},
	} {
		require.True(t, mayImport(direct, edge[0], edge[1]), "%v", edge)
	}
	require.Equal(t, "cmd", roomOf(direct, "cmd/norion"))
	require.Equal(t, "", roomOf(direct, "control"))
}
