package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/store/storetest"
)

// limited is a control group with half a processor, and the files that make a process join it.
type limited struct {
	memory string   // its directory in the hierarchy of the memory controller
	joins  []string // cgroup.procs of each hierarchy
	killed string   // file that counts processes that the kernel killed
}

// newLimited makes a group, where the kernel and the user's rights permit that.
func newLimited(t *testing.T, bytes int64) limited {
	t.Helper()
	const root = "/sys/fs/cgroup"
	name := "norion-test-" + rand.Text()
	set := func(dir, file, value string) string {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Skipf("no control group can be made here: %v", err)
		}
		t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o600); err != nil {
			t.Skipf("no limit can be set here: %v", err)
		}
		return filepath.Join(dir, "cgroup.procs")
	}
	limit := strconv.FormatInt(bytes, 10)
	if _, err := os.Stat(root + "/memory"); err == nil { // version 1
		g := limited{memory: filepath.Join(root, "memory", name)}
		g.joins = []string{
			set(g.memory, "memory.limit_in_bytes", limit),
			set(filepath.Join(root, "cpu", name), "cpu.cfs_quota_us", "50000"),
		}
		g.killed = filepath.Join(g.memory, "memory.oom_control")
		return g
	}
	g := limited{memory: filepath.Join(root, name)}
	g.joins = []string{set(g.memory, "memory.max", limit)}
	quota := filepath.Join(g.memory, "cpu.max")
	if err := os.WriteFile(quota, []byte("50000 100000"), 0o600); err != nil {
		t.Skipf("no quota can be set here: %v", err)
	}
	g.killed = filepath.Join(g.memory, "memory.events")
	return g
}

// norion runs this program in the group.
func (g limited) norion(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	script := ""
	for _, join := range g.joins {
		script += "echo 0 >" + join + " && "
	}
	c := exec.CommandContext(t.Context(), "sh", append([]string{
		"-c", script + `exec norion "$@"`, "sh",
	}, args...)...)
	c.Env = append(os.Environ(), "NORION_HOME="+t.TempDir(), "GORACE=atexit_sleep_ms=0")
	var out, err bytes.Buffer
	c.Stdout, c.Stderr = &out, &err
	if e := c.Run(); e != nil && c.ProcessState == nil {
		t.Fatal(e)
	}
	return c.ProcessState.ExitCode(), out.String(), err.String()
}

// TestC3Group plans and loads within a control group of 300 MB and half a processor: what does not
// fit is refused, what shrinks is said, what is loaded keeps inside, and nothing is killed.
func TestC3Group(t *testing.T) {
	model := storetest.Model(t, "smollm2:135m")
	g := newLimited(t, 300<<20)
	code, _, stderr := g.norion(t, "plan", model, "--ctx", "8192")
	require.Equal(t, exitDoesNotFit, code, stderr)
	require.Contains(t, stderr, "does not fit: memory")
	require.Contains(t, stderr, "hint: try a context of ")
	code, stdout, stderr := g.norion(t, "plan", model, "--ctx", "8192", "--ctx-min", "512")
	require.Zero(t, code, stderr)
	require.Regexp(t, `The context is \d+ in place of 8192`, stdout)
	require.Contains(t, stdout, "Threads are 1: the control group grants 0.5 processors.")
	code, _, stderr = g.norion(t, "run", model, "hi", "-n", "4", "--ctx", "65536")
	require.Equal(t, exitDoesNotFit, code, stderr)
	require.Contains(t, stderr, "hint: ")

	if raceDetector {
		g = newLimited(t, 1<<30) // it keeps several bytes for each of the program's own
	}
	for range 2 {
		code, stdout, stderr = g.norion(t, "run", model, "hi", "-n", "4", "--ctx", "512")
		require.Zero(t, code, stderr)
		require.NotEmpty(t, strings.TrimSpace(stdout))
	}
	text, err := os.ReadFile(g.killed)
	require.NoError(t, err)
	require.Contains(t, string(text), "oom_kill 0\n", fmt.Sprint(g.killed))
}
