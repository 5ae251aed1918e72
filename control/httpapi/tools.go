package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"

	v2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// chatTool is a function that the model may call.
type chatTool struct {
	Type     string       `json:"type"`
	Function toolFunction `json:"function"`
}

type toolFunction struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Parameters  jsontext.Value `json:"parameters"`
	// Strict changes nothing: arguments follow the schema in any case.
	Strict *bool `json:"strict"`
}

// tool checks a function and turns it.
func (f *toolFunction) tool() (infer.Tool, *fault) {
	t := infer.Tool{Name: f.Name, Description: f.Description}
	if f.Name == "" || len(f.Name) > 64 || !isName(f.Name) {
		return t, refuse(codeInvalidValue, "name",
			"a name has 1 to 64 letters, digits, underscores and dashes")
	}
	if len(f.Parameters) == 0 || f.Parameters.Kind() == 'n' {
		return t, nil
	}
	if f.Parameters.Kind() != '{' {
		return t, refuse(codeInvalidType, "parameters", "expected a JSON schema of an object")
	}
	t.Parameters = json.RawMessage(f.Parameters)
	return t, nil
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// toolChoice says which tools the model may or must call.
type toolChoice struct {
	mode  infer.ToolChoice
	names []string // only these; nil: all
}

// choiceObject is the form of a choice that names tools.
type choiceObject struct {
	Type     string `json:"type"`
	Name     string `json:"name"` // as the Responses interface writes it
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
	Allowed *allowedTools `json:"allowed_tools"`
	allowedTools
}

type allowedTools struct {
	Mode  string `json:"mode"`
	Tools []struct {
		Type     string `json:"type"`
		Name     string `json:"name"`
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	} `json:"tools"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *toolChoice) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		var mode string
		if err := v2.UnmarshalDecode(dec, &mode); err != nil {
			return err
		}
		return c.setMode(mode, "")
	}
	var o choiceObject
	if err := v2.UnmarshalDecode(dec, &o); err != nil {
		return err
	}
	switch o.Type {
	case "function":
		name := o.Name + o.Function.Name
		if name == "" {
			return missing("function.name")
		}
		c.mode, c.names = infer.ToolRequired, []string{name}
		return nil
	case "allowed_tools":
		a := o.allowedTools
		if o.Allowed != nil {
			a = *o.Allowed
		}
		c.names = []string{}
		for _, t := range a.Tools {
			if t.Type != "function" {
				return refuse(codeUnsupported, "tools", "'%s' is not supported: only functions are",
					clip(t.Type))
			}
			c.names = append(c.names, t.Name+t.Function.Name)
		}
		return c.setMode(a.Mode, "mode")
	}
	return refuse(codeUnsupported, "type", "'%s' is not supported: only functions are", clip(o.Type))
}

func (c *toolChoice) setMode(mode, param string) error {
	switch mode {
	case "auto", "none", "required":
		c.mode = infer.ToolChoice(mode)
		return nil
	}
	return refuse(codeInvalidValue, param, "'%s' is none of auto, none and required", clip(mode))
}

func (toolChoice) openAPI() any {
	return anyOf(map[string]any{"enum": []string{"auto", "none", "required"}},
		map[string]any{"type": "object"})
}

// apply puts tools and the choice among them into a request. A model whose template cannot state
// tools would not hear of them: that is refused.
func (c *toolChoice) apply(r *infer.Request, tools []chatTool, info infer.Info) error {
	all := make([]infer.Tool, 0, len(tools))
	for i := range tools {
		if tools[i].Type != "function" {
			return refuse(codeUnsupported, fmt.Sprintf("tools[%d].type", i),
				"'%s' is not supported: only functions are", clip(tools[i].Type))
		}
		t, err := tools[i].Function.tool()
		if err != nil {
			err.param = joinParams(fmt.Sprintf("tools[%d].function", i), err.param)
			return err
		}
		all = append(all, t)
	}
	return c.choose(r, all, info)
}

// choose keeps the tools that are allowed. Models are told of no others, so that they call none.
func (c *toolChoice) choose(r *infer.Request, all []infer.Tool, info infer.Info) error {
	for i, t := range all {
		if slices.ContainsFunc(all[:i], func(o infer.Tool) bool { return o.Name == t.Name }) {
			return refuse(codeInvalidValue, "tools", "two tools have the name '%s'", t.Name)
		}
	}
	for _, name := range c.names {
		if !slices.ContainsFunc(all, func(t infer.Tool) bool { return t.Name == name }) {
			return refuse(codeInvalidValue, "tool_choice", "no tool has the name '%s'", clip(name))
		}
	}
	if len(all) == 0 {
		if c.mode == infer.ToolRequired {
			return refuse(codeInvalidValue, "tool_choice", "'required' needs tools")
		}
		return nil
	}
	if !info.Abilities.Tools {
		return unsupported("tools", "the chat template of this model has no place for tools; "+
			"constrain the answer with response_format, or name another template with --template")
	}
	if c.names != nil {
		all = slices.DeleteFunc(all, func(t infer.Tool) bool {
			return !slices.Contains(c.names, t.Name)
		})
	}
	r.Tools, r.ToolChoice = all, c.mode
	return nil
}
