//go:build cgo

package llama_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/runtime/llama"
)

func newDrafter(t require.TestingT, p llama.DrafterParams) *llama.Drafter {
	d, err := llama.NewDrafter(p)
	require.NoError(t, err)
	return d
}

// drafted asks for at most n tokens.
func drafted(t require.TestingT, d *llama.Drafter, n int) []llama.Token {
	dst := make([]llama.Token, n)
	got, err := d.Draft(dst)
	require.NoError(t, err)
	return dst[:got]
}

func TestDrafterRepeats(t *testing.T) {
	d := newDrafter(t, llama.DrafterParams{Match: 4, Min: 2, Max: 10})
	defer func() { require.NoError(t, d.Close()) }()
	verse := []llama.Token{10, 11, 12, 13, 14, 15, 16, 17}
	require.Empty(t, drafted(t, d, 10), "nothing was said yet")
	require.NoError(t, d.Feed(verse))
	require.Empty(t, drafted(t, d, 10), "nothing was said twice")
	require.NoError(t, d.Feed([]llama.Token{1, 2, 3}))
	require.NoError(t, d.Feed(verse[:3]))
	require.Empty(t, drafted(t, d, 10), "three known tokens are less than four")
	require.NoError(t, d.Feed(verse[3:4]))
	require.Equal(t, []llama.Token{14, 15, 16, 17, 1, 2, 3, 10, 11, 12}, drafted(t, d, 99),
		"what followed before, as far as Max")
	require.Len(t, drafted(t, d, 3), 3)
	require.Empty(t, drafted(t, d, 1), "shorter than Min")
	require.Empty(t, drafted(t, d, 0))
	require.NoError(t, d.Reset())
	require.Empty(t, drafted(t, d, 10))

	// Of two continuations the last one counts.
	require.NoError(t, d.Feed([]llama.Token{1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 7, 8, 1, 2, 3, 4}))
	require.Equal(t, []llama.Token{7, 8}, drafted(t, d, 2))
}

// TestDrafterForgets: after five drafts that hardly came true it starts again; one that did in
// between counts.
func TestDrafterForgets(t *testing.T) {
	d := newDrafter(t, llama.DrafterParams{Match: 2, Min: 1, Max: 8})
	defer func() { require.NoError(t, d.Close()) }()
	loop := []llama.Token{1, 2, 3, 4, 1, 2, 3, 4}
	require.NoError(t, d.Feed(loop))
	for i := range 9 {
		require.Len(t, drafted(t, d, 8), 8, "draft %d", i)
		accepted := 1
		if i == 3 {
			accepted = 2 // a quarter is enough
		}
		require.NoError(t, d.Accepted(accepted))
		require.NoError(t, d.Accepted(0), "only the first report of a draft counts")
	}
	require.Empty(t, drafted(t, d, 8))
	require.NoError(t, d.Feed(loop))
	require.Len(t, drafted(t, d, 8), 8, "it learns again")
}

// TestDrafterOnNoise: a stream without repetition gets next to no drafts, also beyond the size at
// which the table starts again.
func TestDrafterOnNoise(t *testing.T) {
	d := newDrafter(t, llama.DrafterParams{Entries: 1 << 12})
	defer func() { require.NoError(t, d.Close()) }()
	r := rand.New(rand.NewPCG(1, 1))
	said := 0
	for range 20_000 {
		require.NoError(t, d.Feed([]llama.Token{llama.Token(r.IntN(50_000))}))
		if len(drafted(t, d, 16)) > 0 {
			said++
		}
	}
	t.Logf("%d drafts in 20000 tokens of noise", said)
	require.Less(t, said, 20_000/16, "two wrong hits in a table that is a quarter full")
}

// TestDrafterAgainstReference compares with a table as upstream documents it.
func TestDrafterAgainstReference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		match, entries := rapid.IntRange(1, 5).Draw(rt, "match"), rapid.IntRange(64, 5000).Draw(rt, "n")
		least := rapid.IntRange(1, 4).Draw(rt, "min")
		d := newDrafter(rt, llama.DrafterParams{Match: match, Min: least, Max: 6, Entries: entries})
		defer func() { require.NoError(rt, d.Close()) }()
		table, fed := map[uint64]llama.Token{}, []llama.Token{}
		hash := func(gram []llama.Token) uint64 {
			sum := uint64(0)
			for _, token := range gram {
				sum = sum*6364136223846793005 + uint64(token)
			}
			return sum % uint64(entries)
		}
		for range rapid.IntRange(1, 60).Draw(rt, "rounds") {
			more := rapid.SliceOfN(rapid.Int32Range(0, 3), 0, 40).Draw(rt, "tokens")
			chunk := make([]llama.Token, len(more))
			for i, token := range more {
				chunk[i] = llama.Token(token)
				if fed = append(fed, chunk[i]); len(fed) > match {
					table[hash(fed[len(fed)-match-1:len(fed)-1])] = chunk[i]
				}
			}
			require.NoError(rt, d.Feed(chunk))
			if len(table) > entries/4 {
				clear(table)
			}
			var want []llama.Token
			work := fed[max(0, len(fed)-match):]
			for len(work) == match && len(want) < 6 {
				token, ok := table[hash(work)]
				if !ok {
					break
				}
				want, work = append(want, token), append(append([]llama.Token{}, work[1:]...), token)
			}
			if len(want) < least {
				want = nil
			}
			require.Equal(rt, len(want), len(drafted(rt, d, 6)))
			require.Equal(rt, append([]llama.Token{}, want...), drafted(rt, d, 6))
		}
	})
}

func TestDrafterRefused(t *testing.T) {
	for name, p := range map[string]llama.DrafterParams{
		"match":     {Match: llama.DraftMatchMax + 1},
		"match -1":  {Match: -1},
		"max":       {Max: llama.DraftMax + 1},
		"max -1":    {Max: -1},
		"min":       {Min: 17},
		"min -1":    {Min: -1},
		"entries":   {Entries: llama.DraftEntriesMax + 1},
		"entries -": {Entries: -1},
	} {
		_, err := llama.NewDrafter(p)
		requireCode(t, llama.Invalid, err, name)
	}
	largest := newDrafter(t, llama.DrafterParams{
		Match: llama.DraftMatchMax, Min: llama.DraftMax, Max: llama.DraftMax, Entries: 1,
	})
	require.NoError(t, largest.Feed(make([]llama.Token, 5000)))
	require.Empty(t, drafted(t, largest, llama.DraftMax))
	requireCode(t, llama.Invalid, largest.Feed([]llama.Token{5, -1}))
	requireCode(t, llama.Invalid, largest.Accepted(-1))
	requireCode(t, llama.Invalid, largest.Accepted(llama.DraftMax+1))
	require.NoError(t, largest.Feed([]llama.Token{math.MaxInt32}))
	require.NoError(t, largest.Close())
	require.NoError(t, largest.Close())
	_, err := largest.Draft(nil)
	for _, err := range []error{
		err, largest.Feed(nil), largest.Accepted(0), largest.Reset(),
	} {
		requireCode(t, llama.Closed, err)
	}
}

func TestDrafterAllocatesNothing(t *testing.T) {
	d := newDrafter(t, llama.DrafterParams{})
	defer func() { require.NoError(t, d.Close()) }()
	one, dst, n := make([]llama.Token, 1), make([]llama.Token, 16), 0
	require.Zero(t, testing.AllocsPerRun(3000, func() {
		one[0] = llama.Token(n % 37)
		n++
		if err := d.Feed(one); err != nil {
			t.Fatal(err)
		}
		got, err := d.Draft(dst)
		if err != nil || d.Accepted(got) != nil {
			t.Fatal(got, err)
		}
	}))
	require.Len(t, drafted(t, d, 16), 16)
}

// TestDraftedGeneration generates with drafts, verified in the same step: the tokens are what
// plain decoding would choose, but for what another order of rounding decides, in fewer steps.
func TestDraftedGeneration(t *testing.T) {
	t.Parallel()
	m := model(t, smol)
	const n, longest = 60, 8
	text := ""
	for range 6 {
		text += "one two three four five six seven eight nine ten, "
	}
	prompt := tokenize(t, m, text)
	p := streams(1)
	plain := newContext(t, m, p)
	p.Outputs, p.Flash = longest+1, llama.FlashOn
	c, s := newContext(t, m, p), newSampler(t, m, llama.DefaultSampler())
	d := newDrafter(t, llama.DrafterParams{Match: 4, Max: longest})
	defer func() { require.NoError(t, d.Close()) }()
	require.NoError(t, d.Feed(prompt))
	feed(t, c, 0, 0, prompt[:len(prompt)-1]...)
	got, last, steps := []llama.Token{}, prompt[len(prompt)-1], 0
	guess := make([]llama.Token, longest)
	for len(got) < n {
		guessed, err := d.Draft(guess)
		require.NoError(t, err)
		picks := draft(t, c, 0, s, append([]llama.Token{last}, guess[:guessed]...)...)
		require.NoError(t, c.Step(picks))
		steps++
		made := 0
		for _, pick := range picks {
			require.NoError(t, pick.Err)
			if pick.Made {
				made, last, got = made+1, pick.Token, append(got, pick.Token)
			}
		}
		require.Positive(t, made)
		require.NoError(t, d.Accepted(made-1))
		require.NoError(t, d.Feed(got[len(got)-made:]))
		require.NoError(t, c.Truncate(0, llama.Pos(len(prompt)+len(got)-1)))
	}
	t.Logf("%d tokens in %d steps", len(got), steps)
	require.Less(t, steps, n/3)
	place := feed(t, plain, 0, 0, prompt...)
	for i, token := range got {
		logits := logitsOf(t, plain, place)
		require.InDelta(t, slices.Max(logits), logits[token], greedyGap, "token %d", i)
		place = feed(t, plain, 0, plain.PosMax(0)+1, token)
	}
}
