package store

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// NameBytesMax bounds a model name in bytes.
const NameBytesMax = 128

// Name is a checked model name such as "smollm2:135m": a family and an optional tag, each made of
// a-z, 0-9, '.', '_' and '-', beginning with a letter or digit. It can be used as a file name on
// every supported system. The zero Name is no name.
type Name struct{ s string }

// ParseName checks s and returns ErrName with a hint when it is not a name. Nothing is folded or
// cleaned: what is accepted is s itself.
func ParseName(s string) (Name, error) {
	bad := func(why string) (Name, error) {
		return Name{}, &Error{
			Kind: ErrName, Name: clip(s), Err: fmt.Errorf("%s", why),
			Hint: "a name looks like smollm2:135m; a path to a .gguf file works too",
		}
	}
	if s == "" {
		return bad("it is empty")
	}
	if len(s) > NameBytesMax {
		return bad(fmt.Sprintf("%d bytes, at most %d", len(s), NameBytesMax))
	}
	parts := strings.Split(s, ":")
	if len(parts) > 2 {
		return bad("more than one ':'")
	}
	for _, p := range parts {
		if why := badPart(p); why != "" {
			return bad(why)
		}
	}
	return Name{s}, nil
}

// badPart says what is wrong with a family or a tag, or "".
func badPart(p string) string {
	if p == "" {
		return "an empty part"
	}
	for i := range len(p) {
		c := p[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '.' || c == '_' || c == '-':
			if i == 0 {
				return fmt.Sprintf("a part begins with %q", c)
			}
		case c >= 'A' && c <= 'Z':
			return "names are lower-case"
		default:
			return fmt.Sprintf("byte %#02x is not allowed", c)
		}
	}
	switch {
	case strings.HasSuffix(p, "."):
		return "a part ends with '.'"
	case strings.Contains(p, ".."):
		return "'..' is not allowed"
	case deviceName(p):
		return "it is the name of a device"
	}
	return ""
}

// deviceName reports whether Windows takes p for a device, with or without an extension.
func deviceName(p string) bool {
	stem, _, _ := strings.Cut(p, ".")
	switch stem {
	case "con", "prn", "aux", "nul":
		return true
	}
	if len(stem) != 4 || stem[3] < '0' || stem[3] > '9' {
		return false
	}
	return stem[:3] == "com" || stem[:3] == "lpt"
}

// String returns the name as it was parsed.
func (n Name) String() string { return n.s }

// IsZero reports whether n is no name.
func (n Name) IsZero() bool { return n.s == "" }

// MarshalText implements encoding.TextMarshaler.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.s), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseName.
func (n *Name) UnmarshalText(b []byte) error {
	got, err := ParseName(string(b))
	if err != nil {
		return err
	}
	*n = got
	return nil
}

// file is the name as a file name: ':' is not one everywhere, '@' never is in a Name.
func (n Name) file() string { return strings.Replace(n.s, ":", "@", 1) }

// nameOfFile is the inverse of Name.file.
func nameOfFile(s string) (Name, error) { return ParseName(strings.Replace(s, "@", ":", 1)) }

// Digest is a checked SHA-256 digest. The zero Digest is none.
type Digest struct{ hex string }

// ParseDigest reads "sha256:" and 64 lower-case hexadecimal digits, with or without the prefix.
// It returns ErrDigest for anything else.
func ParseDigest(s string) (Digest, error) {
	h := strings.TrimPrefix(s, "sha256:")
	if len(h) != 64 || strings.Trim(h, "0123456789abcdef") != "" {
		return Digest{}, &Error{
			Kind: ErrDigest, Name: clip(s),
			Err: fmt.Errorf("not a SHA-256 digest of 64 lower-case hexadecimal digits"),
		}
	}
	return Digest{h}, nil
}

// digestOf makes a Digest of the 32 bytes of a SHA-256 sum.
func digestOf(sum []byte) Digest { return Digest{hex.EncodeToString(sum)} }

// String returns "sha256:<hex>", or "" for the zero Digest.
func (d Digest) String() string {
	if d.hex == "" {
		return ""
	}
	return "sha256:" + d.hex
}

// IsZero reports whether d is no digest.
func (d Digest) IsZero() bool { return d.hex == "" }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text is the zero Digest.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	got, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = got
	return nil
}

// clip makes hostile text short and printable for a message.
func clip(s string) string {
	const bytesMax = 80
	if len(s) > bytesMax {
		s = s[:bytesMax] + "..."
	}
	q := fmt.Sprintf("%q", s)
	if q == `"`+s+`"` {
		return s
	}
	return q
}
