package engine

import (
	"cmp"
	"context"
	"errors"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Bounds of drafts.
const (
	draftMax          = 16 // tokens of one draft
	draftEntriesMin   = 1 << 12
	draftEntriesMax   = 1 << 20
	draftTokensFactor = 8 // entries of the table for each token of the context: a quarter may be used
)

// speculation guesses how one answer goes on. Its buffers are used again in every step.
type speculation struct {
	drafter  *llama.Drafter
	adaptive bool
	account  account
	draft    [draftMax]llama.Token
	right    [draftMax]kv.Token        // of the draft
	taken    [1 + draftMax]llama.Token // what a step gave
}

// account is what guessing may cost one request, in steps of one token: what right guesses have
// saved, less what all guesses have cost, and a small share of every token. So an answer that
// repeats nothing takes longer by that share and the stake at most.
type account float64

const (
	accountStake = 2    // a first guess
	accountShare = 0.01 // of each token
	accountMax   = draftMax
)

// length is how many tokens a draft may have when each costs so many steps.
func (a account) length(cost float64) int {
	return int(min(draftMax, max(0, float64(a)/cost)))
}

// settle books a step that computed a draft, of which some tokens were accepted; without a draft
// both are 0.
func (a *account) settle(drafted, accepted int, cost float64) {
	*a += account(accountShare*float64(1+accepted) + float64(accepted) - cost*float64(drafted))
	*a = min(accountMax, *a)
}

// draftOutputs is how many outputs a context of this model keeps for drafts; 0 means that what the
// model computed cannot be taken back, so that none are verified.
func (o *Options) draftOutputs(m llama.ModelInfo) int {
	switch {
	case m.Recurrent || m.Hybrid || m.Window > 0 && o.SmallWindow:
		return 0
	case o.Speculate == "":
		return max(0, outputsMax-o.sequences())
	}
	return max(outputsMax-o.sequences(), draftMax*o.sequences())
}

// readSpeculation prepares guessing where the request or the engine asks for it.
func (g *generation) readSpeculation() error {
	mode := cmp.Or(g.r.Speculate, g.e.speculate, infer.SpeculateOff)
	why := ""
	switch m := g.e.model.Info(); {
	case mode == infer.SpeculateOff:
		return nil
	case g.e.drafts == 0:
		why = "what this model has computed cannot be taken back"
	case m.Window > 0 && g.policy.Evict != nil:
		why = "a window behind tokens that were given up cannot be taken back"
	case g.r.KV.Deterministic:
		// Of 256 positions verified in drafts of 8, those equal bit for bit to single steps were 256 on
		// SmolLM2 Q4_1 and 2 on Gemma 3 Q4_K_M (AVX2, one thread; TestR7Drift): the matrix kernels of
		// some types depend on the number of rows.
		why = "several tokens in one step are rounded in another order than one"
	}
	if why != "" {
		if mode == infer.SpeculateOn {
			return &infer.Error{
				Op: "generate", Kind: infer.KindUnsupported, Field: "speculate",
				Hint: "use adaptive, which goes without", Err: errors.New(why),
			}
		}
		return nil
	}
	d, err := llama.NewDrafter(llama.DrafterParams{
		Max:     draftMax,
		Entries: min(max(draftTokensFactor*g.e.bounded, draftEntriesMin), draftEntriesMax),
	})
	if err != nil {
		return fail("generate", err)
	}
	g.spec = &speculation{
		drafter: d, adaptive: mode == infer.SpeculateAdaptive, account: accountStake,
	}
	tokens := make([]llama.Token, len(g.tokens))
	for i, t := range g.tokens {
		tokens[i] = llama.Token(t)
	}
	return fail("generate", d.Feed(tokens))
}

// guess drafts what may follow the request's pending token. It is no more than the answer may
// have and the books allow without giving anything up.
func (w *worker) guess(g *generation) []llama.Token {
	s := g.spec
	if s == nil || len(g.pending) != 1 {
		return nil
	}
	n := min(draftMax, w.step.spare, w.c.Batch().Room()-1, g.limit-g.usage.CompletionTokens-1)
	if s.adaptive {
		n = min(n, s.account.length(g.group.pace.draftCost(w.step.members)))
	}
	if g.policy.Evict != nil {
		i := w.cells.cache.Sequence(g.seq)
		n = min(n, i.Most-i.Length-1)
	}
	if n <= 0 {
		return nil
	}
	n, err := s.drafter.Draft(s.draft[:n])
	if err != nil {
		return nil // never: the drafter is open
	}
	return s.draft[:n]
}

// verified takes the tokens that a part's picks chose, in order, and lets context and books agree
// on how much of the draft was right.
func (w *worker) verified(p *part) (infer.Finish, error) {
	g, taken, chunk, before := p.g, 0, infer.Chunk{}, p.g.usage.CompletionTokens
	var reason infer.Finish
	var err error
	for i := 0; i <= p.drafts && reason == "" && err == nil; i++ {
		pick := &w.step.picks[p.pick+i]
		if i > 0 && !pick.Made && pick.Err == nil {
			break // the draft was wrong before
		}
		reason, err = g.take(w, pick, &chunk)
		if pick.Made {
			g.next[0] = kv.Token(pick.Token)
			taken++
		}
	}
	g.pending = g.next[:]
	w.e.queue.charge(&g.task, answerWeight*(g.usage.CompletionTokens-before))
	if !g.tellReader(&chunk) {
		err = errors.Join(err, context.Cause(g.ctx))
	}
	if g.spec == nil {
		return reason, err
	}
	return reason, errors.Join(err, w.settleDraft(p, taken))
}

// settleDraft books what a step with so many chosen tokens says of its draft, and takes back what
// was wrong.
func (w *worker) settleDraft(p *part, taken int) error {
	g, s, books := p.g, p.g.spec, w.cells.cache
	accepted := max(0, taken-1)
	for i := range taken {
		s.taken[i] = w.step.picks[p.pick+i].Token
	}
	if s.adaptive {
		s.account.settle(p.drafts, accepted, g.group.pace.draftCost(w.step.members))
	}
	if err := s.drafter.Feed(s.taken[:taken]); err != nil {
		return err
	}
	if p.drafts == 0 {
		return nil
	}
	g.usage.Drafted += p.drafts
	g.usage.Accepted += accepted
	w.totals.Drafted += int64(p.drafts)
	w.totals.Accepted += int64(accepted)
	if err := s.drafter.Accepted(accepted); err != nil {
		return err
	}
	for i := range accepted {
		s.right[i] = kv.Token(s.taken[i])
	}
	if err := books.Append(g.seq, s.right[:accepted]); err != nil {
		return err
	}
	if accepted == p.drafts {
		return nil
	}
	w.rewind(g)
	return nil
}

// rewind takes what the books do not have out of the context. Where that cannot be exact the
// request computes its tokens again.
func (w *worker) rewind(g *generation) {
	books := w.cells.cache
	if w.c.Truncate(llama.Seq(g.seq), llama.Pos(books.Length(g.seq))) == nil {
		return
	}
	held := append([]kv.Token(nil), books.Tokens(g.seq)...)
	w.cells.cold(g.seq)
	g.pending = append(held, g.pending...)
}
