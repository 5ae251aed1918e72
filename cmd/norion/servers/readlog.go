package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// pollEvery is how often a log that is followed is looked at.
const pollEvery = 200 * time.Millisecond

// FindLog gives the log of the server of an ID in a directory, or with "" the one that was written
// last. The path is "" where there is none.
func FindLog(dir, id string) (path, found string, err error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	var last time.Time
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), logEnd)
		if !ok || id != "" && ID(name) != id {
			continue
		}
		if fi, err := f.Info(); err == nil && fi.ModTime().After(last) {
			path, found, last = filepath.Join(dir, f.Name()), ID(name), fi.ModTime()
		}
	}
	return path, found, err
}

// ReadLog hands the lines of a log to take: of those that are there the last n, or all where n is
// negative. Then it waits for more while alive says so, until ctx ends; nil waits for none.
func ReadLog(
	ctx context.Context, path string, n int, alive func() bool, take func(line []byte) error,
) error {
	r := &reader{path: path}
	var last [][]byte
	if err := r.begin(func(line []byte) error {
		if n < 0 {
			return take(line)
		}
		last = append(last, bytes.Clone(line))
		last = last[max(len(last)-n, 0):]
		return nil
	}); err != nil {
		return err
	}
	defer func() { _ = r.file.Close() }() // read only: nothing can be lost
	for _, line := range last {
		if err := take(line); err != nil {
			return err
		}
	}
	if alive == nil {
		return nil
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ended := !alive() // what a dead one wrote is there by now
		if err := r.more(take); err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// reader reads a log that grows, and that may take the place of the one before it.
type reader struct {
	path string
	file *os.File
	rest []byte // of a line whose end is not there yet
}

// begin reads what is there, the older file first.
func (r *reader) begin(take func([]byte) error) (err error) {
	if r.file, err = os.Open(r.path); err != nil {
		return err
	}
	if before, e := os.Open(r.path + olderEnd); e == nil {
		if !same(before, r.path) { // else it has just taken that place
			err = r.lines(before, take)
		}
		err = errors.Join(err, before.Close())
	}
	if err == nil {
		err = r.lines(r.file, take)
	}
	if err != nil {
		return errors.Join(err, r.file.Close())
	}
	return nil
}

// more reads what was written since.
func (r *reader) more(take func([]byte) error) error {
	turned := !same(r.file, r.path)
	if err := r.lines(r.file, take); err != nil || !turned {
		return err
	}
	next, err := os.Open(r.path)
	if err != nil {
		return err
	}
	_ = r.file.Close() // read only: nothing can be lost
	r.file = next
	return r.lines(r.file, take)
}

// lines hands on the whole lines of what is left of a file.
func (r *reader) lines(f io.Reader, take func([]byte) error) error {
	data, err := io.ReadAll(f)
	r.rest = append(r.rest, data...)
	for err == nil {
		line, after, whole := bytes.Cut(r.rest, []byte("\n"))
		if !whole {
			break
		}
		r.rest, err = after, take(line)
	}
	return err
}

// same says that a path still leads to an open file.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return true
	}
	b, err := os.Stat(path)
	return err != nil || os.SameFile(a, b)
}

// Line makes a line of a log readable: the time, the level, the message, and the rest as
// NAME=VALUE. What is no record stays as it is, but for what could command a terminal.
func Line(line []byte) string {
	d := json.NewDecoder(bytes.NewReader(line))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return printable(string(line))
	}
	var at, level, message, rest string
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			return printable(string(line))
		}
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		switch name {
		case slog.TimeKey:
			at = text
			if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
				at = t.Format(time.DateTime)
			}
		case slog.LevelKey:
			level = text
		case slog.MessageKey:
			message = text
		default:
			if text == "" || strings.ContainsAny(text, " \"=\n") {
				text = fmt.Sprintf("%q", text)
			}
			rest += fmt.Sprintf(" %v=%s", name, text)
		}
	}
	return printable(fmt.Sprintf("%s %-5s %s%s", at, level, message, rest))
}

// printable drops what could command a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}
