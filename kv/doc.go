// Package kv decides what happens to the KV cells of a context: which tokens that were computed
// once are used again, which cells are given up, and what moves to memory or disk. It owns the
// radix tree over token ids, the books on cells and bytes, and the policies by which a long
// sequence gives up its own past. What it decides comes out as a list of operations that somebody
// else executes.
//
// It must not know llama.cpp, models, texts, files, time or requests, and it starts no goroutine.
// A Cache and a Tree are used by one goroutine at a time.
package kv

import "math"

// Token is an index into a model's vocabulary.
type Token = int32

// Seq names a sequence of the context, from 0.
type Seq int32

// NoSeq is no sequence.
const NoSeq Seq = -1

// Pos is the position of a token in its sequence, from 0.
type Pos int32

// End is past the last position of every sequence.
const End Pos = math.MaxInt32

// BlobID names saved state, from 1. It is not used again while the process lives.
type BlobID uint64

// Key says who may share what. Prefixes are shared only between equal keys, except that the first
// PublicTokens of a prompt are shared by all salts of one model, adapter set and scope.
type Key struct {
	Model    string // digest of the model
	Adapters string // the adapter set with its scales, in one fixed order
	Scope    string
	Salt     string // separates tenants; "" is the space of all
	// PublicTokens is the length of the prefix that is no secret, such as a system prompt that
	// every tenant has. Two requests of one salt share what comes after it only when they name
	// the same length.
	PublicTokens int
}

// Place is where keys and values lie.
type Place uint8

const (
	Live    Place = iota // in cells of the context
	RAM                  // in memory, as saved state
	Disk                 // in a file, as saved state
	Partial              // a checkpoint: the window or recurrent state alone, in memory or a file
	Nowhere              // nothing was found
	places  = int(Nowhere)
)

// String gives the short name that users see.
func (p Place) String() string {
	switch p {
	case Live:
		return "live"
	case RAM:
		return "ram"
	case Disk:
		return "disk"
	case Partial:
		return "checkpoint"
	default:
		return "none"
	}
}
