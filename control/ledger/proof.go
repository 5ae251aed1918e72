package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// The first lines of proof files.
const (
	inclusionHeader   = "c2sp.org/tlog-proof@v1"
	consistencyHeader = "norion/consistency@v1"
	exportHeader      = "norion/export@v1"
)

// Bounds of proof files.
const (
	proofBytesMax  = 256 << 10
	proofHashesMax = 128
)

// Proof shows that an event is in a record. It is checked with the record's public key alone. Its
// form is that of C2SP tlog-proof, with the event as extra data.
type Proof struct {
	Event      []byte // canonical bytes
	Index      int64  // sequence number - 1
	Hashes     []tlog.Hash
	Checkpoint []byte // signed
}

// Prove makes a proof that an event is in the record. Errors: ErrNotFound where there is no such
// event, or no checkpoint covers it yet; ErrCheckpoint, ErrUnavailable, ErrDamaged.
func (r *Reader) Prove(ctx context.Context, seq int64) (Proof, error) {
	data, cp, err := r.checkpoint()
	if err != nil {
		return Proof{}, wrap("prove", err)
	}
	if seq < 1 || seq > cp.Size {
		return Proof{}, &Error{
			Op: "prove", Kind: ErrNotFound, Field: fmt.Sprintf("event %d", seq),
			Err:  fmt.Errorf("the checkpoint covers 1 to %d", cp.Size),
			Hint: "a newer event is covered a second after it was recorded",
		}
	}
	p := Proof{Index: seq - 1, Checkpoint: data}
	err = r.store.View(ctx, func(v storage.Reader) error {
		if p.Hashes, err = r.inclusion(ctx, v, cp.Size, p.Index); err != nil {
			return err
		}
		return v.Rows(ctx, seq, seq, func(row *storage.Row) error {
			p.Event = row.AppendCanonical(nil)
			return nil
		})
	})
	return p, wrap("prove", err)
}

// inclusion returns the hashes that lead from a leaf to the root of the first size events.
func (r *Reader) inclusion(ctx context.Context, v storage.Reader, size, index int64) (
	tlog.RecordProof, error,
) {
	t, err := r.at(ctx, v, size)
	if err != nil {
		return nil, err
	}
	return tlog.ProveRecord(size, index, t.reader(r.tiles(ctx, v)))
}

// Marshal gives the bytes of a proof file.
func (p Proof) Marshal() []byte {
	b := fmt.Appendf(nil, "%s\nextra %s\nindex %d\n", inclusionHeader,
		base64.StdEncoding.EncodeToString(p.Event), p.Index)
	return append(append(appendHashes(b, p.Hashes), '\n'), p.Checkpoint...)
}

// ParseProof reads a proof file; other spellings are refused. Errors: ErrProof.
func ParseProof(data []byte) (Proof, error) {
	var p Proof
	head, rest, err := cutHead(data, inclusionHeader, 2)
	if err != nil {
		return p, err
	}
	extra, ok := strings.CutPrefix(head.fields[0], "extra ")
	if p.Event, err = base64.StdEncoding.Strict().DecodeString(extra); err != nil || !ok {
		return p, badProof(errors.New("no event"))
	}
	index, ok := strings.CutPrefix(head.fields[1], "index ")
	if p.Index, err = strconv.ParseInt(index, 10, 64); err != nil || !ok {
		return p, badProof(errors.New("no index"))
	}
	p.Hashes, p.Checkpoint = head.hashes, rest
	return p, oneForm(p.Marshal(), data)
}

// Check returns the event if the proof holds under the record's public key. Errors: ErrProof,
// ErrCheckpoint.
func (p Proof) Check(key note.Verifier) (event.Event, Checkpoint, error) {
	cp, err := ParseCheckpoint(p.Checkpoint, key)
	if err != nil {
		return event.Event{}, cp, err
	}
	err = tlog.CheckRecord(p.Hashes, cp.Size, cp.Root, p.Index, tlog.RecordHash(p.Event))
	if err != nil {
		return event.Event{}, cp, badProof(err)
	}
	e, err := event.Parse(p.Event)
	if err == nil && e.Seq != p.Index+1 {
		err = fmt.Errorf("event %d at index %d", e.Seq, p.Index)
	}
	if err != nil {
		return event.Event{}, cp, badProof(err)
	}
	return e, cp, nil
}

// Consistency shows that a record only grew since an older checkpoint.
type Consistency struct {
	Old        int64 // events at the older checkpoint
	Hashes     []tlog.Hash
	Checkpoint []byte // signed, the newer one
}

// ProveConsistency makes a proof that the record continues an older checkpoint. Errors: ErrNotFound
// where the record has fewer events; ErrCheckpoint, ErrUnavailable, ErrDamaged.
func (r *Reader) ProveConsistency(ctx context.Context, old Checkpoint) (Consistency, error) {
	data, cp, err := r.checkpoint()
	if err != nil {
		return Consistency{}, wrap("prove", err)
	}
	if old.Size < 1 || old.Size > cp.Size {
		return Consistency{}, &Error{
			Op: "prove", Kind: ErrNotFound, Field: fmt.Sprintf("%d events", old.Size),
			Err: fmt.Errorf("the checkpoint covers 1 to %d", cp.Size),
		}
	}
	c := Consistency{Old: old.Size, Checkpoint: data}
	err = r.store.View(ctx, func(v storage.Reader) error {
		t, err := r.at(ctx, v, cp.Size)
		if err == nil {
			c.Hashes, err = tlog.ProveTree(cp.Size, old.Size, t.reader(r.tiles(ctx, v)))
		}
		return err
	})
	return c, wrap("prove", err)
}

// Marshal gives the bytes of a proof file.
func (c Consistency) Marshal() []byte {
	b := fmt.Appendf(nil, "%s\nold %d\n", consistencyHeader, c.Old)
	return append(append(appendHashes(b, c.Hashes), '\n'), c.Checkpoint...)
}

// ParseConsistency reads a proof file; other spellings are refused. Errors: ErrProof.
func ParseConsistency(data []byte) (Consistency, error) {
	var c Consistency
	head, rest, err := cutHead(data, consistencyHeader, 1)
	if err != nil {
		return c, err
	}
	old, ok := strings.CutPrefix(head.fields[0], "old ")
	if c.Old, err = strconv.ParseInt(old, 10, 64); err != nil || !ok {
		return c, badProof(errors.New("no older size"))
	}
	c.Hashes, c.Checkpoint = head.hashes, rest
	return c, oneForm(c.Marshal(), data)
}

// Check holds the newer checkpoint against an older one, which the caller trusts. Errors: ErrProof,
// ErrCheckpoint.
func (c Consistency) Check(key note.Verifier, old Checkpoint) (Checkpoint, error) {
	cp, err := ParseCheckpoint(c.Checkpoint, key)
	if err != nil {
		return cp, err
	}
	if c.Old != old.Size {
		return cp, badProof(fmt.Errorf("it is from %d events on, not %d", c.Old, old.Size))
	}
	if err := tlog.CheckTree(c.Hashes, cp.Size, cp.Root, old.Size, old.Root); err != nil {
		return cp, badProof(err)
	}
	return cp, nil
}

// proofHead is what comes before the first empty line of a proof file.
type proofHead struct {
	fields []string
	hashes []tlog.Hash
}

// cutHead reads the lines before the first empty one: a header, some fields, and hashes.
func cutHead(data []byte, header string, fields int) (proofHead, []byte, error) {
	var h proofHead
	text, rest, ok := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(text), "\n")
	switch {
	case len(data) > exportBytesMax || header != exportHeader && len(data) > proofBytesMax:
		return h, nil, badProof(fmt.Errorf("%d bytes", len(data)))
	case !ok || lines[0] != header || len(lines) < 1+fields:
		return h, nil, badProof(errors.New("it does not begin as a " + header))
	case len(lines) > 1+fields+proofHashesMax:
		return h, nil, badProof(fmt.Errorf("%d lines", len(lines)))
	}
	h.fields = lines[1 : 1+fields]
	for _, line := range lines[1+fields:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return h, nil, badProof(err)
		}
		h.hashes = append(h.hashes, hash)
	}
	return h, rest, nil
}

func appendHashes(b []byte, hashes []tlog.Hash) []byte {
	for _, h := range hashes {
		b = append(append(b, h.String()...), '\n')
	}
	return b
}

// oneForm wants what was read to be spelled as it is made.
func oneForm(made, data []byte) error {
	if !bytes.Equal(made, data) {
		return badProof(errors.New("it is not in its one form"))
	}
	return nil
}

func badProof(err error) error { return &Error{Op: "check", Kind: ErrProof, Err: err} }
