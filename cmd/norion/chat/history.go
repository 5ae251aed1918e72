package chat

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// history is what was typed, for the up and down keys. It is kept in a file only when one is named:
// a JSON string per line, readable by its owner only.
type history struct {
	path    string
	entries []string
	at      int    // entry shown; len(entries) is the draft
	draft   string // what was typed before the first up
}

func openHistory(path string) (*history, error) {
	h := &history{path: path}
	if path == "" {
		return h, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, fmt.Errorf("history: %w", err)
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 2*MessageBytesMax)
	for lines.Scan() {
		var text string
		if json.Unmarshal(lines.Bytes(), &text) != nil {
			return h, fmt.Errorf("history: %s is not a history file", path)
		}
		h.push(text)
	}
	if err := lines.Err(); err != nil {
		return h, fmt.Errorf("history: %s: %w", path, err)
	}
	return h, nil
}

// push remembers a message and forgets the oldest beyond the bound.
func (h *history) push(text string) {
	if n := len(h.entries); n == 0 || h.entries[n-1] != text {
		h.entries = append(h.entries, text)
	}
	h.entries = h.entries[max(0, len(h.entries)-HistoryEntriesMax):]
	h.at, h.draft = len(h.entries), ""
}

// add remembers a message, in the file too.
func (h *history) add(text string) error {
	h.push(text)
	if h.path == "" {
		return nil
	}
	f, err := os.OpenFile(h.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	line, _ := json.Marshal(text) // a string always marshals
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// up gives the entry before the one shown; draft is what is in the editor now.
func (h *history) up(draft string) (string, bool) {
	if h.at == 0 {
		return "", false
	}
	if h.at == len(h.entries) {
		h.draft = draft
	}
	h.at--
	return h.entries[h.at], true
}

// down gives the entry after the one shown, and last the draft.
func (h *history) down() (string, bool) {
	if h.at >= len(h.entries) {
		return "", false
	}
	h.at++
	if h.at == len(h.entries) {
		return h.draft, true
	}
	return h.entries[h.at], true
}
