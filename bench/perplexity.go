package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/llama"
)

// perplexity is how probable a text is to a model that keeps sinks and a window, to one that keeps
// the window alone, and to one that computes the window anew.
func (g *game) perplexity(k Sinks) subject {
	name := g.label(fmt.Sprintf("%s sinks=%d window=%d", sinkPerplexity, k.Sinks, k.Window))
	return subject{
		name: name, once: true,
		turns: []turn{{SideNorion, func(ctx context.Context) (Run, error) {
			return perplexity(ctx, g.paths[g.Scenario.Model], g.Threads, k)
		}}},
		alone: []held{
			{MeasurePerplexity, SideNorion, barPerplexity},
			{MeasurePerplexityBare, SideNorion, Bar{}},
		},
	}
}

// The values of a perplexity run.
const (
	valueSinks      = "perplexity with sinks"
	valueBare       = "perplexity without sinks"
	valueRecomputed = "perplexity of the window computed anew"
	valueScored     = "tokens scored"
)

// The measures of a perplexity run.
var (
	MeasurePerplexity = Measure{
		"perplexity, sinks to computed anew", "ratio",
		func(r Run) float64 { return r.Values[valueSinks] / max(1e-9, r.Values[valueRecomputed]) },
	}
	MeasurePerplexityBare = Measure{
		"perplexity, no sinks to computed anew", "ratio",
		func(r Run) float64 { return r.Values[valueBare] / max(1e-9, r.Values[valueRecomputed]) },
	}
)

// perplexity scores the same tokens in three ways, all behind as many tokens.
func perplexity(ctx context.Context, path string, threads int, k Sinks) (run Run, err error) {
	runtime.LockOSThread() // the compute library keeps a team of threads for each caller's thread
	defer runtime.UnlockOSThread()
	paths, _, err := checkFile(path)
	if err != nil {
		return run, err
	}
	m, err := llama.LoadModel(ctx, llama.ModelParams{Paths: paths})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	tokens, err := m.Tokenize(k.Text, true, false)
	if err != nil {
		return run, err
	}
	total := k.Sinks + k.Window
	if len(tokens) < total+2*k.Block {
		return run, badFlag("text", "name a longer one", "%d tokens, want %d", len(tokens),
			total+2*k.Block)
	}
	tokens = tokens[:min(len(tokens), total+k.Score+1)]
	c, err := m.NewContext(llama.ContextParams{
		Tokens: room(total), Outputs: k.Block, Threads: threads, ThreadsBatch: threads,
	})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	defer context.AfterFunc(ctx, c.Abort)()
	run.Values = map[string]float64{}
	run.Work = digestOf([]byte(k.Text))
	s := scorer{c: c, tokens: tokens, from: total, block: k.Block}
	bare := k
	bare.Sinks, bare.Window = 0, total
	for name, way := range map[string]func() (float64, error){
		valueSinks:      func() (float64, error) { return s.sliding(k.policy()) },
		valueBare:       func() (float64, error) { return s.sliding(bare.policy()) },
		valueRecomputed: func() (float64, error) { return s.anew(total) },
	} {
		if run.Values[name], err = way(); err != nil {
			return run, err
		}
	}
	run.Values[valueScored] = float64(len(tokens) - 1 - total)
	return run, nil
}

// scorer sums log-probabilities of tokens[from+1:].
type scorer struct {
	c      *llama.Context
	tokens []llama.Token
	from   int // the first token whose successor is scored
	block  int // tokens computed and scored at once

	length int     // cells in use
	sum    float64 // of the scored log-probabilities
	n      int
}

func (s *scorer) reset() error {
	s.length, s.sum, s.n = 0, 0, 0
	return s.c.Clear()
}

func (s *scorer) perplexity() float64 { return math.Exp(-s.sum / float64(max(1, s.n))) }

// feed computes tokens[from:to] after what is cached, and scores what follows each of them where
// score says so.
func (s *scorer) feed(from, to int, score bool) error {
	b := s.c.Batch()
	b.Reset()
	for i := from; i < to; i++ {
		if _, err := b.Add(s.tokens[i], llama.Pos(s.length), 0, score); err != nil {
			return err
		}
		s.length++
	}
	if err := s.c.Decode(); err != nil {
		return err
	}
	if !score {
		return nil
	}
	for i := from; i < to && i+1 < len(s.tokens); i++ {
		lp, err := s.c.Logprobs(i-from, s.tokens[i+1], nil)
		if err != nil {
			return err
		}
		s.sum += float64(lp)
		s.n++
	}
	return nil
}

// sliding gives up cells as the policy says, and moves the others together.
func (s *scorer) sliding(p kv.SinkWindow) (float64, error) {
	if err := s.reset(); err != nil {
		return 0, err
	}
	limit := p.Limit(p.Sinks + p.Window)
	for at := 0; at < len(s.tokens)-1; {
		to := min(at+s.block, len(s.tokens)-1)
		if at < s.from {
			to = min(to, s.from)
		}
		v := kv.View{Length: s.length, Limit: limit, Want: to - at}
		if v.Over() > 0 {
			spans, err := p.Evict(v)
			if err != nil {
				return 0, err
			}
			for _, span := range slices.Backward(spans) {
				if err := s.giveUp(span); err != nil {
					return 0, err
				}
			}
		}
		if err := s.feed(at, to, at >= s.from); err != nil {
			return 0, err
		}
		at = to
	}
	return s.perplexity(), nil
}

func (s *scorer) giveUp(span kv.Span) error {
	p0, p1 := llama.Pos(span.P0), llama.Pos(span.P1)
	if err := s.c.Remove(0, p0, p1); err != nil {
		return err
	}
	if err := s.c.Shift(0, p1, llama.Pos(s.length), p0-p1); err != nil {
		return err
	}
	s.length -= int(p1 - p0)
	return nil
}

// anew computes the last tokens of each block's window from nothing.
func (s *scorer) anew(limit int) (float64, error) {
	if err := s.reset(); err != nil {
		return 0, err
	}
	for at := s.from; at < len(s.tokens)-1; at += s.block {
		to := min(at+s.block, len(s.tokens)-1)
		if err := s.c.Clear(); err != nil {
			return 0, err
		}
		s.length = 0
		if err := s.feed(to-limit, at, false); err != nil {
			return 0, err
		}
		if err := s.feed(at, to, true); err != nil {
			return 0, err
		}
	}
	return s.perplexity(), nil
}
