package engine

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// textStream turns the bytes of tokens into text that can be shown: it holds back half a
// character and whatever may become a stop text, and ends at the first stop text. Strings it
// returns may be kept; they share blocks of memory, so that a token costs no allocation.
type textStream struct {
	stops [][]byte
	held  []byte          // not shown yet
	block strings.Builder // shown text lives here
	met   string          // the stop text that ended the stream
}

const textBlockBytes = 4096

func newTextStream(stops []string) *textStream {
	t := &textStream{}
	for _, s := range stops {
		t.stops = append(t.stops, []byte(s))
	}
	return t
}

// push adds the bytes of a token and returns the text that is now sure. ended says that a stop
// text was met; it and what follows are dropped.
func (t *textStream) push(piece []byte) (text string, ended bool) {
	t.held = append(t.held, piece...)
	whole := completeLen(t.held)
	at := -1
	for _, stop := range t.stops {
		if i := bytes.Index(t.held, stop); i >= 0 && (at < 0 || i < at) {
			at, t.met = i, string(stop)
		}
	}
	if at >= 0 {
		return t.show(at), true
	}
	return t.show(whole - t.maybeStop(t.held[:whole])), false
}

// flush returns what was held back, at the end of an answer. Half a character becomes U+FFFD.
func (t *textStream) flush() string { return t.show(len(t.held)) }

// show moves the first n held bytes into a block. Bytes that are no UTF-8 become U+FFFD.
func (t *textStream) show(n int) string {
	if n == 0 {
		return ""
	}
	b := t.held[:n]
	if !utf8.Valid(b) {
		b = bytes.ToValidUTF8(b, []byte("\uFFFD"))
	}
	if t.block.Cap()-t.block.Len() < len(b) {
		t.block.Reset()
		t.block.Grow(max(textBlockBytes, len(b)))
	}
	from := t.block.Len()
	t.block.Write(b)
	t.held = t.held[:copy(t.held, t.held[n:])]
	return t.block.String()[from:]
}

// maybeStop is the length of the longest end of b that begins a stop text.
func (t *textStream) maybeStop(b []byte) int {
	longest := 0
	for _, stop := range t.stops {
		for n := min(len(stop)-1, len(b)); n > longest; n-- {
			if bytes.HasSuffix(b, stop[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}

// completeLen is the length of b without a character that is still incomplete at its end.
func completeLen(b []byte) int {
	for back := 1; back <= min(utf8.UTFMax-1, len(b)); back++ {
		i := len(b) - back
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				return len(b)
			}
			return i
		}
	}
	return len(b)
}
