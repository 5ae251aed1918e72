package event

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Digest is a SHA-256 digest. Its text is "sha256:" and 64 lower-case hexadecimal digits; the zero
// digest, which stands for none, has the empty text.
type Digest [sha256.Size]byte

const digestPrefix = "sha256:"

// DigestOf hashes data.
func DigestOf(data []byte) Digest { return sha256.Sum256(data) }

// ParseDigest reads the text of a digest. Errors: ErrInvalid.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	return d, d.UnmarshalText([]byte(s))
}

// IsZero reports whether there is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// String returns the text.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return digestPrefix + hex.EncodeToString(d[:])
}

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Upper-case digits are refused: a digest has
// one text.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	digits, ok := strings.CutPrefix(string(text), digestPrefix)
	if !ok || len(digits) != 2*len(d) || digits != strings.ToLower(digits) {
		return invalid("digest", "%q is not sha256: and %d digits", clip(string(text)), 2*len(d))
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return invalid("digest", "%w", err)
	}
	return nil
}
