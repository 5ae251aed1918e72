// Package storage owns the interface between the record and the database that keeps its rows, so
// that one conformance suite (storagetest) judges every engine. An engine stores rows, keeps
// transactions whole and acknowledges only what is durable.
//
// The package must not know hashes of trees, signatures, gates or what an event means: those are
// the record's, above it.
package storage

import (
	"context"

	"github.com/norion/norion/control/event"
)

// Errors of an engine. Match them with errors.Is.
const (
	// ErrFull: there is no room. Nothing was written; the same call may succeed later.
	ErrFull Fault = "no room for the record"
	// ErrBusy: another process holds the database.
	ErrBusy Fault = "the record is in use"
	// ErrIO: the disk failed. What the last transaction left is unknown until the next open.
	ErrIO Fault = "the record's disk failed"
	// ErrCorrupt: the database is damaged.
	ErrCorrupt Fault = "the record is damaged"
	// ErrTooNew: a newer program wrote the database.
	ErrTooNew Fault = "the record is of a newer version"
	// ErrTooOld: the database is of an older version, and who opened it may not migrate it.
	ErrTooOld Fault = "the record is of an older version"
	// ErrNotRecord: the file is no record, or may not be used as one.
	ErrNotRecord Fault = "not a usable record"
	// ErrClosed: the database was closed, or was opened for reading only.
	ErrClosed Fault = "the record is closed"
)

// Fault says what went wrong in an engine.
type Fault string

// Error makes a Fault an error.
func (f Fault) Error() string { return string(f) }

// LeafBytes is the size of a leaf hash.
const LeafBytes = 32

// Row is one stored event with the hash of its canonical bytes.
type Row struct {
	event.Event
	Leaf [LeafBytes]byte
}

// Payload is a sealed text. Key is nil once it was destroyed.
type Payload struct {
	Sealed []byte
	Key    []byte // itself encrypted under the record's key
}

// Reader reads one consistent state. It is used by one goroutine at a time.
type Reader interface {
	// Last returns the number of the newest event, 0 where there is none.
	Last(ctx context.Context) (int64, error)
	// Rows calls f for the events first to last in order. The row is valid until f returns.
	Rows(ctx context.Context, first, last int64, f func(*Row) error) error
	// Leaves returns the leaf hashes of the events first to last in order.
	Leaves(ctx context.Context, first, last int64) ([][LeafBytes]byte, error)
	// Version returns the newest version of a stream, 0 where there is none.
	Version(ctx context.Context, scope event.Scope, stream string) (int64, error)
	// Keyed returns the numbers of the first and the last event that came with an idempotency
	// key in a scope, 0 where there are none.
	Keyed(ctx context.Context, scope event.Scope, key string) (first, last int64, err error)
	// Tile returns a full tile of the tree, nil where there is none.
	Tile(ctx context.Context, level int, n int64) ([]byte, error)
	// Payload returns a sealed text; Sealed is nil where there is none.
	Payload(ctx context.Context, digest event.Digest) (Payload, error)
	// Payloads calls f for every sealed text. The payload is valid until f returns.
	Payloads(ctx context.Context, f func(event.Digest, Payload) error) error
	// Get returns the value of a key in a projection, nil where there is none.
	Get(ctx context.Context, projection, key string) ([]byte, error)
	// Range calls f for the keys of a projection that begin with prefix, in the order of their
	// bytes. The value is valid until f returns.
	Range(ctx context.Context, projection, prefix string, f func(key string, value []byte) error) error
	// Projections lists the projections that have keys, sorted.
	Projections(ctx context.Context) ([]string, error)
}

// Writer changes the state within one transaction.
type Writer interface {
	Reader
	// AddEvent stores an event. Its number must be the next one.
	AddEvent(ctx context.Context, r *Row) error
	// AddTile stores a full tile of the tree.
	AddTile(ctx context.Context, level int, n int64, data []byte) error
	// AddPayload stores a sealed text and its key. The same payload twice is no error.
	AddPayload(ctx context.Context, digest event.Digest, p Payload) error
	// DropKey destroys the key of a sealed text; it reports whether there was one.
	DropKey(ctx context.Context, digest event.Digest) (bool, error)
	// Put sets a key of a projection.
	Put(ctx context.Context, projection, key string, value []byte) error
	// Delete removes a key of a projection; a missing one is no error.
	Delete(ctx context.Context, projection, key string) error
	// Clear removes all keys of a projection.
	Clear(ctx context.Context, projection string) error
	// Nested runs f, and undoes what f wrote when it returns an error.
	Nested(ctx context.Context, f func() error) error
}

// Store is a database that keeps a record. It is safe for concurrent use; transactions of Update
// run one after the other.
type Store interface {
	// View runs f on a consistent state beside any writer.
	View(ctx context.Context, f func(Reader) error) error
	// Update runs f in a transaction. When it returns nil, what f wrote is on stable storage;
	// when f returns an error, nothing was written and that error comes back.
	Update(ctx context.Context, f func(Writer) error) error
	// Check lets the engine look for damage that only it can see. It lists what it found.
	Check(ctx context.Context) ([]string, error)
	// Settle moves everything out of the engine's journal, so that what was deleted is gone
	// from the disk too.
	Settle(ctx context.Context) error
	// Backup writes a copy of one consistent state to a new file at path, in the engine's own
	// form and durably. It may run beside a writer.
	Backup(ctx context.Context, path string) error
	// Close releases the database. A second Close is no error.
	Close() error
}
