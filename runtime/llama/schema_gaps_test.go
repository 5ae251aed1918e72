package llama

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSchemaGaps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, schema string
		want         []string
	}{
		{
			"none", `{"type":"object","title":"t","description":"d","default":{},"properties":{
			"a":{"type":"string","minLength":1,"maxLength":3},"b":{"type":"integer","minimum":1},
			"c":{"enum":["x"]},"d":{"type":"string","format":"date"},"e":{"$ref":"#/$defs/e"},
			"f":{"type":"array","items":{"type":"boolean"},"minItems":1,"uniqueItems":false},
			"g":{"type":["string","null"],"pattern":"^[a-z]{2}(x|\\d)?$"}},
			"required":["a"],"additionalProperties":false,"$defs":{"e":{"const":1}}}`,
			[]string{"#/properties/g: pattern ^[a-z]{2}(x|\\d)?$: unknown escape"},
		},
		{
			"number", `{"type":"number","minimum":0,"multipleOf":0.5}`,
			[]string{"#: minimum of a number", "#: multipleOf of a number"},
		},
		{
			"integer", `{"type":"integer","minimum":1,"exclusiveMinimum":3,"multipleOf":2}`,
			[]string{"#: exclusiveMinimum of an integer with minimum", "#: multipleOf of an integer"},
		},
		{
			"object", `{"type":"object","minProperties":1,"required":["z"],"properties":{}}`,
			[]string{"#: minProperties of an object", `#: required "z", which is no property`},
		},
		{
			"array", `{"items":{"format":"email","type":"string"},"uniqueItems":true,"contains":{}}`,
			[]string{"#/items: format email", "#: contains of an array", "#: uniqueItems of an array"},
		},
		{
			"tuple", `{"type":"array","prefixItems":[{"type":"number","maximum":1}],"maxItems":0}`,
			[]string{"#/prefixItems/0: maximum of a number", "#: maxItems below the number of items"},
		},
		{
			"both", `{"type":"array","prefixItems":[{}],"items":{}}`,
			[]string{"#: prefixItems of an array with items"},
		},
		{
			"reference", `{"$ref":"#/$defs/a","required":["x"],"$defs":{"a":{"not":{}}}}`,
			[]string{"#/$defs/a: not of a schema", "#: required beside $ref"},
		},
		{"cycle", `{"properties":{"next":{"$ref":"#/properties/next"}}}`, nil},
		{
			"alternatives", `{"oneOf":[{"type":"number","minimum":1}],"properties":{}}`,
			[]string{"#/oneOf/0: minimum of a number", "#: properties beside oneOf"},
		},
		{"conditions", `{"type":"string","if":{},"then":{}}`, []string{"#: if of a schema"}},
		{"all", `{"allOf":[{"type":"string","format":"ipv4"}]}`, []string{"#/allOf/0: format ipv4"}},
		{"all beside", `{"type":"integer","allOf":[{}]}`, []string{"#: allOf of a typed schema"}},
		{"no type", `{"minimum":3}`, []string{"#: minimum without a type"}},
		{
			"pattern and length", `{"pattern":"^a$","minLength":3}`,
			[]string{"#: minLength of a string with a pattern"},
		},
		{
			"format and length", `{"type":"string","format":"uuid","maxLength":3}`,
			[]string{"#: maxLength of a string with a format"},
		},
		{"no schema", `7`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			found, err := SchemaGaps([]byte(tt.schema))
			require.NoError(t, err)
			require.Equal(t, tt.want, found)
		})
	}
}

func TestSchemaGapsOfNoJSON(t *testing.T) {
	t.Parallel()
	_, err := SchemaGaps([]byte(`{`))
	require.ErrorIs(t, err, BadGrammar)
}

func TestPatternGap(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		`^$`: "", `^[a-c.^$]+$`: "", `^a\.b\n\u0041$`: "", `^(?:x|y){1,2}$`: "", `^a"b$`: "",
		`a`: "not anchored by ^ and $", `^\w$`: "unknown escape", `^(?=x)$`: "unknown kind of group",
		`^a|^b$`: "an anchor inside", `^.$`: "a dot also allows what ends a string",
		`^[^a]$`: "a negated class also allows what ends a string", `^a\`: "not anchored by ^ and $",
	} {
		require.Equal(t, want, patternGap(pattern), pattern)
	}
}

func FuzzSchemaGaps(f *testing.F) {
	f.Add([]byte(`{"$ref":"#/a/b","a":{"b":{"pattern":"^[^a]$"}}}`))
	f.Add([]byte(`{"type":["object",7],"allOf":[{"required":[1]}]}`))
	f.Fuzz(func(t *testing.T, schema []byte) {
		if _, err := SchemaGaps(schema); err != nil {
			require.ErrorIs(t, err, BadGrammar)
		}
	})
}
