package kv

// Request asks for a sequence.
type Request struct {
	Key    Key
	Tokens []Token // the prompt, 1 or more; it is not kept
	// Limit is the cells to promise the sequence: prompt and expected answer. Reserve may go
	// beyond it as long as there is room. 0 means the prompt alone. With an Evictor it is the most
	// that the sequence ever has, and 0 means all that there is.
	Limit  int
	System int // how many tokens at the start are the system prompt
	// Marks are lengths of the prompt at which others may branch off, such as the ends of
	// messages. Models that need checkpoints get one there.
	Marks  []int
	Align  int // reuse only multiples of this many tokens; 0 means 1
	Exact  int // so many tokens at the start are of use to others, and none behind; 0: all are
	Policy Policy
}

// Admission gives a request its sequence. The executor runs Ops and then computes
// Tokens[Reused:], Append after each chunk.
type Admission struct {
	Seq    Seq
	Reused int    // prompt tokens that need not be computed; always less than all
	Moved  int    // how many of Reused were moved to a new place: approximate
	Source Place  // where Reused came from, Nowhere if it is 0
	Blob   BlobID // of RAM and Disk
	Ops    []Op
}

// SeqState is what a sequence is doing.
type SeqState uint8

const (
	Free SeqState = iota // empty
	Busy                 // a request has it
	Idle                 // no request has it; what it holds can be used again
)

// SeqInfo describes a sequence.
type SeqInfo struct {
	Seq     Seq
	State   SeqState
	Length  int // tokens that it holds
	Exact   int // how many of them, at the start, are as a cold run would have them
	Cells   int // cells that no other sequence shares
	Limit   int // promised to it while Busy
	Most    int // it may ever have while Busy: then its policy, if any, gives up tokens
	Hits    int // requests that used it again
	LastUse uint64
	Pinned  bool
}

// Stats are the books of a Cache.
type Stats struct {
	Sequences     [3]int // by SeqState
	Cells         int    // in use; in Shared, cells that several sequences share count once
	CellsBusy     int    // of sequences with a request
	CellsPromised int    // to requests, not yet used
	CellsTotal    int
	RAM, Disk     TierStats
	Nodes         int // of the tree
}

// TierStats are the books of saved state at one place.
type TierStats struct {
	Blobs       int
	Checkpoints int // of Blobs
	Bytes       int64
	Budget      int64
}

// Snapshot is saved state that outlived its process.
type Snapshot struct {
	Key     Key
	Tokens  []Token
	Partial bool // a checkpoint
	Bytes   int64
}

// Blob describes saved state.
type Blob struct {
	ID      BlobID
	Key     Key
	Tokens  []Token // what its cells hold, in order of position; must not be changed
	Exact   bool    // the tokens are a prefix as a cold run would have it
	Partial bool
	RAM     int64 // bytes there, 0 if not there
	Disk    int64
}
