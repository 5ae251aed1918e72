package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger/storage"
	"github.com/norion/norion/control/ledger/storage/sqlite"
	"github.com/norion/norion/hw/disk"
)

// open does the work of Open; release undoes what it got.
func (l *Ledger) open(ctx context.Context, o Options) error {
	unlock, ok, err := l.dir.TryLock(lockFile)
	if err != nil {
		return err
	}
	if !ok {
		return &Error{
			Op: "open", Kind: ErrLocked, Field: o.Dir, Err: errors.New("another process writes to it"),
			Hint: "ask that one, or stop it first",
		}
	}
	l.unlock = unlock
	if err := l.head.read(); err != nil {
		return err
	}
	_, err = l.dir.Lstat(databaseFile)
	missing := errors.Is(err, fs.ErrNotExist)
	fresh := missing && l.head.last == nil
	if l.signer, l.key, err = logKeys(l.dir, fresh); err != nil {
		return err
	}
	if l.payloadKey, err = payloadKey(l.dir, fresh); err != nil {
		return err
	}
	if fresh { // the signed empty tree comes first: a database without a checkpoint is a fault
		if err := l.publish(&tree{}, event.Digest{}); err != nil {
			return err
		}
	}
	cp, err := ParseCheckpoint(l.head.last, l.key)
	if err != nil {
		return err
	}
	if missing && cp.Size > 0 {
		return restored(checkpointName, 0, cp)
	}
	return l.openStore(ctx, o, cp)
}

// openStore opens the database, holds it against its checkpoints and takes stock of it.
func (l *Ledger) openStore(ctx context.Context, o Options, cp Checkpoint) error {
	if err := checkClosed(l.dir, cp); err != nil {
		return err
	}
	if !cp.Closed.IsZero() { // it is about to change
		open := cp
		open.Closed = event.Digest{}
		data, err := open.sign(l.signer)
		if err != nil {
			return err
		}
		if err := l.head.swap(data); err != nil {
			return err
		}
	}
	so := o.sql
	so.Dir, so.Name, so.BytesMax = l.dir, databaseFile, o.BytesMax
	s, err := sqlite.Open(ctx, so)
	if err != nil {
		return err
	}
	l.store = o.wrap(s)
	if err := l.takeStock(ctx, cp); err != nil {
		return err
	}
	if o.Witness != "" {
		if err := l.openWitness(ctx, o); err != nil {
			return err
		}
	}
	if err := l.bringUp(ctx); err != nil {
		return err
	}
	return l.firstEvents(ctx, cp, s.Migration())
}

// takeStock reads the right edge of the tree, holds it against the checkpoint, and recomputes what
// the checkpoint does not cover.
func (l *Ledger) takeStock(ctx context.Context, cp Checkpoint) error {
	return l.store.View(ctx, func(v storage.Reader) error {
		last, err := v.Last(ctx)
		if err != nil {
			return err
		}
		if last < cp.Size {
			return restored(checkpointName, last, cp)
		}
		t, err := loadTree(ctx, v, cp.Size)
		if err != nil {
			return err
		}
		root, err := t.hash()
		if err != nil {
			return err
		}
		if root != cp.Root {
			return forked(checkpointName, cp)
		}
		l.tree.Store(t)
		return recompute(ctx, v, t, last)
	})
}

// recompute appends the events behind t, whose hashes nobody signed for yet, to t.
func recompute(ctx context.Context, v storage.Reader, t *tree, last int64) error {
	var data []byte
	err := v.Rows(ctx, t.size+1, last, func(r *storage.Row) error {
		data = r.AppendCanonical(data[:0])
		if r.Seq != t.size+1 || tlog.RecordHash(data) != r.Leaf {
			return damagedEvent(t.size + 1)
		}
		for _, made := range t.append(r.Leaf) {
			have, err := v.Tile(ctx, made.level, made.n)
			if err != nil {
				return err
			}
			if string(have) != string(made.data) {
				return damagedEvent(r.Seq)
			}
		}
		return nil
	})
	if err == nil && t.size != last {
		err = damagedEvent(t.size + 1)
	}
	return err
}

func damagedEvent(seq int64) error {
	return &Error{
		Op: "open", Kind: ErrDamaged, Field: fmt.Sprintf("event %d", seq), Hint: hintVerify,
	}
}

func restored(name string, last int64, cp Checkpoint) error {
	return &Error{
		Op: "open", Kind: ErrRestored, Field: name,
		Err:  fmt.Errorf("%d events are there, and %d were signed for", last, cp.Size),
		Hint: "put the newer database back; see docs/runbook/ledger.md",
	}
}

func forked(name string, cp Checkpoint) error {
	return &Error{
		Op: "open", Kind: ErrDamaged, Field: name, Hint: hintVerify,
		Err: fmt.Errorf("the first %d events are not those that were signed for", cp.Size),
	}
}

// openWitness reads the second checkpoint. One that cannot be had is named, and does not stop work.
func (l *Ledger) openWitness(ctx context.Context, o Options) error {
	dir, err := o.OpenDir(filepath.Dir(o.Witness))
	if err != nil {
		l.witnessFault = "witness: " + err.Error()
		return nil //nolint:nilerr // Degraded names it
	}
	w := &checkpointFile{dir: dir, name: filepath.Base(o.Witness)}
	if err := w.read(); err != nil {
		l.witnessFault = "witness: " + err.Error()
		return dir.Close()
	}
	l.second = w
	if w.last == nil {
		return nil
	}
	cp, err := ParseCheckpoint(w.last, l.key)
	if err != nil {
		return err
	}
	t := l.tree.Load()
	if t.size < cp.Size {
		return restored(o.Witness, t.size, cp)
	}
	return l.store.View(ctx, func(v storage.Reader) error {
		root, err := tlog.TreeHash(cp.Size, t.reader(l.tiles(ctx, v)))
		if err == nil && root != cp.Root {
			err = forked(o.Witness, cp)
		}
		return err
	})
}

// firstEvents records what opening found out.
func (l *Ledger) firstEvents(ctx context.Context, cp Checkpoint, m *sqlite.Migration) error {
	var bodies []event.Body
	size := l.tree.Load().size
	switch {
	case size == 0:
		id := make([]byte, 16)
		_, _ = rand.Read(id) // never fails
		public, err := disk.ReadFile(l.dir, logPubFile, keyBytesMax)
		if err != nil {
			return err
		}
		bodies = append(bodies, event.Created{
			Ledger: hex.EncodeToString(id), Format: Format,
			LogKey: strings.TrimSuffix(string(public), "\n"),
		})
	case size > cp.Size:
		bodies = append(bodies, event.Recovered{From: cp.Size, To: size})
	}
	if m != nil {
		bodies = append(bodies, event.Migrated{From: m.From, To: m.To, Backup: m.Digest})
	}
	if len(bodies) > 0 {
		var b Batch
		for _, body := range bodies {
			b.Drafts = append(b.Drafts,
				event.Draft{Stream: systemStream, Actor: systemActor, Body: body})
		}
		q, err := prepare(b)
		if err != nil {
			return err
		}
		l.commit(ctx, []*request{q})
		if r := <-q.result; r.err != nil {
			return r.err
		}
	}
	return l.publish(l.tree.Load(), event.Digest{})
}
