package snapshot

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"
)

// Bounds of what a state may name.
const (
	fieldBytesMax = 1024    // of each field of an Identity
	TokensMax     = 1 << 22 // tokens of one state
	StateBytesMax = 1 << 40 // bytes of one state
)

// defaultTokenCost is what a token is taken to cost where a State does not say.
const defaultTokenCost = time.Millisecond

// ID is the content address of a state: a digest over its identity, part and tokens, keyed where
// files are encrypted, so that it tells nothing to who has no key.
type ID [32]byte

// String gives the 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Identity names what a state was computed with. Two states with different identities are never
// taken for each other.
type Identity struct {
	// Engine is the version and commit of the inference library and of its state formats.
	Engine string
	// Model is the digest of the model and its adapters.
	Model string
	// Context is a fingerprint of everything else that shapes a state: KV types, flash attention,
	// positions, window, layout.
	Context string
	// Scope separates those who must not see each other's prompts. "" is the shared scope.
	Scope string
}

// Part says how much of a sequence's memory a state holds.
type Part uint8

// The parts of a state.
const (
	Full    Part = 1 // everything
	Partial Part = 2 // the sliding-window or recurrent part only: a checkpoint
)

// String names the part.
func (p Part) String() string {
	switch p {
	case Full:
		return "full"
	case Partial:
		return "partial"
	default:
		return fmt.Sprintf("part %d", uint8(p))
	}
}

// State describes a saved state, all but its bytes.
type State struct {
	Identity
	Part Part
	// Tokens are the token ids the sequence holds, 1 to TokensMax.
	Tokens []int32
	// Recompute is the predicted time to compute the tokens again. Default: 1 ms a token.
	Recompute time.Duration
}

// validate reports ErrInvalid for a field out of range, with so many tokens.
func (st *State) validate(tokens int) error {
	bad := func(field, why string) error {
		return &Error{Op: "put", Kind: ErrInvalid, Field: field, Err: errors.New(why)}
	}
	for i, s := range st.fields() {
		name := [...]string{"Engine", "Model", "Context", "Scope"}[i]
		switch {
		case *s == "" && name != "Scope":
			return bad(name, "it is empty")
		case len(*s) > fieldBytesMax:
			return bad(name, fmt.Sprintf("%d bytes, at most %d", len(*s), fieldBytesMax))
		}
	}
	switch {
	case st.Part != Full && st.Part != Partial:
		return bad("Part", st.Part.String())
	case tokens == 0 || tokens > TokensMax:
		return bad("Tokens", fmt.Sprintf("%d tokens, 1 to %d", tokens, TokensMax))
	case st.Recompute < 0:
		return bad("Recompute", "it is negative")
	}
	return nil
}

func (st *State) fields() [4]*string {
	return [4]*string{&st.Engine, &st.Model, &st.Context, &st.Scope}
}

// costOf is the time to compute so many tokens again, in milliseconds.
func costOf(recompute time.Duration, tokens int) float64 {
	if recompute == 0 {
		recompute = time.Duration(tokens) * defaultTokenCost
	}
	return float64(recompute) / float64(time.Millisecond)
}

// metaFixedBytes is the part of a file's metadata that is not in the content address: the
// recompute time in microseconds and the time of saving in seconds since 1970.
const metaFixedBytes = 16

// metaBytesMax bounds the metadata of a file.
const metaBytesMax = metaFixedBytes + 1 + 4*(2+fieldBytesMax) + 4 + 4*TokensMax

// appendContent appends what the content address is made of, in the form that a file holds.
func (st *State) appendContent(b []byte) []byte {
	b = append(b, byte(st.Part))
	for _, s := range st.fields() {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(*s)))
		b = append(b, *s...)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(st.Tokens)))
	for _, t := range st.Tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(t))
	}
	return b
}

// parseContent reads what appendContent wrote, all of it, but for the tokens: it counts them.
func parseContent(b []byte) (st State, tokens int, err error) {
	r := reader{b: b}
	st.Part = Part(r.bytes(1)[0])
	for _, s := range st.fields() {
		*s = string(r.bytes(int(binary.LittleEndian.Uint16(r.bytes(2)))))
	}
	count := int64(binary.LittleEndian.Uint32(r.bytes(4)))
	if int64(len(r.b)) != 4*count {
		return State{}, 0, damaged("metadata of %d bytes with %d tokens", len(b), count)
	}
	if err := st.validate(int(count)); err != nil {
		return State{}, 0, damaged("metadata: %v", err)
	}
	return st, int(count), nil
}

// tokensOf reads the tokens that parseContent counted.
func tokensOf(content []byte, n int) []int32 {
	tokens := make([]int32, n)
	b := content[len(content)-4*n:]
	for i := range tokens {
		tokens[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return tokens
}

// parseMeta reads the metadata of a file in the same way.
func parseMeta(b []byte) (st State, tokens int, saved time.Time, err error) {
	if len(b) < metaFixedBytes {
		return State{}, 0, time.Time{}, damaged("metadata of %d bytes", len(b))
	}
	us, at := binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))
	if us > math.MaxInt64/uint64(time.Microsecond) || at < 0 || at > yearMax {
		return State{}, 0, time.Time{}, damaged("metadata with times out of range")
	}
	if st, tokens, err = parseContent(b[metaFixedBytes:]); err != nil {
		return State{}, 0, time.Time{}, err
	}
	st.Recompute = time.Duration(us) * time.Microsecond
	return st, tokens, time.Unix(at, 0).UTC(), nil
}

// yearMax is the end of the year 9999, in seconds since 1970.
const yearMax = 253402300799

// appendMeta appends the metadata of a file around its content.
func appendMeta(b []byte, recompute time.Duration, saved time.Time, content []byte) []byte {
	at := min(max(0, saved.Unix()), yearMax)
	b = binary.LittleEndian.AppendUint64(b, uint64(recompute/time.Microsecond))
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	return append(b, content...)
}

// reader takes bytes from the front. Past the end it gives zeros, and has nothing left.
type reader struct{ b []byte }

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.b = nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}
