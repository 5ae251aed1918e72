package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of a body.
const (
	BodyBytesMax = 64 << 10
	bodyDepthMax = 16
	integerMax   = 1<<53 - 1 // RFC 8785 keeps numbers as IEEE 754 doubles
)

// Canonical returns the canonical form of a JSON object (RFC 8785). It refuses what that form would
// change silently, such as a whole number that no double holds, and what is larger or deeper than a
// body may be. Errors: ErrCanonical, ErrTooLarge.
func Canonical(data []byte) ([]byte, error) {
	if len(data) > BodyBytesMax {
		return nil, tooLarge(len(data))
	}
	if err := walk(data); err != nil {
		return nil, &Error{Fault: ErrCanonical, Err: err}
	}
	v := jsontext.Value(bytes.Clone(data))
	if err := v.Canonicalize(); err != nil {
		return nil, &Error{Fault: ErrCanonical, Err: err}
	}
	if len(v) > BodyBytesMax {
		return nil, tooLarge(len(v))
	}
	return v, nil
}

func tooLarge(n int) error {
	return &Error{
		Fault: ErrTooLarge, Field: "body",
		Err: fmt.Errorf("%d bytes, at most %d", n, BodyBytesMax),
	}
}

// walk checks what canonicalization does not.
func walk(data []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	if d.PeekKind() != '{' {
		return errors.New("it is no object")
	}
	for {
		t, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.StackDepth() == 0 {
			if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
				return errors.New("something follows the object")
			}
			return nil
		}
		if d.StackDepth() > bodyDepthMax {
			return fmt.Errorf("deeper than %d", bodyDepthMax)
		}
		if t.Kind() == '0' {
			if err := exact(t.String()); err != nil {
				return err
			}
		}
	}
}

// exact refuses a number that no double holds, and one whose canonical form is a whole number
// beyond 2^53: that of 1e20 has no exponent, that of 1e21 has one.
func exact(number string) error {
	if strings.ContainsAny(number, ".eE") {
		f, err := strconv.ParseFloat(number, 64)
		if a := math.Abs(f); err != nil || a > integerMax && a < 1e21 {
			return fmt.Errorf("%s is beyond 2^53", number)
		}
		return nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > integerMax || n < -integerMax {
		return fmt.Errorf("%s is beyond 2^53", number)
	}
	return nil
}

// canonicalBody is the canonical form of a body's fields.
func canonicalBody(b Body) ([]byte, error) {
	if u, ok := b.(Unknown); ok {
		return Canonical(u.Raw)
	}
	data, err := json.Marshal(b)
	if err != nil {
		return nil, &Error{Fault: ErrCanonical, Err: err}
	}
	return Canonical(data)
}
