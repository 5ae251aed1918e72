package event

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Kind names a type of fact.
type Kind string

// The kinds of facts. Observations say what happened; changes say what is different from now on.
const (
	LedgerCreated    Kind = "ledger.created"
	LedgerRecovered  Kind = "ledger.recovered"
	LedgerMigrated   Kind = "ledger.migrated"
	PayloadForgotten Kind = "payload.forgotten"
	RequestStarted   Kind = "request.started"
	RequestEnded     Kind = "request.ended"
	VerifierRan      Kind = "verifier.ran"
	SensorCrossed    Kind = "sensor.crossed"
	ProposalMade     Kind = "proposal.made"
	ReceiptIssued    Kind = "receipt.issued"
	DecisionMade     Kind = "decision.made"
	LeaseIssued      Kind = "lease.issued"
	ChangeApplied    Kind = "change.applied"
	ChangeUndone     Kind = "change.undone"
	PolicySet        Kind = "policy.set"
	OperatorEnrolled Kind = "operator.enrolled"
)

// Change reports whether facts of this kind say what is different from then on. The others say what
// happened, was proposed or was decided.
func (k Kind) Change() bool {
	switch k {
	case LedgerMigrated, PayloadForgotten, ChangeApplied, ChangeUndone, PolicySet, OperatorEnrolled:
		return true
	}
	return false
}

// Body is the typed content of one kind.
type Body interface {
	Kind() Kind
	// Validate refuses fields out of their bounds. Errors: ErrInvalid.
	Validate() error
}

// Unknown is a body whose kind or schema version this program does not know. It is kept as it is.
type Unknown struct {
	Name   Kind
	Schema int
	Raw    []byte // a JSON object
}

// Kind implements Body.
func (u Unknown) Kind() Kind { return u.Name }

// Validate implements Body. New refuses the name and the version if they are none.
func (u Unknown) Validate() error {
	if schema, _ := known(u.Name); schema >= u.Schema {
		return invalid("body", "%s of version %d is known", u.Name, u.Schema)
	}
	return nil
}

// Kinds lists the kinds that this program knows.
func Kinds() []Kind {
	return []Kind{
		LedgerCreated, LedgerRecovered, LedgerMigrated, PayloadForgotten, RequestStarted,
		RequestEnded, VerifierRan, SensorCrossed, ProposalMade, ReceiptIssued, DecisionMade,
		LeaseIssued, ChangeApplied, ChangeUndone, PolicySet, OperatorEnrolled,
	}
}

// known gives the newest schema version of a kind and how its body is read; 0 and nil for an
// unknown one. A new version of a kind gets a new type; the reader of the old one stays.
func known(k Kind) (schema int, read func([]byte) (Body, error)) {
	switch k {
	case LedgerCreated:
		return 1, read1[Created]
	case LedgerRecovered:
		return 1, read1[Recovered]
	case LedgerMigrated:
		return 1, read1[Migrated]
	case PayloadForgotten:
		return 1, read1[Forgotten]
	case RequestStarted:
		return 1, read1[Started]
	case RequestEnded:
		return 1, read1[Ended]
	case VerifierRan:
		return 1, read1[Verified]
	case SensorCrossed:
		return 1, read1[Crossed]
	case ProposalMade:
		return 1, read1[Proposed]
	case ReceiptIssued:
		return 1, read1[Issued]
	case DecisionMade:
		return 1, read1[Decided]
	case LeaseIssued:
		return 1, read1[Leased]
	case ChangeApplied:
		return 1, read1[Applied]
	case ChangeUndone:
		return 1, read1[Undone]
	case PolicySet:
		return 1, read1[Policy]
	case OperatorEnrolled:
		return 1, read1[Operator]
	}
	return 0, nil
}

func schemaOf(b Body) int {
	if u, ok := b.(Unknown); ok {
		return u.Schema
	}
	schema, _ := known(b.Kind())
	return schema
}

// read1 reads the body of a type, strictly.
func read1[T Body](data []byte) (Body, error) {
	var b T
	if err := json.Unmarshal(data, &b, json.RejectUnknownMembers(true)); err != nil {
		return nil, invalid("body", "%w", err)
	}
	return b, b.Validate()
}

func decodeBody(k Kind, schema int, data []byte) (Body, error) {
	newest, read := known(k)
	if read == nil || schema > newest {
		return Unknown{Name: k, Schema: schema, Raw: jsontext.Value(data).Clone()}, nil
	}
	return read(data)
}
