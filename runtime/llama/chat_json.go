package llama

import (
	"bytes"
	"encoding/json"
)

// checkJSON refuses text that is not one JSON value, or nests too deep for the recursion of the
// library behind.
func checkJSON(data []byte) error {
	if err := checkDepth(data); err != nil {
		return err
	}
	if !json.Valid(data) {
		return invalidText("not JSON")
	}
	return nil
}

// checkDepth bounds the nesting of text that may be JSON.
func checkDepth(data []byte) error {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = stringEnd(data, i) - 1
		case '[', '{':
			if depth++; depth > jsonDepthMax {
				return invalidText("JSON nests too deep")
			}
		case ']', '}':
			depth--
		}
	}
	return nil
}

// stringEnd is the index after the string literal that starts at data[start].
func stringEnd(data []byte, start int) int {
	for i := start + 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// mapStrings passes every string of a valid JSON value, keys too, through f and keeps every other
// byte, and every string that f leaves alone, as it is.
func mapStrings(data []byte, f func(string) string) []byte {
	var out []byte
	last := 0
	for i := 0; i < len(data); i++ {
		if data[i] != '"' {
			continue
		}
		end := stringEnd(data, i)
		var s string
		if json.Unmarshal(data[i:end], &s) == nil {
			if mapped := f(s); mapped != s {
				out = append(out, data[last:i]...)
				out = append(out, quoteJSON(mapped)...)
				last = end
			}
		}
		i = end - 1
	}
	if last == 0 {
		return data
	}
	return append(out, data[last:]...)
}

// quoteJSON writes s as a JSON string, without the escapes that HTML needs.
func quoteJSON(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
