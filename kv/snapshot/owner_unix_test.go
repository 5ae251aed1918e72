//go:build unix

package snapshot_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/kv/snapshot"
)

// stranger is the number of a user who owns nothing here.
const stranger = 54321

// lookChild runs as another user: it opens a directory that is not its own, and says what it finds.
func lookChild(dir string) int {
	s, err := snapshot.Open(snapshot.Options{
		DiskBytes: 1 << 30, Dir: dir, Key: key(),
	})
	if err != nil {
		return 1
	}
	_, found := s.Get(context.Background(), s.ID(state(100, 5)))
	b, err := s.Buffer(1)
	if err != nil {
		return 2
	}
	_, err = s.Put(state(1, 1), b)
	st := s.Stats()
	fmt.Printf("found %v, put %v, degraded %q\n", found, err, st.Degraded)
	return 0
}

// A file of another user, or one that others may write to, is not read: here by its owner and mode.
func TestOwnerOfFile(t *testing.T) {
	t.Parallel()
	dir, file, id, data := saved(t, nil, 70)
	s := opened(t, dir, nil)
	for _, mode := range []fs.FileMode{0o620, 0o602, 0o666} {
		require.NoError(t, os.Chmod(file, mode))
		requireMiss(t, s, id, snapshot.MissUntrusted)
		require.Zero(t, opened(t, dir, nil).Stats().Files, "%o", mode)
		require.FileExists(t, file)
	}
	require.NoError(t, os.Chmod(file, 0o644))
	requireHit(t, s, id, data)
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(file, stranger, stranger))
		requireMiss(t, s, id, snapshot.MissUntrusted)
		reports, err := s.Verify(t.Context())
		require.NoError(t, err)
		require.Equal(t, snapshot.MissUntrusted, reports[0].Bad)
	}
	put(t, s, state(100, 5), data)
	fi, err := os.Lstat(file)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), fi.Mode().Perm(), "a new file took its place")
	requireHit(t, s, id, data)
}

// A directory that others may write to, or a key that others may read, turns the disk tier off.
func TestOwnerOfDirectory(t *testing.T) {
	t.Parallel()
	dir, _, id, _ := saved(t, nil, 70)
	require.NoError(t, os.Chmod(dir, 0o770))
	s := opened(t, dir, nil)
	require.Contains(t, s.Stats().Degraded, "untrusted")
	requireMiss(t, s, id, snapshot.MissAbsent)
	require.NoError(t, os.Chmod(dir, 0o700))
	overwrite(t, dir+".key", make([]byte, snapshot.KeyBytes))
	require.NoError(t, os.Chmod(dir+".key", 0o640))
	s = opened(t, dir, func(o *snapshot.Options) { o.Key = nil })
	require.Contains(t, s.Stats().Degraded, "bad key file: KeyFile: untrusted")

	fresh := filepath.Join(t.TempDir(), "new", "kv")
	opened(t, fresh, nil)
	fi, err := os.Stat(fresh)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), fi.Mode().Perm())
}

// A pipe under the name of a file does not hold anybody up.
func TestPipe(t *testing.T) {
	t.Parallel()
	dir, file, id, _ := saved(t, nil, 70)
	require.NoError(t, os.Remove(file))
	require.NoError(t, syscall.Mkfifo(file, 0o600))
	s := opened(t, dir, nil)
	requireMiss(t, s, id, snapshot.MissUntrusted)
}

// A process of another user finds nothing in a cache that everybody may read, and cannot add to
// one that everybody may write to.
func TestOtherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a process as another user")
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	binary, err := os.ReadFile(exe)
	require.NoError(t, err)
	home, err := os.MkdirTemp("", "snapshot") //nolint:usetesting // t.TempDir is closed to others
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(home)) })
	require.NoError(t, os.Chmod(home, 0o755))
	exe = filepath.Join(home, "test")
	require.NoError(t, os.WriteFile(exe, binary, 0o755))
	for name, mode := range map[string]fs.FileMode{"readable": 0o755, "writable": 0o777} {
		dir := filepath.Join(home, name)
		s := opened(t, dir, nil)
		id := put(t, s, state(100, 5), fill(1, 70))
		require.NoError(t, os.Chmod(filepath.Join(dir, snapshot.FileName(id)), 0o644))
		require.NoError(t, os.Chmod(dir, mode))
		before := files(t, dir)
		cmd := exec.CommandContext(t.Context(), exe, "look-child", dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: stranger, Gid: stranger},
		}
		cmd.Dir = home
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "found false, put put: disk tier unavailable")
		require.Contains(t, string(out), "untrusted")
		require.Equal(t, before, files(t, dir))
		require.NoError(t, os.Chmod(dir, 0o700))
	}
}
