package kv

import (
	"errors"
	"fmt"
	"slices"
)

// Reserve is asked before n more tokens are computed in seq. Within what the request was promised
// the answer is a Plan of nothing. Beyond it idle state is given up, and when the sequence itself
// is full, its policy decides; those built in can make room for a quarter of SeqInfo.Most, unless
// what they keep for good is more than half. Kinds: ErrTooLong (full, and no policy), ErrNoRoom
// (others have the cells), ErrPolicy, ErrUnknown, ErrInvalid. Whatever the error, nothing has
// changed.
func (c *Cache) Reserve(seq Seq, n int) (Plan, error) {
	s, err := c.enter("reserve", seq, Busy)
	switch {
	case err != nil:
		return Plan{}, err
	case n < 0 || n > TokensMax:
		return Plan{}, fail("reserve", ErrInvalid, "n", "", "%d tokens", n)
	case n <= s.room():
		return Plan{Length: len(s.tokens)}, nil
	case len(s.tokens)+n <= s.most:
		return c.promise(s, n)
	case s.policy.evictor() == nil || n > s.most:
		return Plan{}, fail("reserve", ErrTooLong, "", "choose a policy that gives up tokens",
			"%d tokens and %d more, at most %d", len(s.tokens), n, s.most)
	}
	spans, err := c.ask(s, n)
	if err != nil {
		return Plan{}, err
	}
	if c.canShift() {
		return c.giveUp(s, n, spans)
	}
	return c.giveUpAndRecompute(s, n, spans)
}

// promise lets s have more cells.
func (c *Cache) promise(s *sequence, n int) (Plan, error) {
	c.findKeepers()
	more := n - s.room()
	if !c.canMake(more) {
		return Plan{}, c.noCells("reserve", more)
	}
	c.makeCells(more, nil)
	s.limit += more
	c.promised += more
	return Plan{Ops: c.take(), Length: len(s.tokens)}, nil
}

func (c *Cache) noCells(op string, more int) error {
	return fail(op, ErrNoRoom, "", "wait for a request to end, or park one",
		"%d cells of %d are in use or promised, %d more are wanted",
		c.cells.used+c.promised, c.cfg.Cells, more)
}

// ask lets the policy choose.
func (c *Cache) ask(s *sequence, n int) ([]Span, error) {
	v := View{
		Length: len(s.tokens), Prompt: min(s.left, len(s.tokens)),
		System: min(s.system, len(s.tokens)), Limit: s.most, Want: n,
	}
	var spans []Span
	err := contain("reserve", "Policy.Evict", func() (err error) {
		spans, err = s.policy.Evict.Evict(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	spans = slices.Clone(spans)
	if err := checkSpans(v, spans); err != nil {
		return nil, fail("reserve", ErrPolicy, "Policy.Evict", "", "%w", err)
	}
	return spans, nil
}

// checkSpans says what is wrong with an answer.
func checkSpans(v View, spans []Span) error {
	if len(spans) > SpansMax {
		return fmt.Errorf("%d spans, at most %d", len(spans), SpansMax)
	}
	sum, last := 0, Pos(0)
	for _, s := range spans {
		if s.P0 < last || s.P1 <= s.P0 || int(s.P1) > v.Length {
			return fmt.Errorf("span %d..%d behind %d, of %d tokens", s.P0, s.P1, last, v.Length)
		}
		sum += int(s.P1 - s.P0)
		last = s.P1
	}
	switch {
	case sum < v.Over():
		return fmt.Errorf("%d tokens are given up, %d have to go", sum, v.Over())
	case sum >= v.Length:
		return errors.New("nothing would be left")
	}
	return nil
}

// contain turns whatever a policy does wrong into an Error of the kind ErrPolicy, except that an
// Error of its own goes through.
func contain(op, field string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fail(op, ErrPolicy, field, "mend the policy", "it panicked: %v", r)
		}
	}()
	err = f()
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	return &Error{Op: op, Kind: ErrPolicy, Field: field, Err: err}
}
