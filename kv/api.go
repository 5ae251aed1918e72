package kv

import "iter"

// Cache keeps the books of one context and plans what is done to its cells. It is used by one
// goroutine. Its executor is told by operations what to do and tells the Cache what was computed;
// both then agree on what every sequence holds.
type Cache struct {
	cfg Config
}

// New checks cfg and starts with an empty context.
func New(cfg Config) (*Cache, error) {
	return &Cache{cfg: cfg}, nil
}

// Begin gives a request a sequence, with as much of its prompt as can be had. Whatever the error,
// nothing has changed. Kinds: ErrNoRoom (others have to end first, or be parked), ErrTooLong,
// ErrPolicy, ErrUnsupported (a policy that this model cannot have), ErrInvalid.
func (c *Cache) Begin(r Request) (Admission, error) { return Admission{Seq: NoSeq}, nil }

// Soon looks for a request whose prompt is being computed and that will hold more of tokens than
// can be had now: it is worth waiting until Length(seq) is n, or until seq is no longer Busy, and
// then to Begin. n is 0 when there is nothing to wait for.
func (c *Cache) Soon(k Key, tokens []Token) (seq Seq, n int) { return NoSeq, 0 }

// Failed says that an operation of an admission, or of a Plan, did not succeed. The executor has
// emptied the sequence, and so it is here; the request still has it.
func (c *Cache) Failed(seq Seq) {}

// Append says that tokens were computed at the end of seq. Reserve must have allowed them.
// It may be called with drafts that Truncate takes back. Kinds: ErrUnknown, ErrNoRoom.
func (c *Cache) Append(seq Seq, tokens []Token) error { return nil }

// Reserve is asked before n more tokens are computed in seq. Within what the request was promised
// the answer is the zero Plan. Beyond it idle state is given up, and when the sequence itself is
// full, its policy decides. Kinds: ErrTooLong (full, and no policy), ErrNoRoom (others have the
// cells), ErrPolicy, ErrUnsupported, ErrUnknown. Whatever the error, nothing has changed.
func (c *Cache) Reserve(seq Seq, n int) (Plan, error) { return Plan{}, nil }

// Truncate keeps the first n tokens of seq: for drafts that were rejected and steps that failed.
// n may be the present length; then what the context may hold beyond it is removed. Where the cut
// is not exact, more is cut and Plan.Again says what. Kinds: ErrUnknown, ErrInvalid.
func (c *Cache) Truncate(seq Seq, n int) (Plan, error) { return Plan{}, nil }

// End says that the request is over. What its sequence holds stays, for others to use or until
// its cells are wanted.
func (c *Cache) End(seq Seq) {}

// Drop empties a sequence, Busy or Idle, and frees it.
func (c *Cache) Drop(seq Seq) []Op { return nil }

// Park saves a sequence to RAM and frees it. That of a Busy one is kept until Resume or Release.
// Kinds: ErrNoRoom (the RAM budget), ErrUnknown.
func (c *Cache) Park(seq Seq) (BlobID, []Op, error) { return 0, nil, nil }

// Resume gives a parked request a sequence again, as it was. Admission.Reused is its length.
// Kinds: ErrNoRoom, ErrUnknown: the blob is gone, begin anew with the tokens.
func (c *Cache) Resume(id BlobID) (Admission, error) { return Admission{Seq: NoSeq}, nil }

// Release says that a parked request will not be resumed. What it left can be used by others.
func (c *Cache) Release(id BlobID) {}

// Save copies what seq holds to RAM and leaves the sequence as it is; with nothing new to save
// the id is that of the blob that has it. Kinds: ErrNoRoom (the RAM budget), ErrUnknown.
func (c *Cache) Save(seq Seq) (BlobID, []Op, error) { return 0, nil, nil }

// Saved answers Save and Checkpoint: the state has so many bytes.
func (c *Cache) Saved(id BlobID, bytes int64) []Op { return nil }

// SaveFailed answers Save and Checkpoint: there is no such state.
func (c *Cache) SaveFailed(id BlobID) {}

// Spilled answers Spill: the state is on disk too, with so many bytes.
func (c *Cache) Spilled(id BlobID, bytes int64) []Op { return nil }

// SpillFailed answers Spill: the state is not on disk.
func (c *Cache) SpillFailed(id BlobID) {}

// Lost says that the bytes of a blob at a place are missing or damaged.
func (c *Cache) Lost(id BlobID, at Place) {}

// Adopt takes in state that an earlier process left on disk. Those adopted later count as used
// later. Kinds: ErrInvalid, ErrNoRoom (the disk budget).
func (c *Cache) Adopt(s Snapshot) (BlobID, []Op, error) { return 0, nil, nil }

// Pin keeps a prefix from being given up to make room: the last state that holds it, in cells if
// there is any, stays. It need not be held yet. Kinds: ErrInvalid, ErrNoRoom (PinsMax, or more
// than half of the cells).
func (c *Cache) Pin(k Key, tokens []Token) error { return nil }

// Unpin undoes one Pin. Kinds: ErrUnknown.
func (c *Cache) Unpin(k Key, tokens []Token) error { return nil }

// NextCheckpoint is the length of seq at which the executor should end a chunk of the prompt and
// call Checkpoint; 0 for none.
func (c *Cache) NextCheckpoint(seq Seq) int { return 0 }

// Checkpoint plans a checkpoint of seq as it is now; nil where it is no use or there is no room.
func (c *Cache) Checkpoint(seq Seq) []Op { return nil }

// Tidy plans what can be done in idle time: state that is only in RAM goes to disk too.
func (c *Cache) Tidy() []Op { return nil }

// Length is how many tokens seq holds.
func (c *Cache) Length(seq Seq) int { return 0 }

// Tokens are what seq holds, in order of position. The slice is valid until the next call.
func (c *Cache) Tokens(seq Seq) []Token { return nil }

// Sequence describes seq.
func (c *Cache) Sequence(seq Seq) SeqInfo { return SeqInfo{} }

// Stats gives the books. It walks all sequences, not the tree.
func (c *Cache) Stats() Stats { return Stats{} }

// Blob describes saved state; ok is false when it is gone.
func (c *Cache) Blob(id BlobID) (b Blob, ok bool) { return Blob{}, false }

// Blobs gives all saved state, oldest first. The Cache must not be called meanwhile.
func (c *Cache) Blobs() iter.Seq[Blob] { return func(func(Blob) bool) {} }

// Validate refuses contradictions. Kinds: ErrInvalid, ErrContradicts.
func (c Config) Validate() error { return nil }

// Validate refuses contradictions. Kinds: ErrInvalid, ErrContradicts.
func (p Policy) Validate() error { return nil }

func (Refuse) Evict(View) ([]Span, error) { return nil, nil }

func (w SinkWindow) Evict(View) ([]Span, error) { return nil, nil }

func (k KeepSystem) Evict(View) ([]Span, error) { return nil, nil }

func (m MiddleOut) Evict(View) ([]Span, error) { return nil, nil }

func (r ChunkReuse) Reuse(ReuseView) ([]Span, error) { return nil, nil }
