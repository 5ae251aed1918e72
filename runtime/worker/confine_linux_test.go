package worker_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
)

// try has the child try something, and gives its answer.
func try(t *testing.T, w *worker.Worker, format string, args ...any) string {
	t.Helper()
	tokens, err := w.Tokenize(t.Context(), fmt.Sprintf(format, args...), infer.TokenizeOptions{})
	require.NoError(t, err)
	return string(tokens[0].Text)
}

// limitOf reads a line of a process's limits.
func limitOf(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.Fields(rest)[0]
		}
	}
	t.Fatalf("no limit %s", name)
	return ""
}

// TestN8: a child has an empty environment, no descriptors but its own, no core file, and no way to
// more privileges.
func TestN8(t *testing.T) {
	t.Setenv("NORION_TEST_SECRET", "hidden")
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	require.NoError(t, err)
	defer secret.Close()
	// Not even a descriptor that a careless part of this process left open to children.
	_, err = unix.FcntlInt(secret.Fd(), unix.F_SETFD, 0)
	require.NoError(t, err)
	w := open(t, "fine", func(o *worker.Options) {
		o.Confine.Files, o.Confine.MemoryBytes = 99, 1<<50
	})
	pid := w.Status().PID
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	require.NoError(t, err)
	require.Empty(t, string(environment))
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	sockets := 0
	for _, n := range names {
		to, err := os.Readlink(filepath.Join(dir, n.Name()))
		require.NoError(t, err)
		require.NotContains(t, to, "secret")
		if strings.HasPrefix(to, "socket:") {
			sockets++
		} else {
			require.True(t, to == os.DevNull || strings.HasPrefix(to, "pipe:") ||
				strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/sys/fs/cgroup/"), to)
		}
	}
	require.Equal(t, 1, sockets)
	require.Equal(t, "0", limitOf(t, pid, "Max core file size"))
	require.Equal(t, "99", limitOf(t, pid, "Max open files"))
	require.Equal(t, fmt.Sprint(int64(1)<<50), limitOf(t, pid, "Max data size"))
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	require.NoError(t, err)
	for _, task := range tasks {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		require.NoError(t, err)
		require.Contains(t, string(status), "NoNewPrivs:\t1")
	}
}

// TestConfined: a child writes nowhere but to its cache, and reaches no network, program or
// process.
func TestConfined(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cache, other := filepath.Join(dir, "cache"), filepath.Join(dir, "other")
	require.NoError(t, os.WriteFile(other, []byte("whole"), 0o600))
	var listen net.ListenConfig
	tcp, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()

	free := open(t, "fine", func(o *worker.Options) {
		o.Engine.CacheDir, o.Confine.Off = cache, true
	})
	require.Contains(t, free.Info().Notes, "the model's process is not confined, as asked")
	tries := map[string]string{
		"write " + other: "", "shorten " + other: "", "dial tcp " + tcp.Addr().String(): "",
		"dial udp 127.0.0.1:9": "", "run /bin/true": "", fmt.Sprint("signal ", os.Getpid()): "",
	}
	for what := range tries {
		require.Equal(t, "done", try(t, free, "%s", what), "without confinement it works")
	}
	require.NoError(t, os.WriteFile(other, []byte("whole"), 0o600))

	w := open(t, "fine", func(o *worker.Options) { o.Engine.CacheDir = cache })
	require.Equal(t, "done", try(t, w, "write %s/file", cache))
	require.Equal(t, "done", try(t, w, "read %s", other))
	notes := strings.Join(w.Info().Notes, "\n")
	for what := range tries {
		switch {
		case strings.Contains(notes, "Landlock") && strings.Contains(what, other),
			strings.Contains(notes, "seccomp") && !strings.Contains(what, other):
			t.Logf("this kernel cannot keep it from %s", what)
		default:

			require.NotEqual(t, "done", try(t, w, "%s", what), what)
		}
	}
	text, err := os.ReadFile(other)
	require.NoError(t, err)
	require.Equal(t, "whole", string(text))
}

// TestOrphan: a child ends with its parent, also when that is killed.
func TestOrphan(t *testing.T) {
	t.Parallel()
	path, err := os.Executable()
	require.NoError(t, err)
	parent := exec.CommandContext(t.Context(), path, "-test.run=^TestParent$", "-test.v")
	parent.Env = append(os.Environ(), parentEnv+"=1")
	in, err := parent.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "child %d", &pid) // other lines are the test runner's
	}
	require.NotZero(t, pid)
	require.NoError(t, unix.Kill(pid, 0))
	require.NoError(t, parent.Process.Kill())
	_, _ = io.Copy(io.Discard, out) // until the child has gone, too: it has no other output
	require.Error(t, parent.Wait())
	require.Eventually(t, func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(status), ") Z ") // nobody may reap it here
	}, time.Minute, time.Millisecond)
}

const parentEnv = "NORION_TEST_PARENT"

// TestParent is the parent of TestOrphan.
func TestParent(t *testing.T) {
	if os.Getenv(parentEnv) == "" {
		t.Skip("it is run by TestOrphan")
	}
	w, err := worker.Open(t.Context(), worker.Options{Engine: engine.Options{Paths: []string{"fine"}}})
	require.NoError(t, err)
	fmt.Printf("child %d\n", w.Status().PID)
	_, err = io.Copy(io.Discard, os.Stdin)
	require.NoError(t, err)
}
