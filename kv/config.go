package kv

// Layout is how sequences lie in the context.
type Layout uint8

const (
	Shared  Layout = iota // one unified buffer: a prefix is shared by marking its cells
	Streams               // each sequence has cells of its own: a prefix is copied as state
)

// Rank says whose state is given up first.
type Rank uint8

const (
	GDSF Rank = iota // what saves least: uses x cost to compute again / bytes, aged
	LRU              // what was used least recently
)

// Bounds.
const (
	SequencesMax   = 256     // of llama.cpp
	TokensMax      = 1 << 22 // of one sequence
	CheckpointsMax = 32      // of one prompt
	SpansMax       = 64      // of one answer of a policy
	PinsMax        = 64
)

// Config fixes a Cache. Only Sequences and Cells must be set.
type Config struct {
	Layout    Layout
	Sequences int // 1..SequencesMax
	// Cells is how many cells there are: in Shared for all, in Streams for each sequence. The
	// executor leaves out what it wants for itself.
	Cells     int
	CellBytes int64 // estimate of the saved state of one token; 0 means 1
	RAMBytes  int64 // for saved state; 0 saves nothing
	DiskBytes int64 // for saved state; 0 spills nothing
	// WriteThrough spills whatever was saved at once, so that it survives a restart. Otherwise
	// state is spilled when three quarters of RAMBytes are taken.
	WriteThrough bool
	// Window is the model's sliding window in tokens, 0 for none. A cut below the end is exact only
	// while the window before the cut is still there.
	Window int
	// SmallWindow says that the cache of the windows is not of full length. Cells are then never
	// shared, because shared cells of a window are not taken up again.
	SmallWindow bool
	// Recurrent says that a part of the state cannot be cut at all: recurrent and hybrid models.
	Recurrent bool
	CanShift  bool // positions can be moved
	// CopyByState says that the executor makes a copy with Own through a saved state, which leaves
	// out what the window has passed. In Streams it holds for every copy.
	CopyByState bool
	// PosMin gives the first position that the context holds of a sequence, -1 if none. It is asked
	// only for models with a Window, before operations are planned. Without it the Cache assumes
	// the least that llama.cpp keeps.
	PosMin func(Seq) Pos
	// CheckpointEvery takes a checkpoint after so many tokens of a long prompt, besides those at
	// Request.Marks; 0 takes none between. Only models with a Window or Recurrent need them, and
	// only with RAMBytes are they taken.
	CheckpointEvery int
	CheckpointBytes int64 // estimate of a checkpoint's bytes; 0 means Window x CellBytes
	Rank            Rank
	Costs           Costs
	Hooks           Hooks
}

// Costs compare computing with moving, in any one unit of time, such as nanoseconds. The zero
// value has the proportions of a small model on a processor; see also Cache.SetCosts.
type Costs struct {
	Compute     float64 // one token of a prompt; 0 means 1
	ComputePair float64 // besides, one token for each token before it: attention
	Copy        float64 // one token of a copy into own cells; 0 means 0.002 x Compute
	Restore     float64 // one token from RAM; 0 means 0.001 x Compute
	RestoreDisk float64 // one token from disk; 0 means 0.003 x Compute
}

// Hooks are called at the moments they name, on the goroutine that uses the Cache. A hook must not
// call the Cache. Each may be nil; one that panics is not called again.
type Hooks struct {
	Admit   func(AdmitEvent)   // a request got a sequence
	Hit     func(HitEvent)     // tokens are used again
	Evict   func(EvictEvent)   // state is given up, or a policy gave up tokens
	Spill   func(SpillEvent)   // state goes one place down
	Restore func(RestoreEvent) // saved state goes into a sequence
}

// AdmitEvent says that a request got Seq.
type AdmitEvent struct {
	Key    Key
	Seq    Seq
	Prompt int // tokens
	Reused int // tokens
}

// HitEvent says that Tokens were found at Place.
type HitEvent struct {
	Key    Key
	Seq    Seq
	Place  Place
	Tokens int
}

// EvictEvent says that something was given up. Seq is NoSeq for saved state, Blob is 0 for cells.
type EvictEvent struct {
	Place  Place
	Seq    Seq
	Blob   BlobID
	Tokens int
	Bytes  int64
	Policy bool // by the policy of the running request, not to make room for others
}

// SpillEvent says that state moves from Live to RAM or from RAM to Disk.
type SpillEvent struct {
	From, To Place
	Blob     BlobID
	Tokens   int
	Bytes    int64 // an estimate while To is RAM
}

// RestoreEvent says that saved state goes into Seq.
type RestoreEvent struct {
	Seq    Seq
	Blob   BlobID
	Place  Place
	Tokens int
}
