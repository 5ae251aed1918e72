//go:build cgo

package llama_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

const draws = 200

// random is a chain at temperature 1 with every other stage neutral.
func random(seed uint32) llama.SamplerParams {
	p := llama.DefaultSampler()
	p.Temperature, p.Seed = 1, seed
	return p
}

// draw chooses n times from the same logits with one sampler, after it has seen some tokens.
func draw(t testing.TB, c *llama.Context, place int, p llama.SamplerParams, n int,
	seen ...llama.Token,
) []llama.Token {
	t.Helper()
	s, err := c.Model().NewSampler(p)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for _, token := range seen {
		require.NoError(t, s.Accept(token, true))
	}
	all := make([]llama.Token, n)
	for i := range all {
		all[i], err = c.Sample(s, place)
		require.NoError(t, err)
	}
	return all
}

// ranked is every token of a place, most probable first.
func ranked(t testing.TB, c *llama.Context, place int) []llama.TopLogprob {
	t.Helper()
	all := make([]llama.TopLogprob, c.Model().Info().Vocabulary)
	_, err := c.Logprobs(place, 0, all)
	require.NoError(t, err)
	return all
}

// openEnded is a context whose next token could be many.
func openEnded(t testing.TB, name string) (*llama.Context, int) {
	m := model(t, name)
	c := newContext(t, m, small())
	return c, feed(t, c, 0, 0, tokenize(t, m, "My favourite word is")...)
}

// kept checks that a stage leaves only the tokens whose probability passes, and more than one.
func kept(t *testing.T, c *llama.Context, place int, p llama.SamplerParams,
	pass func(rank int, before, probability, best float64) bool,
) {
	t.Helper()
	allowed := map[llama.Token]bool{}
	sum, order := 0.0, ranked(t, c, place)
	for i, o := range order {
		probability := math.Exp(float64(o.Logprob))
		allowed[o.Token] = pass(i, sum, probability, math.Exp(float64(order[0].Logprob)))
		sum += probability
	}
	drawn := map[llama.Token]bool{}
	for _, token := range draw(t, c, place, p, draws) {
		require.True(t, allowed[token], "token %d should have been cut off", token)
		drawn[token] = true
	}
	require.Greater(t, len(drawn), 1)
	free := p
	free.TopK, free.TopP, free.MinP, free.TopNSigma = 0, 1, 0, -1
	require.True(t, slices.ContainsFunc(draw(t, c, place, free, draws),
		func(token llama.Token) bool { return !allowed[token] }), "the stage cuts off nothing")
}

func TestSamplerCuts(t *testing.T) {
	c, place := openEnded(t, smol)
	t.Run("top-k", func(t *testing.T) {
		p := random(1)
		p.TopK = 5
		kept(t, c, place, p, func(rank int, _, _, _ float64) bool { return rank < 5 })
	})
	t.Run("top-p", func(t *testing.T) {
		p := random(1)
		p.TopP = 0.4
		kept(t, c, place, p, func(_ int, before, _, _ float64) bool { return before < 0.4 })
	})
	t.Run("min-p", func(t *testing.T) {
		p := random(1)
		p.MinP = 0.1
		kept(t, c, place, p, func(_ int, _, probability, best float64) bool {
			return probability >= 0.0999*best
		})
	})
	t.Run("top-n-sigma", func(t *testing.T) {
		logits := logitsOf(t, c, place)
		sum, squares, best := 0.0, 0.0, math.Inf(-1)
		for _, v := range logits {
			sum, best = sum+float64(v), max(best, float64(v))
		}
		mean := sum / float64(len(logits))
		for _, v := range logits {
			squares += (float64(v) - mean) * (float64(v) - mean)
		}
		sigma := math.Sqrt(squares / float64(len(logits)))
		p := random(1)
		p.TopNSigma = 1
		for _, token := range draw(t, c, place, p, draws) {
			require.GreaterOrEqual(t, float64(logits[token]), best-1.001*sigma)
		}
	})
	t.Run("xtc", func(t *testing.T) {
		p := random(1)
		p.XTCProbability, p.XTCThreshold = 1, 0.01
		order := ranked(t, c, place)
		require.Greater(t, math.Exp(float64(order[1].Logprob)), 0.01)
		require.NotContains(t, draw(t, c, place, p, draws), order[0].Token)
		require.Contains(t, draw(t, c, place, random(1), draws), order[0].Token)
	})
}

// TestSamplerStagesChangeDraws has the stages whose effect has no simple bound: with the same
// seed they must choose otherwise, and the same again.
func TestSamplerStagesChangeDraws(t *testing.T) {
	c, place := openEnded(t, smol)
	plain := draw(t, c, place, random(7), draws)
	for name, change := range map[string]func(*llama.SamplerParams){
		"seed":        func(p *llama.SamplerParams) { p.Seed = 8 },
		"temperature": func(p *llama.SamplerParams) { p.Temperature = 0.3 },
		"dynamic temperature": func(p *llama.SamplerParams) {
			p.DynatempRange = 0.9
		},
		"typical":    func(p *llama.SamplerParams) { p.TypicalP = 0.3 },
		"mirostat 1": func(p *llama.SamplerParams) { p.Mirostat = 1 },
		"mirostat 2": func(p *llama.SamplerParams) { p.Mirostat = 2 },
		"mirostat 2, tau": func(p *llama.SamplerParams) {
			p.Mirostat, p.MirostatTau = 2, 1
		},
		"mirostat 2, eta": func(p *llama.SamplerParams) {
			p.Mirostat, p.MirostatTau, p.MirostatEta = 2, 1, 0.9
		},
		"repeat penalty":    func(p *llama.SamplerParams) { p.PenaltyRepeat = 1.5 },
		"frequency penalty": func(p *llama.SamplerParams) { p.PenaltyFrequency = 1 },
		"presence penalty":  func(p *llama.SamplerParams) { p.PenaltyPresence = 2 },
		"penalty window": func(p *llama.SamplerParams) {
			p.PenaltyPresence, p.PenaltyLastN = 2, 3
		},
	} {
		p := random(7)
		change(&p)
		got := draw(t, c, place, p, draws)
		require.NotEqual(t, plain, got, "%s changes nothing", name)
		require.Equal(t, got, draw(t, c, place, p, draws), "%s does not repeat", name)
	}
	require.Equal(t, plain, draw(t, c, place, random(7), draws))
}

func TestSamplerHistory(t *testing.T) {
	c, place := openEnded(t, smol)
	best := ranked(t, c, place)[0].Token
	for name, change := range map[string]func(*llama.SamplerParams){
		"repeat":    func(p *llama.SamplerParams) { p.PenaltyRepeat = 100 },
		"frequency": func(p *llama.SamplerParams) { p.PenaltyFrequency = 100 },
		"presence":  func(p *llama.SamplerParams) { p.PenaltyPresence = 100 },
	} {
		p := llama.DefaultSampler()
		change(&p)
		require.Equal(t, best, draw(t, c, place, p, 1)[0], name)
		require.NotEqual(t, best, draw(t, c, place, p, 1, best)[0], name)
		p.PenaltyLastN = 2
		require.Equal(t, best, draw(t, c, place, p, 1, best, 1000, 1001)[0], "%s: forgotten", name)
	}
	dry := llama.DefaultSampler()
	dry.DRYMultiplier, dry.DRYLastN, dry.DRYBreakers = 100, 64, []string{"\n"}
	again := []llama.Token{1000, 1001, 1002, best, 1000, 1001, 1002}
	require.NotEqual(t, best, draw(t, c, place, dry, 1, again...)[0])
	require.Equal(t, best, draw(t, c, place, dry, 1, again[:4]...)[0], "nothing repeats yet")
	dry.DRYAllowedLength = 4
	require.Equal(t, best, draw(t, c, place, dry, 1, again...)[0], "so long a repeat is allowed")
}

func TestSamplerBias(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		c, place := openEnded(t, name)
		order := ranked(t, c, place)
		before := logitsOf(t, c, place)
		p := llama.DefaultSampler()
		p.Bias = map[llama.Token]float32{order[0].Token: float32(math.Inf(-1))}
		for _, temperature := range []float32{0, 0.01} {
			p.Temperature = temperature
			require.Equal(t, order[1].Token, draw(t, c, place, p, 1)[0], "a banned token")
		}
		p.Bias[order[500].Token] = 100
		require.Equal(t, order[500].Token, draw(t, c, place, p, 1)[0])
		require.Equal(t, before, logitsOf(t, c, place), "sampling changes no logits")
		require.Equal(t, order, ranked(t, c, place))
	}
}

func TestSamplerNothingLeft(t *testing.T) {
	c, place := openEnded(t, smol)
	p := llama.DefaultSampler()
	p.Bias = map[llama.Token]float32{}
	for token := range llama.Token(c.Model().Info().Vocabulary) {
		p.Bias[token] = float32(math.Inf(-1))
	}
	for _, change := range []func(*llama.SamplerParams){
		func(*llama.SamplerParams) {},
		func(p *llama.SamplerParams) { p.Temperature = 1 },
		func(p *llama.SamplerParams) { p.TopK = 1; p.PenaltyRepeat = 1.1 },
		func(p *llama.SamplerParams) { p.Mirostat = 1; p.Temperature = 1 },
		func(p *llama.SamplerParams) { p.Mirostat = 2; p.Temperature = 1 },
		func(p *llama.SamplerParams) { p.Temperature = 1; p.TopP = 0.5; p.MinP = 0.1; p.TypicalP = 0.5 },
	} {
		q := p
		change(&q)
		s := newSampler(t, c.Model(), q)
		_, err := c.Sample(s, place)
		requireCode(t, llama.BadGrammar, err)
	}
}

func TestSamplerIgnoreEOS(t *testing.T) {
	m := model(t, smol)
	c := newContext(t, m, small())
	turn := "<|im_start|>user\nSay hi<|im_end|>\n<|im_start|>assistant\nHi!"
	tokens, err := m.Tokenize(turn, true, true)
	require.NoError(t, err)
	place := feed(t, c, 0, 0, tokens...)
	for _, temperature := range []float32{0, 1} {
		p := random(1)
		p.Temperature = temperature
		p.Bias = map[llama.Token]float32{m.Info().EOS: 50}
		require.True(t, m.EOG(draw(t, c, place, p, 1)[0]))
		p.IgnoreEOS = true
		for _, token := range draw(t, c, place, p, draws) {
			require.False(t, m.EOG(token))
		}
	}
}

// TestGreedyFastPath compares the one-pass greedy choice with upstream's chain, which a bias on a
// token that nobody chooses forces.
func TestGreedyFastPath(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		m := model(t, name)
		fast := newSampler(t, m, llama.DefaultSampler())
		p := llama.DefaultSampler()
		p.Bias = map[llama.Token]float32{unused(t, m): -1}
		chain := newSampler(t, m, p)
		c := newContext(t, m, small())
		pos, tokens := llama.Pos(0), tokenize(t, m, passage)
		for range 24 {
			place := feed(t, c, 0, pos, tokens...)
			want, err := c.Sample(chain, place)
			require.NoError(t, err)
			got, err := c.Sample(fast, place)
			require.NoError(t, err)
			require.Equal(t, want, got)
			pos, tokens = pos+llama.Pos(len(tokens)), []llama.Token{got}
		}
	}
}

// unused is a token that no text becomes.
func unused(t testing.TB, m *llama.Model) llama.Token {
	for token := range llama.Token(m.Info().Vocabulary) {
		if m.Attr(token)&(llama.AttrUnused|llama.AttrControl) != 0 && !m.EOG(token) {
			return token
		}
	}
	t.Fatal("every token is used")
	return 0
}

func TestLogprobs(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		c, place := openEnded(t, name)
		logits, order := logitsOf(t, c, place), ranked(t, c, place)
		sum, norm := 0.0, 0.0
		best := float64(slices.Max(logits))
		for _, v := range logits {
			norm += math.Exp(float64(v) - best)
		}
		norm = best + math.Log(norm)
		for i, o := range order {
			sum += math.Exp(float64(o.Logprob))
			require.InDelta(t, float64(logits[o.Token])-norm, float64(o.Logprob), 1e-5)
			require.True(t, i == 0 || order[i-1].Logprob >= o.Logprob)
		}
		require.InDelta(t, 1, sum, 1e-5)
		one, err := c.Logprobs(place, order[3].Token, nil)
		require.NoError(t, err)
		require.Equal(t, order[3].Logprob, one)
		_, err = c.Logprobs(place, 0, make([]llama.TopLogprob, len(logits)+1))
		requireCode(t, llama.Invalid, err)
		_, err = c.Logprobs(place, llama.Token(len(logits)), nil)
		requireCode(t, llama.Invalid, err)
		_, err = c.Logprobs(place+1, 0, nil)
		requireCode(t, llama.Invalid, err)
	}
}

func TestSamplerParamsRefused(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	m := model(t, smol)
	bad := map[string]func(*llama.SamplerParams){
		"NaN temperature":  func(p *llama.SamplerParams) { p.Temperature = nan },
		"infinite top-p":   func(p *llama.SamplerParams) { p.TopP = inf },
		"zero repeat":      func(p *llama.SamplerParams) { p.PenaltyRepeat = 0 },
		"mirostat 3":       func(p *llama.SamplerParams) { p.Mirostat = 3 },
		"mirostat -1":      func(p *llama.SamplerParams) { p.Mirostat = -1 },
		"history -1":       func(p *llama.SamplerParams) { p.PenaltyLastN = -1 },
		"history too long": func(p *llama.SamplerParams) { p.PenaltyLastN = llama.HistoryMax + 1 },
		"DRY history":      func(p *llama.SamplerParams) { p.DRYLastN = llama.HistoryMax + 1 },
		"DRY length":       func(p *llama.SamplerParams) { p.DRYAllowedLength = -1 },
		"DRY breakers": func(p *llama.SamplerParams) {
			p.DRYBreakers = make([]string, llama.DRYBreakersMax+1)
		},
		"a NUL in a breaker": func(p *llama.SamplerParams) { p.DRYBreakers = []string{"a\x00"} },
		"bias token":         func(p *llama.SamplerParams) { p.Bias = map[llama.Token]float32{-1: 1} },
		"bias token far": func(p *llama.SamplerParams) {
			p.Bias = map[llama.Token]float32{llama.Token(m.Info().Vocabulary): 1}
		},
		"bias NaN":      func(p *llama.SamplerParams) { p.Bias = map[llama.Token]float32{1: nan} },
		"bias infinite": func(p *llama.SamplerParams) { p.Bias = map[llama.Token]float32{1: inf} },
	}
	for name, change := range bad {
		p := llama.DefaultSampler()
		change(&p)
		_, err := m.NewSampler(p)
		requireCode(t, llama.Invalid, err, name)
	}
	p := llama.DefaultSampler()
	p.PenaltyLastN, p.DRYLastN, p.PenaltyRepeat = llama.HistoryMax, llama.HistoryMax, 1.1
	newSampler(t, m, p)
	s := newSampler(t, m, llama.DefaultSampler())
	requireCode(t, llama.Invalid, s.Accept(-1, true))
	requireCode(t, llama.Invalid, s.Accept(llama.Token(m.Info().Vocabulary), true))
}

// write out what a grammar lets through.
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
