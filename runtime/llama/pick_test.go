//go:build cgo

package llama_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// TestPicksFailAlone: a pick whose constraint leaves nothing does not take away what the others
// chose, and what it left is an error of its own.
func TestPicksFailAlone(t *testing.T) {
	m := model(t, smol)
	p := streams(3)
	c := newContext(t, m, p)
	tokens := tokenize(t, m, "My favourite word is")
	stuck := llama.DefaultSampler()
	stuck.Grammar.Text = `root ::= "x"`
	picks := make([]llama.Pick, 3)
	for seq := range picks {
		params := llama.DefaultSampler()
		if seq == 1 {
			params = stuck
		}
		picks[seq] = llama.Pick{
			Sampler: newSampler(t, m, params), Place: add(t, c, llama.Seq(seq), 0, tokens...),
		}
	}
	x, err := m.Tokenize("y", false, false)
	require.NoError(t, err)
	requireCode(t, llama.BadGrammar, picks[1].Sampler.Accept(x[0], true))
	require.NoError(t, c.Step(picks))
	requireCode(t, llama.BadGrammar, picks[1].Err)
	require.ErrorContains(t, picks[1].Err, "left the grammar")
	require.False(t, picks[1].Made)
	require.Empty(t, picks[1].Piece)
	for _, seq := range []int{0, 2} {
		require.NoError(t, picks[seq].Err)
		require.True(t, picks[seq].Made)
		require.NotEmpty(t, picks[seq].Piece)
		require.Equal(t, ranked(t, c, picks[seq].Place)[0].Token, picks[seq].Token)
	}

	// The next step, with the failed pick's sequence in it, starts from clean results.
	for seq := range picks {
		token := picks[seq].Token
		picks[seq].Place = add(t, c, llama.Seq(seq), llama.Pos(len(tokens)), token)
	}
	picks[1].Sampler = newSampler(t, m, llama.DefaultSampler())
	require.NoError(t, c.Step(picks))
	for i := range picks {
		require.NoError(t, picks[i].Err)
		require.True(t, picks[i].Made)
	}
}

func TestPicksRefused(t *testing.T) {
	m := model(t, smol)
	p := streams(2)
	p.Outputs = 3
	c := newContext(t, m, p)
	one, other := newSampler(t, m, random(1)), newSampler(t, m, random(1))
	for i := range llama.Pos(3) {
		_, err := c.Batch().Add(5, i, 0, i != 1)
		require.NoError(t, err)
	}
	_, err := c.Batch().Add(5, 0, 1, true)
	require.NoError(t, err)
	for name, picks := range map[string][]llama.Pick{
		"no output there":     {{Sampler: one, Place: 1}},
		"beyond the batch":    {{Sampler: one, Place: 4}},
		"no sampler":          {{Place: 0}},
		"follows nothing":     {{Sampler: one, Place: 2, Follows: true}},
		"another sampler":     {{Sampler: one}, {Sampler: other, Place: 2, Follows: true}},
		"a position too far":  {{Sampler: one}, {Sampler: one, Place: 2, Follows: true}},
		"another sequence":    {{Sampler: one}, {Sampler: one, Place: 3, Follows: true}},
		"more than Outputs":   {{Sampler: one}, {Sampler: one}, {Sampler: one}, {Sampler: one}},
		"a place before it":   {{Sampler: one, Place: 2}, {Sampler: one, Place: 0, Follows: true}},
		"a negative place":    {{Sampler: one, Place: -1}},
		"the same place next": {{Sampler: one}, {Sampler: one, Follows: true}},
	} {
		requireCode(t, llama.Invalid, c.Step(picks), name)
	}
	require.Equal(t, 4, c.Batch().Len(), "a refused pick leaves the batch")
	require.NoError(t, c.Step([]llama.Pick{{Sampler: one}, {Sampler: one, Place: 2}, {
		Sampler: other, Place: 3,
	}}), "as many as Outputs, anywhere")
}

// alone is what each prompt becomes by itself: n greedy tokens and the logits they came from.
func alone(t *testing.T, m *llama.Model, p llama.ContextParams, prompt []llama.Token, n int) (
	tokens []llama.Token, logits [][]float32,
) {
	c, err := m.NewContext(p)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	s := newSampler(t, m, llama.DefaultSampler())
	pos, fresh := llama.Pos(0), prompt
	for range n {
		pick := []llama.Pick{{Sampler: s, Place: add(t, c, 0, pos, fresh...)}}
		require.NoError(t, c.Step(pick))
		logits = append(logits, logitsOf(t, c, pick[0].Place))
		pos, fresh = pos+llama.Pos(len(fresh)), []llama.Token{pick[0].Token}
		tokens = append(tokens, pick[0].Token)
	}
	return tokens, logits
}

// stream is one sequence of TestSequencesTogether.
type stream struct {
	prompt, fresh []llama.Token
	chunk         int // of the prompt in one step
	starts        int // the step it joins at
	pos           llama.Pos
	got           []llama.Token
	logits        [][]float32
}

// TestSequencesTogether decodes four sequences in one batch, each joining at its own step with its
// prompt in chunks of its own size between the others' tokens. With a stream of its own each gives
// bit for bit what it gives alone.
func TestSequencesTogether(t *testing.T) {
	t.Parallel()
	m := model(t, smol)
	const n = 12
	text := tokenize(t, m, passage+passage)
	p := streams(4)
	p.Flash, p.Tokens = llama.FlashOn, 4*256
	one := p
	one.Sequences, one.Tokens = 1, 256
	all := []*stream{
		{prompt: text[:30], chunk: 30},
		{prompt: text[3:40], chunk: 7, starts: 1},
		{prompt: text[5:9], chunk: 4, starts: 3},
		{prompt: text[10:40], chunk: 11, starts: 4},
	}
	c := newContext(t, m, p)
	samplers := make([]*llama.Sampler, len(all))
	for i, s := range all {
		s.fresh, samplers[i] = s.prompt, newSampler(t, m, llama.DefaultSampler())
	}
	for step := range 2 * n {
		var picks []llama.Pick
		var who []*stream
		for i := len(all) - 1; i >= 0; i-- { // the places are not in the order of the sequences
			s := all[i]
			if step < s.starts || len(s.got) == n {
				continue
			}
			chunk := s.fresh[:min(len(s.fresh), s.chunk)]
			for j, token := range chunk {
				place, err := c.Batch().Add(token, s.pos, llama.Seq(i), j+1 == len(s.fresh))
				require.NoError(t, err)
				s.pos++
				if j+1 == len(s.fresh) {
					picks, who = append(picks, llama.Pick{Sampler: samplers[i], Place: place}), append(who, s)
				}
			}
			s.fresh = s.fresh[len(chunk):]
		}
		if c.Batch().Len() == 0 {
			break
		}
		require.NoError(t, c.Step(picks))
		for i, s := range who {
			require.NoError(t, picks[i].Err)
			s.got, s.fresh = append(s.got, picks[i].Token), []llama.Token{picks[i].Token}
			s.logits = append(s.logits, logitsOf(t, c, picks[i].Place))
		}
	}
	for i, s := range all {
		want, logits := alone(t, m, one, s.prompt, n)
		require.Equal(t, want, s.got, "sequence %d", i)
		for j := range logits {
			equalLogits(t, logits[j], s.logits[j], i, j)
		}
	}
}

// draft adds a chosen token and a draft after it, all with outputs, and returns their picks.
func draft(t *testing.T, c *llama.Context, seq llama.Seq, s *llama.Sampler, tokens ...llama.Token,
) (picks []llama.Pick) {
	from := c.PosMax(seq) + 1
	for i, token := range tokens {
		place, err := c.Batch().Add(token, from+llama.Pos(i), seq, true)
		require.NoError(t, err)
		picks = append(picks, llama.Pick{Sampler: s, Place: place, Follows: i > 0})
	}
	return picks
}

// TestDraftsVerified gives drafts that come true for none, some or all of their tokens, of two
// sequences in one step.
func TestDraftsVerified(t *testing.T) {
	t.Parallel()
	m := model(t, smol)
	prompt := tokenize(t, m, passage)[:30]
	one := streams(1)
	want, _ := alone(t, m, one, prompt, 8)
	wrong := want[0] + 1
	p := streams(2)
	p.Outputs, p.Flash = 16, llama.FlashOn
	for name, tc := range map[string]struct {
		draft []llama.Token
		made  int
	}{
		"all":   {want[1:4], 4},
		"none":  {[]llama.Token{wrong, want[2], want[3]}, 1},
		"two":   {[]llama.Token{want[1], want[2], wrong}, 3},
		"empty": {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContext(t, m, p)
			var picks []llama.Pick
			for seq := range llama.Seq(2) {
				feed(t, c, seq, 0, prompt...)
				s := newSampler(t, m, llama.DefaultSampler())
				picks = append(picks, draft(t, c, seq, s, append(want[:1:1], tc.draft...)...)...)
			}
			require.NoError(t, c.Step(picks))
			for i := range picks {
				at := i % (len(tc.draft) + 1)
				require.NoError(t, picks[i].Err)
				require.Equal(t, at < tc.made, picks[i].Made, "pick %d", i)
				if picks[i].Made {
					require.Equal(t, want[at+1], picks[i].Token)
				} else {
					require.Zero(t, picks[i].Token)
				}
			}
			// What did not come true is taken out, and the sequence goes on.
			end := llama.Pos(len(prompt) + tc.made)
			for seq := range llama.Seq(2) {
				require.NoError(t, c.Truncate(seq, end))
			}
			s := newSampler(t, m, llama.DefaultSampler())
			more := draft(t, c, 1, s, want[tc.made])
			require.NoError(t, c.Step(more))
			require.Equal(t, want[tc.made+1], more[0].Token)
		})
	}
}

// TestDraftStopsAtTheEnd: what stands after a chosen end token is not looked at.
func TestDraftStopsAtTheEnd(t *testing.T) {
	m := model(t, smol)
	eos := m.Info().EOS
	p := streams(1)
	p.Outputs = 3
	c := newContext(t, m, p)
	params := llama.DefaultSampler()
	params.Bias = map[llama.Token]float32{eos: 1000}
	picks := draft(t, c, 0, newSampler(t, m, params), 5, eos, 6)
	require.NoError(t, c.Step(picks))
	require.True(t, picks[0].Made && picks[0].EOG)
	require.False(t, picks[1].Made)
	require.False(t, picks[2].Made)
}

// TestDraftSamplerSeesOnlyWhatWasChosen: a sampler with a history is not told of a refused draft.
func TestDraftSamplerSeesOnlyWhatWasChosen(t *testing.T) {
	m := model(t, smol)
	p := streams(1)
	p.Outputs = 4
	c := newContext(t, m, p)
	params := llama.DefaultSampler()
	params.PenaltyPresence, params.Seed = 3, 1
	verified, plain := newSampler(t, m, params), newSampler(t, m, params)
	prompt := tokenize(t, m, "one two three one two three one two")
	feed(t, c, 0, 0, prompt[:len(prompt)-1]...)
	picks := draft(t, c, 0, verified, prompt[len(prompt)-1], 1, 2, 3)
	require.NoError(t, c.Step(picks))
	require.False(t, picks[1].Made)
	require.NoError(t, plain.Accept(picks[0].Token, true))
	require.NoError(t, c.Truncate(0, llama.Pos(len(prompt))))
	for token := picks[0].Token; c.PosMax(0) < 40; {
		place := feed(t, c, 0, c.PosMax(0)+1, token)
		want, err := c.Sample(plain, place)
		require.NoError(t, err)
		got, err := c.Sample(verified, place)
		require.NoError(t, err)
		require.Equal(t, want, got)
		token = got
	}
}

// TestPicksAllocateNothing has many picks, some of which follow.
func TestPicksAllocateNothing(t *testing.T) {
	m := model(t, smol)
	p := streams(2)
	p.Outputs = 8
	c := newContext(t, m, p)
	s := [2]*llama.Sampler{newSampler(t, m, llama.DefaultSampler()), newSampler(t, m, random(1))}
	picks := make([]llama.Pick, 8)
	pos := llama.Pos(0)
	step := func() {
		for i := range picks {
			seq := llama.Seq(i / 4)
			place, err := c.Batch().Add(5, pos+llama.Pos(i%4), seq, true)
			if err != nil {
				t.Fatal(err)
			}
			picks[i] = llama.Pick{Sampler: s[seq], Place: place, Follows: i%4 > 0}
		}
		if err := errors.Join(c.Step(picks), picks[0].Err); err != nil {
			t.Fatal(err)
		}
		pos += 4
	}
	require.Zero(t, testing.AllocsPerRun(20, step))
}
