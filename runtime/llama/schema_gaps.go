package llama

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// SchemaGaps lists what a schema demands and its grammar does not enforce, such as
// "#/properties/age: minimum of a number", in order. A document written under the grammar must be
// validated where the list is not empty. That exactly one alternative of oneOf may hold, and that
// the properties of allOf belong to objects, is never enforced and not listed. Errors: BadGrammar
// where the text is no schema.
func SchemaGaps(schema []byte) ([]string, error) {
	if err := checkSchema("schema", schema); err != nil {
		return nil, err
	}
	g := gaps{seen: map[string]bool{}}
	if err := json.Unmarshal(schema, &g.root); err != nil {
		return nil, fail("schema", BadGrammar, "", "%w", err)
	}
	g.node(g.root, "#")
	slices.Sort(g.found)
	return slices.Compact(g.found), nil
}

type gaps struct {
	root  any
	seen  map[string]bool // references followed
	found []string
}

type node = map[string]any

func (g *gaps) add(path, format string, args ...any) {
	g.found = append(g.found, path+": "+fmt.Sprintf(format, args...))
}

// ignored lists the keywords present at a node.
func (g *gaps) ignored(n node, path, of string, keywords ...string) {
	for _, k := range keywords {
		if v, ok := n[k]; ok && v != false {
			g.add(path, "%s of %s", k, of)
		}
	}
}

// node follows upstream's converter: the first keyword that it knows decides, the rest is dropped.
func (g *gaps) node(v any, path string) {
	n, ok := v.(node)
	if !ok {
		return // not a schema for upstream: SchemaToGrammar says so
	}
	g.ignored(n, path, "a schema", "not", "if", "$dynamicRef")
	if ref, ok := n["$ref"].(string); ok {
		g.beside(n, path, "$ref")
		g.reference(ref)
		return
	}
	for _, k := range []string{"oneOf", "anyOf"} {
		if alternatives, ok := n[k].([]any); ok {
			g.beside(n, path, k)
			g.each(alternatives, path+"/"+k)
			return
		}
	}
	if n["const"] != nil || n["enum"] != nil {
		return // the values themselves say what is allowed
	}
	types, several := n["type"].([]any)
	if !several {
		types = []any{n["type"]}
	}
	for _, t := range types {
		name, _ := t.(string)
		g.typed(n, path, name)
	}
}

// beside reports keywords next to one that replaces them.
func (g *gaps) beside(n node, path, keyword string) {
	for k := range n {
		if k != keyword && kindOf[k] != "" {
			g.add(path, "%s beside %s", k, keyword)
		}
	}
}

func (g *gaps) each(list []any, path string) {
	for i, v := range list {
		g.node(v, fmt.Sprintf("%s/%d", path, i))
	}
}

func (g *gaps) reference(ref string) {
	if g.seen[ref] || !strings.HasPrefix(ref, "#/") {
		return
	}
	g.seen[ref] = true
	at := g.root
	for _, key := range strings.Split(ref, "/")[1:] {
		n, ok := at.(node)
		if !ok {
			return
		}
		at = n[key]
	}
	g.node(at, ref)
}

// kindOf names what each keyword constrains.
var kindOf = func() map[string]string {
	out := map[string]string{"type": "any", "allOf": "any", "anyOf": "any", "oneOf": "any"}
	for kind, words := range map[string]string{
		"object": "properties required additionalProperties patternProperties propertyNames " +
			"minProperties maxProperties dependentRequired dependentSchemas dependencies " +
			"unevaluatedProperties",
		"array": "items prefixItems minItems maxItems uniqueItems contains minContains " +
			"maxContains additionalItems unevaluatedItems",
		"string": "pattern minLength maxLength format",
		"number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
	} {
		for _, w := range strings.Fields(words) {
			out[w] = kind
		}
	}
	return out
}()

// typed looks at a node of one type, or of none.
func (g *gaps) typed(n node, path, name string) {
	if name == "" {
		name = guessType(n)
	}
	if all, ok := n["allOf"].([]any); ok {
		if name == "any" || name == "string" || (name == "object" && n["properties"] == nil) {
			g.beside(n, path, "allOf")
			g.each(all, path+"/allOf")
			return
		}
		g.add(path, "allOf of a typed schema")
	}
	switch name {
	case "object":
		g.object(n, path)
	case "array":
		g.array(n, path)
	case "string":
		g.text(n, path)
	case "integer":
		g.integer(n, path)
	case "number":
		for _, k := range slices.Sorted(maps.Keys(n)) {
			if kindOf[k] == "number" {
				g.add(path, "%s of a number", k)
			}
		}
	case "any":
		for _, k := range slices.Sorted(maps.Keys(n)) {
			if kind := kindOf[k]; kind != "" && kind != "any" {
				g.add(path, "%s without a type", k)
			}
		}
	}
}

// guessType is the type that upstream reads from the keywords.
func guessType(n node) string {
	has := func(keys ...string) bool {
		return slices.ContainsFunc(keys, func(k string) bool { _, ok := n[k]; return ok })
	}
	switch {
	case has("properties") || (has("additionalProperties") && n["additionalProperties"] != true):
		return "object"
	case has("allOf"):
		return "any"
	case has("items", "prefixItems"):
		return "array"
	case has("pattern", "minLength", "maxLength") || formats.MatchString(text(n["format"])):
		return "string"
	}
	return "any"
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func (g *gaps) object(n node, path string) {
	g.ignored(n, path, "an object", "patternProperties", "propertyNames", "minProperties",
		"maxProperties", "dependentRequired", "dependentSchemas", "dependencies",
		"unevaluatedProperties")
	properties, _ := n["properties"].(node)
	for name, v := range properties {
		g.node(v, path+"/properties/"+name)
	}
	required, _ := n["required"].([]any)
	for _, name := range required {
		if properties[text(name)] == nil {
			g.add(path, "required %q, which is no property", text(name))
		}
	}
	g.node(n["additionalProperties"], path+"/additionalProperties")
}

func (g *gaps) array(n node, path string) {
	g.ignored(n, path, "an array", "uniqueItems", "contains", "minContains", "maxContains",
		"additionalItems", "unevaluatedItems")
	key := "prefixItems"
	if n["items"] != nil {
		g.ignored(n, path, "an array with items", "prefixItems")
		key = "items"
	}
	if tuple, ok := n[key].([]any); ok {
		size := float64(len(tuple))
		if least, ok := n["minItems"].(float64); ok && least > size {
			g.add(path, "minItems above the number of items")
		}
		if most, ok := n["maxItems"].(float64); ok && most < size {
			g.add(path, "maxItems below the number of items")
		}
		g.each(tuple, path+"/"+key)
		return
	}
	g.node(n[key], path+"/"+key)
}

// formats are those that upstream has rules for.
var formats = regexp.MustCompile(`^(date|time|date-time|uuid[1-5]?)$`)

func (g *gaps) text(n node, path string) {
	if pattern, ok := n["pattern"].(string); ok {
		if why := patternGap(pattern); why != "" {
			g.add(path, "pattern %s: %s", pattern, why)
		}
		g.ignored(n, path, "a string with a pattern", "minLength", "maxLength", "format")
		return
	}
	if format, ok := n["format"].(string); ok {
		if !formats.MatchString(format) {
			g.add(path, "format %s", format)
			return
		}
		g.ignored(n, path, "a string with a format", "minLength", "maxLength")
	}
}

func (g *gaps) integer(n node, path string) {
	g.ignored(n, path, "an integer", "multipleOf")
	if n["minimum"] != nil {
		g.ignored(n, path, "an integer with minimum", "exclusiveMinimum")
	}
	if n["maximum"] != nil {
		g.ignored(n, path, "an integer with maximum", "exclusiveMaximum")
	}
}

var (
	patternEscape = regexp.MustCompile(
		`^\\([\^$.\[\](){}|*+?\\"\-tnr]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})`)
	patternGroup = regexp.MustCompile(`^\(\?[^:]`)
)

// patternGap says why upstream has no rule for a pattern, or one that is not exact.
func patternGap(pattern string) string {
	inner, ok := strings.CutPrefix(pattern, "^")
	inner, ok2 := strings.CutSuffix(inner, "$")
	if !ok || !ok2 {
		return "not anchored by ^ and $"
	}
	class := false
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; {
		case c == '\\':
			escape := patternEscape.FindString(inner[i:])
			if escape == "" {
				return "unknown escape"
			}
			i += len(escape) - 1
		case class:
			class = c != ']'
		case c == '[':
			class = true
			if strings.HasPrefix(inner[i:], "[^") {
				return "a negated class also allows what ends a string"
			}
		case c == '.':
			return "a dot also allows what ends a string"
		case c == '^' || c == '$':
			return "an anchor inside"
		case patternGroup.MatchString(inner[i:]):
			return "unknown kind of group"
		}
	}
	return ""
}
