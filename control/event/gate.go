package event

import "github.com/go-json-experiment/json/jsontext"

// Risk is the class of a proposal.
type Risk string

// The classes of risk.
const (
	RiskLow  Risk = "low"
	RiskHigh Risk = "high"
)

// Decision is what the gate says of a proposal.
type Decision string

// The decisions of the gate.
const (
	Preview Decision = "preview"
	Hold    Decision = "hold"
	Reject  Decision = "reject"
	Admit   Decision = "admit"
)

// Effect is an event that a proposal wants to have happened: applying a proposal appends its
// effects, byte for byte, and nothing else.
type Effect struct {
	Stream string         `json:"stream"`
	Kind   Kind           `json:"kind"`
	Schema int            `json:"schema"`
	Body   jsontext.Value `json:"body"`
}

// Proposed says what somebody wants to change. It changes nothing.
type Proposed struct {
	Proposal   string   `json:"proposal"`   // identity within the scope
	Class      string   `json:"class"`      // "gene.edit", "memory.admit", ...
	Subject    string   `json:"subject"`    // what would change
	Baseline   Digest   `json:"baseline"`   // of the state that it was made for
	Candidate  Digest   `json:"candidate"`  // of the effects in canonical JSON
	Effects    []Effect `json:"effects"`    // in order
	Generation int64    `json:"generation"` // of the scope when it was made
	Rollback   int64    `json:"rollback"`   // generation to return to
	Risk       Risk     `json:"risk"`
	ExpiresUs  int64    `json:"expires_us"` // Unix time
}

// Issued carries the signed statement of an executor that ran a check.
type Issued struct {
	Receipt   Digest         `json:"receipt"`   // of the statement's canonical bytes
	Proposal  string         `json:"proposal"`  // that it speaks of
	Executor  string         `json:"executor"`  // who ran the check
	Statement jsontext.Value `json:"statement"` // in-toto, canonical
	Signature string         `json:"signature"` // Ed25519, base64
}

// Decided is the gate's verdict with all that it rests on.
type Decided struct {
	Proposal  string   `json:"proposal"`
	Candidate Digest   `json:"candidate"`
	Decision  Decision `json:"decision"`
	Policy    Digest   `json:"policy"`   // of the policy that was evaluated
	Facts     Digest   `json:"facts"`    // of what it was evaluated on
	Receipts  []Digest `json:"receipts"` // that it rests on, sorted
	Missing   []string `json:"missing"`  // what a hold waits for
	False     []string `json:"false"`    // what a reject found
	AtUs      int64    `json:"at_us"`    // Unix time of the facts
}

// Leased is a permission to apply one admitted proposal, once.
type Leased struct {
	Lease      string `json:"lease"`
	Proposal   string `json:"proposal"`
	Candidate  Digest `json:"candidate"`
	Generation int64  `json:"generation"`
	ExpiresUs  int64  `json:"expires_us"`
}

// Applied closes a change: it is in the same transaction as the effects.
type Applied struct {
	Proposal   string `json:"proposal"`
	Lease      string `json:"lease"`
	Candidate  Digest `json:"candidate"`
	Generation int64  `json:"generation"` // from here on
}

// Undone says that a change or a request was taken back.
type Undone struct {
	Proposal   string `json:"proposal"`
	Reason     string `json:"reason"`
	Generation int64  `json:"generation"` // from here on
	Restored   int64  `json:"restored"`   // generation whose state is back
}

// Policy puts rules of the gate in force. The embedded defaults have no event.
type Policy struct {
	Policy    Digest         `json:"policy"`   // of the rules' canonical bytes
	Replaces  Digest         `json:"replaces"` // of the policy in force before
	Rules     jsontext.Value `json:"rules"`
	Operator  string         `json:"operator"` // key that signed
	Signature string         `json:"signature"`
}

// Operator makes a key the operator's. The first is trusted on first use; a later one is signed
// by the one before.
type Operator struct {
	Key       string `json:"key"`       // public key in the form of signed notes
	Replaces  string `json:"replaces"`  // the key before, or ""
	Signature string `json:"signature"` // by that key, or ""
}

// Kind implements Body.
func (Proposed) Kind() Kind { return ProposalMade }

// Kind implements Body.
func (Issued) Kind() Kind { return ReceiptIssued }

// Kind implements Body.
func (Decided) Kind() Kind { return DecisionMade }

// Kind implements Body.
func (Leased) Kind() Kind { return LeaseIssued }

// Kind implements Body.
func (Applied) Kind() Kind { return ChangeApplied }

// Kind implements Body.
func (Undone) Kind() Kind { return ChangeUndone }

// Kind implements Body.
func (Policy) Kind() Kind { return PolicySet }

// Kind implements Body.
func (Operator) Kind() Kind { return OperatorEnrolled }

// Validate implements Body.
func (b Proposed) Validate() error {
	if len(b.Effects) == 0 || len(b.Effects) > listMax {
		return invalid("effects", "%d, 1 to %d", len(b.Effects), listMax)
	}
	for _, e := range b.Effects {
		if err := all(name("effects.stream", e.Stream), name("effects.kind", string(e.Kind)),
			count("effects.schema", int64(e.Schema))); err != nil {
			return err
		}
		if _, err := decodeBody(e.Kind, e.Schema, e.Body); err != nil {
			return err
		}
	}
	return all(name("proposal", b.Proposal), name("class", b.Class), name("subject", b.Subject),
		digest("candidate", b.Candidate), count("generation", b.Generation),
		count("rollback", b.Rollback), oneOf("risk", b.Risk, RiskLow, RiskHigh),
		count("expires_us", b.ExpiresUs))
}

// Validate implements Body.
func (b Issued) Validate() error {
	return all(digest("receipt", b.Receipt), name("proposal", b.Proposal),
		name("executor", b.Executor), signature("signature", b.Signature))
}

// Validate implements Body.
func (b Decided) Validate() error {
	if len(b.Receipts) > listMax {
		return invalid("receipts", "%d, at most %d", len(b.Receipts), listMax)
	}
	return all(name("proposal", b.Proposal), digest("candidate", b.Candidate),
		oneOf("decision", b.Decision, Preview, Hold, Reject, Admit), digest("policy", b.Policy),
		digest("facts", b.Facts), names("missing", b.Missing), names("false", b.False),
		count("at_us", b.AtUs))
}

// Validate implements Body.
func (b Leased) Validate() error {
	return all(name("lease", b.Lease), name("proposal", b.Proposal),
		digest("candidate", b.Candidate), count("generation", b.Generation),
		count("expires_us", b.ExpiresUs))
}

// Validate implements Body.
func (b Applied) Validate() error {
	return all(name("proposal", b.Proposal), name("lease", b.Lease),
		digest("candidate", b.Candidate), count("generation", b.Generation))
}

// Validate implements Body.
func (b Undone) Validate() error {
	return all(name("proposal", b.Proposal), name("reason", b.Reason),
		count("generation", b.Generation), count("restored", b.Restored))
}

// Validate implements Body.
func (b Policy) Validate() error {
	return all(digest("policy", b.Policy), text("rules", string(b.Rules), policyBytes),
		text("operator", b.Operator, 512), signature("signature", b.Signature))
}

// Validate implements Body.
func (b Operator) Validate() error {
	if (b.Replaces == "") != (b.Signature == "") {
		return invalid("signature", "a key that replaces another is signed by that one")
	}
	if b.Signature != "" {
		if err := signature("signature", b.Signature); err != nil {
			return err
		}
	}
	return text("key", b.Key, 512)
}
