package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Role says what a key's owner may do.
type Role string

const (
	RoleUser     Role = "user"     // ask models
	RoleOperator Role = "operator" // that, and look at the server
)

// Key is one API key as it is kept: its secret is known to its owner alone.
type Key struct {
	ID        string `json:"id"` // first part of the key's text; no secret
	Name      string `json:"name"`
	Role      Role   `json:"role"`
	Tenant    string `json:"tenant,omitempty"`
	Workspace string `json:"workspace,omitempty"`
	// SHA256 is the digest of the key's text in hex. The secret in it has 256 random bits, which no
	// dictionary holds, so that a slow digest would add nothing.
	SHA256  string    `json:"sha256"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Revoked time.Time `json:"revoked,omitzero"` // zero: not

	RequestsPerMinute int `json:"requests_per_minute,omitempty"` // 0: no limit
	TokensPerMinute   int `json:"tokens_per_minute,omitempty"`   // of prompts and answers; 0: no limit
}

// Bounds of keys.
const (
	KeysMax         = 4096
	keyNameBytesMax = 128
	keyIDBytes      = 4
	keySecretBytes  = 32
	keyPrefix       = "norion"
)

// NewKey completes a key with an id, a secret and the digest of both. The text is what its owner
// sends; it is not kept anywhere.
func NewKey(k Key) (_ Key, text string, err error) {
	var random [keyIDBytes + keySecretBytes]byte
	_, _ = rand.Read(random[:]) // never fails
	k.ID = hex.EncodeToString(random[:keyIDBytes])
	text = keyPrefix + "_" + k.ID + "_" + hex.EncodeToString(random[keyIDBytes:])
	digest := sha256.Sum256([]byte(text))
	k.SHA256 = hex.EncodeToString(digest[:])
	return k, text, k.Validate()
}

// Validate refuses a key that could not be used as it is meant.
func (k *Key) Validate() error {
	digest, err := hex.DecodeString(k.SHA256)
	switch {
	case err != nil || len(digest) != sha256.Size:
		return fmt.Errorf("key %.40q: no SHA-256 digest", k.ID)
	case len(k.ID) != 2*keyIDBytes || strings.Trim(k.ID, "0123456789abcdef") != "":
		return fmt.Errorf("key %.40q: the id is not %d hexadecimal digits", k.ID, 2*keyIDBytes)
	case k.Role != RoleUser && k.Role != RoleOperator:
		return fmt.Errorf("key %s: unknown role %.40q", k.ID, k.Role)
	case k.RequestsPerMinute < 0 || k.TokensPerMinute < 0 ||
		max(k.RequestsPerMinute, k.TokensPerMinute) > math.MaxInt32:
		return fmt.Errorf("key %s: a limit is outside 0..%d", k.ID, math.MaxInt32)
	}
	for _, name := range []string{k.Name, k.Tenant, k.Workspace} {
		if len(name) > keyNameBytesMax || strings.ContainsFunc(name, func(r rune) bool {
			return r < ' ' || r == 0x7f || r == '\uFFFD'
		}) {
			return fmt.Errorf("key %s: a name is longer than %d bytes or has control characters", k.ID,
				keyNameBytesMax)
		}
	}
	return nil
}

// Active says that a key opens the door at this time.
func (k *Key) Active(now time.Time) bool {
	return k.Revoked.IsZero() && (k.Expires.IsZero() || now.Before(k.Expires))
}

// salt separates what the caches hold for one tenant's workspace from that of others.
func (k *Key) salt() string {
	if k == nil {
		return ""
	}
	sum := sha256.New()
	for _, part := range []string{k.Tenant, k.Workspace} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Keyring is a set of keys that does not change. It is safe for concurrent use.
type Keyring struct {
	keys  map[string]*Key
	count int
}

// NewKeyring checks keys and makes a ring of them.
func NewKeyring(keys []Key) (*Keyring, error) {
	if len(keys) > KeysMax {
		return nil, fmt.Errorf("%d keys, at most %d", len(keys), KeysMax)
	}
	ring := &Keyring{keys: make(map[string]*Key, len(keys)), count: len(keys)}
	for i := range keys {
		k := keys[i]
		if err := k.Validate(); err != nil {
			return nil, err
		}
		if ring.keys[k.ID] != nil {
			return nil, fmt.Errorf("key %s comes twice", k.ID)
		}
		ring.keys[k.ID] = &k
	}
	return ring, nil
}

// Usable says whether any key would be let in.
func (ring *Keyring) Usable(now time.Time) bool {
	for _, k := range ring.keys {
		if k.Active(now) {
			return true
		}
	}
	return false
}

var errKey = errors.New("no such key")

// find gives the key of a text. How long it takes does not depend on the secret.
func (ring *Keyring) find(text string, now time.Time) (*Key, error) {
	digest := sha256.Sum256([]byte(text))
	id := ""
	if parts := strings.Split(text, "_"); len(parts) == 3 && parts[0] == keyPrefix {
		id = parts[1]
	}
	var want [sha256.Size]byte // an unknown id is compared, too
	k := ring.keys[id]
	if k != nil {
		_, _ = hex.Decode(want[:], []byte(k.SHA256)) // checked when the ring was made
	}
	same := subtle.ConstantTimeCompare(digest[:], want[:]) == 1
	if !same || k == nil || !k.Active(now) {
		return nil, errKey
	}
	return k, nil
}
