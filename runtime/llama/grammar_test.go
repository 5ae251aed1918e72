//go:build cgo

package llama_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// constrained is what a grammar lets the model write.
func constrained(t *testing.T, grammar llama.Grammar, seed uint32) string {
	m := model(t, smol)
	c := newContext(t, m, small())
	p := random(seed)
	p.Grammar = grammar
	s := newSampler(t, m, p)
	tokens, pos, text := tokenize(t, m, "Answer yes or no."), llama.Pos(0), []byte(nil)
	for range 32 {
		place := feed(t, c, 0, pos, tokens...)
		token, err := c.Sample(s, place)
		require.NoError(t, err)
		if m.EOG(token) {
			return string(text)
		}
		text, err = m.AppendPiece(text, token, false)
		require.NoError(t, err)
		pos, tokens = pos+llama.Pos(len(tokens)), []llama.Token{token}
	}
	t.Fatalf("no end after %q", text)
	return ""
}

func TestGrammarConstrains(t *testing.T) {
	for seed := range uint32(3) {
		require.Contains(t, []string{"yes", "no"},
			constrained(t, llama.Grammar{Text: `root ::= "yes" | "no"`}, seed))
		require.Regexp(t, `^\[[0-9]{2}\]$`,
			constrained(t, llama.Grammar{Text: `root ::= "[" [0-9]{2} "]"`}, seed))
	}
	require.Empty(t, child(t, "left grammars", storedPath(t, smol)))
}

// leftGrammars leaves grammars, or ends them too early: upstream aborts there.
func leftGrammars(args []string) error {
	m, err := llama.LoadModel(background, llama.ModelParams{Paths: args[:1], CPUOnly: true})
	if err != nil {
		return err
	}
	defer m.Close()
	c, err := m.NewContext(small())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := compute(c, 0, 0, 5); err != nil {
		return err
	}
	tokens, err := m.Tokenize("noyes", false, false)
	if err != nil {
		return err
	}
	s, err := m.NewSampler(withGrammar(`root ::= "yes"`))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Accept(m.Info().EOS, true); err != nil {
		return err
	}
	for range 2 {
		if err := s.Accept(tokens[0], true); !isCode(err, llama.BadGrammar) {
			return fmt.Errorf("want a bad grammar, got %v", err)
		}
		if _, err := c.Sample(s, 0); !isCode(err, llama.BadGrammar) {
			return fmt.Errorf("want a bad grammar, got %v", err)
		}
	}
	p := withGrammar(`root ::= "yes"`)
	p.Grammar.Prefill, p.Grammar.GenerationPrompt = true, "<|im_end|>"
	if _, err := m.NewSampler(p); !isCode(err, llama.BadGrammar) {
		return fmt.Errorf("want a bad grammar, got %v", err)
	}
	return nil
}

func withGrammar(text string) llama.SamplerParams {
	p := llama.DefaultSampler()
	p.Grammar.Text = text
	return p
}

// badGrammars maps a grammar to a part of the reason that the error must give.
var badGrammars = map[string]string{
	`root ::= "a`:                      "unexpected end",
	`root = "a"`:                       "expecting ::=",
	`start ::= "a"`:                    "root",
	`root ::= missing`:                 "missing",
	"root ::= root \"a\"":              "left recursion",
	"root ::= a\na ::= root":           "left recursion",
	`root ::= [a`:                      "unexpected end",
	`root ::= "a"{`:                    "",
	`root ::= "a"{99999}`:              "repetition",
	`root ::= ("a"`:                    ")",
	`root ::= "\q"`:                    "escape",
	"# nothing":                        "root",
	"\n":                               "root",
	`root ::= <no-such>`:               "",
	"root ::= \"a\"\nroot ::= \"\\x\"": "hex",
}

// TestGrammarErrors also looks at the standard error: upstream prints there.
func TestGrammarErrors(t *testing.T) {
	require.Empty(t, child(t, "bad grammars", storedPath(t, smol)))
}

func badGrammarErrors(args []string) error {
	m, err := llama.LoadModel(background, llama.ModelParams{
		Paths: args[:1], VocabularyOnly: true, CPUOnly: true,
	})
	if err != nil {
		return err
	}
	defer m.Close()
	for _, text := range slices.Sorted(maps.Keys(badGrammars)) {
		_, err := m.NewSampler(withGrammar(text))
		if !isCode(err, llama.BadGrammar) || !strings.Contains(err.Error(), badGrammars[text]) {
			return fmt.Errorf("%q: want %q, got %v", text, badGrammars[text], err)
		}
	}
	for name, text := range grammarBombs() {
		_, err := m.NewSampler(withGrammar(text))
		if !isCode(err, llama.BadGrammar) {
			return fmt.Errorf("%s: got %v", name, err)
		}
	}
	for i, g := range badTriggers(m) {
		p := llama.DefaultSampler()
		p.Grammar = g
		if _, err := m.NewSampler(p); !isCode(err, llama.BadGrammar) {
			return fmt.Errorf("trigger %d: got %v", i, err)
		}
	}
	return nil
}

// grammarBombs would need more stack or memory than there is.
func grammarBombs() map[string]string {
	const deep = 200_000
	var chain strings.Builder
	chain.WriteString("root ::= a0\n")
	for i := range deep {
		fmt.Fprintf(&chain, "a%d ::= a%d\n", i, i+1)
	}
	fmt.Fprintf(&chain, "a%d ::= \"x\"\n", deep)
	long := `"` + strings.Repeat("a", 1000) + `"{2000} `
	return map[string]string{
		"nested groups":      "root ::= " + strings.Repeat("(", deep) + `"a"` + strings.Repeat(")", deep),
		"chain of rules":     chain.String(),
		"repeated literals":  "root ::= " + strings.Repeat(long, 1000),
		"repeated repeats":   "root ::= " + strings.Repeat(`"a"{2000} `, 100_000),
		"optional repeats":   "root ::= " + strings.Repeat(`"a"{0,2000} `, 100_000),
		"a text too long":    "root ::= " + strings.Repeat(" ", llama.GrammarBytesMax),
		"a NUL byte":         "root ::= \"a\x00\"",
		"unbalanced closing": "root ::= " + strings.Repeat(")", deep),
	}
}

func badTriggers(m *llama.Model) []llama.Grammar {
	text := `root ::= "a"`
	with := func(triggers ...llama.Trigger) llama.Grammar {
		return llama.Grammar{Text: text, Lazy: true, Triggers: triggers}
	}
	return []llama.Grammar{
		with(llama.Trigger{Type: 9}), with(llama.Trigger{Type: -1}),
		with(llama.Trigger{Type: llama.TriggerPattern, Value: "("}),
		with(llama.Trigger{Type: llama.TriggerPatternFull, Value: "["}),
		with(llama.Trigger{Type: llama.TriggerToken, Token: -1}),
		with(llama.Trigger{Type: llama.TriggerToken, Token: llama.Token(m.Info().Vocabulary)}),
		with(llama.Trigger{Type: llama.TriggerWord, Value: "a\x00b"}), with(),
		with(llama.Trigger{
			Type: llama.TriggerPattern, Value: strings.Repeat("(", llama.TriggerBytesMax+1),
		}),
		with(llama.Trigger{
			Type: llama.TriggerPattern, Value: strings.Repeat("(", llama.TriggerBytesMax),
		}),
		{Text: text, Prefill: true, GenerationPrompt: "not what the grammar wants"},
		{Text: text, Preserved: []llama.Token{-1}},
		{Text: text, Preserved: []llama.Token{llama.Token(m.Info().Vocabulary)}},
		{Text: text, GenerationPrompt: "a\x00b"},
	}
}

func FuzzGrammar(f *testing.F) {
	m := load(f, llama.ModelParams{Paths: []string{tinyFile(f)}, VocabularyOnly: true})
	f.Cleanup(func() { require.NoError(f, m.Close()) })
	for text := range badGrammars {
		f.Add(text)
	}
	f.Add(`root ::= "a" | [b-d]{2,3} (x y)* . # end` + "\nx ::= \"e\"?\ny ::= x+")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := m.NewSampler(withGrammar(text))
		if err != nil {
			requireCode(t, llama.BadGrammar, err)
			return
		}
		for token := range llama.Token(16) {
			if err := s.Accept(token, true); err != nil {
				requireCode(t, llama.BadGrammar, err)
			}
		}
		require.NoError(t, s.Close())
	})
}

func TestGrammarBounds(t *testing.T) {
	m := model(t, smol)
	nested := func(n int) string {
		return "root ::= " + strings.Repeat("(", n) + `"a"` + strings.Repeat(")", n)
	}
	chain := func(n int) string {
		var b strings.Builder
		b.WriteString("root ::= a2\n")
		for i := 2; i < n; i++ {
			fmt.Fprintf(&b, "a%d ::= a%d\n", i, i+1)
		}
		fmt.Fprintf(&b, "a%d ::= \"x\"\n", n)
		return b.String()
	}
	for n, text := range map[int]func(int) string{
		llama.GrammarDepthMax: nested, llama.GrammarRulesMax: chain,
	} {
		newSampler(t, m, withGrammar(text(n)))
		_, err := m.NewSampler(withGrammar(text(n + 1)))
		requireCode(t, llama.BadGrammar, err)
	}
	p := withGrammar(`root ::= "a"`)
	p.Grammar.Lazy = true
	for range llama.TriggersMax {
		p.Grammar.Triggers = append(p.Grammar.Triggers,
			llama.Trigger{Type: llama.TriggerWord, Value: "go"})
	}
	newSampler(t, m, p)
	p.Grammar.Triggers = append(p.Grammar.Triggers, p.Grammar.Triggers[0])
	_, err := m.NewSampler(p)
	requireCode(t, llama.BadGrammar, err)
}
