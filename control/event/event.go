package event

import (
	"fmt"
	"strconv"
	"time"
)

// Bounds of the names in an event, in bytes.
const (
	nameBytesMax = 128
	scopeMax     = 64
)

// Scope says whose a record is. Nothing crosses from one scope into another. Empty parts are the
// single user's own.
type Scope struct {
	Tenant    string `json:"tenant"`
	Workspace string `json:"workspace"`
	Session   string `json:"session"`
}

// String gives tenant/workspace/session without the empty parts at the end; "-" for none at all.
func (s Scope) String() string {
	switch {
	case s.Session != "":
		return s.Tenant + "/" + s.Workspace + "/" + s.Session
	case s.Workspace != "":
		return s.Tenant + "/" + s.Workspace
	case s.Tenant != "":
		return s.Tenant
	}
	return "-"
}

// Validate refuses names that are too long or have other characters than names have.
// Errors: ErrInvalid.
func (s Scope) Validate() error {
	for _, p := range []struct{ field, value string }{
		{"scope.tenant", s.Tenant}, {"scope.workspace", s.Workspace}, {"scope.session", s.Session},
	} {
		if len(p.value) > scopeMax || !isName(p.value) {
			return invalid(p.field, "%q is no name of at most %d bytes", clip(p.value), scopeMax)
		}
	}
	return nil
}

// Draft is an event before the record gives it a number, a version and a time.
type Draft struct {
	Scope   Scope
	Stream  string // what it is about: "gene/coding", "request/01J..."
	Actor   string // who did it: "operator", "gate", "engine"
	Payload Digest // of the sealed text that belongs to it, or zero
	Body    Body
}

// Event is one recorded fact.
type Event struct {
	Seq     int64 // number in the record, from 1 without gaps
	Scope   Scope
	Stream  string
	Version int64 // number in the stream of this scope, from 1 without gaps
	Kind    Kind
	Schema  int       // version of the kind's body
	Time    time.Time // when it was recorded, whole microseconds; order is Seq's, not Time's
	Actor   string
	Key     string // idempotency key of the append that it came with, or ""
	Payload Digest
	Body    []byte // canonical JSON object (RFC 8785)
}

// New makes the event of a draft: the caller sets Seq, Version, Time and Key.
// Errors: ErrInvalid, ErrTooLarge.
func New(d Draft) (Event, error) {
	if d.Body == nil {
		return Event{}, invalid("body", "there is none")
	}
	if err := d.Body.Validate(); err != nil {
		return Event{}, err
	}
	body, err := canonicalBody(d.Body)
	if err != nil {
		return Event{}, err
	}
	e := Event{
		Scope: d.Scope, Stream: d.Stream, Kind: d.Body.Kind(), Schema: schemaOf(d.Body),
		Actor: d.Actor, Payload: d.Payload, Body: body,
	}
	return e, e.check()
}

// check refuses an envelope that could be read in two ways.
func (e Event) check() error {
	if err := e.Scope.Validate(); err != nil {
		return err
	}
	for _, p := range []struct{ field, value string }{
		{"stream", e.Stream}, {"actor", e.Actor}, {"kind", string(e.Kind)},
	} {
		if p.value == "" || len(p.value) > nameBytesMax || !isName(p.value) {
			return invalid(p.field, "%q is no name of 1 to %d bytes", clip(p.value), nameBytesMax)
		}
	}
	if e.Schema < 1 {
		return invalid("schema", "%d is below 1", e.Schema)
	}
	return CheckKey(e.Key)
}

// CheckKey refuses what cannot be an idempotency key; "" is none. Errors: ErrInvalid.
func CheckKey(key string) error {
	if len(key) > nameBytesMax || !isName(key) {
		return invalid("key", "%q is no name of at most %d bytes", clip(key), nameBytesMax)
	}
	return nil
}

// AppendCanonical appends the canonical JSON of an event (RFC 8785): what the record's tree hashes.
// Names need no escapes, since they have no such characters, and Body is canonical already.
func (e Event) AppendCanonical(to []byte) []byte {
	to = append(to, `{"actor":"`...)
	to = append(to, e.Actor...)
	to = append(to, `","body":`...)
	to = append(to, e.Body...)
	if e.Key != "" {
		to = append(append(to, `,"key":"`...), e.Key...)
		to = append(to, '"')
	}
	to = append(append(to, `,"kind":"`...), e.Kind...)
	if !e.Payload.IsZero() {
		to = append(append(to, `","payload":"`...), e.Payload.String()...)
	}
	to = append(to, `","schema":`...)
	to = strconv.AppendInt(to, int64(e.Schema), 10)
	to = append(append(to, `,"scope":{"session":"`...), e.Scope.Session...)
	to = append(append(to, `","tenant":"`...), e.Scope.Tenant...)
	to = append(append(to, `","workspace":"`...), e.Scope.Workspace...)
	to = append(to, `"},"seq":`...)
	to = strconv.AppendInt(to, e.Seq, 10)
	to = append(append(to, `,"stream":"`...), e.Stream...)
	to = append(to, `","time_us":`...)
	to = strconv.AppendInt(to, e.Time.UnixMicro(), 10)
	to = append(to, `,"version":`...)
	to = strconv.AppendInt(to, e.Version, 10)
	return append(to, '}')
}

// MarshalJSON gives the canonical bytes.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendCanonical(nil), nil }

// Decode returns the typed body; what this program does not know is an Unknown.
// Errors: ErrInvalid where a known kind's body does not have its form.
func (e Event) Decode() (Body, error) { return decodeBody(e.Kind, e.Schema, e.Body) }

// isName reports whether s has only characters that need no escape in JSON, a terminal or a log.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-', c == '/', c == ':', c == '@', c == '+', c == '=':
		default:
			return false
		}
	}
	return true
}

// clip shortens what a message quotes.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%s... (%d bytes)", s[:most], len(s))
	}
	return s
}
