package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// runtimeUnderTest is what a scenario asks: norion in this process, or a server. Ask and Tokenize
// may be called by several goroutines.
type runtimeUnderTest interface {
	// Tokenize splits plain text, without special tokens.
	Tokenize(ctx context.Context, text string) ([]infer.TokenID, error)
	// Ask runs one request to its end. came is called as tokens come.
	Ask(ctx context.Context, q question, came func(tokens int)) (reply, error)
	// Restart makes everything in memory go away, and comes back.
	Restart(ctx context.Context) error
	// resident is the memory of the runtime's process in bytes, 0 where the system does not say.
	resident() int64
	Close() error
}

// question is one request, greedy, that is answered by exactly Answer tokens.
type question struct {
	Tokens []infer.TokenID
	Answer int
	Keep   bool // the tokens of the answer are wanted
	Text   bool // its text is wanted, where the runtime gives it
	Chunks int  // tokens of a run that may be reused at another place; 0 allows none
	// Endless lets the answer outgrow the context: what of it is kept. nil refuses.
	Endless *Sinks
	// Temperature above 0 samples, with Seed, from all tokens.
	Temperature float32
	Seed        uint32
	Speculate   infer.Speculation // "" leaves it to the runtime
}

// reply is what a runtime says about a request.
type reply struct {
	Computed int             // prompt tokens
	Cached   *infer.Cached   // the others, where the runtime says where they lay
	Answer   []infer.TokenID // when it was to be kept
	Drafted  int             // tokens guessed ahead
	Accepted int             // of them, those that were right
	// Text is the answer, when it was wanted; after token i it has Ends[i] bytes.
	Text string
	Ends []int
}

// words are what seeded text is made of.
var words = strings.Fields(`the old man sat by window and looked at sea it was quiet day in town
	light soft on water a bird came down to wall then flew away over roofs children played near
	market where women sold bread fruit fish from small boats nobody spoke of war that winter had
	been long cold but now spring wind brought smell grass hills train left every morning for city
	with letters wood coal once week doctor walked up street his black bag he knew all names`)

// corpus turns seeds into tokens of one model. Not safe for concurrent use.
type corpus struct {
	rt    runtimeUnderTest
	known map[int][]infer.TokenID // by seed, the longest so far
}

// tokens gives the first n tokens of the text of a seed. A text of n words has no fewer tokens.
func (c *corpus) tokens(ctx context.Context, seed, n int) ([]infer.TokenID, error) {
	if len(c.known[seed]) < n {
		r := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // seeds are small and positive
		var b strings.Builder
		for range n {
			b.WriteString(words[r.IntN(len(words))] + " ")
		}
		ids, err := c.rt.Tokenize(ctx, b.String())
		if err != nil {
			return nil, err
		}
		if len(ids) < n {
			return nil, &Error{
				Op: "measure", Kind: ErrOutput, Field: "tokenizer",
				Err: fmt.Errorf("%d words are %d tokens", n, len(ids)),
			}
		}
		c.known[seed] = ids[:n]
	}
	return c.known[seed][:n], nil
}

// player runs one pattern once.
type player struct {
	rt      runtimeUnderTest
	texts   corpus
	answers map[string][]infer.TokenID
	kept    map[string]bool // answers that later prompts contain
	known   [][]infer.TokenID
	zero    time.Time
	work    []byte // of scripted tokens
	chunks  int
	ideal   int
}

// play runs a pattern and returns its requests in order. Restarting is not part of the play's
// time. Errors are the runtime's.
func play(ctx context.Context, rt runtimeUnderTest, p Pattern) (Run, error) {
	pl := &player{
		rt: rt, texts: corpus{rt, map[int][]infer.TokenID{}}, kept: map[string]bool{},
		answers: map[string][]infer.TokenID{}, chunks: p.Chunks,
	}
	if err := pl.prepare(ctx, p); err != nil {
		return Run{}, err
	}
	var run Run
	pl.zero = time.Now()
	for _, stage := range p.Stages {
		if stage.Restart {
			away := time.Now()
			if err := rt.Restart(ctx); err != nil {
				return run, err
			}
			pl.zero = pl.zero.Add(time.Since(away))
		}
		samples, err := pl.stage(ctx, stage)
		if err != nil {
			return run, err
		}
		run.Samples = append(run.Samples, samples...)
	}
	run.PlayNs = time.Since(pl.zero).Nanoseconds()
	run.Ideal = pl.ideal
	run.Work = digestOf(pl.work)
	return run, nil
}

// packed writes tokens as bytes, for a digest.
func packed(ids []infer.TokenID) []byte {
	var out []byte
	for _, id := range ids {
		out = append(out, byte(id), byte(id>>8), byte(id>>16))
	}
	return out
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// prepare makes all text before the clock runs.
func (pl *player) prepare(ctx context.Context, p Pattern) error {
	longest := map[int]int{}
	for _, stage := range p.Stages {
		for _, a := range stage.Asks {
			for _, s := range a.Prompt {
				pl.kept[s.Answer] = true
				longest[s.Seed] = max(longest[s.Seed], s.Tokens)
			}
		}
	}
	for seed, n := range longest {
		if _, err := pl.texts.tokens(ctx, seed, n); err != nil {
			return err
		}
	}
	return nil
}

// prompt puts the tokens of one request together.
func (pl *player) prompt(ctx context.Context, a Ask) ([]infer.TokenID, error) {
	var out []infer.TokenID
	for _, s := range a.Prompt {
		if s.Answer != "" {
			out = append(out, pl.answers[s.Answer]...)
			continue
		}
		ids, err := pl.texts.tokens(ctx, s.Seed, s.Tokens)
		if err != nil {
			return nil, err
		}
		pl.work = append(pl.work, packed(ids)...)
		out = append(out, ids...)
	}
	return out, nil
}

// stage asks everything at once and waits for all.
func (pl *player) stage(ctx context.Context, stage Stage) ([]Sample, error) {
	questions := make([]question, len(stage.Asks))
	for i, a := range stage.Asks {
		tokens, err := pl.prompt(ctx, a)
		if err != nil {
			return nil, err
		}
		questions[i] = question{
			Tokens: tokens, Answer: a.Answer, Keep: pl.kept[a.Name],
			Chunks: pl.chunks,
		}
		pl.ideal += pl.fresh(tokens)
		pl.known = append(pl.known, tokens)
	}
	samples := make([]Sample, len(questions))
	replies := make([]reply, len(questions))
	errs := make([]error, len(questions))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range questions {
		wg.Go(func() {
			samples[i], replies[i], errs[i] = ask(ctx, pl.rt, pl.zero, stage.Asks[i].Name, questions[i])
			if errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	if err := first(errs); err != nil {
		return nil, err
	}
	for i, a := range stage.Asks {
		pl.answers[a.Name] = replies[i].Answer
		if n := len(replies[i].Answer); n > 0 { // the last token was chosen, not computed
			pl.known = append(pl.known, slices.Concat(questions[i].Tokens, replies[i].Answer[:n-1]))
		}
	}
	return samples, nil
}

// first picks the error that stopped the others.
func first(errs []error) error {
	var found error
	for _, err := range errs {
		if err != nil && (found == nil || infer.KindOf(found) == infer.KindCanceled) {
			found = err
		}
	}
	return found
}

// fresh is how many tokens of a prompt are in no known prefix: at least the last, since its
// logits are needed.
func (pl *player) fresh(tokens []infer.TokenID) int {
	most := 0
	for _, k := range pl.known {
		n := 0
		for n < min(len(k), len(tokens)) && k[n] == tokens[n] {
			n++
		}
		most = max(most, n)
	}
	return max(1, len(tokens)-most)
}

// ask runs one request under a watch and checks that it is the work that was asked for.
func ask(ctx context.Context, rt runtimeUnderTest, zero time.Time, name string, q question) (
	Sample, reply, error,
) {
	w := startWatch(zero, name)
	r, err := rt.Ask(ctx, q, w.tokens)
	s := w.end()
	s.Prompt, s.Computed, s.Cached = len(q.Tokens), r.Computed, r.Cached
	s.Drafted, s.Accepted = r.Drafted, r.Accepted
	if err == nil && (s.Answer != q.Answer || q.Keep && len(r.Answer) != q.Answer ||
		r.Computed < 1 || r.Computed > len(q.Tokens)) {
		err = &Error{Op: "measure", Kind: ErrOutput, Field: name, Err: fmt.Errorf(
			"%d of %d answer tokens, %d of %d prompt tokens computed", s.Answer, q.Answer, r.Computed,
			len(q.Tokens))}
	}
	return s, r, err
}
