package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

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
	tokens  []llama.Token
	limit   int // answer tokens
	sampler *llama.Sampler
	parser  *llama.ChatParser // nil: the text is the content
	shown   map[llama.Token]bool
	text    *textStream
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
	firstAt time.Time
	lastAt  time.Time
	special []byte // scratch of spell
}

// Generate implements infer.Backend.
func (e *Engine) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		request := r // a second run of the sequence draws its own seed
		g, err := e.prepare(ctx, &request)
		if err != nil {
			yield(infer.Chunk{}, fail("generate", err))
			return
		}
		defer g.finish()
		if err := g.submit(); err != nil {
			yield(infer.Chunk{}, err)
			return
		}
		for c := range g.out {
			if !yield(c, nil) {
				return
			}
		}
		yield(g.final, g.err)
	}
}

// submit queues the generation and waits until the owner has begun. An error means that it never
// will.
func (g *generation) submit() error {
	g.task.ctx, g.task.run, g.task.priority = g.ctx, g.run, g.r.Priority
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
		if !q.takeBack(&g.task) {
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
		begun: make(chan struct{}), out: make(chan infer.Chunk, chunksAhead),
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
	if err := g.fit(); err != nil {
		return err
	}
	var err error
	if g.sampler, err = e.model.NewSampler(p); err != nil {
		return fail("generate", err)
	}
	if looksBack(&p) {
		for _, t := range g.tokens {
			if err := g.sampler.Accept(t, false); err != nil {
				return fail("generate", err)
			}
		}
	}
	g.r.Sampling.Seed = p.Seed
	g.text = newTextStream(stops)
	return nil
}

// able refuses what this model or this engine cannot do.
func (e *Engine) able(r *infer.Request) error {
	if !e.info.Abilities.Generate {
		return &infer.Error{
			Op: "generate", Kind: infer.KindUnsupported, Hint: "use it for embeddings",
			Err: errors.New("this model does not generate text"),
		}
	}
	if r.KV.Scope != "" || r.KV.Deterministic {
		return &infer.Error{
			Op: "generate", Kind: infer.KindUnsupported, Field: "kv",
			Err: errors.New("scopes and deterministic mode are not there yet"),
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
	if g.limit == 0 {
		g.limit = max(room-n, 1)
	}
	if n == 0 {
		return &infer.Error{
			Op: "generate", Kind: infer.KindInvalid, Field: "prompt",
			Err: errors.New("it has no tokens"),
		}
	}
	if n+g.limit > room {
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
	if err != nil {
		g.e.log.Error("a generation was not freed", "error", err)
	}
}

// run is the owner's part: prompt, then token after token, then the end.
func (g *generation) run(w *worker) {
	defer close(g.out)
	defer g.free()
	close(g.begun)
	g.usage.Timings.Queue = time.Since(g.task.submitted)
	stop := w.abortOn(g.ctx)
	final, err := g.steps(w)
	stop()
	if err == nil {
		g.final = infer.Chunk{Final: final, Tokens: g.unsent}
		return
	}
	w.resync()
	if g.ctx.Err() != nil {
		err = ended("generate", g.ctx)
	}
	g.err = fail("generate", err)
}

// steps runs the model until the answer ends.
func (g *generation) steps(w *worker) (*infer.Final, error) {
	begin := time.Now()
	reused := 0
	if g.ctx.Err() != nil { // before the cache is cut for nothing
		return nil, context.Cause(g.ctx)
	}
	if g.r.KV.NoReuse {
		w.forget()
	} else {
		reused = w.reuse(g.tokens)
	}
	fresh, base := g.tokens[reused:], len(w.cached)
	picks := []llama.Pick{{Sampler: g.sampler, Special: g.r.SpecialText}}
	pick := &picks[0]
	var err error
	if pick.Place, err = w.feed(g.ctx, fresh, true); err != nil {
		return nil, err
	}
	g.usage.PromptTokens, g.usage.Cached.Live = len(g.tokens), reused
	for {
		if g.ctx.Err() != nil {
			return nil, context.Cause(g.ctx)
		}
		err := w.c.Step(picks)
		if err == nil {
			err = pick.Err
		}
		if err != nil {
			if g.r.IgnoreEOS && g.usage.CompletionTokens > 0 && errors.Is(err, llama.BadGrammar) {
				w.resync()
				return g.conclude(infer.FinishStop, nil) // the grammar has come to its end
			}
			return nil, err
		}
		if g.usage.CompletionTokens == 0 {
			w.keep(fresh, base)
		} else {
			w.cached = append(w.cached, w.next)
		}
		g.clock(begin)
		if reason, err := g.take(w, pick); err != nil || reason != "" {
			return g.conclude(reason, err)
		}
		w.next = pick.Token
		b := w.c.Batch()
		pick.Place, err = b.Add(pick.Token, llama.Pos(len(w.cached)), 0, true)
		if err != nil {
			return nil, err
		}
	}
}

// clock records when a token came.
func (g *generation) clock(begin time.Time) {
	now := time.Now()
	t := &g.usage.Timings
	if g.firstAt.IsZero() {
		g.firstAt = now
		t.Prefill, t.TTFT = now.Sub(begin), now.Sub(g.task.submitted)
	} else {
		t.ITLMax = max(t.ITLMax, now.Sub(g.lastAt))
		t.Decode = now.Sub(g.firstAt)
	}
	g.lastAt = now
}

// take handles one chosen token. A non-empty reason ends the answer.
func (g *generation) take(w *worker, p *llama.Pick) (infer.Finish, error) {
	g.usage.CompletionTokens++
	g.unsent++
	chunk := infer.Chunk{}
	if g.r.Logprobs {
		lp, err := g.logprob(w, p)
		if err != nil {
			return "", err
		}
		chunk.Logprobs = []infer.Logprob{lp}
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
		if err := g.show(&chunk, text); err != nil {
			return "", err
		}
	}
	if chunk.Text == "" && chunk.Reasoning == "" && len(chunk.ToolCalls) == 0 &&
		len(chunk.Logprobs) == 0 {
		return reason, nil
	}
	chunk.Tokens, g.unsent = g.unsent, 0
	if !g.send(chunk) {
		return "", context.Cause(g.ctx)
	}
	return reason, nil
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
