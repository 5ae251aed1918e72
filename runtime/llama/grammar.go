package llama

import "slices"

// Bounds of a grammar. Upstream reads groups and rules by recursion, and writes out a counted
// repetition item by item: without bounds a short text takes all the stack or all the memory.
const (
	GrammarDepthMax = 256     // groups within groups
	GrammarItemsMax = 1 << 18 // characters, references and groups, repetitions written out
	GrammarRulesMax = 1 << 13 // rules as written; checked by the lines that hold "::="
	TriggersMax     = 256
	TriggerBytesMax = 2048 // a pattern is read by recursion too
)

// validate refuses what upstream would end the process for. Everything else that is wrong with
// the text is found when it is parsed.
func (g *Grammar) validate(vocabulary int) error {
	const op = "sampler"
	bad := func(format string, args ...any) error { return fail(op, BadGrammar, "", format, args...) }
	switch {
	case len(g.Text) > GrammarBytesMax:
		return bad("%d bytes, at most %d", len(g.Text), GrammarBytesMax)
	case hasNUL(g.Text) || hasNUL(g.GenerationPrompt):
		return bad("a NUL byte")
	case len(g.Triggers) > TriggersMax:
		return bad("%d triggers, at most %d", len(g.Triggers), TriggersMax)
	case g.Text != "" && g.Lazy && len(g.Triggers) == 0:
		return bad("a lazy grammar without a trigger never applies")
	}
	for _, t := range g.Triggers {
		switch {
		case t.Type < TriggerToken || t.Type > TriggerPatternFull:
			return bad("unknown trigger type %d", t.Type)
		case t.Type == TriggerToken && (t.Token < 0 || int(t.Token) >= vocabulary):
			return bad("trigger token %d is outside 0..%d", t.Token, vocabulary-1)
		case hasNUL(t.Value):
			return bad("a NUL byte in a trigger")
		case len(t.Value) > TriggerBytesMax:
			return bad("a trigger of %d bytes, at most %d", len(t.Value), TriggerBytesMax)
		}
	}
	if i := slices.IndexFunc(g.Preserved, func(t Token) bool {
		return t < 0 || int(t) >= vocabulary
	}); i >= 0 {
		return bad("preserved token %d is outside 0..%d", g.Preserved[i], vocabulary-1)
	}
	return checkSize(g.Text)
}

// grammarSize counts what a grammar becomes, from above.
type grammarSize struct {
	depth, rules, items int
	last                int // items of what a repetition would repeat
}

// checkSize walks over a text once and refuses what is out of bounds. It skips strings, sets and
// comments as upstream does and trusts nothing else about the text.
func checkSize(text string) error {
	var size grammarSize
	for i := 0; i < len(text); {
		i = size.next(text, i)
		switch {
		case size.depth > GrammarDepthMax:
			return fail("sampler", BadGrammar, "", "groups are nested more than %d deep", GrammarDepthMax)
		case size.items > GrammarItemsMax:
			return fail("sampler", BadGrammar, "repeat less",
				"with its repetitions written out it has more than %d items", GrammarItemsMax)
		case size.rules > GrammarRulesMax:
			return fail("sampler", BadGrammar, "", "it has more than %d rules", GrammarRulesMax)
		}
	}
	return nil
}

// next reads one element at i and returns the place after it.
func (s *grammarSize) next(text string, i int) int {
	start := i
	switch c := text[i]; c {
	case '"', '[':
		i = skipQuoted(text, i)
		s.count(i - start)
	case '#':
		for i < len(text) && text[i] != '\n' && text[i] != '\r' {
			i++
		}
	case '(':
		s.depth++
		s.count(1)
		i++
	case ')':
		s.depth = max(0, s.depth-1)
		s.count(1)
		i++
	case '{':
		i = s.repeat(text, i+1)
	case '*', '+', '?':
		s.items += s.last + 3
		i++
	case ':':
		s.rules++
		for i < len(text) && (text[i] == ':' || text[i] == '=') {
			i++
		}
	case ' ', '\t', '\r', '\n':
		i++
	default:
		for i++; i < len(text) && isWord(text[i]) && isWord(c); i++ {
		}
		s.count(1)
	}
	return i
}

func (s *grammarSize) count(items int) { s.last, s.items = items, s.items+items }

// repeat reads the numbers of a repetition and adds what it becomes.
func (s *grammarSize) repeat(text string, i int) int {
	most, n := 0, 0
	for ; i < len(text) && text[i] != '}' && text[i] != '\n'; i++ {
		if c := text[i]; c >= '0' && c <= '9' {
			n = min(n*10+int(c-'0'), GrammarItemsMax+1)
			most = max(most, n)
		} else {
			n = 0
		}
	}
	s.items += most * (s.last + 3)
	s.last *= max(most, 1) // a repetition may follow a repetition
	s.last = min(s.last, GrammarItemsMax)
	return i
}

// skipQuoted returns the place after a string or a set of characters.
func skipQuoted(text string, i int) int {
	end := byte('"')
	if text[i] == '[' {
		end = ']'
	}
	for i++; i < len(text) && text[i] != end; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return min(i+1, len(text))
}

func isWord(c byte) bool {
	return c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' ||
		c >= 'A' && c <= 'Z'
}
