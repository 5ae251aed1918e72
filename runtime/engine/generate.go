package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// chunksAhead is how many chunks the model may be ahead of a slow reader.
const chunksAhead = 32

// generation is one request on its way: prepared by the caller, run by the owner. Who has its task
// frees its sampler and parser: the owner after its run, or the caller that took the task back.
type generation struct {
	e       *Engine
	r       *infer.Request
	ctx     context.Context
	cancel  context.CancelCauseFunc
	task    task
	tokens  []kv.Token
	system  int // how many of them are the system prompt, where somebody wants to know
	limit   int // answer tokens
	policy  kv.Policy
	public  int // tokens of the prompt that are no secret
	set     *adapterSet
	sampler *llama.Sampler
	parser  *llama.ChatParser // nil: the text is the content
	shown   map[llama.Token]bool
	text    *textStream
	spec    *speculation     // nil: nothing is guessed
	begun   chan struct{}    // closed when the owner begins
	out     chan infer.Chunk // closed by the owner, or by the reader when it took the task back
	final   infer.Chunk      // closes the answer; read after out is closed
	err     error            // in its place

	notes   []string        // for the end of the answer
	answer  strings.Builder // content so far, when there is no parser
	told    infer.Message   // what the chunks add up to, when there is one
	unread  string          // text that the parser has not been given
	read    int             // bytes that it has
	usage   infer.Usage
	unsent  int // tokens whose chunk had nothing to show
	begunAt time.Time
	firstAt time.Time
	lastAt  time.Time
	special []byte // scratch of spell

	// The owner's.
	unwatch func() bool // lets the end of ctx no longer interrupt
	seq     kv.Seq      // NoSeq while it waits or is parked
	group   *group      // while it has a sequence
	pending []kv.Token  // to be computed next: of the prompt, or the token that was chosen last
	next    [1]kv.Token // holds pending while the answer streams
	blob    kv.BlobID   // of a parked one
	held    []kv.Token  // that it had in its cells
	tried   uint64      // as task.tried, while parked
	stalled bool        // when last looked at, the reader was behind
	behind  atomic.Bool // the reader is: the owner waits for it
}

// Generate implements infer.Backend.
func (e *Engine) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		how := string(infer.KindCanceled) // the reader left
		defer func() { e.ends.add(how) }()
		request := r // a second run of the sequence draws its own seed
		g, err := e.prepare(ctx, &request)
		if err != nil {
			err = fail("generate", err)
			how = howEnded(err)
			yield(infer.Chunk{}, err)
			return
		}
		defer g.finish()
		if err := g.submit(); err != nil {
			how = howEnded(err)
			yield(infer.Chunk{}, err)
			return
		}
		for c := range g.out {
			if g.behind.Load() {
				g.e.queue.signal()
			}
			if !yield(c, nil) {
				return
			}
		}
		if how = howEnded(g.err); g.err == nil {
			how = string(g.final.Final.Reason)
		}
		yield(g.final, g.err)
	}
}

// submit queues the generation and waits until the owner has begun. An error means that it never
// will.
func (g *generation) submit() error {
	g.task.ctx, g.task.begin, g.task.priority = g.ctx, g.begin, g.r.Priority
	g.task.tenant = tenant{g.r.KV.Scope, g.r.KV.Salt}
	q := g.e.queue
	if err := q.push(&g.task); err != nil {
		g.free()
		close(g.out)
		return err
	}
	select {
	case <-g.begun:
		return nil
	case <-g.ctx.Done():
		if !q.claim(&g.task) {
			return nil
		}
		g.free()
		close(g.out)
		return ended("generate", g.ctx)
	}
}

// prepare does all that needs no context, on the caller's goroutine. What it returns is inside the
// queue until free.
func (e *Engine) prepare(ctx context.Context, r *infer.Request) (*generation, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := e.queue.enter(); err != nil {
		return nil, err
	}
	g := &generation{
		e: e, r: r, told: infer.Message{Role: infer.RoleAssistant},
		begun: make(chan struct{}), out: make(chan infer.Chunk, chunksAhead), seq: kv.NoSeq,
	}
	if err := g.prepare(ctx); err != nil {
		g.free()
		return nil, err
	}
	g.ctx, g.cancel = e.bind(ctx, r.Deadline)
	return g, nil
}

func (g *generation) prepare(ctx context.Context) error {
	e, r := g.e, g.r
	if ctx.Err() != nil {
		return ended("generate", ctx)
	}
	if err := e.able(r); err != nil {
		return err
	}
	p := samplerParams(&r.Sampling, e.bounded)
	p.IgnoreEOS = r.IgnoreEOS
	if p.Seed == 0 || p.Seed == math.MaxUint32 {
		p.Seed = drawSeed()
	}
	stops := slices.Clone(r.Stop)
	if err := g.readPrompt(&p, &stops); err != nil {
		return err
	}
	var err error
	if g.set, err = e.readAdapters(r.Adapters); err != nil {
		return err
	}
	if err := g.readPolicy(); err != nil {
		return err
	}
	if err := g.fit(); err != nil {
		return err
	}
	if g.sampler, err = e.model.NewSampler(p); err != nil {
		return fail("generate", err)
	}
	if looksBack(&p) {
		for _, t := range g.tokens {
			if err := g.sampler.Accept(llama.Token(t), false); err != nil {
				return fail("generate", err)
			}
		}
	}
	g.r.Sampling.Seed = p.Seed
	g.text = newTextStream(stops)
	return g.readSpeculation()
}

// able refuses what this model or this engine cannot do.
func (e *Engine) able(r *infer.Request) error {
	if !e.info.Abilities.Generate {
		return &infer.Error{
			Op: "generate", Kind: infer.KindUnsupported, Hint: "use it for embeddings",
			Err: errors.New("this model does not generate text"),
		}
	}
	for id := range r.Sampling.LogitBias {
		if int(id) >= e.info.Vocabulary {
			return &infer.Error{
				Op: "generate", Kind: infer.KindInvalid, Field: "logit_bias",
				Err: fmt.Errorf("token %d is outside the vocabulary", id),
			}
		}
	}
	return nil
}

// fit refuses a prompt and answer that the context has no room for.
func (g *generation) fit() error {
	n, room := len(g.tokens), g.e.bounded
	g.limit = g.r.MaxTokens
	switch {
	case g.limit == 0 && g.policy.Evict != nil:
		g.limit = infer.TokensMax
	case g.limit == 0:
		g.limit = max(room-n, 1)
	}
	if n == 0 {
		return &infer.Error{
			Op: "generate", Kind: infer.KindInvalid, Field: "prompt",
			Err: errors.New("it has no tokens"),
		}
	}
	if n >= room && g.r.MaxTokens != room-n || n+g.limit > room && g.policy.Evict == nil {
		return g.tooLong(n)
	}
	return nil
}

func (g *generation) tooLong(tokens int) error {
	return &infer.Error{
		Op: "generate", Kind: infer.KindTooLong, Field: "prompt",
		Hint: "use a larger context (--ctx), a shorter prompt or fewer answer tokens",
		Err: fmt.Errorf("%d prompt tokens and %d answer tokens exceed the context of %d",
			tokens, max(g.limit, g.r.MaxTokens, 1), g.e.bounded),
	}
}

// finish ends a generation from the reader's side: it stops the owner and waits until it lets go.
func (g *generation) finish() {
	g.cancel(context.Canceled)
	for range g.out { //nolint:revive // the owner closes it
	}
}

// free frees what was prepared.
func (g *generation) free() {
	defer g.e.queue.leave()
	var err error
	if g.sampler != nil {
		err = g.sampler.Close()
	}
	if g.parser != nil {
		err = errors.Join(err, g.parser.Close())
	}
	if g.spec != nil {
		err = errors.Join(err, g.spec.drafter.Close())
	}
	if err != nil {
		g.e.log.Error("a generation was not freed", "error", err)
	}
}

// begin is the owner's first part: it finds room for the request, and what can be used again.
func (g *generation) begin(w *worker) bool {
	books := w.cells.cache
	g.task.waits = false
	if !g.policy.NoReuse {
		if _, n := books.Soon(g.key(), g.tokens); n > 0 {
			g.task.waits = true
			return false
		}
	}
	a, err := books.Begin(g.kvRequest(g.tokens))
	if errors.Is(err, kv.ErrNoRoom) {
		return false
	}
	if !g.e.queue.claim(&g.task) {
		if err == nil {
			w.cells.abandon(a)
		}
		return true
	}
	close(g.begun)
	g.begunAt = time.Now()
	g.usage.Timings.Queue = g.begunAt.Sub(g.task.submitted)
	g.usage.PromptTokens = len(g.tokens)
	if err != nil {
		w.finish(g, nil, fail("generate", err))
		return true
	}
	g.unwatch = context.AfterFunc(g.ctx, func() { w.interrupt(g) })
	g.pending = g.tokens[a.Reused:]
	g.e.queue.charge(&g.task, promptWeight*len(g.pending))
	w.start(g, a, g.tokens)
	return true
}

// full says that the reader is so far behind that the next step could block on it. Then the reader
// wakes the owner.
func (g *generation) full() bool {
	const most = 2 // chunks of a step: of its tokens, and of the answer's end
	if cap(g.out)-len(g.out) >= most {
		return false
	}
	g.behind.Store(true)
	if cap(g.out)-len(g.out) < most {
		return true
	}
	g.behind.Store(false)
	return false
}

// clock records when a token came.
func (g *generation) clock() {
	now := time.Now()
	t := &g.usage.Timings
	if g.firstAt.IsZero() {
		g.firstAt = now
		t.Prefill, t.TTFT = now.Sub(g.begunAt), now.Sub(g.task.submitted)
	} else {
		t.ITLMax = max(t.ITLMax, now.Sub(g.lastAt))
		t.Decode = now.Sub(g.firstAt)
	}
	g.lastAt = now
}

// take adds one chosen token to the chunk of its step. A non-empty reason ends the answer.
func (g *generation) take(w *worker, p *llama.Pick, chunk *infer.Chunk) (infer.Finish, error) {
	if p.Err != nil {
		if g.r.IgnoreEOS && g.usage.CompletionTokens > 0 && errors.Is(p.Err, llama.BadGrammar) {
			return infer.FinishStop, nil // the grammar has come to its end
		}
		return "", p.Err
	}
	g.clock()
	g.usage.CompletionTokens++
	w.totals.Answered++
	g.unsent++
	if g.r.Logprobs {
		lp, err := g.logprob(w, p)
		if err != nil {
			return "", err
		}
		chunk.Logprobs = append(chunk.Logprobs, lp)
	}
	reason := infer.Finish("")
	if p.EOG {
		reason = infer.FinishStop
	} else if g.usage.CompletionTokens == g.limit {
		reason = infer.FinishLength
	}
	if !p.EOG || g.shown[p.Token] || g.r.SpecialText && g.parser == nil {
		text, met := g.text.push(g.spell(p))
		if met {
			reason = infer.FinishStop
		}
		shown := infer.Chunk{}
		if err := g.show(&shown, text); err != nil {
			return "", err
		}
		addTo(chunk, &shown)
	}
	return reason, nil
}

// tellReader sends the chunk of a step if it has something to show; false as for send.
func (g *generation) tellReader(chunk *infer.Chunk) bool {
	if chunk.Text == "" && chunk.Reasoning == "" && len(chunk.ToolCalls) == 0 &&
		len(chunk.Logprobs) == 0 {
		return true
	}
	chunk.Tokens, g.unsent = g.unsent, 0
	return g.send(*chunk)
}

// send hands a chunk to the reader; false means that the request has ended while the reader was
// too slow.
func (g *generation) send(c infer.Chunk) bool {
	select {
	case g.out <- c:
		return true
	case <-g.ctx.Done():
		return false
	}
}

// logprob asks for the probability of the chosen token and of its rivals.
func (g *generation) logprob(w *worker, p *llama.Pick) (infer.Logprob, error) {
	top := make([]llama.TopLogprob, min(g.r.TopLogprobs, g.e.info.Vocabulary))
	lp, err := w.c.Logprobs(p.Place, p.Token, top)
	if err != nil {
		return infer.Logprob{}, err
	}
	return g.e.logprobs(p.Token, lp, top)
}

// logprobs spells a token and its rivals.
func (e *Engine) logprobs(t llama.Token, lp float32, top []llama.TopLogprob) (
	infer.Logprob, error,
) {
	text, err := e.model.AppendPiece(nil, t, true)
	if err != nil {
		return infer.Logprob{}, err
	}
	out := infer.Logprob{Token: infer.Token{ID: infer.TokenID(t), Text: text}, Logprob: lp}
	for _, rival := range top {
		text, err := e.model.AppendPiece(nil, rival.Token, true)
		if err != nil {
			return infer.Logprob{}, err
		}
		out.Top = append(out.Top, infer.Logprob{
			Token: infer.Token{ID: infer.TokenID(rival.Token), Text: text}, Logprob: rival.Logprob,
		})
	}
	return out, nil
}
