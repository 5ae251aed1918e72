package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/kv/snapshot"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// cells does to the context what the books in cache say. The owner goroutine alone uses it.
type cells struct {
	c        *llama.Context
	cache    *kv.Cache
	store    *snapshot.Store                // the memory of saved state, and the disk tier
	blobs    map[kv.BlobID]*snapshot.Buffer // in memory, as long as the books want them there
	files    map[kv.BlobID]snapshot.ID
	identity snapshot.Identity
	costs    costs // what all this takes
}

// newCells begins the books of an empty context.
func newCells(c *llama.Context, cfg kv.Config) (*cells, error) {
	cfg.PosMin = func(s kv.Seq) kv.Pos { return kv.Pos(c.PosMin(llama.Seq(s))) }
	cache, err := kv.New(cfg)
	if err != nil {
		return nil, err
	}
	return &cells{
		c: c, cache: cache, blobs: map[kv.BlobID]*snapshot.Buffer{},
		files: map[kv.BlobID]snapshot.ID{},
	}, nil
}

// run executes operations in order. What a later answer of the books adds runs at once. After an
// error, the sequence that it concerns holds what nobody knows, and its further operations are left
// out: see cold. Those of others are done.
func (x *cells) run(ops []kv.Op) (err error) {
	failed := kv.NoSeq
	for _, op := range ops {
		if err != nil && op.Seq == failed {
			if op.Kind == kv.Save || op.Kind == kv.Checkpoint {
				x.cache.SaveFailed(op.Blob)
			}
			continue
		}
		if e := x.do(op); e != nil && err == nil {
			failed, err = op.Seq, fmt.Errorf("%s of sequence %d: %w", op.Kind, op.Seq, e)
		}
	}
	return err
}

func (x *cells) do(op kv.Op) error {
	seq := llama.Seq(op.Seq)
	switch op.Kind {
	case kv.SeqCopy:
		if op.Own {
			return x.copyState(llama.Seq(op.From), seq)
		}
		return x.c.Copy(llama.Seq(op.From), seq, llama.Pos(op.P0), llama.Pos(op.P1))
	case kv.SeqRemove:
		if op.P0 == 0 && op.P1 == kv.End {
			return x.c.Drop(seq)
		}
		return x.c.Remove(seq, llama.Pos(op.P0), llama.Pos(op.P1))
	case kv.Shift:
		return x.c.Shift(seq, llama.Pos(op.P0), llama.Pos(op.P1), llama.Pos(op.Delta))
	case kv.Save:
		return x.save(op, 0)
	case kv.Checkpoint:
		return x.save(op, llama.StatePartial)
	case kv.Restore:
		return x.restore(op)
	case kv.Forget:
		x.forget(op)
		return nil
	case kv.Spill:
		return x.spill(op.Blob)
	}
	return fmt.Errorf("unknown operation %d", op.Kind)
}

// copyState gives a sequence cells of its own with what another one has.
func (x *cells) copyState(from, to llama.Seq) error {
	begin := time.Now()
	buf, err := x.state(from, 0)
	if err != nil {
		return err
	}
	defer buf.Release()
	if err := x.c.StateSet(to, buf.Bytes(), 0); err != nil {
		return err
	}
	x.costs.copy.moved(int(x.c.PosMax(from))+1, time.Since(begin))
	return nil
}

// state copies the state of a sequence into memory, for the caller to release.
func (x *cells) state(seq llama.Seq, flags llama.StateFlags) (*snapshot.Buffer, error) {
	n, err := x.c.StateSize(seq, flags)
	if err != nil {
		return nil, err
	}
	buf, err := x.store.Buffer(int64(n))
	if err != nil {
		return nil, err
	}
	if n, err = x.c.StateGet(seq, buf.Bytes(), flags); err != nil {
		buf.Release()
		return nil, err
	}
	buf.Trim(n)
	return buf, nil
}

// save keeps the state of a sequence in memory. The books count what the memory takes. That there
// is no room for it is theirs to know, not an error of the request.
func (x *cells) save(op kv.Op, flags llama.StateFlags) error {
	begin := time.Now()
	buf, err := x.state(llama.Seq(op.Seq), flags)
	if err != nil {
		x.cache.SaveFailed(op.Blob)
		return nil //nolint:nilerr // it is computed again
	}
	if flags == 0 { // the bytes of a checkpoint are not in proportion to its tokens
		x.costs.save.moved(int(op.P1), time.Since(begin))
	}
	x.blobs[op.Blob] = buf
	return x.run(x.cache.Saved(op.Blob, buf.Size()))
}

func (x *cells) restore(op kv.Op) error {
	begin, flags := time.Now(), llama.StateFlags(0)
	if op.Partial {
		flags = llama.StatePartial
	}
	buf, ok := x.blobs[op.Blob]
	if op.Place == kv.Disk {
		if buf, ok = x.load(op.Blob); ok {
			defer buf.Release()
		}
	}
	if !ok {
		x.cache.Lost(op.Blob, op.Place)
		return errors.New("the saved state is gone")
	}
	if err := x.c.StateSet(llama.Seq(op.Seq), buf.Bytes(), flags); err != nil {
		return err
	}
	switch {
	case op.Partial:
	case op.Place == kv.Disk:
		x.costs.disk.moved(int(op.P1), time.Since(begin))
	default:
		x.costs.restore.moved(int(op.P1), time.Since(begin))
	}
	return nil
}

// cold empties a sequence after an operation on it failed.
func (x *cells) cold(seq kv.Seq) {
	_ = x.c.Drop(llama.Seq(seq)) // cannot fail on an open context's sequence
	x.cache.Failed(seq)
}

// drop empties a sequence and frees it.
func (x *cells) drop(seq kv.Seq) {
	if x.run(x.cache.Drop(seq)) != nil {
		_ = x.c.Drop(llama.Seq(seq))
	}
}

// end leaves what a request computed for others. Of a deterministic one only what a cold run would
// have computed in the same way stays: whole blocks of its prompt.
func (x *cells) end(g *generation) {
	if g.r.KV.Deterministic {
		n := min(len(g.tokens), x.cache.Length(g.seq)) / detBlock * detBlock
		plan, err := x.cache.Truncate(g.seq, n)
		if err != nil || x.run(plan.Ops) != nil || len(plan.Again) > 0 {
			x.drop(g.seq)
			return
		}
	}
	x.cache.End(g.seq)
}

// abandon undoes an admission that nobody wants any more.
func (x *cells) abandon(a kv.Admission) {
	if x.run(a.Ops) != nil {
		x.cold(a.Seq)
	}
	x.cache.End(a.Seq)
}

// settle makes context and books agree on a sequence after a step that failed or was interrupted:
// both keep what is known to be computed. It returns what has to be computed again.
func (x *cells) settle(seq kv.Seq) []kv.Token {
	held := append([]kv.Token(nil), x.cache.Tokens(seq)...)
	plan, err := x.cache.Truncate(seq, len(held))
	if err == nil && x.run(plan.Ops) == nil {
		return plan.Again
	}
	x.cold(seq)
	return held
}

// kvKinds maps the kinds of the books to those that every backend shares.
var kvKinds = map[kv.Kind]infer.Kind{
	kv.ErrInvalid: infer.KindInvalid, kv.ErrContradicts: infer.KindInvalid,
	kv.ErrPolicy: infer.KindInvalid, kv.ErrUnsupported: infer.KindUnsupported,
	kv.ErrTooLong: infer.KindTooLong, kv.ErrNoRoom: infer.KindBusy,
	kv.ErrUnknown: infer.KindInternal,
}
