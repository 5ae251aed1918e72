package httpapi

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// texts is a field that holds one string or a list of them.
type texts []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *texts) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		*t = nil
		return dec.SkipValue()
	case '"':
		var one string
		err := json.UnmarshalDecode(dec, &one)
		*t = texts{one}
		return err
	}
	return json.UnmarshalDecode(dec, (*[]string)(t))
}

func (texts) openAPI() any {
	return anyOf(schemaString, map[string]any{"type": "array", "items": schemaString})
}

// content is the text of a message: a string, or a list of parts that are joined.
type content struct {
	text string
	set  bool // false for null and for nothing
}

// part is one piece of a message. Only text can be read.
type part struct {
	Type    string `json:"type"`
	Text    string `json:"text"`
	Refusal string `json:"refusal"`
	// CacheControl marks where Anthropic's prefixes end; here every prefix is kept.
	CacheControl jsontext.Value `json:"cache_control"`
	Others       others         `json:",embed"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *content) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		c.set = true
		return json.UnmarshalDecode(dec, &c.text)
	}
	var parts []part
	if err := json.UnmarshalDecode(dec, &parts); err != nil {
		return err
	}
	var b strings.Builder
	for i := range parts {
		text, err := parts[i].read()
		if err != nil {
			return err.at(i)
		}
		b.WriteString(text)
	}
	c.text, c.set = b.String(), true
	return nil
}

func (content) openAPI() any {
	return anyOf(schemaString, map[string]any{
		"type": "array", "items": map[string]any{
			"type": "object", "required": []string{"type"},
			"properties": map[string]any{
				"type": map[string]any{"enum": []string{"text", "input_text", "output_text", "refusal"}},
				"text": schemaString, "refusal": schemaString,
			},
		},
	})
}

// read gives the text of a part.
func (p *part) read() (string, *fault) {
	switch p.Type {
	case "text", "input_text", "output_text":
		for name, value := range p.Others {
			empty := value.Kind() == 'n' || strings.TrimSpace(string(value)) == "[]"
			if (name == "annotations" || name == "logprobs" || name == "citations") && empty {
				continue // what our own answers carry
			}
			return "", refuse(codeUnknown, clip(name), "unknown parameter: '%s'", clip(name))
		}
		return p.Text, nil
	case "refusal":
		return p.Refusal, nil
	case "":
		return "", missing("type")
	}
	return "", refuse(codeUnsupported, "type",
		"content of type '%s' is not supported by this server: send text", clip(p.Type))
}

// at puts the index of a list before the param of a fault.
func (f *fault) at(i int) *fault {
	out := *f
	out.param = joinParams(fmt.Sprintf("[%d]", i), f.param)
	return &out
}
