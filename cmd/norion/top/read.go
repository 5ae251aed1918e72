package top

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/norion/norion/hw/disk"
)

// fileName is the form of the names of files that hold figures.
var fileName = regexp.MustCompile(`^[0-9]{1,10}-[0-9a-f]{8}\.json$`)

// View is what a directory says at one moment.
type View struct {
	Processes []Process
	Bad       int // files of living processes that cannot be read
}

// Read gives the processes that publish into a directory, and removes what dead ones left there. A
// directory that is not there has none. What a file holds is believed only after it was checked.
func Read(path string) (View, error) {
	dir, err := openDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return View{}, nil
	}
	if err != nil {
		return View{}, err
	}
	v, err := read(dir)
	return v, errors.Join(err, dir.Close())
}

func read(dir disk.Dir) (v View, err error) {
	files, err := dir.ReadDir(".")
	if err != nil {
		return v, err
	}
	looked := 0
	for _, f := range files {
		if !fileName.MatchString(f.Name()) || !f.Type().IsRegular() {
			continue
		}
		if looked++; looked > filesMax {
			break
		}
		name := strings.TrimSuffix(f.Name(), ".json")
		if gone(dir, name) {
			continue
		}
		p, err := readFile(dir, f.Name())
		switch {
		case err == nil:
			v.Processes = append(v.Processes, p)
		case !errors.Is(err, fs.ErrNotExist): // else it has just ended
			v.Bad++
		}
	}
	slices.SortFunc(v.Processes, func(a, b Process) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), a.Written.Compare(b.Written))
	})
	return v, nil
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

// readFile reads and checks one file.
func readFile(dir disk.Dir, name string) (p Process, err error) {
	f, err := dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return p, err
	}
	data, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return p, err
	}
	if len(data) > fileBytesMax {
		return p, fmt.Errorf("more than %d bytes", fileBytesMax)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, err
	}
	if p.PID <= 0 || len(p.Stats.Held) > heldMax {
		return p, errors.New("figures out of range")
	}
	p.Model = printable(p.Model)
	for i := range p.Stats.Held {
		h := &p.Stats.Held[i]
		h.Name, h.Place = printable(h.Name), printable(h.Place)
	}
	return p, nil
}

// printable keeps what could command a terminal, and what is too long for a table, out of a name.
func printable(s string) string {
	const most = 48
	out := make([]rune, 0, most)
	for _, r := range s {
		if len(out) == most {
			break
		}
		if unicode.IsPrint(r) {
			out = append(out, r)
		}
	}
	return string(out)
}
