package llama

// Pick is one choice of a Step, with its own result.
type Pick struct {
	Sampler *Sampler // chooses the token and accepts it
	Place   int      // of the batch, with output set
	Special bool     // spell control tokens in Piece
	// Follows makes the pick only when the one before it chose the token at this Place, and that
	// is no end: so a run of picks verifies a draft, and its samplers accept no token that was
	// not chosen. The pick before must have the same sampler, one position earlier.
	Follows bool

	Made  bool   // a token was chosen and accepted; else it failed, or there was nothing to follow
	Token Token  // chosen
	EOG   bool   // it ends the generation
	Piece []byte // its bytes; owned by the context and valid until the next Step
	// Err says why this pick failed, an *Error: BadGrammar when a constraint leaves nothing to
	// choose. The other picks and the cache are as if it had not been asked for.
	Err error
}

// Step decodes the batch, then samples and spells a token for each pick, in order and in one
// crossing. It empties the batch and allocates nothing. The error is that of the decode, as in
// Decode, or Invalid; without one each pick tells its own fate.
func (c *Context) Step(picks []Pick) error {
	const op = "step"
	if len(picks) > c.params.Outputs {
		return fail(op, Invalid, "raise ContextParams.Outputs", "%d picks, at most %d",
			len(picks), c.params.Outputs)
	}
	for i := range picks {
		if err := c.checkPick(op, picks, i); err != nil {
			return err
		}
	}
	for i := range picks {
		if err := picks[i].Sampler.enter(op); err != nil {
			leaveAll(picks[:i])
			return err
		}
	}
	defer leaveAll(picks)
	if err := c.ready(op); err != nil {
		return err
	}
	defer c.leave()
	return c.computed(step(c.h, c.model.h, c.batch.n, picks))
}

// checkPick refuses a pick that has nothing to choose from.
func (c *Context) checkPick(op string, picks []Pick, i int) error {
	p, a := &picks[i], &c.batch.arrays
	if p.Place < 0 || p.Place >= c.batch.n || a.output[p.Place] == 0 {
		return fail(op, Invalid, "add it with output", "place %d has no output", p.Place)
	}
	if p.Sampler == nil || p.Sampler.model != c.model {
		return fail(op, Invalid, "", "pick %d has no sampler of this model", i)
	}
	if !p.Follows {
		return nil
	}
	if i == 0 || picks[i-1].Sampler != p.Sampler ||
		a.seq[picks[i-1].Place] != a.seq[p.Place] || a.pos[picks[i-1].Place]+1 != a.pos[p.Place] {
		return fail(op, Invalid, "", "pick %d does not follow the one before it", i)
	}
	return nil
}

func leaveAll(picks []Pick) {
	for i := range picks {
		picks[i].Sampler.leave()
	}
}

// Sample chooses and accepts a token from the logits of a place of the last Decode.
func (c *Context) Sample(s *Sampler, place int) (Token, error) {
	const op = "sample"
	if s == nil || s.model != c.model {
		return 0, fail(op, Invalid, "", "no sampler of this model")
	}
	if err := s.enter(op); err != nil {
		return 0, err
	}
	defer s.leave()
	if err := c.enter(op); err != nil {
		return 0, err
	}
	defer c.leave()
	if err := c.checkOutput(op, place); err != nil {
		return 0, err
	}
	return sample(c.h, s.h, place)
}
