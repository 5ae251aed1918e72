package event

import (
	"bytes"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// eventBytesMax bounds a whole event: a body and its envelope.
const eventBytesMax = BodyBytesMax + 4<<10

// Parse reads the canonical bytes of an event. Other spellings of the same event are refused.
// Errors: ErrCanonical, ErrInvalid, ErrTooLarge.
func Parse(data []byte) (Event, error) {
	if len(data) > eventBytesMax {
		return Event{}, tooLarge(len(data))
	}
	var j struct {
		Actor   string         `json:"actor"`
		Body    jsontext.Value `json:"body"`
		Key     string         `json:"key"`
		Kind    Kind           `json:"kind"`
		Payload Digest         `json:"payload"`
		Schema  int            `json:"schema"`
		Scope   Scope          `json:"scope"`
		Seq     int64          `json:"seq"`
		Stream  string         `json:"stream"`
		TimeUs  int64          `json:"time_us"`
		Version int64          `json:"version"`
	}
	if err := json.Unmarshal(data, &j, json.RejectUnknownMembers(true)); err != nil {
		return Event{}, &Error{Fault: ErrCanonical, Err: err}
	}
	body, err := Canonical(j.Body)
	if err != nil {
		return Event{}, err
	}
	e := Event{
		Seq: j.Seq, Scope: j.Scope, Stream: j.Stream, Version: j.Version, Kind: j.Kind,
		Schema: j.Schema, Time: time.UnixMicro(j.TimeUs).UTC(), Actor: j.Actor, Key: j.Key,
		Payload: j.Payload, Body: body,
	}
	if err := e.check(); err != nil {
		return Event{}, err
	}
	if !bytes.Equal(e.AppendCanonical(nil), data) {
		return Event{}, &Error{Fault: ErrCanonical, Field: "event"}
	}
	return e, nil
}
