// Package config reads norion's configuration file, a TOML document whose keys are names of flags.
// It owns the form of the file, the places of its keys, and their types; it must not know which
// flags there are or what they mean: its callers say which names are known.
//
// Keys before the first table are for every command, those of a table for the command it names:
//
//	threads = 4
//
//	[serve]
//	sequences = 8
//	allow-origin = ["https://chat.example"]
package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	parser "github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/norion/norion/runtime/infer"
)

// BytesMax bounds a file. Callers read no more than that.
const BytesMax = 64 << 10

// File is a file that was read. It does not change and is safe for concurrent use.
type File struct {
	path string
	all  *koanf.Koanf
	at   map[string]int // line of each key, by its path with dots
}

// Value is what a file says of one key.
type Value struct {
	Data any    // bool, int64, float64, string, []any, or what no flag takes
	At   string // the file and the line, as path:7
}

// Parse reads the text of a file. path is for messages only. The error is an *infer.Error that
// names the line.
func Parse(path string, text []byte) (*File, error) {
	f := &File{path: path, all: koanf.New("."), at: map[string]int{}}
	if len(text) > BytesMax {
		return nil, f.refuse("", 0, "", "more than %d bytes", BytesMax)
	}
	if err := f.all.Load(rawbytes.Provider(text), toml.Parser()); err != nil {
		line := 0
		if at, ok := errors.AsType[*parser.DecodeError](err); ok {
			line, _ = at.Position()
		}
		return nil, f.refuse("", line, `write NAME = VALUE, with texts in "quotes"`, "%w", err)
	}
	return f, f.places(text)
}

// places finds the lines of the keys.
func (f *File) places(text []byte) error {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var key []string
		line := 0
		for it := e.Key(); it.Next(); {
			if line == 0 {
				line = p.Shape(it.Node().Raw).Start.Line
			}
			key = append(key, string(it.Node().Data))
		}
		if e.Kind == unstable.KeyValue {
			key = slices.Concat(table, key)
		} else {
			table = key
		}
		f.at[strings.Join(key, ".")] = line
	}
	return p.Error()
}

// line of a key: its own, or that of what holds it.
func (f *File) line(key string) int {
	for {
		if line := f.at[key]; line > 0 {
			return line
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// Check refuses names that are not known: flags by command, as in {"serve": {"port"}}. The error is
// an *infer.Error that names the line, the key, and what could have been meant.
func (f *File) Check(known map[string][]string) error {
	var anywhere []string
	for _, names := range known {
		anywhere = append(anywhere, names...)
	}
	commands := slices.Sorted(maps.Keys(known))
	head := f.all.Raw()
	for _, key := range slices.Sorted(maps.Keys(head)) {
		table, isTable := head[key].(map[string]any)
		names, isCommand := known[key]
		switch {
		case isTable && !isCommand:
			return f.unknown(key, "table", key, commands)
		case !isTable && isCommand:
			return f.refuse(key, f.line(key), "write ["+key+"] and the flags below it",
				"%s is a command", key)
		case !isTable && !slices.Contains(anywhere, key):
			return f.unknown(key, "key", key, anywhere)
		}
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if !slices.Contains(names, name) {
				return f.unknown(key+"."+name, "key", name, names)
			}
		}
	}
	return nil
}

func (f *File) unknown(key, what, name string, known []string) error {
	hint := "known are " + strings.Join(slices.Compact(slices.Sorted(slices.Values(known))), ", ")
	if near := nearest(name, known); near != "" {
		hint = "did you mean " + near + "?"
	}
	return f.refuse(key, f.line(key), hint, "unknown %s %.80q", what, name)
}

// Lookup gives what the file says of a flag of a command: in the command's table, else before all
// tables.
func (f *File) Lookup(command, flag string) (Value, bool) {
	for _, key := range []string{command + "." + flag, flag} {
		if f.all.Exists(key) {
			return Value{Data: f.all.Get(key), At: fmt.Sprintf("%s:%d", f.path, f.line(key))}, true
		}
	}
	return Value{}, false
}

// Path is where the file lies.
func (f *File) Path() string { return f.path }

func (f *File) refuse(key string, line int, hint, format string, args ...any) error {
	where := f.path
	if line > 0 {
		where = fmt.Sprintf("%s:%d", f.path, line)
	}
	return &infer.Error{
		Op: "configuration", Kind: infer.KindInvalid, Field: key, Hint: hint,
		Err: fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...)),
	}
}

// nearest gives the known name that differs least, or "" if none is near.
func nearest(name string, known []string) string {
	best, least := "", 2+len(name)/3
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
