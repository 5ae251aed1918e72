package kv

// Policy says how a request's cells are reused and given up. The zero value reuses exact prefixes
// and refuses what does not fit.
type Policy struct {
	NoReuse bool // compute everything
	// Evict decides what a sequence gives up when it is full; nil refuses (Refuse).
	Evict Evictor
	// Recompute lets a model whose positions cannot be moved compute the kept tokens anew; without
	// it such a model refuses an Evictor.
	Recompute bool
	// Reuse finds tokens after the prefix that may be moved to a new place. Their values were
	// computed behind other tokens: the result is approximate. nil moves nothing.
	Reuse Reuser
}

// Span is the positions P0 <= p < P1 of a sequence.
type Span struct{ P0, P1 Pos }

// View is what an Evictor sees of a sequence that is full.
type View struct {
	Length int // tokens that it holds
	Prompt int // how many of them are left of the prompt, at its start
	System int // how many of them are left of the system prompt, at its start
	Limit  int // the most that it may hold
	Want   int // tokens about to come, 1..Limit
}

// Over is how many tokens have to go.
func (v View) Over() int { return max(0, v.Length+v.Want-v.Limit) }

// Evictor chooses what a full sequence gives up. It is a pure function of the view. The spans
// ascend, do not overlap, lie in 0..Length, add up to at least View.Over() and leave something.
// An answer that is none of this, an error or a panic ends in an Error of the kind ErrPolicy and
// changes nothing.
type Evictor interface {
	Evict(v View) ([]Span, error)
}

// Limiter is an Evictor that wants a sequence to be full before its limit is reached.
type Limiter interface {
	// Limit gives the most tokens that a sequence may hold, given what the context allows.
	Limit(tokens int) int
}

// Validator is an Evictor or Reuser that can be contradictory in itself.
type Validator interface {
	Validate() error
}

// ReuseView is what a Reuser sees. The slices must not be changed or kept.
type ReuseView struct {
	Held   []Token // what the sequence holds, in order of position
	Prompt []Token // what it is to hold
	Prefix int     // how many tokens at the start of both are equal and stay
}

// Reuser finds tokens of Held after the prefix that can serve the prompt elsewhere. The spans lie
// in Held, do not overlap, and one after the other they spell Prompt[Prefix:], or the start of it,
// without its last token. They need not ascend. What it answers beyond that is an Error of the
// kind ErrPolicy.
type Reuser interface {
	Reuse(v ReuseView) ([]Span, error)
}

// Refuse gives up nothing: a full sequence is ErrTooLong. It is the default.
type Refuse struct{}

// SinkWindow keeps the first Sinks tokens and the last Window, and gives up at least Block at a
// time: StreamingLLM, arXiv 2309.17453. What lay between is forgotten.
type SinkWindow struct {
	Sinks  int // 0 measures what the sinks are worth; 4 suffice
	Window int // 2 or more
	Block  int // 1..Window; 0 means an eighth of Window
}

// KeepSystem keeps the system prompt, or one token without one, and the latest tokens.
type KeepSystem struct {
	Block int // given up at a time; 0 means an eighth of what may go
}

// MiddleOut keeps the system prompt, the start and the end, and gives up what lies in the middle.
type MiddleOut struct {
	Block int // given up at a time; 0 means an eighth of what may go
}

// ChunkReuse moves runs of at least MinTokens equal tokens.
type ChunkReuse struct {
	MinTokens int // 1 or more
}
