package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/norion/norion/hw/disk"
)

// Names in the directory.
const (
	lockName   = "lock"
	fileSuffix = ".kv"
	tempPrefix = "tmp-"
)

// errMoved is the reason of a save where the directory's path leads elsewhere.
var errMoved = errors.New("the directory was moved or replaced")

// fileName is the name of a state's file.
func fileName(id ID) string { return id.String() + fileSuffix }

// parseName is the inverse of fileName.
func parseName(name string) (id ID, ok bool) {
	digits, ok := strings.CutSuffix(name, fileSuffix)
	if !ok || len(digits) != 2*len(id) || strings.ToLower(digits) != digits {
		return ID{}, false
	}
	_, err := hex.Decode(id[:], []byte(digits))
	return id, err == nil
}

// pausing says that a save failed less than a pause ago. After a clock that was set back there is
// no telling: then the disk is asked again.
func (s *Store) pausing(now time.Time) bool {
	since := now.Sub(s.failed)
	return since >= 0 && since < s.pause
}

// enqueue has an entry written that has its state now, and reports false where the queue has no
// room or the disk failed a while ago.
func (s *Store) enqueue(e *entry, b *Buffer) bool {
	queued := int64(0)
	for _, w := range s.queue {
		queued += w.buf.Size()
	}
	if s.writing != nil {
		queued += s.writing.buf.Size()
	}
	if len(s.queue) >= queueEntriesMax || queued > 0 && queued+b.Size() > s.o.QueueBytes ||
		s.pausing(s.o.Now()) {
		s.saves.Skipped++
		return false
	}
	e.buf = b.share()
	s.queue = append(s.queue, e)
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// release ends the wait of an entry that is no longer in the queue.
func (s *Store) release(e *entry) {
	e.buf.Release()
	e.buf = nil
	if len(s.queue) == 0 && s.writing == nil {
		close(s.idle)
		s.idle = nil
	}
}

// saveLoop writes what is in the queue until ctx ends. Open starts it, Close waits for it.
func (s *Store) saveLoop(ctx context.Context) {
	defer close(s.done)
	for {
		select {
		case <-ctx.Done():
			for e := s.next(); e != nil; e = s.next() {
				s.finish(e, false, ctx.Err())
			}
			return
		case <-s.wake:
		}
		for ctx.Err() == nil {
			e := s.next()
			if e == nil {
				break
			}
			wrote, err := s.save(ctx, e)
			s.finish(e, wrote, err)
		}
	}
}

// next takes the oldest entry of the queue, or nil.
func (s *Store) next() *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	s.writing = s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1)
	return s.writing
}

// errSkip is the end of a save that was not worth while.
var errSkip = errors.New("not worth its room on disk")

// finish records the end of a save, which wrote a file or found none needed.
func (s *Store) finish(e *entry, wrote bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		if wrote {
			s.saves.Done++
		} else {
			s.saves.Skipped++
		}
		s.degraded, s.pause = nil, 0
	case errors.Is(err, errSkip), errors.Is(err, context.Canceled):
		s.saves.Skipped++
	default:
		err = saveError(err)
		s.saves.Failed++
		s.degraded = err
		s.pause = min(max(retryFirst, 2*s.pause), retryMax)
		s.failed = s.o.Now()
		s.o.Log.Warn("snapshot not saved", "id", e.id, "reason", err, "pause", s.pause)
	}
	s.writing = nil
	s.release(e)
	if e.fileBytes == 0 && s.entries[e.id] == e {
		delete(s.entries, e.id)
	}
}

// save writes the file of an entry. It reports false where the file is there already or no longer
// wanted.
func (s *Store) save(ctx context.Context, e *entry) (wrote bool, err error) {
	if moved, err := s.dir.Moved(); err != nil || moved {
		return false, errors.Join(err, &Error{
			Op: "save", Kind: ErrDisk, Field: "Dir", Err: errMoved,
			Hint: "put the directory back, or start again to use the new one",
		})
	}
	unlock, err := s.lockDir(ctx)
	if err != nil {
		return false, err
	}
	wrote, err = s.saveLocked(ctx, e)
	return wrote, errors.Join(err, unlock())
}

func (s *Store) saveLocked(ctx context.Context, e *entry) (wrote bool, err error) {
	if err := s.scan(ctx, true); err != nil {
		return false, err
	}
	s.mu.Lock()
	if s.entries[e.id] != e || e.fileBytes > 0 { // forgotten, or another process wrote it
		s.mu.Unlock()
		return false, nil
	}
	need, recompute := e.bytes(), e.recompute
	names, ok := s.makeRoom(e, need)
	s.mu.Unlock()
	if !ok {
		return false, errSkip
	}
	for _, name := range names {
		if err := s.remove(name); err != nil {
			return false, err
		}
	}
	free, err := s.dir.Free()
	if err != nil {
		return false, err
	}
	if free < need+reserveBytes {
		return false, fmt.Errorf("%w: %d MiB free, %d MiB stay free",
			disk.ErrNoSpace, free>>20, reserveBytes>>20)
	}
	if err := s.writeAtomic(ctx, e, recompute); err != nil {
		return false, err
	}
	s.mu.Lock()
	gone := s.entries[e.id] != e
	if !gone {
		s.setStrange(fileName(e.id), 0) // it was replaced
		s.setFile(e, need)
	}
	s.mu.Unlock()
	if gone { // dropped meanwhile
		return false, s.remove(fileName(e.id))
	}
	return true, nil
}

// remove deletes a file, which another process may have done before.
func (s *Store) remove(name string) error {
	if err := s.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeAtomic writes the file of an entry under another name, makes it durable and renames it. On
// an error neither name stays.
func (s *Store) writeAtomic(
	ctx context.Context, e *entry, recompute time.Duration,
) (err error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	temp, name := tempPrefix+hex.EncodeToString(random[:]), fileName(e.id)
	f, err := s.dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	placed := temp
	defer func() {
		if err != nil {
			_ = s.dir.Remove(placed) // the next save removes a temporary file that stays
		}
	}()
	saved := s.o.Now()
	meta := make([]byte, 0, metaFixedBytes+len(e.content))
	err = s.writeFile(ctx, f, appendMeta(meta, recompute, saved, e.content), e.buf.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = s.dir.Rename(temp, name); err != nil {
		return err
	}
	placed = name
	s.mu.Lock()
	e.saved = saved
	s.mu.Unlock()
	return s.dir.SyncDir(".")
}

// lockDir takes the lock of the directory, waiting for another writer for up to lockWait.
func (s *Store) lockDir(ctx context.Context) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		unlock, ok, err := s.dir.TryLock(lockName)
		if err != nil || ok {
			return unlock, err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, errors.New("another process keeps the directory's lock")
		}
	}
}
