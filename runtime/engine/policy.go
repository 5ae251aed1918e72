package engine

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// detBlock is the granularity at which deterministic requests reuse prefixes: a multiple of the
// rows that matrix kernels compute together, so that every row is computed in the same company as
// in a cold run.
const detBlock = 64

// booked gives tokens as the books keep them.
func booked(tokens []llama.Token) []kv.Token {
	out := make([]kv.Token, len(tokens))
	for i, t := range tokens {
		out[i] = kv.Token(t)
	}
	return out
}

// key says with whom the request shares prefixes.
func (g *generation) key() kv.Key {
	k := g.e.key
	k.Adapters = g.set.key
	k.Scope, k.Salt, k.PublicTokens = g.r.KV.Scope, g.r.KV.Salt, g.public
	if g.r.KV.Deterministic {
		k.Adapters += " deterministic"
	}
	return k
}

// kvRequest asks for a sequence that holds tokens and what is left of the answer.
func (g *generation) kvRequest(tokens []kv.Token) kv.Request {
	r := kv.Request{
		Key: g.key(), Tokens: tokens, Policy: g.policy, System: g.system,
		Limit: min(len(g.tokens)+g.limit, g.e.bounded),
	}
	if g.public > 0 { // others branch off there
		r.Marks = []int{g.public}
	}
	if g.r.KV.Deterministic {
		r.Align, r.Exact = detBlock, len(g.tokens)
	}
	return r
}

// readPublic reads how many tokens the request declares as public.
func (g *generation) readPublic() error {
	g.public = g.r.KV.PublicTokens
	if g.r.KV.PublicSystem {
		g.public = g.system
	}
	if g.public > len(g.tokens) {
		return &infer.Error{
			Op: "generate", Kind: infer.KindInvalid, Field: "kv.public_tokens",
			Hint: "name no more than the prompt has",
			Err:  fmt.Errorf("%d of %d tokens", g.public, len(g.tokens)),
		}
	}
	return nil
}

// whole is how many tokens a deterministic request computes at a time, from its prompt alone: whole
// blocks, then what is left of the prompt, then one by one what it has answered, if that has to be
// computed again. So every token is computed in the same company whatever was there already.
func (g *generation) whole(at, micro int) int {
	n := len(g.tokens)
	blocks := (n - 1) / detBlock * detBlock
	switch {
	case at >= n:
		return 1
	case at >= blocks:
		return n - at
	case micro >= detBlock:
		micro -= micro % detBlock
	default: // a power of two divides a block
		micro = 1 << (bits.Len(uint(micro)) - 1)
	}
	return min(micro-at%micro, blocks-at)
}

// readPolicy turns the request's policy into that of the books.
func (g *generation) readPolicy() error {
	p := g.r.KV
	g.policy = kv.Policy{NoReuse: p.NoReuse, Recompute: p.Recompute, Evict: g.e.evict}
	switch p.Evict {
	case "":
	case "refuse":
		g.policy.Evict = nil
	case "sink-window":
		g.policy.Evict = kv.SinkWindow{Sinks: p.Sinks, Window: p.Window, Block: p.Block}
	case "keep-system":
		g.policy.Evict = kv.KeepSystem{Block: p.Block}
	case "middle-out":
		g.policy.Evict = kv.MiddleOut{Block: p.Block}
	default:
		own, ok := g.e.evictors[p.Evict]
		if !ok {
			names := []string{"refuse", "sink-window", "keep-system", "middle-out"}
			for name := range g.e.evictors {
				names = append(names, name)
			}
			slices.Sort(names)
			return &infer.Error{
				Op: "generate", Kind: infer.KindInvalid, Field: "kv.evict",
				Hint: fmt.Sprintf("use one of %v", names), Err: fmt.Errorf("unknown %.40q", p.Evict),
			}
		}
		g.policy.Evict = own
	}
	if p.ReuseChunks > 0 {
		g.policy.Reuse = kv.ChunkReuse{MinTokens: p.ReuseChunks}
	}
	if p.Deterministic {
		if err := g.deterministic(); err != nil {
			return err
		}
	}
	if err := g.policy.Validate(); err != nil {
		return fail("generate", err)
	}
	if err := g.readSystem(); err != nil {
		return err
	}
	return g.readPublic()
}

// readSystem counts the tokens of the system prompt for those who want to know: policies that keep
// it, requests that declare it public, and models of which a state can be cut only where a
// checkpoint is. It takes a rendering.
func (g *generation) readSystem() (err error) {
	keeps := false
	switch g.policy.Evict.(type) {
	case kv.KeepSystem, kv.MiddleOut:
		keeps = true
	}
	wanted := keeps || g.r.KV.PublicSystem
	if !wanted && !g.e.checkpoints {
		return nil
	}
	g.system, err = g.systemTokens()
	switch {
	case err == nil && keeps:
		g.policy.Evict = keeping{g.policy.Evict, g.system}
	case err != nil && !wanted: // a template that wants more of a conversation: a checkpoint less
		g.e.log.Debug("the end of the system prompt is not known", "error", infer.KindOf(err))
		return nil
	}
	return err
}

// restorable says whether what the request has computed, so many tokens, can be saved and restored
// as it was. A saved state leaves out what the window has passed; what is left lies in other cells
// then, and the processor's attention sums it in another order.
func (g *generation) restorable(tokens int) bool {
	window := g.e.model.Info().Window
	return !g.r.KV.Deterministic || window == 0 || tokens <= window
}

// keeping tells a policy that never gives up the system prompt how many tokens that has.
type keeping struct {
	kv.Evictor
	system int
}

// Evict asks the policy.
func (k keeping) Evict(v kv.View) ([]kv.Span, error) {
	v.System = min(k.system, v.Prompt)
	return k.Evictor.Evict(v)
}

// deterministic refuses what cannot be the same every time.
func (g *generation) deterministic() error {
	refuse := func(field, hint, why string) error {
		return &infer.Error{
			Op: "generate", Kind: infer.KindUnsupported, Field: field, Hint: hint,
			Err: errors.New("not in a deterministic request: " + why),
		}
	}
	switch {
	case g.e.shared:
		return refuse("kv.deterministic", "open the engine with the streams layout",
			"in a shared buffer the result depends on what else is in it")
	case g.policy.Evict != nil:
		return refuse("kv.evict", "use refuse", "what was given up depends on what was reused")
	case g.policy.Reuse != nil:
		return refuse("kv.reuse_chunks", "leave it out", "moved tokens are approximate")
	}
	if g.e.model.Info().Window > 0 {
		g.policy.NoReuse = true // a restored window lies in other cells: close, not equal
	}
	return nil
}
