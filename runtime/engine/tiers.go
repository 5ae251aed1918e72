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

// openStore gets the memory for saved state, and for a copy or a restore of one request's state
// beside; opens the disk tier, if there is to be one, and tells the books what an earlier process
// left there. A directory that cannot be used leaves the engine without that tier; note says so.
func (x *cells) openStore(o *Options, e *Engine, requestBytes int64) (note string, err error) {
	of := e.identity(o, x.c)
	x.identity = of
	x.store, err = snapshot.Open(snapshot.Options{
		BufferBytes: add(o.RAM, requestBytes),
		DiskBytes:   o.DiskBytes, Dir: o.CacheDir, Plain: o.CachePlain, Log: o.Logger,
	})
	if err != nil {
		return "", err
	}
	for _, s := range x.store.Index(of) {
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
	if why := x.store.Stats().Degraded; why != "" {
		note = "prefixes are not kept on disk: " + why
	}
	return note, nil
}

// close waits a while for what is being written, and gives all memory back.
func (x *cells) close() error {
	if x.store == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushMax)
	defer cancel()
	_ = x.store.Flush(ctx) // what is not written is computed again
	for _, buf := range x.blobs {
		buf.Release()
	}
	clear(x.blobs)
	return x.store.Close()
}

// spill has the disk tier write a blob in the background, from the memory where it lies. A file
// that does not come to be is a miss when it is wanted.
func (x *cells) spill(id kv.BlobID) error {
	buf, held := x.blobs[id]
	b, ok := x.cache.Blob(id)
	if !held || !ok {
		x.cache.SpillFailed(id)
		return nil
	}
	part := snapshot.Full
	if b.Partial {
		part = snapshot.Partial
	}
	of := x.identity
	of.Scope = formatScope(b.Key)
	file, err := x.store.Put(snapshot.State{
		Identity: of, Part: part, Tokens: b.Tokens, Recompute: x.costs.recompute(len(b.Tokens)),
	}, buf)
	if err != nil {
		x.cache.SpillFailed(id)
		return nil //nolint:nilerr // the state stays in memory; the store counts the failure
	}
	x.files[id] = file
	return x.run(x.cache.Spilled(id, int64(len(buf.Bytes()))))
}

// load reads a blob from disk, for the caller to release.
func (x *cells) load(id kv.BlobID) (*snapshot.Buffer, bool) {
	file, ok := x.files[id]
	if !ok {
		return nil, false
	}
	return x.store.Get(context.Background(), file)
}

// forget deletes the bytes of a blob at one place.
func (x *cells) forget(op kv.Op) {
	switch op.Place {
	case kv.RAM:
		x.blobs[op.Blob].Release() // what is being written lives on until then
		delete(x.blobs, op.Blob)
	case kv.Disk:
		if file, ok := x.files[op.Blob]; ok {
			x.store.Drop(file)
		}
		delete(x.files, op.Blob)
	}
}

// keep saves what is idle, so that it survives the process, and moves it to disk.
func (x *cells) keep() error {
	if x.cache.Stats().Disk.Budget > 0 {
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
	i, streams := c.Info(), 1
	if !o.Shared {
		streams = i.Sequences // llama.cpp writes how many there are into a state, and wants as many
	}
	return snapshot.Identity{
		Engine: version + " " + commit, Model: e.key.Model,
		Context: fmt.Sprintf("kv=%s flash=%t streams=%d small=%t micro=%d threads=%d", o.KVType,
			!o.NoFlash, streams, o.SmallWindow, i.MicroBatch, i.Threads),
	}
}
