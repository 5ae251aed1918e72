// Command picture runs commands in a shell and draws what a terminal would show as an SVG file:
// the pictures in the documentation are made by it, from real output. It owns the drawing; it
// must not know any command.
//
//	go run ./docs/house/picture OUT.svg 'norion version' 'norion run MODEL PROMPT'
package main

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"os"
	"os/exec"
	"strings"
)

const (
	columns    = 96
	textWidth  = columns * 84 / 10 // a 14-pixel monospaced character is 8.4 wide
	lineHeight = 20
	margin     = 20
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: picture OUT.svg COMMAND...")
		os.Exit(2)
	}
	var lines []string
	for _, command := range os.Args[2:] {
		out, err := exec.CommandContext(context.Background(), "sh", "-c", command).CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "picture: %s: %v\n%s", command, err, out)
			os.Exit(1)
		}
		lines = append(lines, wrap("$ "+command)...)
		lines = append(lines, wrap(string(bytes.TrimRight(out, "\n")))...)
		lines = append(lines, "")
	}
	if err := os.WriteFile(os.Args[1], draw(lines[:len(lines)-1]), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

// wrap cuts text into lines of at most columns characters, at blanks where there are some.
func wrap(text string) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		for rest := []rune(line); ; {
			if len(rest) <= columns {
				out = append(out, string(rest))
				break
			}
			cut := columns
			if i := strings.LastIndex(string(rest[:columns]), " "); i > 0 {
				cut = len([]rune(string(rest[:columns])[:i]))
			}
			out = append(out, string(rest[:cut]))
			rest = []rune(strings.TrimPrefix(string(rest[cut:]), " "))
		}
	}
	return out
}

// draw makes the SVG.
func draw(lines []string) []byte {
	var b bytes.Buffer
	width := 2*margin + textWidth
	height := 2*margin + lineHeight*len(lines)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" `+
		`font-family="monospace" font-size="14">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#16181d"/>`+"\n", width, height)
	for i, line := range lines {
		colour := "#d4d7dd"
		if strings.HasPrefix(line, "$ ") {
			colour = "#8bd49c"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s" xml:space="preserve">%s</text>`+"\n",
			margin, margin+lineHeight*i+14, colour, html.EscapeString(line))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
