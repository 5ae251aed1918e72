package main

import (
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// fullScreen reports whether a view may take the whole terminal.
func (a *app) fullScreen() bool {
	return isTerminal(a.in) && isTerminal(a.out) && a.getenv("TERM") != "dumb"
}

// isPiped reports whether a reader was given to be read: a pipe, a file, or a test's own reader.
func isPiped(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return in != nil
	}
	info, err := f.Stat()
	return err == nil && (info.Mode().IsRegular() || info.Mode()&os.ModeNamedPipe != 0)
}

// printable drops what could command a terminal: control characters other than newline and tab.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
