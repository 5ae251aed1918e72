// Package event owns the typed facts that the system records: a closed vocabulary of kinds, each
// with a schema version and a body of bounded, typed fields, and the canonical bytes that a record
// hashes. What an older program does not know is kept as Unknown and shown, never dropped.
//
// A fact holds no prompt, no answer and no other free text: only names, digests, numbers and reason
// codes. Private text lies sealed beside the record; an event commits to its digest.
//
// The package must not know how events are stored, who may write them, or what time it is. Its
// values are plain data: a value is used by one goroutine at a time.
package event
