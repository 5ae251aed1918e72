package device

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// childGroups names, in the environment of a child of TestRealLimits, the groups that it joins.
const childGroups = "NORION_TEST_GROUPS"

// TestRealLimits makes control groups with limits, where the kernel and the user's rights permit
// that, and probes from a process in them.
func TestRealLimits(t *testing.T) {
	if groups := os.Getenv(childGroups); groups != "" {
		probeIn(t, strings.Split(groups, ":"))
		return
	}
	t.Parallel()
	const limit = 300 << 20
	group, v2 := newGroup(t, "memory", map[string]string{
		"memory.max": "314572800", "memory.limit_in_bytes": "314572800",
	})
	groups := []string{group}
	if v2 { // a process is in one group for all controllers
		err := os.WriteFile(filepath.Join(group, "cpu.max"), []byte("50000 100000"), 0o600)
		if err != nil {
			t.Skip("no quota can be set here: ", err)
		}
	} else {
		cpu, _ := newGroup(t, "cpu", map[string]string{"cpu.cfs_quota_us": "50000"})
		groups = append(groups, cpu)
	}
	program, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(t.Context(), program, "-test.run=^TestRealLimits$")
	child.Env = append(os.Environ(), childGroups+"="+strings.Join(groups, ":"))
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	line, _, _ := strings.Cut(string(out), "\n")
	var m Machine
	require.NoError(t, json.Unmarshal([]byte(line), &m), "%s", out)
	checkMachine(t, m)
	require.InDelta(t, 0.5, m.CPU.Quota, 0)
	require.Equal(t, int64(limit), m.Memory.LimitBytes)
	require.Equal(t, "cgroup", m.Memory.Source)
	require.Positive(t, m.Memory.AvailableBytes)
}

// newGroup makes a group at the top of the hierarchy that has a controller, and sets what it has of
// the given files.
func newGroup(t *testing.T, controller string, set map[string]string) (dir string, v2 bool) {
	t.Helper()
	root := os.DirFS("/")
	for _, h := range hierarchies(root, controller) {
		top := "/" + h.dirs[len(h.dirs)-1]
		dir := filepath.Join(top, "norion-test-"+rand.Text())
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Logf("%s: %v", top, err)
			continue
		}
		t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
		for file, value := range set {
			if os.WriteFile(filepath.Join(dir, file), []byte(value), 0o600) == nil {
				return dir, h.v2
			}
		}
	}
	t.Skipf("no control group with a limit of %s can be made here", controller)
	return "", false
}

// probeIn joins groups, probes, and prints the machine.
func probeIn(t *testing.T, groups []string) {
	t.Helper()
	for _, dir := range groups {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o600))
	}
	m, err := Probe(t.Context(), Options{})
	require.NoError(t, err)
	require.NoError(t, json.NewEncoder(os.Stdout).Encode(m))
}
