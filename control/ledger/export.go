package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// Bounds of an export.
const (
	ExportEventsMax = 1 << 16
	exportBytesMax  = 256 << 20
)

// Export is a sealed range of a record: all its events from First on, and the hashes around them
// that lead to a signed checkpoint. It is checked with the record's public key alone.
type Export struct {
	First      int64
	Events     [][]byte    // canonical bytes
	Hashes     []tlog.Hash // of the subtrees outside the range, from left to right
	Checkpoint []byte      // signed
}

// Export seals the events first to last. Errors: ErrNotFound where the checkpoint does not cover
// them; ErrInvalid for none or more than ExportEventsMax; ErrCheckpoint, ErrUnavailable.
func (r *Reader) Export(ctx context.Context, first, last int64) (Export, error) {
	data, cp, err := r.checkpoint()
	if err != nil {
		return Export{}, wrap("export", err)
	}
	fail := func(kind Kind, format string, args ...any) (Export, error) {
		return Export{}, &Error{Op: "export", Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case first < 1 || last < first || last-first >= ExportEventsMax:
		return fail(ErrInvalid, "events %d to %d: at least one, at most %d", first, last, ExportEventsMax)
	case last > cp.Size:
		return fail(ErrNotFound, "event %d: the checkpoint covers 1 to %d", last, cp.Size)
	}
	x := Export{First: first, Checkpoint: data}
	err = r.store.View(ctx, func(v storage.Reader) error {
		t, err := r.at(ctx, v, cp.Size)
		if err != nil {
			return err
		}
		hashes := t.reader(r.tiles(ctx, v))
		s := span{first: first - 1, end: last, outside: func(lo, hi int64) (tlog.Hash, error) {
			h, err := subtree(hashes, lo, hi)
			x.Hashes = append(x.Hashes, h)
			return h, err
		}}
		if err := v.Rows(ctx, first, last, func(row *storage.Row) error {
			data := row.AppendCanonical(nil)
			x.Events = append(x.Events, data)
			s.leaves = append(s.leaves, tlog.RecordHash(data))
			return nil
		}); err != nil {
			return err
		}
		root, err := s.hash(0, cp.Size)
		if err == nil && root != cp.Root {
			err = damagedEvent(first)
		}
		return err
	})
	return x, wrap("export", err)
}

// Marshal gives the bytes of an export file: one event a line.
func (x Export) Marshal() []byte {
	b := fmt.Appendf(nil, "%s\nfirst %d\nevents %d\n", exportHeader, x.First, len(x.Events))
	b = append(appendHashes(b, x.Hashes), '\n')
	for _, e := range x.Events {
		b = append(append(b, e...), '\n')
	}
	return append(append(b, '\n'), x.Checkpoint...)
}

// ParseExport reads an export file; other spellings are refused. Errors: ErrProof.
func ParseExport(data []byte) (Export, error) {
	var x Export
	head, rest, err := cutHead(data, exportHeader, 2)
	if err != nil {
		return x, err
	}
	var n int
	if _, err := fmt.Sscanf(head.fields[0], "first %d", &x.First); err != nil {
		return x, badProof(err)
	}
	if _, err := fmt.Sscanf(head.fields[1], "events %d", &n); err != nil {
		return x, badProof(err)
	}
	if n < 1 || n > ExportEventsMax || x.First < 1 || x.First > 1<<53 {
		return x, badProof(fmt.Errorf("%d events from %d on", n, x.First))
	}
	for range n {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return x, badProof(errors.New("events are missing"))
		}
		x.Events, rest = append(x.Events, line), after
	}
	checkpoint, ok := bytes.CutPrefix(rest, []byte("\n"))
	if !ok {
		return x, badProof(errors.New("more events than it says"))
	}
	x.Hashes, x.Checkpoint = head.hashes, checkpoint
	return x, oneForm(x.Marshal(), data)
}

// Check returns the events if the export holds under the record's public key. Errors: ErrProof,
// ErrCheckpoint.
func (x Export) Check(key note.Verifier) ([]event.Event, Checkpoint, error) {
	cp, err := ParseCheckpoint(x.Checkpoint, key)
	if err != nil {
		return nil, cp, err
	}
	end := x.First - 1 + int64(len(x.Events))
	if end > cp.Size {
		return nil, cp, badProof(fmt.Errorf("the checkpoint covers 1 to %d", cp.Size))
	}
	hashes := x.Hashes
	s := span{first: x.First - 1, end: end, outside: func(_, _ int64) (h tlog.Hash, err error) {
		if len(hashes) == 0 {
			return h, errors.New("hashes are missing")
		}
		h, hashes = hashes[0], hashes[1:]
		return h, nil
	}}
	var events []event.Event
	for i, data := range x.Events {
		e, err := event.Parse(data)
		if err == nil && e.Seq != x.First+int64(i) {
			err = fmt.Errorf("event %d stands where %d should", e.Seq, x.First+int64(i))
		}
		if err != nil {
			return nil, cp, badProof(err)
		}
		events = append(events, e)
		s.leaves = append(s.leaves, tlog.RecordHash(data))
	}
	root, err := s.hash(0, cp.Size)
	switch {
	case err != nil:
		return nil, cp, badProof(err)
	case root != cp.Root || len(hashes) > 0:
		return nil, cp, badProof(errors.New("the hashes do not lead to the checkpoint"))
	}
	return events, cp, nil
}

// span computes the root over leaves of which some are known, and of the others only the hashes of
// the largest subtrees that have none of the known.
type span struct {
	first, end int64 // known leaves
	leaves     []tlog.Hash
	outside    func(lo, hi int64) (tlog.Hash, error)
}

// hash is the hash over the leaves lo to hi (RFC 6962, section 2.1).
func (s span) hash(lo, hi int64) (tlog.Hash, error) {
	if hi <= s.first || lo >= s.end {
		return s.outside(lo, hi)
	}
	if hi-lo == 1 {
		return s.leaves[lo-s.first], nil
	}
	mid := split(lo, hi)
	left, err := s.hash(lo, mid)
	if err != nil {
		return left, err
	}
	right, err := s.hash(mid, hi)
	return tlog.NodeHash(left, right), err
}

// split is where the left subtree over lo to hi ends: it has the largest power of two of leaves
// that leaves some for the right.
func split(lo, hi int64) int64 { return lo + 1<<(bits.Len64(uint64(hi-lo-1))-1) }

// subtree is the hash over the leaves lo to hi as stored.
func subtree(r tlog.HashReader, lo, hi int64) (tlog.Hash, error) {
	if n := hi - lo; n&(n-1) == 0 {
		level := bits.TrailingZeros64(uint64(n))
		hashes, err := r.ReadHashes([]int64{tlog.StoredHashIndex(level, lo>>level)})
		if err != nil {
			return tlog.Hash{}, err
		}
		return hashes[0], nil
	}
	mid := split(lo, hi)
	left, err := subtree(r, lo, mid)
	if err != nil {
		return left, err
	}
	right, err := subtree(r, mid, hi)
	return tlog.NodeHash(left, right), err
}
