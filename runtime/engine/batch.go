package engine

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/llama"
)

// stepState is one step in the making. Its slices are used again.
type stepState struct {
	parts     []part
	picks     []llama.Pick
	prompts   []*generation // scratch of fillShared
	group     *group        // whose step it is
	members   int           // of it, that run
	streams   int           // sequences that got their next token
	prefill   int           // tokens of prompts
	before    float64       // tokens that those attend to, summed over them
	drafted   int           // tokens that were guessed
	spare     int           // outputs left for guesses
	switched  bool          // other adapters came to apply
	moved     bool          // something else changed, so that the next look may find more
	turn      int           // counts the steps that were made up
	contested int           // counts those in which several prompts wait, up to promptShare
}

// part is what one request has in a step.
type part struct {
	g    *generation
	n    int // tokens
	pick int // of the token that follows them, -1 for none
	// drafts is how many guesses follow; a pick for each comes behind pick.
	drafts int
}

// advance computes one step. False means that there is nothing to compute.
func (w *worker) advance() bool {
	s := &w.step
	w.c.Batch().Reset()
	s.parts, s.picks, s.streams, s.prefill, s.moved = s.parts[:0], s.picks[:0], 0, 0, false
	s.drafted, s.switched, s.before = 0, false, 0
	s.spare = min(w.e.drafts, w.c.Info().MicroBatch-len(w.running))
	w.fill()
	if len(s.parts) == 0 {
		return s.moved
	}
	if len(s.parts) == 1 {
		w.alone(s.parts[0].g)
	}
	threads := w.threads.now(s.group.alone != nil)
	before := taken()
	begin := time.Now()
	err := w.compute(threads)
	w.alone(nil)
	w.totals.Steps++
	if err != nil {
		w.failed(err)
		return true
	}
	took := time.Since(begin)
	s.group.pace.note(took, s.streams, s.prefill, s.drafted, s.before)
	if s.prefill+s.drafted == 0 && !s.switched && s.group.alone == nil {
		w.threads.note(begin.Add(took), s.streams, took, taken() > before)
	}
	w.measure(took)
	for i := range s.parts {
		w.computed(&s.parts[i])
	}
	return true
}

// compute runs the step with so many threads; 0 leaves them as they are.
func (w *worker) compute(threads int) error {
	if g := w.solo; g != nil && g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	if err := w.adapt(w.step.group.set); err != nil {
		return err
	}
	if threads > 0 && threads != w.c.Info().Threads {
		if err := w.c.SetThreads(threads, w.threads.forBatch(threads)); err != nil {
			return err
		}
	}
	if len(w.step.picks) == 0 {
		return w.c.Decode()
	}
	return w.c.Step(w.step.picks)
}

// fill chooses the group whose turn it is, and what the step computes of it. Where that finds no
// room, the next one may.
func (w *worker) fill() {
	s := &w.step
	s.turn++
	for len(s.parts) == 0 && !s.moved {
		next := nextGroup(w.running, s.turn)
		if next == nil {
			return
		}
		next.turn = s.turn
		s.group, s.members = next, w.members(next)
		if g := next.alone; g != nil {
			w.add(g, g.whole(w.cells.cache.Length(g.seq), w.c.Info().MicroBatch))
		} else {
			w.fillShared()
		}
	}
}

// fillShared computes the next token of every answer of the group, then as much of the prompts as
// the pace allows.
func (w *worker) fillShared() {
	s := &w.step
	takes := func(g *generation) bool { return g.group == s.group && !g.full() }
	for i := 0; i < len(w.running); i++ {
		if g := w.running[i]; takes(g) && len(g.pending) == 1 {
			s.streams += w.add(g, 1)
		}
	}
	s.prompts = s.prompts[:0]
	for _, g := range w.running {
		if takes(g) && len(g.pending) > 1 {
			s.prompts = append(s.prompts, g)
		}
	}
	w.orderPrompts()
	room := min(w.c.Info().MicroBatch, w.c.Batch().Room())
	if s.streams > 0 {
		room = min(room, w.chunk())
	}
	for _, g := range s.prompts {
		if g.seq == kv.NoSeq {
			continue // parked or ended, for the room of another
		}
		at := float64(w.cells.cache.Length(g.seq))
		n := w.add(g, room)
		room -= n
		s.prefill += n
		s.before += float64(n) * (at + float64(n)/2)
	}
}

// promptShare: in one step of so many, the prompt that was admitted first comes first.
const promptShare = 4

// orderPrompts puts the prompt with the fewest tokens left first, as the mean time to the first
// token is then the least; now and then the one that was admitted first, so that none waits for
// ever.
func (w *worker) orderPrompts() {
	s := &w.step
	if s.contested++; len(s.prompts) < 2 {
		s.contested = 0
	}
	rest := s.prompts
	if s.contested == promptShare {
		s.contested, rest = 0, rest[1:]
	}
	slices.SortStableFunc(rest, func(a, b *generation) int {
		return cmp.Compare(len(a.pending), len(b.pending))
	})
}

// chunk is how many tokens of prompts may come with a step of answers. What would be left for less
// than a tile comes, too.
func (w *worker) chunk() int {
	if len(w.step.prompts) == 0 {
		return 0
	}
	all := 0
	for _, g := range w.step.prompts {
		all += len(g.pending)
	}
	n := w.step.group.pace.chunk(w.cells.cache.Length(w.step.prompts[0].seq))
	switch {
	case n >= chunkTile && all < n+chunkTile:
		return all
	case n >= chunkTile && !w.e.shared:
		n++ // llama.cpp takes one token of each stream first, and then what is left of this one
	}
	return n
}

// add gives a request up to n tokens in the step, and guesses behind the last one. It returns how
// many it got, without the guesses.
func (w *worker) add(g *generation, n int) int {
	s, books := &w.step, w.cells.cache
	if n = min(n, len(g.pending), w.c.Batch().Room(), w.bite(g)); n == 0 {
		return 0
	}
	stop := books.NextCheckpoint(g.seq) - books.Length(g.seq)
	if stop > 0 && !g.r.KV.Deterministic {
		n = min(n, stop)
	}
	draft := w.guess(g)
	plan, err := books.Reserve(g.seq, n+len(draft))
	if err != nil && len(draft) > 0 {
		draft = nil
		plan, err = books.Reserve(g.seq, n)
	}
	if err != nil {
		w.starved(g, err)
		return 0
	}
	if !w.apply(g, plan) {
		s.moved = true
		return 0
	}
	p, base := part{g: g, n: n, pick: -1, drafts: len(draft)}, llama.Pos(books.Length(g.seq))
	for i, t := range g.pending[:n] {
		if !w.place(g, &p, llama.Token(t), base+llama.Pos(i), i == len(g.pending)-1) {
			return 0
		}
	}
	for i, t := range draft {
		if !w.place(g, &p, t, base+llama.Pos(n+i), true) {
			return 0
		}
	}
	s.spare -= len(draft)
	s.drafted += len(draft)
	s.parts = append(s.parts, p)
	return n
}

// place puts one token of a part into the batch, with a pick if its follower is wanted.
func (w *worker) place(g *generation, p *part, t llama.Token, pos llama.Pos, pick bool) bool {
	s := &w.step
	place, err := w.c.Batch().Add(t, pos, llama.Seq(g.seq), pick)
	if err != nil {
		w.finish(g, nil, fail("generate", err)) // never: there was room
		return false
	}
	if pick {
		follows := p.pick >= 0
		if !follows {
			p.pick = len(s.picks)
		}
		s.picks = append(s.picks, llama.Pick{
			Sampler: g.sampler, Place: place, Special: g.r.SpecialText, Follows: follows,
		})
	}
	return true
}

// bite is how many tokens a request may have in one step: one whose policy gives up tokens takes
// first what it has room for, and then a little at a time, so that it gives up no more than that.
func (w *worker) bite(g *generation) int {
	if g.policy.Evict == nil {
		return math.MaxInt
	}
	info := w.cells.cache.Sequence(g.seq)
	if room := info.Most - info.Length; room > 0 {
		return room
	}
	const most = 8 // parts of what it may hold
	return max(1, info.Most/most)
}

// apply does what a plan says. False means that tokens have to be computed again first.
func (w *worker) apply(g *generation, plan kv.Plan) bool {
	g.usage.Evicted += plan.Dropped
	w.totals.Evicted += int64(plan.Dropped)
	again := plan.Again
	if len(plan.Ops) > 0 {
		held := append([]kv.Token(nil), w.cells.cache.Tokens(g.seq)...)
		if err := w.cells.run(plan.Ops); err != nil {
			w.e.log.Warn("a sequence is computed again", "error", err)
			w.cells.cold(g.seq)
			again = append(held, again...)
		}
	}
	if len(again) == 0 {
		return true
	}
	g.pending = slices.Concat(again, g.pending)
	return false
}

// starved handles a request that finds no cells for its next tokens: it waits for the others, who
// end or can be parked, and fails when there are none.
func (w *worker) starved(g *generation, err error) {
	if !errors.Is(err, kv.ErrNoRoom) {
		if errors.Is(err, kv.ErrTooLong) {
			err = g.tooLong(len(g.tokens))
		}
		w.finish(g, nil, fail("generate", err))
		w.step.moved = true
		return
	}
	if len(w.running) > 1 {
		last := w.running[len(w.running)-1]
		if !w.inStep(last) && w.park(last) {
			w.step.moved = true
		}
		return
	}
	if !w.makeRoom(g.r.Priority) && len(w.step.parts) == 0 {
		w.finish(g, nil, g.tooLong(len(g.tokens)))
	}
	w.step.moved = true
}

func (w *worker) inStep(g *generation) bool {
	return slices.ContainsFunc(w.step.parts, func(p part) bool { return p.g == g })
}

// computed takes the result of one part: tokens that are now in the cache, and the next one.
func (w *worker) computed(p *part) {
	g, books := p.g, w.cells.cache
	mark := books.NextCheckpoint(g.seq)
	if err := books.Append(g.seq, g.pending[:p.n]); err != nil {
		w.finish(g, nil, fail("generate", err))
		return
	}
	if g.usage.CompletionTokens == 0 {
		g.usage.Computed += p.n
		w.totals.Computed += int64(p.n)
	}
	g.pending = g.pending[p.n:]
	if mark > 0 && mark == books.Length(g.seq) {
		if err := w.cells.run(books.Checkpoint(g.seq)); err != nil {
			w.e.log.Warn("no checkpoint was taken", "error", err)
		}
	}
	if p.pick < 0 {
		return
	}
	reason, err := w.verified(p)
	switch {
	case err != nil && g.ctx.Err() != nil:
		w.finish(g, nil, ended("generate", g.ctx))
	case err != nil:
		w.finish(g, nil, fail("generate", err))
	case reason != "":
		final, err := g.conclude(reason)
		w.finish(g, final, fail("generate", err))
	}
}

// failed ends the requests of a step that failed, and makes the books right again.
func (w *worker) failed(err error) {
	s := &w.step
	for _, p := range s.parts {
		g := p.g
		again := w.cells.settle(g.seq)
		g.pending = slices.Concat(again, g.pending)
		if g.ctx.Err() != nil {
			w.finish(g, nil, ended("generate", g.ctx))
			continue
		}
		if errors.Is(err, llama.Canceled) {
			continue // another request's end came too late to be told apart: nothing is lost
		}
		w.finish(g, nil, fail("generate", err))
	}
}
