package gguf

import "strings"

const keyTemplate = "tokenizer.chat_template"

// Template is a chat template (Jinja) that the file carries.
type Template struct {
	Name string // "" for the default one; else e.g. "tool_use"
	Text string
}

// Templates returns the default chat template, if there is one, and then the named ones in file
// order. Errors: ErrKeyType, ErrLimit, ErrIO, ErrChanged.
func (f *File) Templates() ([]Template, error) {
	var all []Template
	add := func(key, name string) error {
		e, err := f.lookup(key)
		if err != nil {
			return err
		}
		if e.typ == TypeString && e.n > TemplateBytesMax {
			return f.vocabFault(ErrLimit, key, "%d bytes are above %d", e.n, TemplateBytesMax)
		}
		if len(all) == TemplatesMax {
			return f.vocabFault(ErrLimit, key, "more than %d templates", TemplatesMax)
		}
		text, err := f.String(key)
		all = append(all, Template{Name: name, Text: text})
		return err
	}
	if f.Has(keyTemplate) {
		if err := add(keyTemplate, ""); err != nil {
			return nil, err
		}
	}
	for i := range f.entries {
		if name, ok := strings.CutPrefix(f.entries[i].key, keyTemplate+"."); ok {
			if err := add(f.entries[i].key, name); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// Mentions lists what the template's text refers to: "system", "tools", "tool calls",
// "reasoning", "images", "audio". This is a reading of words, not of the program: the chat
// engine that renders the template knows for certain.
func (t Template) Mentions() []string {
	var found []string
	for _, c := range []struct {
		what  string
		words []string
	}{
		{"system", []string{"'system'", `"system"`}},
		{"tools", []string{"tools"}},
		{"tool calls", []string{"tool_calls", "tool_call"}},
		{"reasoning", []string{"enable_thinking", "reasoning_content", "<think>", "thinking"}},
		{"images", []string{"'image'", `"image"`, "image_url"}},
		{"audio", []string{"'audio'", `"audio"`, "input_audio"}},
	} {
		for _, w := range c.words {
			if strings.Contains(t.Text, w) {
				found = append(found, c.what)
				break
			}
		}
	}
	return found
}
