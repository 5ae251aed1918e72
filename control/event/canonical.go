package event

import (
	"bytes"
	"errors"
	"fmt"
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
	v := jsontext.Value(bytes.Clone(data))
	err := v.Canonicalize()
	if err == nil {
		err = check(v)
	}
	if err != nil {
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

// check looks at a canonical value for what canonicalization lets pass.
func check(v jsontext.Value) error {
	if v.Kind() != '{' {
		return errors.New("it is no object")
	}
	depth := 0
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"':
			for i++; v[i] != '"'; i++ {
				if v[i] == '\\' {
					i++
				}
			}
		case c == '{' || c == '[':
			if depth++; depth > bodyDepthMax {
				return fmt.Errorf("deeper than %d", bodyDepthMax)
			}
		case c == '}' || c == ']':
			depth--
		case c == '-' || '0' <= c && c <= '9':
			n := bytes.IndexAny(v[i:], ",]}")
			if err := exact(string(v[i : i+n])); err != nil {
				return err
			}
			i += n - 1
		}
	}
	return nil
}

// largest is the canonical form of the largest double, and of all that is larger.
const largest = "1.7976931348623157e+308"

// exact refuses a number, in canonical form, that may stand for another one.
func exact(number string) error {
	if strings.ContainsAny(number, ".e") {
		if strings.TrimPrefix(number, "-") == largest {
			return fmt.Errorf("%s or beyond", number)
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
