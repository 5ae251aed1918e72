package conform

import (
	"errors"
	"fmt"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Why a receipt is refused. Check gives them as the cause of an *infer.Error.
var (
	ErrFailed  = errors.New("the backend failed the conformance suite")
	ErrForeign = errors.New("the receipt is of another backend, or the backend has changed")
	ErrSuite   = errors.New("the receipt is of another version of the suite")
	ErrStale   = errors.New("the receipt is too old")
)

// skew is how far in the future a receipt may have been issued: clocks are set back a little.
const skew = 5 * time.Minute

// Receipt says that a backend was examined. It is evidence for its owner, not for others: nothing
// signs it.
type Receipt struct {
	Version  int       `json:"version"`
	Manifest string    `json:"manifest"` // its digest
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	Report   Report    `json:"report"`
}

// NewReceipt binds a report to a manifest for a while.
func NewReceipt(m *Manifest, r Report, now time.Time, life time.Duration) (Receipt, error) {
	if err := m.Validate(); err != nil {
		return Receipt{}, err
	}
	digest, err := m.Digest()
	now = now.UTC().Truncate(time.Second)
	return Receipt{
		Version: receiptVersion, Manifest: digest, Issued: now, Expires: now.Add(life), Report: r,
	}, err
}

// Check refuses a receipt that does not let the backend of a manifest be used now. The error is an
// *infer.Error of KindUnsupported with one of ErrFailed, ErrForeign, ErrSuite and ErrStale.
func (r *Receipt) Check(m *Manifest, now time.Time) error {
	digest, err := m.Digest()
	if err != nil {
		return err
	}
	refuse := func(why error, format string, args ...any) error {
		return &infer.Error{
			Op: "receipt", Kind: infer.KindUnsupported, Field: m.Name,
			Hint: "norion backends check " + m.Name,
			Err:  fmt.Errorf("%w: %s", why, fmt.Sprintf(format, args...)),
		}
	}
	switch failures := r.Report.Failures(); {
	case r.Report.Suite != Suite:
		return refuse(ErrSuite, "%d, this norion has %d", r.Report.Suite, Suite)
	case r.Manifest != digest:
		return refuse(ErrForeign, "%.15s, this one is %.15s", r.Manifest, digest)
	case len(failures) > 0:
		return refuse(ErrFailed, "%d checks, the first is %q", len(failures), failures[0].Check)
	case !r.Report.Passed():
		return refuse(ErrFailed, "the report is not whole")
	case !now.Before(r.Expires) || r.Issued.After(now.Add(skew)):
		return refuse(ErrStale, "it holds from %s to %s", r.Issued.Format(time.DateTime),
			r.Expires.Format(time.DateTime))
	}
	return nil
}

// ParseReceipt reads a receipt strictly: doubled and unknown names are refused.
func ParseReceipt(data []byte) (Receipt, error) {
	var r Receipt
	if err := parse("receipt", data, &r); err != nil {
		return Receipt{}, err
	}
	if r.Version != receiptVersion {
		return Receipt{}, &infer.Error{
			Op: "receipt", Kind: infer.KindInvalid, Field: "version",
			Err: fmt.Errorf("%d, this norion reads %d", r.Version, receiptVersion),
		}
	}
	return r, nil
}
