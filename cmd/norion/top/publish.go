// Package top lets norion processes show each other what their caches hold. It owns the directory
// in which each running process keeps one file with its figures, and the views of those files: a
// terminal interface, and plain text. It must not know engines, models or flags.
//
// A file belongs to a process that lives as long as the lock beside it is held: the lock ends with
// the process, so that what a killed one left is known, and removed by whoever looks next.
package top

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/infer"
)

// Bounds.
const (
	interval     = time.Second
	placeMax     = 12 // entries of one file for each place
	heldMax      = 3 * placeMax
	fileBytesMax = 1 << 16 // a file of more is not read
	filesMax     = 256     // nor are more files than these
)

// Process is what one norion process shows of itself: figures only, no text.
type Process struct {
	PID     int         `json:"pid"`
	Model   string      `json:"model"`
	Written time.Time   `json:"written"`
	Stats   infer.Stats `json:"stats"`
}

// Publisher keeps the file of this process up to date until Close.
type Publisher struct {
	dir    disk.Dir
	name   string // of the file, without what comes behind the dot
	unlock func() error
	o      infer.Observer
	model  string
	last   []byte // figures in the file, without ages

	stop context.CancelFunc
	done chan struct{}
}

// Publish writes what a backend observes of itself into a directory, which it creates for this user
// alone, now and about once a second while it changes. The caller closes it before the backend.
func Publish(path, model string, o infer.Observer) (*Publisher, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	p := &Publisher{dir: dir, o: o, model: model, done: make(chan struct{})}
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	p.name = fmt.Sprintf("%d-%s", os.Getpid(), hex.EncodeToString(id[:]))
	unlock, ok, err := dir.TryLock(p.name + ".lock")
	if err == nil && !ok {
		err = errors.New("the lock of this process is taken")
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	p.unlock = unlock
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	if err := p.write(ctx); err != nil {
		close(p.done)
		return nil, errors.Join(err, p.Close())
	}
	go p.run(ctx)
	return p, nil
}

// openDir opens a directory that belongs to this user alone.
func openDir(path string) (disk.Dir, error) {
	dir, err := disk.OpenDir(path)
	if err != nil {
		return nil, err
	}
	fi, err := dir.Lstat(".")
	if err == nil && !disk.Private(fi) {
		err = fmt.Errorf("%s: others than this user may read or write it", path)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// run writes until ctx ends. What cannot be written once may be the next time.
func (p *Publisher) run(ctx context.Context) {
	defer close(p.done)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = p.write(ctx)
		}
	}
}

// write replaces the file if anything but ages has changed.
func (p *Publisher) write(ctx context.Context) error {
	s, err := p.o.Stats(ctx)
	if err != nil {
		return err
	}
	places := map[string]int{}
	s.Held = slices.DeleteFunc(s.Held, func(h infer.Held) bool {
		places[h.Place]++
		return places[h.Place] > placeMax
	})
	figures, err := json.Marshal(ageless(s))
	if err != nil || bytes.Equal(figures, p.last) {
		return err
	}
	data, err := json.Marshal(Process{os.Getpid(), p.model, time.Now(), s})
	if err != nil {
		return err
	}
	temp := p.name + ".new"
	f, err := p.dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.dir.Rename(temp, p.name+".json")
	}
	if err == nil {
		p.last = figures
	}
	return err
}

// ageless gives figures that stay the same while nothing happens.
func ageless(s infer.Stats) infer.Stats {
	held := make([]infer.Held, len(s.Held))
	for i, h := range s.Held {
		held[i] = h
		held[i].AgeSeconds = 0
	}
	s.Held = held
	return s
}

// Close ends the writing and removes the file. It is called once.
func (p *Publisher) Close() error {
	p.stop()
	<-p.done
	err := remove(p.dir, p.name)
	return errors.Join(err, p.unlock(), p.dir.Close())
}

// remove deletes all files of a name. RemoveAll does not mind those that are missing.
func remove(dir disk.Dir, name string) error {
	var errs []error
	for _, end := range []string{".new", ".json", ".lock"} {
		errs = append(errs, dir.RemoveAll(name+end))
	}
	return errors.Join(errs...)
}
