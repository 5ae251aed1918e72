package httpapi

import (
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// schemaString is the schema of any text.
var schemaString = map[string]any{"type": "string"}

func anyOf(schemas ...any) any { return map[string]any{"anyOf": schemas} }

// described is a type whose schema does not follow from its Go type.
type described interface{ openAPI() any }

// document writes the OpenAPI description of routes. Schemas of bodies are read off the types that
// decode them, so that they cannot differ.
func document(routes []route) ([]byte, error) {
	paths := map[string]map[string]any{}
	for i := range routes {
		rt := &routes[i]
		path := strings.ReplaceAll(rt.path, "...}", "}")
		op := map[string]any{
			"summary": rt.summary, "x-norion-rule": rt.rule.String(),
			"responses": map[string]any{
				"200":     map[string]any{"description": "It worked."},
				"default": map[string]any{"description": "An error object."},
			},
		}
		if rt.rule == public {
			op["security"] = []any{}
		}
		if rt.takes != nil {
			op["requestBody"] = map[string]any{
				"required": true,
				"content": map[string]any{
					"application/json": map[string]any{"schema": schemaOf(reflect.TypeOf(rt.takes))},
				},
			}
		}
		if strings.Contains(path, "{model}") {
			op["parameters"] = []any{map[string]any{
				"name": "model", "in": "path", "required": true, "schema": schemaString,
			}}
		}
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(rt.method)] = op
	}
	return json.Marshal(map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": "norion", "version": "1"},
		"paths":   paths,
		"security": []any{
			map[string]any{"bearer": []any{}}, map[string]any{"header": []any{}},
		},
		"components": map[string]any{"securitySchemes": map[string]any{
			"bearer": map[string]any{"type": "http", "scheme": "bearer"},
			"header": map[string]any{"type": "apiKey", "in": "header", "name": "X-Api-Key"},
		}},
	}, lenient, jsontext.Multiline(true))
}

// schemaOf gives the JSON schema of what decodes into a type.
func schemaOf(t reflect.Type) any {
	if t.Kind() == reflect.Pointer {
		return schemaOf(t.Elem())
	}
	if d, ok := reflect.Zero(t).Interface().(described); ok {
		return d.openAPI()
	}
	if t == reflect.TypeFor[jsontext.Value]() {
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.String:
		return schemaString
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	}
	properties := map[string]any{}
	open := addProperties(properties, t)
	out := map[string]any{"type": "object", "properties": properties}
	if !open {
		out["additionalProperties"] = false
	}
	return out
}

// addProperties adds the fields of a struct; true says that further ones are looked at by name.
func addProperties(to map[string]any, t reflect.Type) (open bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			open = addProperties(to, f.Type) || open
		case f.Type == reflect.TypeFor[others]():
			open = true
		case name != "" && name != "-":
			to[name] = schemaOf(f.Type)
		}
	}
	return open
}
