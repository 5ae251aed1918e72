package llama

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A rendered prompt is tokenised so that the spelling of a control token becomes that token. A
// message that merely contains such a spelling must not gain that power. The engine below marks
// which parts of a rendering came from messages, but loses the marks in filters such as tojson
// and does not hand them out. So each spelling in a message, a call, a tool's description or a
// variable is replaced, before rendering, by a character of Unicode's private planes that occurs
// nowhere in the request or the template; in the prompt the character says where a plain spelling
// belongs. The template cannot take it apart, and what it makes of the text around is unchanged.
//
// Spellings that only arise where two messages touch are handled too. What is left: a template
// that builds a control token around a message's text, such as '<' + key + '>'.

// PromptPart is a stretch of a prompt that is tokenised by itself.
type PromptPart struct {
	Text string
	// Special lets the spelling of a control token become that token. A part without it holds
	// such a spelling that came from a message.
	Special bool
}

// controls finds the spellings of control tokens.
type controls struct {
	spellings map[string]bool
	heads     map[string]bool // proper prefixes
	tails     map[string]bool // proper suffixes
	sizes     [256][]int      // by first byte: lengths of spellings, longest first
	max       int
}

func newControls(spellings []string) *controls {
	c := &controls{
		spellings: map[string]bool{}, heads: map[string]bool{}, tails: map[string]bool{},
	}
	for _, s := range spellings {
		if s == "" || c.spellings[s] || !utf8.ValidString(s) {
			continue
		}
		c.spellings[s] = true
		c.max = max(c.max, len(s))
		if sizes := &c.sizes[s[0]]; !slices.Contains(*sizes, len(s)) {
			*sizes = append(*sizes, len(s))
			slices.SortFunc(*sizes, func(a, b int) int { return cmp.Compare(b, a) })
		}
		for i := range s {
			if i > 0 {
				c.heads[s[:i]], c.tails[s[i:]] = true, true
			}
		}
	}
	return c
}

// at is the length of the longest spelling that s starts with, or 0.
func (c *controls) at(s string) int {
	if s == "" {
		return 0
	}
	for _, n := range c.sizes[s[0]] {
		if n <= len(s) && c.spellings[s[:n]] {
			return n
		}
	}
	return 0
}

// find gives the start and length of the first spelling in s; length 0 means there is none.
func (c *controls) find(s string) (start, length int) {
	for i := range len(s) {
		if n := c.at(s[i:]); n > 0 {
			return i, n
		}
	}
	return len(s), 0
}

// tail is the length of the longest proper suffix of a spelling that s starts with.
func (c *controls) tail(s string) int {
	for n := min(len(s), c.max); n > 0; n-- {
		if c.tails[s[:n]] {
			return n
		}
	}
	return 0
}

// head says that s ends with a proper prefix of a spelling.
func (c *controls) head(s string) bool {
	for n := min(len(s), c.max); n > 0; n-- {
		if c.heads[s[len(s)-n:]] {
			return true
		}
	}
	return false
}

// veil replaces spellings by private characters and remembers them.
type veil struct {
	*controls
	next  rune
	taken map[rune]bool
	runes map[string]rune
	texts map[rune]string
	tails bool // also the start of a text that could end a spelling begun by another
}

// Planes 15 and 16 hold nothing but private characters.
const (
	privateFirst = 0xF0000
	privateLast  = 0x10FFFD
)

// newVeil reads the texts that a rendering is made of.
func (c *controls) newVeil(r *ChatRequest, info *ChatInfo) (v *veil, needed bool) {
	v = &veil{
		controls: c, next: privateFirst,
		taken: map[rune]bool{}, runes: map[string]rune{}, texts: map[rune]string{},
	}
	v.take(info.Source)
	v.take(info.ToolsSource)
	heads, tails, whole := false, false, false
	r.eachText(func(s string) string {
		v.take(s)
		_, n := c.find(s)
		whole = whole || n > 0
		heads = heads || c.head(s)
		tails = tails || c.tail(s) > 0
		return s
	})
	v.tails = heads && tails
	return v, whole || v.tails
}

// take rules out the private characters in s, and those that s spells as JSON escapes.
func (v *veil) take(s string) {
	for i, r := range s {
		if r == '\\' {
			r, _ = escapedRune(s[i:])
		}
		if r >= privateFirst {
			v.taken[r] = true
		}
	}
}

// hide is the private character that stands for a text, or 0 when none is left.
func (v *veil) hide(text string) rune {
	if r, ok := v.runes[text]; ok {
		return r
	}
	for v.taken[v.next] || v.next&0xFFFF >= 0xFFFE { // the last two of a plane are no characters
		v.next++
	}
	if v.next > privateLast {
		return 0
	}
	r := v.next
	v.next++
	v.runes[text], v.texts[r] = r, text
	return r
}

// cover replaces the spellings in one text.
func (v *veil) cover(s string) string {
	var b strings.Builder
	if v.tails && v.at(s) == 0 {
		if n := v.tail(s); n > 0 {
			v.write(&b, s[:n])
			s = s[n:]
		}
	}
	for {
		start, n := v.find(s)
		b.WriteString(s[:start])
		if n == 0 {
			return b.String()
		}
		v.write(&b, s[start:start+n])
		s = s[start+n:]
	}
}

func (v *veil) write(b *strings.Builder, text string) {
	if r := v.hide(text); r != 0 {
		b.WriteRune(r)
	}
}

// eachText passes every text of a request that reaches the prompt through f. Names of tools and
// roles are left out: they are words that cannot spell a control token's punctuation.
func (r *ChatRequest) eachText(f func(string) string) ChatRequest {
	out := *r
	out.Messages = slices.Clone(r.Messages)
	for i := range out.Messages {
		m := &out.Messages[i]
		if m.Role == "tool" {
			m.Content = mapText(m.Content, f)
		} else {
			m.Content = f(m.Content)
		}
		m.Parts = slices.Clone(m.Parts)
		for j := range m.Parts {
			m.Parts[j] = f(m.Parts[j])
		}
		m.Reasoning, m.Name, m.ToolCallID = f(m.Reasoning), f(m.Name), f(m.ToolCallID)
		m.ToolCalls = slices.Clone(m.ToolCalls)
		for j := range m.ToolCalls {
			c := &m.ToolCalls[j]
			c.ID, c.Arguments = f(c.ID), mapText(c.Arguments, f)
		}
	}
	out.Tools = slices.Clone(r.Tools)
	for i := range out.Tools {
		t := &out.Tools[i]
		t.Description, t.Parameters = f(t.Description), mapStrings(t.Parameters, f)
	}
	out.Args = make(map[string]json.RawMessage, len(r.Args))
	for name, value := range r.Args {
		out.Args[name] = mapStrings(value, f)
	}
	return out
}

// mapText passes text through f. Where it is a JSON object or list, which a template may unpack,
// f sees its strings instead.
func mapText(text string, f func(string) string) string {
	trimmed := strings.TrimLeft(text, " \t\r\n")
	if trimmed != "" && (trimmed[0] == '{' || trimmed[0] == '[') && json.Valid([]byte(text)) {
		return string(mapStrings([]byte(text), f))
	}
	return f(text)
}

// reveal gives the text that the prompt's first character stands for, and its length. A template
// that writes JSON in ASCII turns our character into an escape, and would have done so to the text.
func (v *veil) reveal(prompt string) (text string, n int) {
	r, n := utf8.DecodeRuneInString(prompt)
	if text, ok := v.texts[r]; ok {
		return text, n
	}
	if r == '\\' {
		if r, size := escapedRune(prompt); size > 0 {
			if text, ok := v.texts[r]; ok {
				return escapeASCII(text), size
			}
		}
	}
	return prompt[:n], n
}

// escapeSize is the length of a character outside the basic plane as a JSON escape.
const escapeSize = len(`\udb80\udc00`)

// escapedRune reads such an escape at the start of s; size 0 means that there is none.
func escapedRune(s string) (r rune, size int) {
	if len(s) < escapeSize || s[:2] != `\u` || s[6:8] != `\u` {
		return 0, 0
	}
	high, err1 := strconv.ParseUint(s[2:6], 16, 32)
	low, err2 := strconv.ParseUint(s[8:12], 16, 32)
	r = utf16.DecodeRune(rune(high), rune(low))
	if err1 != nil || err2 != nil || r == utf8.RuneError {
		return 0, 0
	}
	return r, escapeSize
}

// escapeASCII writes text as inside of a JSON string of ASCII characters.
func escapeASCII(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// parts cuts a prompt rendered from a veiled request. Plain parts reach from one control token of
// the template to the next, so that the text in a part is split into tokens as if the spelling
// had no meaning.
func (v *veil) parts(prompt string) []PromptPart {
	var out []PromptPart
	var special, run strings.Builder
	plain := false
	endRun := func() {
		if plain {
			if special.Len() > 0 {
				out = append(out, PromptPart{special.String(), true})
				special.Reset()
			}
			out = append(out, PromptPart{run.String(), false})
		} else {
			special.WriteString(run.String())
		}
		run.Reset()
		plain = false
	}
	for prompt != "" {
		if n := v.at(prompt); n > 0 {
			endRun()
			special.WriteString(prompt[:n])
			prompt = prompt[n:]
			continue
		}
		text, n := v.reveal(prompt)
		plain = plain || text != prompt[:n]
		run.WriteString(text)
		prompt = prompt[n:]
	}
	endRun()
	if special.Len() > 0 || len(out) == 0 {
		out = append(out, PromptPart{special.String(), true})
	}
	return out
}
