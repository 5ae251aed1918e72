package infer

import "context"

// Observer is what a Backend implements besides when it can say what it does and what it holds.
type Observer interface {
	// Stats gives the figures of this moment. It waits for the step that is being computed, not for
	// requests, and is safe for concurrent use. Kinds: KindClosed, and those of ctx.
	Stats(ctx context.Context) (Stats, error)
}

// HeldMax is how many entries Stats.Held has at most.
const HeldMax = 256

// Stats are the figures of a backend. Nothing in them tells what a text says.
type Stats struct {
	Totals Totals `json:"totals"`
	Now    Gauges `json:"now"`
	// Held is what the cache holds: by place, and there what is worth most first.
	Held []Held `json:"held"`
}

// Totals count since the backend was opened. They only grow.
type Totals struct {
	// Requests counts those that ended, by how: a Finish, a Kind, or "done" for Score and Embed.
	Requests map[string]int64 `json:"requests"`
	Computed int64            `json:"computed"` // prompt tokens that were computed, scored ones too
	Cached   Cached           `json:"cached"`   // prompt tokens that were not
	Answered int64            `json:"answered"` // tokens of answers
	Embedded int64            `json:"embedded"` // tokens of texts whose vectors were asked for
	Evicted  int64            `json:"evicted"`  // tokens that policies gave up for good
	Parked   int64            `json:"parked"`   // times that a request made room for others
	Resumed  int64            `json:"resumed"`  // times that one went on
	Drafted  int64            `json:"drafted"`  // tokens guessed ahead
	Accepted int64            `json:"accepted"` // of them, those that were right
	Steps    int64            `json:"steps"`    // computations of one batch
	Switched int64            `json:"switched"` // times that other adapters came to apply
}

// Gauges are figures of one moment.
type Gauges struct {
	Running    int   `json:"running"` // requests
	Waiting    int   `json:"waiting"` // requests in the queue
	Parked     int   `json:"parked"`  // requests that made room for others
	Idle       int   `json:"idle"`    // sequences that hold a prefix and have no request
	Cells      int   `json:"cells"`   // of the cache, in use
	CellsTotal int   `json:"cells_total"`
	RAM        Bytes `json:"ram"`  // saved state in memory
	Disk       Bytes `json:"disk"` // saved state in files, those of other processes too
}

// Bytes are those in use and the most there may be.
type Bytes struct {
	Used   int64 `json:"used"`
	Budget int64 `json:"budget"`
}

// Held is a prefix that the cache holds.
type Held struct {
	Name       string  `json:"name"`                 // of the sequence or saved state
	Place      string  `json:"place"`                // live, ram or disk
	Checkpoint bool    `json:"checkpoint,omitempty"` // the window or recurrent state alone
	Tokens     int     `json:"tokens"`
	Bytes      int64   `json:"bytes"`
	Uses       int     `json:"uses"`   // requests that had it
	Leases     int     `json:"leases"` // of them, those that have it now
	Worth      float64 `json:"worth"`  // the least goes first; compares within one place
	Pinned     bool    `json:"pinned,omitempty"`
	AgeSeconds float64 `json:"age_s"` // since it was last used
}
