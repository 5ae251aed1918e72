//go:build cgo

package llama_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/llama"
)

// samplings are chains by name, and whether they need only a short list.
func samplings() map[string]samplingCase {
	inf := float32(math.Inf(-1))
	all := map[string]samplingCase{}
	put := func(name string, brief bool, change func(*llama.SamplerParams)) {
		p := random(11)
		change(&p)
		all[name] = samplingCase{p, brief}
	}
	for _, k := range []int32{1, 2, 40, 128, 129, 300} {
		put(fmt.Sprintf("top-k %d", k), true, func(p *llama.SamplerParams) { p.TopK = k })
	}
	put("usual", true, usual)
	put("usual, greedy", true, func(p *llama.SamplerParams) { usual(p); p.Temperature = 0 })
	put("greedy, top-p", true, func(p *llama.SamplerParams) { p.TopP, p.Temperature = 0.9, 0 })
	put("greedy, min-p, sigma", true, func(p *llama.SamplerParams) {
		p.Temperature, p.MinP, p.TopNSigma = 0, 0.1, 1
	})
	put("greedy", true, func(p *llama.SamplerParams) { p.Temperature = 0 })
	put("min-p", true, func(p *llama.SamplerParams) { p.MinP = 0.05 })
	put("min-p 1", true, func(p *llama.SamplerParams) { p.MinP = 1 })
	put("min-p, XTC", true, func(p *llama.SamplerParams) {
		p.MinP, p.XTCProbability, p.XTCThreshold = 0.01, 0.5, 0.05
	})
	put("min-p, dynamic temperature", true, func(p *llama.SamplerParams) {
		p.MinP, p.DynatempRange = 0.001, 0.5
	})
	put("min-p, greedy", true, func(p *llama.SamplerParams) { p.MinP, p.Temperature = 0.1, 0 })
	put("min-p, penalties, bias", true, func(p *llama.SamplerParams) {
		p.MinP, p.PenaltyRepeat, p.PenaltyLastN = 0.02, 1.3, 9
		p.Bias = map[llama.Token]float32{2: 6, 300: -3, 31: inf}
	})
	put("typical", true, func(p *llama.SamplerParams) { usual(p); p.TypicalP = 0.7 })
	put("XTC", true, func(p *llama.SamplerParams) {
		usual(p)
		p.XTCProbability, p.XTCThreshold = 0.7, 0.02
	})
	put("dynamic temperature", true, func(p *llama.SamplerParams) {
		usual(p)
		p.DynatempRange, p.DynatempExponent = 0.6, 1.4
	})
	withHistory(put)
	withGrammars(put)
	needingAll(func(name string, change func(*llama.SamplerParams)) { put(name, false, change) })
	return all
}

// withHistory puts chains that change logits before they cut.
func withHistory(put func(name string, brief bool, change func(*llama.SamplerParams))) {
	inf := float32(math.Inf(-1))
	put("penalties", true, func(p *llama.SamplerParams) {
		usual(p)
		p.PenaltyRepeat, p.PenaltyFrequency, p.PenaltyPresence = 1.2, 0.3, 0.2
	})
	put("rewards for repeating", true, func(p *llama.SamplerParams) {
		usual(p)
		p.PenaltyRepeat, p.PenaltyFrequency, p.PenaltyLastN = 0.8, -0.4, 1024
	})
	put("greedy, penalties", true, func(p *llama.SamplerParams) {
		p.Temperature, p.PenaltyFrequency, p.PenaltyLastN = 0, 0.5, 3
	})
	put("greedy, bias", true, func(p *llama.SamplerParams) {
		p.Temperature, p.Bias = 0, map[llama.Token]float32{0: 2, 1: 3, 359: 4, 200: -100}
	})
	put("bias", true, func(p *llama.SamplerParams) {
		usual(p)
		p.Bias = map[llama.Token]float32{0: 4, 1: -1, 39: 5, 40: inf, 41: 5, 359: 6, 250: inf}
	})
	put("DRY", true, func(p *llama.SamplerParams) {
		usual(p)
		p.DRYMultiplier, p.DRYLastN, p.DRYAllowedLength = 3, 100, 1
		p.DRYBreakers = []string{"\n"}
	})
	put("all at once", true, func(p *llama.SamplerParams) {
		usual(p)
		p.TopK, p.TypicalP, p.XTCProbability, p.XTCThreshold = 200, 0.95, 0.3, 0.04
		p.PenaltyPresence, p.DRYMultiplier, p.DRYLastN = 0.7, 1, 50
		p.Bias = map[llama.Token]float32{7: 1.5}
	})
	put("no end", true, func(p *llama.SamplerParams) { usual(p); p.IgnoreEOS = true })
}

// withGrammars puts chains whose choice a grammar may refuse.
func withGrammars(put func(name string, brief bool, change func(*llama.SamplerParams))) {
	letters := llama.Grammar{Text: `root ::= ([a-e] | " " | "-" [0-9]+ "!")* "."`}
	put("grammar", true, func(p *llama.SamplerParams) { usual(p); p.Grammar = letters })
	put("grammar, greedy", true, func(p *llama.SamplerParams) {
		p.Temperature, p.Grammar = 0, letters
	})
	put("grammar, min-p", true, func(p *llama.SamplerParams) {
		p.MinP, p.Grammar, p.PenaltyPresence = 0.2, letters, 1
	})
	put("grammar, any text", true, func(p *llama.SamplerParams) {
		usual(p)
		p.Grammar.Text = `root ::= [^\x00]*`
	})
	put("grammar after a prompt", true, func(p *llama.SamplerParams) {
		usual(p)
		p.Grammar = llama.Grammar{
			Text: `root ::= "abc" [a-z]*`, Prefill: true, GenerationPrompt: "ab",
		}
	})
	for name, trigger := range map[string]llama.Trigger{
		"word":         {Type: llama.TriggerWord, Value: "a"},
		"pattern":      {Type: llama.TriggerPattern, Value: "[aeiou]+"},
		"full pattern": {Type: llama.TriggerPatternFull, Value: `[\s\S]*?([0-9])[\s\S]*`},
		"token":        {Type: llama.TriggerToken, Token: 40},
	} {
		put("lazy grammar, "+name, true, func(p *llama.SamplerParams) {
			usual(p)
			p.Grammar = llama.Grammar{
				Text: `root ::= [^\x00] [a-z ]*`, Lazy: true, Triggers: []llama.Trigger{trigger},
			}
		})
	}
	put("grammar, whole distribution", false, func(p *llama.SamplerParams) { p.Grammar = letters })
}

// needingAll puts chains that need every token.
func needingAll(plain func(name string, change func(*llama.SamplerParams))) {
	plain("whole distribution", func(*llama.SamplerParams) {})
	plain("top-p alone", func(p *llama.SamplerParams) { p.TopP = 0.8 })
	plain("typical first", func(p *llama.SamplerParams) { p.TypicalP, p.MinP = 0.8, 0.1 })
	plain("top-n-sigma", func(p *llama.SamplerParams) { usual(p); p.TopNSigma = 1 })
	plain("mirostat", func(p *llama.SamplerParams) { usual(p); p.Mirostat = 2 })
	plain("cold, typical", func(p *llama.SamplerParams) { p.Temperature, p.TypicalP = 0, 0.2 })
	plain("cold, dynamic", func(p *llama.SamplerParams) { p.Temperature, p.DynatempRange = 0, 1 })
	plain("top-k over the bound", func(p *llama.SamplerParams) { p.TopK = 1025 })
	plain("history over the bound", func(p *llama.SamplerParams) {
		usual(p)
		p.PenaltyRepeat, p.PenaltyLastN = 1.1, 1025
	})
	plain("biases over the bound", func(p *llama.SamplerParams) {
		usual(p)
		p.Bias = map[llama.Token]float32{}
		for t := range llama.Token(129) {
			p.Bias[t] = 0.1
		}
	})
}

type samplingCase struct {
	params llama.SamplerParams
	brief  bool
}

// usual is what most requests ask for.
func usual(p *llama.SamplerParams) {
	p.Temperature, p.TopK, p.TopP, p.MinP = 0.8, 40, 0.95, 0.05
}

// fillLogits writes the i-th of some kinds of logits, with ties, extremes and holes among them.
func fillLogits(dst []float32, i int, r *rand.Rand) {
	for j := range dst {
		v := r.NormFloat64() * 4
		switch i % 8 {
		case 1:
			v = math.Round(v) // many ties
		case 2:
			v = float64(j) / 7 // each larger than all before
		case 3:
			v = -float64(j) / 9
		case 4:
			v = v*6 + 5 // most of the best beyond upstream's buckets
		case 5:
			if r.IntN(10) > 0 {
				v = math.Inf(-1)
			}
		case 6:
			v = float64(r.IntN(3)) * 1e-3 // next to nothing between them
		case 7:
			v = math.Round(math.Exp(r.Float64()*4)) / 2
		}
		dst[j] = float32(v)
	}
}

// TestShortlistChoosesTheSame compares every chain with upstream's on the whole vocabulary, on
// the same logits and with the same seed: the same token each time.
func TestShortlistChoosesTheSame(t *testing.T) {
	t.Parallel()
	tinyModel := load(t, llama.ModelParams{
		Paths: []string{write(t, "tiny.gguf", gguftest.TinyModel(1).Bytes())},
	})
	defer func() { require.NoError(t, tinyModel.Close()) }()
	for name, tc := range map[string]struct {
		m       *llama.Model
		vectors int
	}{
		"360 tokens":    {tinyModel, 2000},
		"49152 tokens":  {model(t, smol), 32},
		"262144 tokens": {model(t, gemma), 8},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tc.m.NewContext(small())
			require.NoError(t, err)
			defer func() { require.NoError(t, c.Close()) }()
			logits, err := c.Logits(feed(t, c, 0, 0, 5))
			require.NoError(t, err)
			compareChains(t, c, logits, tc.vectors)
		})
	}
}

// duel is a chain and upstream's on the whole vocabulary, from the same parameters.
type duel struct {
	samplingCase
	name         string
	short, whole *llama.Sampler
	made         int // choices in all
	begun        int // times that it began
}

// begin makes both anew.
func (d *duel) begin(t *testing.T, m *llama.Model) {
	d.close(t)
	var err error
	d.short, err = m.NewSampler(d.params)
	require.NoError(t, err)
	d.whole, err = m.NewSampler(d.params.Whole())
	require.NoError(t, err)
	require.Equal(t, d.brief, llama.Brief(d.short), d.name)
	require.False(t, llama.Brief(d.whole), d.name)
	d.begun++
}

func (d *duel) close(t *testing.T) {
	if d.short != nil {
		require.NoError(t, errors.Join(d.short.Close(), d.whole.Close()))
	}
}

// choose lets both see a token and choose. Where a grammar has come to its end, both say the same
// and begin again.
func (d *duel) choose(t *testing.T, c *llama.Context, seen llama.Token) {
	errWhole, errShort := d.whole.Accept(seen, false), d.short.Accept(seen, false)
	want, errWant := c.Sample(d.whole, 0)
	got, errGot := c.Sample(d.short, 0)
	require.NoError(t, errors.Join(errWhole, errShort), d.name)
	require.Equal(t, errWant, errGot, d.name)
	require.Equal(t, want, got, d.name)
	d.made++
	if errGot != nil {
		require.NotEmpty(t, d.params.Grammar.Text, d.name)
		d.begin(t, c.Model())
	}
}

// compareChains samples from vectors of logits, written where the context keeps its own.
func compareChains(t *testing.T, c *llama.Context, logits []float32, vectors int) {
	duels := map[string]*duel{}
	for name, tc := range samplings() {
		if len(logits) > 100_000 && tc.params.Grammar.Text != "" {
			continue // each miss looks at every token
		}
		d := &duel{samplingCase: tc, name: name}
		d.begin(t, c.Model())
		defer func() { d.close(t) }()
		duels[name] = d
	}
	r := rand.New(rand.NewPCG(7, uint64(len(logits))))
	before := make([]float32, len(logits))
	for i := range vectors {
		fillLogits(logits, i, r)
		copy(before, logits)
		seen := llama.Token(r.IntN(min(len(logits), 50))) // so that histories repeat
		for _, name := range slices.Sorted(maps.Keys(duels)) {
			duels[name].choose(t, c, seen)
		}
		require.True(t, slices.Equal(before, logits), "sampling changed the logits")
	}
	for _, d := range duels {
		require.Equal(t, vectors, d.made)
		require.Less(t, d.begun, max(3, vectors/3), "%s hardly chose anything", d.name)
	}
}

// TestShortlistNothingLeft: where every token is banned both say so.
func TestShortlistNothingLeft(t *testing.T) {
	m := model(t, smol)
	c := newContext(t, m, small())
	logits, err := c.Logits(feed(t, c, 0, 0, 5))
	require.NoError(t, err)
	for i := range logits {
		logits[i] = float32(math.Inf(-1))
	}
	for name, tc := range samplings() {
		for _, p := range []llama.SamplerParams{tc.params, tc.params.Whole()} {
			for token := range p.Bias {
				p.Bias[token] = 1
			}
			_, err := c.Sample(newSampler(t, m, p), 0)
			requireCode(t, llama.BadGrammar, err, name)
		}
	}
}

// BenchmarkSampling is one choice from 262144 logits, without the model.
func BenchmarkSampling(b *testing.B) {
	m := model(b, gemma)
	c := newContext(b, m, small())
	logits, err := c.Logits(feed(b, c, 0, 0, 5))
	require.NoError(b, err)
	fillLogits(logits, 0, rand.New(rand.NewPCG(1, 2)))
	all := samplings()
	for _, name := range []string{
		"greedy", "usual", "usual, greedy", "grammar, any text",
		"penalties", "bias", "greedy, penalties", "min-p", "top-k 300", "DRY",
	} {
		for way, p := range map[string]llama.SamplerParams{
			"short": all[name].params, "upstream": all[name].params.Whole(),
		} {
			b.Run(name+"/"+way, func(b *testing.B) {
				s := newSampler(b, m, p)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Sample(s, 0); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
