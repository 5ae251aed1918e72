package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
)

// findingsMax bounds what Verify lists; the rest is counted.
const findingsMax = 64

// Finding is one fault of a record.
type Finding struct {
	Where string `json:"where"` // "event 17", "tile 0/3", "checkpoint", ...
	What  string `json:"what"`
}

// Report is what Verify looked at and found.
type Report struct {
	Events      int64     `json:"events"`
	Signed      int64     `json:"signed"` // that the checkpoint covers
	Root        string    `json:"root"`   // of the tree over all events, base64
	Closed      bool      `json:"closed"` // every byte of the database was signed for
	Payloads    int64     `json:"payloads"`
	Forgotten   int64     `json:"forgotten"`
	Projections []string  `json:"projections"` // that were recomputed
	Unchecked   []string  `json:"unchecked"`   // what was not looked at, and why
	Findings    []Finding `json:"findings"`
	More        int       `json:"more"` // findings that are not listed
}

// verifying is one run of Verify.
type verifying struct {
	Report
	r         *Reader
	tree      tree
	signed    map[int64][]signedRoot // by size
	versions  map[streamKey]int64
	scopes    map[event.Digest]event.Scope // of the payloads that events commit to
	forgotten map[event.Digest]bool
	states    []Snapshot // by projection
	data      []byte
}

type signedRoot struct {
	name string
	root tlog.Hash
}

// Verify walks everything: the checkpoints, the database's own structure, every event, its place in
// the tree and in its stream, every sealed text, and every projection, which it computes anew. It
// fails closed: err is ErrDamaged when there is any finding.
func (r *Reader) Verify(ctx context.Context) (Report, error) {
	v := &verifying{
		r: r, signed: map[int64][]signedRoot{}, versions: map[streamKey]int64{},
		scopes: map[event.Digest]event.Scope{}, forgotten: map[event.Digest]bool{},
	}
	for _, p := range r.projections {
		v.states = append(v.states, Snapshot{})
		v.Projections = append(v.Projections, p.Name())
	}
	v.checkpoints()
	found, err := r.store.Check(ctx)
	for _, what := range found {
		v.find("database", errors.New(what))
	}
	v.find("database", err)
	v.find("database", r.store.View(ctx, func(s storage.Reader) error { return v.walk(ctx, s) }))
	if err := ctx.Err(); err != nil {
		return v.Report, wrap("verify", err)
	}
	if len(v.Findings) > 0 {
		first := v.Findings[0]
		return v.Report, &Error{
			Op: "verify", Kind: ErrDamaged, Field: first.Where, Hint: "see docs/runbook/ledger.md",
			Err: fmt.Errorf("%s (%d findings)", first.What, len(v.Findings)+v.More),
		}
	}
	return v.Report, nil
}

// find lists a finding; no error is none. Of an error of this package the cause is enough.
func (v *verifying) find(where string, err error) {
	if e, ok := errors.AsType[*Error](err); ok && e.Err != nil {
		err = e.Err
	}
	switch {
	case err == nil:
	case len(v.Findings) == findingsMax:
		v.More++
	default:
		v.Findings = append(v.Findings, Finding{where, err.Error()})
	}
}

// checkpoints checks the files beside the database.
func (v *verifying) checkpoints() {
	data, cp, err := v.r.checkpoint()
	v.find(checkpointName, err)
	if err == nil {
		v.signed[cp.Size] = append(v.signed[cp.Size], signedRoot{checkpointName, cp.Root})
		v.Signed = cp.Size
		if err := checkClosed(v.r.dir, cp); err != nil {
			// Unless somebody has opened it since.
			if now, _, err2 := v.r.checkpoint(); err2 != nil || string(now) == string(data) {
				v.find(databaseFile, err)
			}
		}
		v.Closed = !cp.Closed.IsZero()
	}
	if _, _, err := logKeys(v.r.dir, false); errors.Is(err, fs.ErrNotExist) {
		v.Unchecked = append(v.Unchecked, "the signing key: it is not here")
	} else {
		v.find(logKeyFile, err)
	}
	if v.r.witness == "" {
		return
	}
	dir, err := v.r.openDir(filepath.Dir(v.r.witness))
	if err != nil {
		v.find("witness", err)
		return
	}
	w := checkpointFile{dir: dir, name: filepath.Base(v.r.witness)}
	err = errors.Join(w.read(), dir.Close())
	if err == nil {
		cp, err = ParseCheckpoint(w.last, v.r.key)
	}
	v.find("witness", err)
	if err == nil {
		v.signed[cp.Size] = append(v.signed[cp.Size], signedRoot{"witness", cp.Root})
	}
}

// walk checks all rows of one state.
func (v *verifying) walk(ctx context.Context, s storage.Reader) error {
	last, err := s.Last(ctx)
	if err != nil {
		return err
	}
	if err := v.roots(); err != nil { // of the empty tree
		return err
	}
	if err := s.Rows(ctx, 1, last, func(row *storage.Row) error {
		return v.event(ctx, s, row)
	}); err != nil {
		return fmt.Errorf("after event %d: %w", v.tree.size, err)
	}
	v.Events = v.tree.size
	root, err := v.tree.hash()
	if err != nil {
		return err
	}
	v.Root = root.String()
	for size, all := range v.signed {
		for _, x := range all {
			if size > v.Events {
				v.find(x.name, fmt.Errorf("%w: %d events are there, and %d were signed for",
					ErrRestored, v.Events, size))
			}
		}
	}
	if err := v.payloads(ctx, s); err != nil {
		return err
	}
	return v.projected(ctx, s)
}

// roots holds the tree against what was signed for at its size.
func (v *verifying) roots() error {
	for _, x := range v.signed[v.tree.size] {
		root, err := v.tree.hash()
		if err != nil {
			return err
		}
		if root != x.root {
			v.find(x.name, fmt.Errorf("the first %d events are not those that were signed for",
				v.tree.size))
		}
	}
	return nil
}

// event checks one row.
func (v *verifying) event(ctx context.Context, s storage.Reader, row *storage.Row) error {
	where := func() string { return fmt.Sprintf("event %d", row.Seq) }
	if row.Seq != v.tree.size+1 {
		v.find(where(), fmt.Errorf("it stands where event %d should", v.tree.size+1))
	}
	v.data = row.AppendCanonical(v.data[:0])
	leaf := tlog.RecordHash(v.data)
	if leaf != row.Leaf {
		v.find(where(), errors.New("it is not what was recorded"))
	}
	for _, made := range v.tree.append(leaf) {
		have, err := s.Tile(ctx, made.level, made.n)
		if err == nil && string(have) != string(made.data) {
			err = errors.New("its hashes are not those of the events")
		}
		v.find(fmt.Sprintf("tile %d/%d", made.level, made.n), err)
	}
	key := streamKey{row.Scope, row.Stream}
	if v.versions[key]++; row.Version != v.versions[key] {
		v.find(where(), fmt.Errorf("version %d of its stream, where %d should be", row.Version,
			v.versions[key]))
	}
	if !row.Payload.IsZero() {
		v.scopes[row.Payload] = row.Scope
	}
	if row.Seq == 1 || row.Kind == event.PayloadForgotten {
		v.find(where(), v.special(row))
	}
	for i, p := range v.r.projections {
		v.find(where(), p.Apply(v.states[i], owned(row)))
	}
	return v.roots()
}

// special checks the events that the ledger itself reads.
func (v *verifying) special(row *storage.Row) error {
	body, err := row.Decode()
	if err != nil {
		return err
	}
	switch b := body.(type) {
	case event.Created:
		key, err := ParseKey([]byte(b.LogKey + "\n"))
		if err == nil && (key.KeyHash() != v.r.key.KeyHash() || key.Name() != v.r.key.Name()) {
			err = errors.New("the record was begun with another key than " + logPubFile)
		}
		return err
	case event.Forgotten:
		v.forgotten[b.Payload] = true
		return nil
	}
	return errors.New("the first event does not begin a record")
}

// payloads checks the sealed texts and their keys.
func (v *verifying) payloads(ctx context.Context, s storage.Reader) error {
	master, err := payloadKey(v.r.dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		v.Unchecked = append(v.Unchecked, "sealed texts: their key is not here")
	} else {
		v.find(payloadKeyFile, err)
	}
	return s.Payloads(ctx, func(d event.Digest, p storage.Payload) error {
		v.Payloads++
		scope, known := v.scopes[d]
		var err error
		switch {
		case !known:
			err = errors.New("no event commits to it")
		case event.DigestOf(p.Sealed) != d:
			err = errors.New("the ciphertext was changed")
		case v.forgotten[d] != (p.Key == nil):
			err = errors.New("its key is there although it was forgotten, or the other way round")
		case p.Key == nil:
			v.Forgotten++
		case master != nil:
			_, err = unseal(master, p, scope, d)
		}
		v.find("payload "+d.String(), err)
		return nil
	})
}

// projected compares what the projections are with what is stored.
func (v *verifying) projected(ctx context.Context, s storage.Reader) error {
	live, err := storedState(ctx, s, systemState)
	if err != nil {
		return err
	}
	names, err := s.Projections(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != systemState && !slices.Contains(v.Projections, name) {
			v.Unchecked = append(v.Unchecked, "projection "+name+": this program does not know it")
		}
	}
	for i, name := range v.Projections {
		if _, ok := live[name]; !ok {
			v.Unchecked = append(v.Unchecked, "projection "+name+": it was not built yet")
			continue
		}
		have, err := storedState(ctx, s, name)
		if err != nil {
			return err
		}
		if have.Digest() != v.states[i].Digest() {
			v.find("projection "+name, errors.New("it is not what follows from the events"))
		}
	}
	return nil
}
