package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/kv/snapshot"
	"github.com/norion/norion/runtime/llama"
)

// flushMax is how long Close waits for state that is on its way to disk.
const flushMax = 10 * time.Second

// openDisk opens the disk tier and tells the books what an earlier process left there. A directory
// that cannot be used leaves the engine without that tier, and Notes says so.
func (x *cells) openDisk(o *Options, e *Engine) (note string, err error) {
	of := e.identity(o, x.c)
	x.identity = of
	x.disk, err = snapshot.Open(snapshot.Options{
		DiskBytes: o.DiskBytes, Dir: o.CacheDir, Plain: o.CachePlain, Log: o.Logger,
	})
	if err != nil {
		return "", err
	}
	for _, s := range x.disk.Index(of) {
		k, err := parseScope(s.Scope)
		if err != nil {
			continue // of another version: it ages
		}
		k.Model = e.key.Model
		id, ops, err := x.cache.Adopt(kv.Snapshot{
			Key: k, Tokens: s.Tokens, Partial: s.Part == snapshot.Partial, Bytes: s.Bytes,
		})
		if err != nil {
			break // no room for more
		}
		x.files[id] = s.ID
		if err := x.run(ops); err != nil {
			return "", err
		}
	}
	if why := x.disk.Stats().Disk.Degraded; why != "" {
		note = "prefixes are not kept on disk: " + why
	}
	return note, nil
}

// closeDisk waits a while for what is being written.
func (x *cells) closeDisk() error {
	if x.disk == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushMax)
	defer cancel()
	_ = x.disk.Flush(ctx) // what is not written is computed again
	return x.disk.Close()
}

// spill hands a blob to the disk tier, which writes it in the background. A file that does not come
// to be is a miss when it is wanted.
func (x *cells) spill(id kv.BlobID) error {
	bytes, held := x.blobs[id]
	b, ok := x.cache.Blob(id)
	if x.disk == nil || !held || !ok {
		x.cache.SpillFailed(id)
		return nil
	}
	part := snapshot.Full
	if b.Partial {
		part = snapshot.Partial
	}
	of := x.identity
	of.Scope = formatScope(b.Key)
	buf, err := x.disk.Buffer(int64(len(bytes)))
	if err == nil {
		copy(buf.Bytes(), bytes)
		x.files[id], err = x.disk.Put(snapshot.State{
			Identity: of, Part: part, Tokens: b.Tokens, Recompute: x.costs.recompute(len(b.Tokens)),
		}, buf)
	}
	if err != nil {
		delete(x.files, id)
		x.cache.SpillFailed(id)
		return nil //nolint:nilerr // the state stays in memory; the store counts the failure
	}
	return x.run(x.cache.Spilled(id, int64(len(bytes))))
}

// lease reads a blob from disk.
func (x *cells) lease(id kv.BlobID) (*snapshot.Lease, bool) {
	file, ok := x.files[id]
	if x.disk == nil || !ok {
		return nil, false
	}
	return x.disk.Get(context.Background(), file)
}

// forget deletes the bytes of a blob at one place.
func (x *cells) forget(op kv.Op) {
	switch op.Place {
	case kv.RAM:
		x.recycle(x.blobs[op.Blob])
		delete(x.blobs, op.Blob)
	case kv.Disk:
		if file, ok := x.files[op.Blob]; ok && x.disk != nil {
			x.disk.Drop(file)
		}
		delete(x.files, op.Blob)
	}
}

// keep saves what is idle, so that it survives the process, and moves it to disk.
func (x *cells) keep() error {
	if x.disk != nil {
		for s := range kv.Seq(x.c.Info().Sequences) {
			if x.cache.Sequence(s).State != kv.Idle || x.cache.Length(s) < keepMin {
				continue
			}
			_, ops, err := x.cache.Save(s)
			if errors.Is(err, kv.ErrNoRoom) {
				break
			}
			if errors.Is(err, kv.ErrUnknown) {
				continue // a policy has changed it: it is of no use to others
			}
			if err != nil {
				return err
			}
			if err := x.run(ops); err != nil {
				return err
			}
		}
	}
	return x.run(x.cache.Tidy())
}

// ramForDisk is the RAM tier of an engine that was given a disk tier only: state passes through it.
const ramForDisk = 256 << 20

// keepMin is the least number of tokens that are worth a file.
const keepMin = 32

// formatScope writes a key's parts into the scope of a file: lengths come first, so that no two
// keys are written alike.
func formatScope(k kv.Key) string {
	return fmt.Sprintf("%d %d %d %d %s%s%s", len(k.Adapters), len(k.Scope), len(k.Salt),
		k.PublicTokens, k.Adapters, k.Scope, k.Salt)
}

// parseScope reads it back; the model is in the identity.
func parseScope(s string) (kv.Key, error) {
	var a, b, c, public int
	if _, err := fmt.Sscanf(s, "%d %d %d %d ", &a, &b, &c, &public); err != nil {
		return kv.Key{}, err
	}
	head := len(fmt.Sprintf("%d %d %d %d ", a, b, c, public))
	if a < 0 || b < 0 || c < 0 || public < 0 || len(s) != head+a+b+c {
		return kv.Key{}, errors.New("the lengths do not fit")
	}
	s = s[head:]
	return kv.Key{Adapters: s[:a], Scope: s[a : a+b], Salt: s[a+b:], PublicTokens: public}, nil
}

// identity names what the engine's states are computed with.
func (e *Engine) identity(o *Options, c *llama.Context) snapshot.Identity {
	version, commit, _, _ := llama.Version()
	i := c.Info()
	return snapshot.Identity{
		Engine: version + " " + commit, Model: e.key.Model,
		Context: fmt.Sprintf("kv=%s flash=%t shared=%t small=%t micro=%d threads=%d", o.KVType,
			!o.NoFlash, o.Shared, o.SmallWindow, i.MicroBatch, i.Threads),
	}
}
