package top

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"unicode"

	"github.com/norion/norion/cmd/norion/presence"
)

// View is what a directory says at one moment.
type View struct {
	Processes []Process
	Bad       int // files of living processes that cannot be read
}

// Read gives the processes that publish into a directory, and removes what dead ones left there. A
// directory that is not there has none. What a file holds is believed only after it was checked.
func Read(path string) (v View, err error) {
	v.Bad, err = presence.Read(path, func(_ string, file []byte) error {
		p, err := parse(file)
		if err == nil {
			v.Processes = append(v.Processes, p)
		}
		return err
	})
	slices.SortFunc(v.Processes, func(a, b Process) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), a.Written.Compare(b.Written))
	})
	return v, err
}

// parse reads and checks one file.
func parse(file []byte) (p Process, err error) {
	if err := json.Unmarshal(file, &p); err != nil {
		return p, err
	}
	if p.PID <= 0 || len(p.Stats.Held) > heldMax {
		return p, errors.New("figures out of range")
	}
	p.Model = Printable(p.Model)
	for i := range p.Stats.Held {
		h := &p.Stats.Held[i]
		h.Name, h.Place = Printable(h.Name), Printable(h.Place)
	}
	return p, nil
}

// Printable keeps what could command a terminal, and what is too long for a table, out of a name.
func Printable(s string) string {
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
