package llama

// DrafterParams chooses when a Drafter speaks.
type DrafterParams struct {
	// Match is how many tokens must have stood together before, for the one that followed them to
	// be drafted; 0 means 8. Longer is surer and rarer.
	Match int
	Min   int // shortest draft worth verifying; 0 means 2
	Max   int // longest draft; 0 means 16
	// Entries is how many n-grams the table has places for, 4 bytes each; 0 means 262144. A table
	// that is a quarter full starts again.
	Entries int
}

// Bounds of DrafterParams.
const (
	DraftMatchMax   = 64
	DraftMax        = 256
	DraftEntriesMax = 1 << 24
)

func (p DrafterParams) fill() DrafterParams {
	for _, f := range []struct {
		value     *int
		otherwise int
	}{{&p.Match, 8}, {&p.Min, 2}, {&p.Max, 16}, {&p.Entries, 1 << 18}} {
		if *f.value == 0 {
			*f.value = f.otherwise
		}
	}
	return p
}

// Validate refuses parameters that cannot be used.
func (p *DrafterParams) Validate() error {
	const op = "drafter"
	q := p.fill()
	switch {
	case q.Match < 1 || q.Match > DraftMatchMax:
		return fail(op, Invalid, "", "match %d is outside 1..%d", q.Match, DraftMatchMax)
	case q.Max < 1 || q.Max > DraftMax:
		return fail(op, Invalid, "", "longest draft %d is outside 1..%d", q.Max, DraftMax)
	case q.Min < 1 || q.Min > q.Max:
		return fail(op, Invalid, "", "shortest draft %d is outside 1..%d", q.Min, q.Max)
	case q.Entries < 1 || q.Entries > DraftEntriesMax:
		return fail(op, Invalid, "", "%d entries, want 1..%d", q.Entries, DraftEntriesMax)
	}
	return nil
}

// Drafter guesses what comes next in one sequence from what stood there before, with llama.cpp's
// n-gram table. It needs no model; what it says must be verified, with picks that follow each
// other. One goroutine at a time.
type Drafter struct {
	life
	h drafterHandle
}

// NewDrafter makes a drafter of an empty sequence. Errors: Invalid, Memory, Missing.
func NewDrafter(p DrafterParams) (*Drafter, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	h, err := newDrafter(p.fill())
	if err != nil {
		return nil, err
	}
	return &Drafter{h: h}, nil
}

// Feed appends tokens to the sequence: its prompt, then each token that it really got. Negative
// tokens are Invalid, and nothing is appended.
func (d *Drafter) Feed(tokens []Token) error {
	const op = "feed drafter"
	for _, t := range tokens {
		if t < 0 {
			return fail(op, Invalid, "", "token %d", t)
		}
	}
	if err := d.enter(op); err != nil {
		return err
	}
	defer d.leave()
	feedDrafter(d.h, tokens)
	return nil
}

// Draft writes tokens that may follow what was fed into dst, at most len(dst), and returns how
// many: 0, or Min and more. It allocates nothing.
func (d *Drafter) Draft(dst []Token) (int, error) {
	if err := d.enter("draft"); err != nil {
		return 0, err
	}
	defer d.leave()
	return draftTokens(d.h, dst), nil
}

// Accepted says how many tokens of the last draft came true. After five drafts in a row of which
// less than a quarter did, what was learned is forgotten.
func (d *Drafter) Accepted(n int) error {
	const op = "draft accepted"
	if n < 0 || n > DraftMax {
		return fail(op, Invalid, "", "%d tokens", n)
	}
	if err := d.enter(op); err != nil {
		return err
	}
	defer d.leave()
	draftAccepted(d.h, n)
	return nil
}

// Reset forgets the sequence: when it was cut, or for another.
func (d *Drafter) Reset() error {
	if err := d.enter("reset drafter"); err != nil {
		return err
	}
	defer d.leave()
	resetDrafter(d.h)
	return nil
}

// Close frees the drafter.
func (d *Drafter) Close() error {
	return d.close("close drafter", func() { freeDrafter(d.h) })
}
