// Package presence lets norion processes of one user show each other that they run. It owns
// directories in which each running process keeps one file, and the rule by which the files of dead
// ones are known; it must not know what the files say.
//
// A file belongs to a process that lives as long as the lock beside it is held: the lock ends with
// the process, so that what a killed one left is known, and removed by whoever looks next.
package presence

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/norion/norion/hw/disk"
)

// Bounds.
const (
	Interval     = time.Second // between two looks at what a process shows
	FileBytesMax = 1 << 16     // a file of more is not read
	FilesMax     = 256         // nor are more files than these
)

// Source says what a process shows of itself at this moment: the text of its file, and what of it
// must have changed for the file to be written again.
type Source func(context.Context) (figures, file []byte, err error)

// Publisher keeps the file of this process up to date until Close.
type Publisher struct {
	dir    disk.Dir
	name   string // of the file, without what comes behind the dot
	unlock func() error
	source Source
	asked  func() // nil: it does not listen
	last   []byte // figures in the file

	stop context.CancelFunc
	done chan struct{}
}

// NewName draws a name for a file of this process.
func NewName() string {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	return fmt.Sprintf("%d-%s", os.Getpid(), hex.EncodeToString(id[:]))
}

// fileName is the form of the names of files.
var fileName = regexp.MustCompile(`^[0-9]{1,10}-[0-9a-f]{8}\.json$`)

// Publish writes what a source shows into a directory, which it creates for this user alone: now,
// and once each Interval while it changes. The name is one of NewName. asked is called once when
// another process asks this one to end; nil means that it does not listen.
func Publish(path, name string, source Source, asked func()) (*Publisher, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	unlock, ok, err := dir.TryLock(name + ".lock")
	if err == nil && !ok {
		err = errors.New("the lock of this process is taken")
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Publisher{
		dir: dir, name: name, unlock: unlock, source: source, asked: asked, stop: stop,
		done: make(chan struct{}),
	}
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
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = p.write(ctx)
			p.listen()
		}
	}
}

// listen looks whether this process was asked to end.
func (p *Publisher) listen() {
	if p.asked == nil {
		return
	}
	if _, err := p.dir.Lstat(p.name + ".stop"); err == nil {
		p.asked()
		p.asked = nil
	}
}

// Ask asks the process of a name to end; it hears that within an Interval. No signal is sent: a
// process id may by now, or in another container, be that of another program.
func Ask(path, name string) (err error) {
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	f, err := dir.OpenFile(name+".stop", os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// write replaces the file if its figures have changed.
func (p *Publisher) write(ctx context.Context) error {
	figures, data, err := p.source(ctx)
	if err != nil || p.last != nil && bytes.Equal(figures, p.last) {
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
	for _, end := range []string{".new", ".json", ".stop", ".lock"} {
		errs = append(errs, dir.RemoveAll(name+end))
	}
	return errors.Join(errs...)
}

// Read hands the name and the file of each living process to take, in no order, and removes what
// dead ones left. bad counts the files that cannot be read or that take refuses; a directory that
// is not there has none.
func Read(path string, take func(name string, file []byte) error) (bad int, err error) {
	dir, err := openDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	files, err := dir.ReadDir(".")
	if err != nil {
		return 0, err
	}
	looked := 0
	for _, f := range files {
		if !fileName.MatchString(f.Name()) || !f.Type().IsRegular() {
			continue
		}
		if looked++; looked > FilesMax {
			break
		}
		name := strings.TrimSuffix(f.Name(), ".json")
		if gone(dir, name) {
			continue
		}
		data, err := readFile(dir, f.Name())
		if err == nil {
			err = take(name, data)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // else it has just ended
			bad++
		}
	}
	return bad, nil
}

// gone says that nobody holds the lock of a name. What is left of it is then removed.
func gone(dir disk.Dir, name string) bool {
	lock := name + ".lock"
	if fi, err := dir.Lstat(lock); err == nil && !fi.Mode().IsRegular() {
		return false
	}
	unlock, ok, err := dir.TryLock(lock)
	if err != nil || !ok {
		return false
	}
	_ = errors.Join(remove(dir, name), unlock()) // who looks next removes what is left
	return true
}

func readFile(dir disk.Dir, name string) ([]byte, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, FileBytesMax+1))
	if err == nil && len(data) > FileBytesMax {
		err = fmt.Errorf("more than %d bytes", FileBytesMax)
	}
	return data, errors.Join(err, f.Close())
}
