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

// enqueue has an entry written, where the queue has room and the disk tier works.
func (s *Store) enqueue(e *entry) {
	if s.dir == nil || e.queued {
		return
	}
	size := int64(cap(e.buf))
	if len(s.queue) >= queueEntriesMax || s.queued > 0 && s.queued+size > s.o.QueueBytes ||
		s.pausing(s.o.Now()) {
		s.saves.Skipped++
		return
	}
	e.queued = true
	e.leases++
	s.queue = append(s.queue, e)
	s.queued += size
	s.waiting++
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	select {
	case s.wake <- struct{}{}:
	default:
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
	e := s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1)
	return e
}

// errSkip is the end of a save that was not worth while.
var errSkip = errors.New("not worth its room on disk")

// finish records the end of a save, which wrote a file or found none needed.
func (s *Store) finish(e *entry, wrote bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued -= int64(cap(e.buf))
	s.waiting--
	e.queued = false
	switch {
	case err == nil:
		if wrote {
			s.saves.Done++
		} else {
			s.saves.Skipped++
		}
		s.disk.degraded, s.pause = nil, 0
	case errors.Is(err, errSkip), errors.Is(err, context.Canceled):
		s.saves.Skipped++
	default:
		err = saveError(err)
		s.saves.Failed++
		s.disk.degraded = err
		s.pause = min(max(retryFirst, 2*s.pause), retryMax)
		s.failed = s.o.Now()
		s.o.Log.Warn("snapshot not saved", "id", e.id, "reason", err, "pause", s.pause)
	}
	s.unlease(e)
	if s.waiting == 0 {
		close(s.idle)
		s.idle = nil
	}
}

// save writes the file of an entry, which is leased for it. It reports false where the file is
// there already or no longer wanted.
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
	if e.gone || e.onDisk { // another process wrote it
		s.mu.Unlock()
		return false, nil
	}
	need, recompute := e.diskBytes(), e.recompute
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
	gone := e.gone
	if !gone {
		s.setDisk(e, need)
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
	err = s.writeFile(ctx, f, appendMeta(meta, recompute, saved, e.content), e.buf)
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

// firstScan reads what the directory holds. What goes wrong degrades the tier until a save
// succeeds.
func (s *Store) firstScan() {
	unlock, ok, err := s.dir.TryLock(lockName)
	if err == nil && !ok {
		unlock = func() error { return nil } // another process is writing
	}
	if err != nil {
		err, unlock = saveError(err), func() error { return nil }
	}
	s.disk.degraded = errors.Join(err, s.scan(context.Background(), ok), unlock())
}

// scan brings the index up to what the directory holds: files that other processes wrote and
// removed. Who has the lock also removes what a killed process left half written.
func (s *Store) scan(ctx context.Context, locked bool) error {
	list, err := s.dir.ReadDir(".")
	if err != nil {
		return err
	}
	present, unknown := map[ID]bool{}, []ID{}
	s.mu.Lock()
	for _, d := range list {
		id, ok := parseName(d.Name())
		if !ok {
			continue
		}
		present[id] = true
		e := s.entries[id]
		if _, strange := s.strange[d.Name()]; !strange && (e == nil || !e.onDisk) {
			unknown = append(unknown, id)
		}
	}
	for id, e := range s.entries {
		if e.onDisk && !present[id] && s.loading[id] == nil {
			s.setDisk(e, 0)
			s.settle(e)
		}
	}
	for name, bytes := range s.strange {
		if id, _ := parseName(name); !present[id] {
			s.disk.bytes -= bytes
			delete(s.strange, name)
		}
	}
	s.mu.Unlock()
	for _, d := range list {
		if locked && strings.HasPrefix(d.Name(), tempPrefix) {
			if err := s.remove(d.Name()); err != nil {
				return err
			}
		}
	}
	for _, id := range unknown {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.discover(id)
	}
	return nil
}

// discover takes a file into the index, by its header and metadata. One that is not ours to read
// is only counted, and is the first to go; a damaged one goes now.
func (s *Store) discover(id ID) {
	name := fileName(id)
	var st State
	var n int
	var saved time.Time
	var content []byte
	f, err := s.openFile(name, func(meta []byte) (err error) {
		st, n, saved, err = s.checkMeta(id, meta)
		content = slices.Clone(meta[min(len(meta), metaFixedBytes):])
		return err
	})
	if err == nil {
		_ = f.Close() // read only
	}
	m := missOf(err)
	if err != nil && m == MissDamaged {
		s.o.Log.Warn("snapshot file removed", "id", id, "reason", err)
		_ = s.dir.Remove(name) // what stays is a miss
	}
	var foreign int64
	if err != nil && m == MissForeign {
		if fi, err := s.dir.Lstat(name); err == nil {
			foreign = fi.Size()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.disk.entries >= diskEntriesMax {
		foreign = f.size // too many to know
	}
	switch {
	case foreign > 0:
		s.strange[name] = foreign
		s.disk.bytes += foreign
	case err == nil:
		e := s.entries[id]
		if e == nil {
			e = s.add(id, content, st.Recompute, n)
		}
		e.saved = saved
		s.setDisk(e, f.size)
		s.use(e)
	}
}
