package kv

// OpKind is what an Op does.
type OpKind uint8

const (
	// SeqCopy lets Seq, which is empty, have what From holds in P0 <= p < P1. In the Shared layout
	// only the books change and the cells are shared. In Streams, and where Op.Own says so, it is
	// a copy of the whole sequence (P1 is End) into cells of its own, by llama.cpp's stream copy
	// or through a state, as Config.CopyByState says.
	SeqCopy OpKind = iota + 1
	// SeqRemove takes P0 <= p < P1 out of Seq; P1 may be End. 0 to End empties it.
	SeqRemove
	// Shift adds Delta to the positions P0 <= p < P1 of Seq. No other sequence shares them.
	Shift
	// Save copies the state of Seq, which holds exactly the positions below P1, into memory under
	// the name Blob. Answer with Cache.Saved or Cache.SaveFailed at the end of the answer. A state
	// that a later Forget of the same answer deletes is in no budget.
	Save
	// Checkpoint is Save of the partial state: the window or the recurrent part.
	Checkpoint
	// Restore sets Seq from Blob, which lies at Place. With Partial set, Seq holds at least the
	// positions below P1 and gets back the window or the recurrent state as it was at P1; a
	// SeqRemove of what lies behind in the other part follows. (llama.cpp then names P1-1 as the
	// last position, whatever the other part still has.)
	// Otherwise Seq is empty and then holds the positions below P1.
	Restore
	// Spill copies Blob from memory to disk; it may be done in the background, also while later
	// operations run. Answer with Cache.Spilled or Cache.SpillFailed.
	Spill
	// Forget deletes the bytes of Blob at Place, if they are there. It concerns no sequence, and comes
	// again when Cache.Failed says that an answer was left out in part.
	Forget
)

// String gives the name of the constant.
func (k OpKind) String() string {
	names := [...]string{
		"none", "SeqCopy", "SeqRemove", "Shift", "Save", "Checkpoint", "Restore", "Spill", "Forget",
	}
	if int(k) < len(names) {
		return names[k]
	}
	return "invalid"
}

// Op is one step for the executor. The operations of one answer are executed in their order and
// before the Cache is called again; only Spill may take longer, and Saved and SaveFailed may come
// at once. Those on other sequences come before those on the sequence that the answer is about.
// When one of these fails, the executor leaves out the rest, empties the sequence and calls
// Cache.Failed.
type Op struct {
	Kind    OpKind
	Seq     Seq // the sequence concerned, NoSeq for Spill and Forget
	From    Seq // SeqCopy: the source
	P0, P1  Pos
	Delta   Pos
	Blob    BlobID
	Place   Place // Restore, Forget: RAM or Disk
	Partial bool  // Restore, Spill, Forget: Blob is a checkpoint
	Own     bool  // SeqCopy: into cells of its own, although the layout could share
}

// Plan is what a call on a running sequence wants done. The zero Plan wants nothing.
type Plan struct {
	Ops []Op
	// Length is how many tokens the sequence holds after Ops.
	Length int
	// Again are tokens of the sequence that went with what was given up: the executor computes
	// them anew at Length, as after Append, before anything else. It may keep the slice.
	Again []Token
	// Dropped counts tokens that a policy gave up for good.
	Dropped int
}
