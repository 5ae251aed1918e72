//go:build cgo

package llama_test

import (
	"math"
	"slices"
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

// TestGreedyFastPath compares the one-pass greedy choice with upstream's chain on the whole
// vocabulary, on the logits of real models.
func TestGreedyFastPath(t *testing.T) {
	for _, name := range []string{smol, gemma} {
		m := model(t, name)
		fast := newSampler(t, m, llama.DefaultSampler())
		chain := newSampler(t, m, llama.DefaultSampler().Whole())
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
