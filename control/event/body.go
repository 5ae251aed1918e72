package event

import "encoding/base64"

// Bounds of lists and numbers in bodies.
const (
	listMax     = 64
	policyBytes = 48 << 10
)

// Created is the first event of every record.
type Created struct {
	Ledger string `json:"ledger"`  // random identity, 32 hexadecimal digits
	LogKey string `json:"log_key"` // key that verifies checkpoints, in the form of signed notes
	Format int    `json:"format"`  // version of the byte format
}

// Recovered says that the record was not closed: events past the last signed checkpoint were found
// whole and are signed from here on.
type Recovered struct {
	From int64 `json:"from"` // events at the last signed checkpoint
	To   int64 `json:"to"`   // events found
}

// Migrated says that the storage of the record has a new schema. No event changed.
type Migrated struct {
	From   int    `json:"from"`
	To     int    `json:"to"`
	Backup Digest `json:"backup"` // of the backup made before
}

// Forgotten says that the key of a sealed text was destroyed.
type Forgotten struct {
	Payload Digest `json:"payload"`
	Reason  string `json:"reason"` // a reason code
}

// Started opens a request. It is recorded before anything is generated.
type Started struct {
	Request string `json:"request"`
	Model   Digest `json:"model"`
	Profile string `json:"profile"`
}

// Outcome says how a request ended.
type Outcome string

// The outcomes of a request.
const (
	OutcomeDone      Outcome = "done"
	OutcomeFailed    Outcome = "failed"
	OutcomeCancelled Outcome = "cancelled"
)

// Ended closes a request.
type Ended struct {
	Request          string  `json:"request"`
	Outcome          Outcome `json:"outcome"`
	Reason           string  `json:"reason"` // a reason code
	PromptTokens     int64   `json:"prompt_tokens"`
	CompletionTokens int64   `json:"completion_tokens"`
	DurationUs       int64   `json:"duration_us"`
}

// Verdict is what a check found.
type Verdict string

// The verdicts of a check.
const (
	VerdictPass    Verdict = "pass"
	VerdictFail    Verdict = "fail"
	VerdictUnknown Verdict = "unknown"
)

// Verified says that a verifier looked at an answer.
type Verified struct {
	Request  string  `json:"request"`
	Verifier string  `json:"verifier"`
	Verdict  Verdict `json:"verdict"`
}

// Crossed says that a sensor crossed a bound.
type Crossed struct {
	Sensor     string `json:"sensor"`
	Above      bool   `json:"above"`
	ValueMilli int64  `json:"value_milli"` // thousandths of the sensor's unit
	BoundMilli int64  `json:"bound_milli"`
}

// Kind implements Body.
func (Created) Kind() Kind { return LedgerCreated }

// Kind implements Body.
func (Recovered) Kind() Kind { return LedgerRecovered }

// Kind implements Body.
func (Migrated) Kind() Kind { return LedgerMigrated }

// Kind implements Body.
func (Forgotten) Kind() Kind { return PayloadForgotten }

// Kind implements Body.
func (Started) Kind() Kind { return RequestStarted }

// Kind implements Body.
func (Ended) Kind() Kind { return RequestEnded }

// Kind implements Body.
func (Verified) Kind() Kind { return VerifierRan }

// Kind implements Body.
func (Crossed) Kind() Kind { return SensorCrossed }

// Validate implements Body.
func (b Created) Validate() error {
	return all(name("ledger", b.Ledger), text("log_key", b.LogKey, 512),
		count("format", int64(b.Format)))
}

// Validate implements Body.
func (b Recovered) Validate() error {
	if b.To < b.From {
		return invalid("to", "%d is below %d", b.To, b.From)
	}
	return all(count("from", b.From), count("to", b.To))
}

// Validate implements Body.
func (b Migrated) Validate() error {
	return all(count("from", int64(b.From)), count("to", int64(b.To)), digest("backup", b.Backup))
}

// Validate implements Body.
func (b Forgotten) Validate() error {
	return all(digest("payload", b.Payload), name("reason", b.Reason))
}

// Validate implements Body.
func (b Started) Validate() error {
	return all(name("request", b.Request), digest("model", b.Model), name("profile", b.Profile))
}

// Validate implements Body.
func (b Ended) Validate() error {
	return all(name("request", b.Request), name("reason", b.Reason),
		oneOf("outcome", b.Outcome, OutcomeDone, OutcomeFailed, OutcomeCancelled),
		count("prompt_tokens", b.PromptTokens), count("completion_tokens", b.CompletionTokens),
		count("duration_us", b.DurationUs))
}

// Validate implements Body.
func (b Verified) Validate() error {
	return all(name("request", b.Request), name("verifier", b.Verifier),
		oneOf("verdict", b.Verdict, VerdictPass, VerdictFail, VerdictUnknown))
}

// Validate implements Body.
func (b Crossed) Validate() error {
	return all(name("sensor", b.Sensor), number("value_milli", b.ValueMilli),
		number("bound_milli", b.BoundMilli))
}

// all returns the first error.
func all(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func name(field, s string) error {
	if s == "" || len(s) > nameBytesMax || !isName(s) {
		return invalid(field, "%q is no name of 1 to %d bytes", clip(s), nameBytesMax)
	}
	return nil
}

func names(field string, list []string) error {
	if len(list) > listMax {
		return invalid(field, "%d names, at most %d", len(list), listMax)
	}
	for _, s := range list {
		if err := name(field, s); err != nil {
			return err
		}
	}
	return nil
}

func text(field, s string, most int) error {
	if s == "" || len(s) > most {
		return invalid(field, "%d bytes, 1 to %d", len(s), most)
	}
	return nil
}

func digest(field string, d Digest) error {
	if d.IsZero() {
		return invalid(field, "there is no digest")
	}
	return nil
}

func number(field string, n int64) error {
	if n < -integerMax || n > integerMax {
		return invalid(field, "%d is beyond 2^53", n)
	}
	return nil
}

func count(field string, n int64) error {
	if n < 0 || n > integerMax {
		return invalid(field, "%d is outside 0 to 2^53", n)
	}
	return nil
}

func oneOf[T ~string](field string, s T, of ...T) error {
	for _, x := range of {
		if s == x {
			return nil
		}
	}
	return invalid(field, "%q is not one of %v", clip(string(s)), of)
}

// signature wants the base64 of an Ed25519 signature.
func signature(field, s string) error {
	const bytes = 64
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != bytes {
		return invalid(field, "it is no signature of %d bytes in base64", bytes)
	}
	return nil
}
