package store

import (
	"bytes"
	_ "embed" // for the catalogue
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
)

const (
	catalogueSchema   = 1
	catalogueBytesMax = 1 << 20
	// ModelBytesMax bounds one model file in bytes.
	ModelBytesMax = int64(1) << 41
	sourcesMax    = 8
	wheelsMax     = 64
)

//go:embed catalogue.json
var catalogueJSON []byte

// Catalogue is a list of models that can be pulled by name. It is read-only.
type Catalogue struct {
	Schema int     `json:"schema"`
	Hub    string  `json:"hub"` // base URL of the model hub
	Models []Entry `json:"models"`
}

// Entry is one model of a catalogue.
type Entry struct {
	Name         Name    `json:"name"`
	Aliases      []Name  `json:"aliases,omitempty"`
	Description  string  `json:"description"`
	Parameters   string  `json:"parameters"`   // for people: "135M"
	Quantisation string  `json:"quantisation"` // for people: "Q4_1"
	Licence      Licence `json:"licence"`
	// SHA256 is the digest of the whole file. Zero means that the catalogue does not know it:
	// then UnverifiedOffline is true, and a pull takes the digest that the hub states or, where
	// nobody states one, records the digest of what arrived.
	SHA256            Digest `json:"sha256,omitzero"`
	UnverifiedOffline bool   `json:"unverified_offline,omitempty"`
	SizeBytes         int64  `json:"size,omitempty"` // 0: not known
	// Template names a chat template ("llama.cpp:NAME" is one that ships with llama.cpp) for a
	// file that carries none.
	Template string   `json:"template,omitempty"`
	Sources  []Source `json:"sources"` // tried in order
}

// Licence names the terms of a model. The terms themselves are where URL says.
type Licence struct {
	Name  string `json:"name"`  // short: "apache-2.0"
	Title string `json:"title"` // full title of the terms
	URL   string `json:"url,omitempty"`
	// Notice is what a user must have seen before a pull, or "".
	Notice string `json:"notice,omitempty"`
}

// SourceKind says how a source is read.
type SourceKind string

// The kinds of sources.
const (
	SourceWheel SourceKind = "wheel" // members of Python packages, joined in order
	SourceHTTPS SourceKind = "https" // one URL
	SourceHub   SourceKind = "hub"   // a file of a repository on the model hub
	SourceFile  SourceKind = "file"  // a local file
)

// Source is one place that has the file of a model.
type Source struct {
	Kind SourceKind `json:"kind"`

	Wheels []Wheel `json:"wheels,omitempty"` // wheel

	URL string `json:"url,omitempty"` // https; plain http only for a loopback host

	Repository string `json:"repository,omitempty"` // hub: "owner/name"
	Revision   string `json:"revision,omitempty"`   // hub; "" is main
	File       string `json:"file,omitempty"`       // hub

	Path string `json:"path,omitempty"` // file
	Link bool   `json:"link,omitempty"` // file: hard link where possible instead of a copy
}

// Wheel is one Python package and the members of it that make up the model.
type Wheel struct {
	Package   string   `json:"package"`
	Version   string   `json:"version"`
	SHA256    Digest   `json:"sha256"`
	SizeBytes int64    `json:"size"`
	Members   []string `json:"members"`
}

// DefaultCatalogue returns the catalogue that is built in.
func DefaultCatalogue() (*Catalogue, error) { return ParseCatalogue(catalogueJSON) }

// ParseCatalogue reads and validates a catalogue. It returns ErrCatalogue, or ErrTooNew.
func ParseCatalogue(data []byte) (*Catalogue, error) {
	fail := func(k Kind, err error) (*Catalogue, error) {
		return nil, &Error{Op: "open", Kind: k, Name: "catalogue", Err: err}
	}
	if len(data) > catalogueBytesMax {
		return fail(ErrCatalogue, fmt.Errorf("%d bytes, at most %d", len(data), catalogueBytesMax))
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fail(ErrCatalogue, err)
	}
	if head.Schema > catalogueSchema {
		return fail(ErrTooNew, fmt.Errorf("schema %d, known %d", head.Schema, catalogueSchema))
	}
	var c Catalogue
	if err := strictJSON(data, &c); err != nil {
		return fail(ErrCatalogue, err)
	}
	if err := c.Validate(); err != nil {
		return fail(ErrCatalogue, err)
	}
	return &c, nil
}

// strictJSON decodes exactly one value with no unknown fields.
func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more text after the value")
	}
	return nil
}

// Validate reports the first fault of the catalogue.
func (c *Catalogue) Validate() error {
	if c.Schema != catalogueSchema {
		return fmt.Errorf("schema %d, want %d", c.Schema, catalogueSchema)
	}
	if err := checkURL(c.Hub); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	seen := map[Name]bool{}
	for i := range c.Models {
		e := &c.Models[i]
		for _, n := range append([]Name{e.Name}, e.Aliases...) {
			if seen[n] {
				return fmt.Errorf("%s appears twice", n)
			}
			seen[n] = true
		}
		if err := e.Validate(); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

// Lookup returns the entry of a name or alias.
func (c *Catalogue) Lookup(n Name) (Entry, bool) {
	for _, e := range c.Models {
		if e.Name == n || slices.Contains(e.Aliases, n) {
			return e, true
		}
	}
	return Entry{}, false
}

// Validate reports the first fault of the entry.
func (e *Entry) Validate() error {
	switch {
	case e.Name.IsZero():
		return errors.New("name is missing")
	case e.Licence.Name == "":
		return errors.New("licence.name is missing")
	case e.SizeBytes < 0 || e.SizeBytes > ModelBytesMax:
		return fmt.Errorf("size %d is not within 0 and %d", e.SizeBytes, ModelBytesMax)
	case len(e.Sources) == 0 || len(e.Sources) > sourcesMax:
		return fmt.Errorf("%d sources, want 1 to %d", len(e.Sources), sourcesMax)
	case e.SHA256.IsZero() && !e.UnverifiedOffline:
		return errors.New("sha256 is missing and unverified_offline is not set")
	}
	for i := range e.Sources {
		if err := e.Sources[i].Validate(); err != nil {
			return fmt.Errorf("sources[%d]: %w", i, err)
		}
	}
	return nil
}

// Validate reports the first fault of the source.
func (s *Source) Validate() error {
	switch s.Kind {
	case SourceWheel:
		return s.validateWheels()
	case SourceHTTPS:
		return checkURL(s.URL)
	case SourceHub:
		owner, name, ok := strings.Cut(s.Repository, "/")
		if !ok || !urlWord(owner) || !urlWord(name) {
			return fmt.Errorf("repository %s is not owner/name", clip(s.Repository))
		}
		if s.Revision != "" && !urlWord(s.Revision) {
			return fmt.Errorf("revision %s is not a plain word", clip(s.Revision))
		}
		for part := range strings.SplitSeq(s.File, "/") {
			if !urlWord(part) {
				return fmt.Errorf("file %s is not a plain path", clip(s.File))
			}
		}
		return nil
	case SourceFile:
		if s.Path == "" {
			return errors.New("path is missing")
		}
		return nil
	default:
		return fmt.Errorf("unknown kind %s", clip(string(s.Kind)))
	}
}

func (s *Source) validateWheels() error {
	if len(s.Wheels) == 0 || len(s.Wheels) > wheelsMax {
		return fmt.Errorf("%d wheels, want 1 to %d", len(s.Wheels), wheelsMax)
	}
	for _, w := range s.Wheels {
		if !urlWord(w.Package) || !urlWord(w.Version) {
			return fmt.Errorf("package %s and version %s must be plain words",
				clip(w.Package), clip(w.Version))
		}
		if w.SHA256.IsZero() || len(w.Members) == 0 {
			return fmt.Errorf("%s: sha256 and members are needed", w.Package)
		}
		if w.SizeBytes < 0 || w.SizeBytes > ModelBytesMax {
			return fmt.Errorf("%s: size %d is out of range", w.Package, w.SizeBytes)
		}
		for _, m := range w.Members {
			if path.IsAbs(m) || path.Clean(m) != m || strings.HasPrefix(m, "..") {
				return fmt.Errorf("%s: member %s is not a plain path", w.Package, clip(m))
			}
		}
	}
	return nil
}

// urlWord reports whether s may stand alone in a URL or on a command line: letters, digits and
// ". _ - +" with a letter or digit first.
func urlWord(s string) bool {
	const bytesMax = 200
	if s == "" || len(s) > bytesMax || strings.ContainsAny(s[:1], "._-+") {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !alnum && !strings.ContainsRune("._-+", r)
	}) < 0
}

// checkURL accepts https, and http for a loopback host; never a user or a password.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("not a URL: %s", clip(s)) // the parser's text may repeat a password
	}
	switch {
	case u.User != nil:
		return errors.New("a URL with a user or password is refused")
	case u.Host == "":
		return fmt.Errorf("%s has no host", clip(s))
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	default:
		return fmt.Errorf("scheme %q is refused, use https", u.Scheme)
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
