// Package ledger owns the record: an append-only log of events with a Merkle tree over it (RFC
// 6962, tiles of 256 hashes), signed checkpoints in a file of their own, sealed private texts
// beside it, and projections, the current state that follows from the events.
//
// What Append acknowledged is on stable storage. What was recorded cannot be changed unseen: Verify
// walks everything, a checkpoint convicts an older copy that was put back, and a Proof needs
// neither the record nor this program's word.
//
// One goroutine writes; many Appends share one commit. A Ledger holds the directory's lock and may
// write; a Reader reads beside it, also in another process.
//
// The package must not know what a change means, who may make it, or what time it is: the clock is
// handed in. Ledger.mu and Reader.mu are never held together.
package ledger
