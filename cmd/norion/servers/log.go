package servers

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/norion/norion/hw/disk"
)

// Bounds of logs: a server has two files of this size, and so many ended servers keep theirs.
const (
	LogBytesMax = 8 << 20
	logsMax     = 8
)

// The ends of names of files: of a log, and what follows it while it is being begun anew, or when
// it is full.
const (
	logEnd   = ".log"
	newEnd   = ".new"
	olderEnd = ".1"
)

// Log is the log file of one server. When it is full it takes the place of the file before it. It
// is safe for concurrent use.
type Log struct {
	path  string
	limit int64

	mu   sync.Mutex
	dir  disk.Dir
	name string
	file disk.File
	size int64
}

// OpenLog makes a log in a directory, which it creates for this user alone, and removes the oldest
// logs of servers that have ended. name is the server's; living are those of servers that run.
func OpenLog(path, name string, limit int64, living []Server) (*Log, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := disk.OpenDir(path)
	if err != nil {
		return nil, err
	}
	l := &Log{
		path: filepath.Join(path, name+logEnd), limit: limit, dir: dir, name: name + logEnd,
	}
	if err = prune(dir, living); err == nil {
		l.file, err = dir.OpenFile(l.name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return l, nil
}

// prune removes the oldest logs of servers that have ended.
func prune(dir disk.Dir, living []Server) error {
	files, err := dir.ReadDir(".")
	if err != nil {
		return err
	}
	type log struct {
		name string
		at   time.Time
	}
	var ended []log
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), logEnd)
		if !ok || slices.ContainsFunc(living, func(s Server) bool { return s.name == name }) {
			continue
		}
		if fi, err := f.Info(); err == nil {
			ended = append(ended, log{f.Name(), fi.ModTime()})
		}
	}
	slices.SortFunc(ended, func(a, b log) int { return b.at.Compare(a.at) })
	for _, l := range ended[min(len(ended), logsMax-1):] {
		err = errors.Join(err, dir.RemoveAll(l.name), dir.RemoveAll(l.name+olderEnd))
	}
	return err
}

// Path is where the log lies.
func (l *Log) Path() string { return l.path }

// Handler writes records as JSON, one a line, with times in seconds.
func (l *Log) Handler() slog.Handler {
	return slog.NewJSONHandler(l, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				return slog.Float64(a.Key+"_s", a.Value.Duration().Seconds())
			}
			return a
		},
	})
}

// Write implements io.Writer. Each call is one line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(p)) > l.limit {
		if err := l.turn(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

// turn begins a new file.
func (l *Log) turn() error {
	f, err := l.dir.OpenFile(l.name+newEnd, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(l.dir.Rename(l.name, l.name+olderEnd), l.dir.Rename(l.name+newEnd, l.name))
	err = errors.Join(err, l.file.Close())
	l.file, l.size = f, 0
	return err
}

// Close closes the file, which stays unless it is empty.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.file.Close()
	if l.size == 0 {
		err = errors.Join(err, l.dir.Remove(l.name))
	}
	return errors.Join(err, l.dir.Close())
}
