package servers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// open makes a log with the name of a server.
func open(t *testing.T, dir, id string, limit int64, living ...Server) *Log {
	t.Helper()
	l, err := OpenLog(dir, "1-"+id, limit, living)
	require.NoError(t, err)
	return l
}

// read gives the lines of a log.
func read(t *testing.T, path string, n int) (lines []string) {
	t.Helper()
	require.NoError(t, ReadLog(t.Context(), path, n, nil, func(line []byte) error {
		lines = append(lines, string(line))
		return nil
	}))
	return lines
}

// TestLogBound: a log keeps its newest lines, whole, within two files of the limit.
func TestLogBound(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	const limit = 100
	l := open(t, dir, "0000000a", limit)
	for i := range 50 {
		_, err := fmt.Fprintf(l, "line %03d\n", i) // 9 bytes: 11 of them fill a file
		require.NoError(t, err)
		for _, end := range []string{"", olderEnd} {
			fi, err := os.Stat(l.Path() + end)
			require.True(t, err != nil && end != "" || fi.Size() <= limit)
		}
	}
	lines := read(t, l.Path(), -1)
	require.Len(t, lines, 11+50%11)
	for i, line := range lines {
		require.Equal(t, fmt.Sprintf("line %03d", 50-len(lines)+i), line)
	}
	require.Equal(t, lines[len(lines)-3:], read(t, l.Path(), 3))
	require.Empty(t, read(t, l.Path(), 0))
	require.Equal(t, lines, read(t, l.Path(), 1000))
	_, err := l.Write([]byte(strings.Repeat("x", 3*limit) + "\n"))
	require.NoError(t, err)
	require.Len(t, read(t, l.Path(), 1)[0], 3*limit, "a line of more than the limit is alone")
	require.NoError(t, l.Close())
	fi, err := os.Stat(l.Path())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
}

// TestLogsKept: of servers that have ended the last ones keep their logs; one that runs keeps its
// own however old it is, and an empty log goes.
func TestLogsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	old := time.Unix(1000, 0)
	for i := range logsMax + 5 {
		l := open(t, dir, fmt.Sprintf("%08x", i), 20, Server{name: "1-00000001"})
		for range 3 {
			_, err := l.Write([]byte("0123456789abcdef\n"))
			require.NoError(t, err)
		}
		require.NoError(t, l.Close())
		require.NoError(t, os.Chtimes(l.Path(), old, old.Add(time.Duration(i)*time.Second)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o600))
	files, err := filepath.Glob(filepath.Join(dir, "1-*"))
	require.NoError(t, err)
	require.Len(t, files, 2*(logsMax+1)) // each with an older file
	require.FileExists(t, filepath.Join(dir, "1-00000001.log"))
	require.NoFileExists(t, filepath.Join(dir, "1-00000000.log"))
	path, id, err := FindLog(dir, "")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%08x", logsMax+4), id)
	require.FileExists(t, path)
	path, id, err = FindLog(dir, "00000001")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "1-00000001.log"), path)
	require.Equal(t, "00000001", id)
	for _, absent := range []string{"00000000", "../x", "1"} {
		path, _, err = FindLog(dir, absent)
		require.NoError(t, err)
		require.Empty(t, path)
	}
	path, _, err = FindLog(filepath.Join(dir, "absent"), "")
	require.NoError(t, err)
	require.Empty(t, path)
	l := open(t, dir, "ffffffff", 20)
	require.NoError(t, l.Close())
	require.NoFileExists(t, l.Path())
	_, err = OpenLog(filepath.Join(dir, "other"), "1-00000000", 20, nil)
	require.Error(t, err)
}

// TestFollow: what is written while a log is read comes once and in order, also over a change of
// files, until the server has ended or the reader gives up.
func TestFollow(t *testing.T) {
	for _, end := range []string{"server", "reader", "broken"} {
		synctest.Test(t, func(t *testing.T) {
			l := open(t, filepath.Join(t.TempDir(), "logs"), "0000000b", 40)
			var ended, broken atomic.Bool
			alive := func() bool { return !ended.Load() }
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var mu sync.Mutex
			var lines []string
			got := func() []string {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(lines)
			}
			noRoom := errors.New("no room")
			done := make(chan error, 1)
			write := func(text string) {
				_, err := l.Write([]byte(text))
				require.NoError(t, err)
				time.Sleep(pollEvery)
				synctest.Wait()
			}
			write("first\n")
			go func() {
				done <- ReadLog(ctx, l.Path(), 5, alive, func(line []byte) error {
					mu.Lock()
					defer mu.Unlock()
					lines = append(lines, string(line))
					if broken.Load() {
						return noRoom
					}
					return nil
				})
			}()
			synctest.Wait()
			want := []string{"first"}
			for i := range 20 {
				text := fmt.Sprintf("line %d", i)
				write(text + "\n")
				want = append(want, text)
				require.Equal(t, want, got())
			}
			switch end {
			case "server":
				ended.Store(true)
				write("last\n")
				require.NoError(t, <-done)
				require.Equal(t, append(want, "last"), got())
			case "reader":
				stop()
				require.NoError(t, <-done)
			case "broken":
				broken.Store(true)
				write("more\n")
				require.ErrorIs(t, <-done, noRoom)
			}
			require.NoError(t, l.Close())
		})
	}
	require.Error(t, ReadLog(t.Context(), filepath.Join(t.TempDir(), "absent"), -1, nil, nil))
}

// TestLine is what a user sees of a record.
func TestLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir, "0000000c", 1<<20)
	slog.New(l.Handler()).Warn("hi you", "took", 1500*time.Millisecond, "n", 3, "text", "a \x1b[2J\"b",
		"empty", "", "list", []string{"x", "y"})
	line := read(t, l.Path(), -1)[0]
	require.NoError(t, l.Close())
	require.Contains(t, line, `"took_s":1.5,"n":3`)
	require.Regexp(t, `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARN  hi you took_s=1.5 n=3 `+
		`text="a \\x1b\[2J\\"b" empty="" list="\[\\"x\\",\\"y\\"\]"$`, Line([]byte(line)))
}

// FuzzLine: whatever a log holds, a terminal is not commanded by it.
func FuzzLine(f *testing.F) {
	for _, seed := range []string{
		"", "{", "{}", `{"time":"x","level":1,"msg":null}`, `{"a":"\u001b[2J","\u202e":1}`,
		"plain\x1b[2J", `{"a":{"b":[1,2]}} rest`, `{"a"`, `[1]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		require.Equal(t, Line(line), printable(Line(line)))
	})
}
