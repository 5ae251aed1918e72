//go:build cgo

package llama_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// schemas makes random JSON schemas whose documents are short.
type schemas struct{ *rand.Rand }

type object = map[string]any

func (s schemas) any(depth int) object {
	if depth > 0 && s.IntN(3) > 0 {
		return []func(int) object{s.object, s.object, s.array, s.oneOf, s.tuple}[s.IntN(5)](depth - 1)
	}
	return []func() object{s.integer, s.number, s.text, s.pattern, s.enum, s.simple}[s.IntN(6)]()
}

func (s schemas) object(depth int) object {
	properties, required := object{}, []string{}
	names := []string{"name", "größe", "a b", "id", "tags", "n1"}[s.IntN(3):]
	for _, name := range names[:1+s.IntN(3)] {
		properties[name] = s.any(depth)
		if s.IntN(4) > 0 {
			required = append(required, name)
		}
	}
	return object{
		"type": "object", "properties": properties, "required": required,
		"additionalProperties": false,
	}
}

func (s schemas) array(depth int) object {
	least := s.IntN(3)
	return object{
		"type": "array", "items": s.any(depth), "minItems": least, "maxItems": least + s.IntN(2),
	}
}

func (s schemas) tuple(depth int) object {
	return object{
		"type": "array", "prefixItems": []object{s.any(depth), s.any(0)},
		"minItems": 2, "maxItems": 2,
	}
}

func (s schemas) oneOf(depth int) object {
	word := []string{"oneOf", "anyOf"}[s.IntN(2)]
	return object{word: []object{s.integer(), s.array(depth), {"type": "null"}}[s.IntN(2):]}
}

func (s schemas) integer() object {
	low := s.IntN(2000) - 1000
	o := object{"type": "integer", "minimum": low, "maximum": low + s.IntN(500)}
	if s.IntN(4) == 0 {
		delete(o, "minimum")
		o["exclusiveMinimum"] = low - 1
	}
	return o
}

func (s schemas) number() object { return object{"type": "number"} }

func (s schemas) text() object {
	least := s.IntN(4)
	return object{"type": "string", "minLength": least, "maxLength": least + s.IntN(8)}
}

func (s schemas) pattern() object {
	return object{"type": "string", "pattern": []string{
		`^[a-c]{1,4}$`, `^(red|green) [0-9]{2}$`, `^[0-9]{3}-[0-9]{4}$`, `^x?y*z{0,2}$`,
	}[s.IntN(4)]}
}

func (s schemas) enum() object {
	if s.IntN(3) == 0 {
		return object{"const": []any{"only \"this\"", 7, nil, true, []int{1, 2}}[s.IntN(5)]}
	}
	return object{"enum": []any{"red", "grün", 12, 1.5, false, nil}[:2+s.IntN(5)]}
}

func (s schemas) simple() object {
	return []object{
		{"type": "boolean"},
		{"type": "null"},
		{"type": "string", "format": "date"},
		{"type": []string{"boolean", "null"}},
		{"$ref": "#/$defs/short"},
	}[s.IntN(5)]
}

func (s schemas) document() []byte {
	o := s.any(2)
	o["$defs"] = object{"short": object{"type": "string", "maxLength": 3}}
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return data
}

// TestSchemaSampling lets a real model write documents for 50 random schemas.
func TestSchemaSampling(t *testing.T) {
	const total, together, tokensMax = 50, 10, 480
	seed := uint64(20240229)
	t.Logf("seed %d", seed)
	s, tokens := schemas{rand.New(rand.NewPCG(seed, 0))}, 0
	m := model(t, smol)
	c := newContext(t, m, llama.ContextParams{
		Tokens: together * 512, Batch: 512, Sequences: together, Outputs: together, Threads: 1,
	})
	for wave := range total / together {
		require.NoError(t, c.Clear())
		var writers [together]writer
		for i := range writers {
			writers[i] = newWriter(t, m, s.document(), uint32(wave*together+i))
			place := add(t, c, llama.Seq(i), 0, tokenize(t, m, "A JSON document:\n")...)
			writers[i].place = place
		}
		for range tokensMax {
			if !step(t, c, writers[:]) {
				break
			}
		}
		for i := range writers {
			writers[i].check(t)
			tokens += writers[i].tokens
		}
	}
	t.Logf("%d documents of %d tokens", total, tokens)
}

// writer is one document being written.
type writer struct {
	schema  []byte
	sampler *llama.Sampler
	place   int
	text    bytes.Buffer
	tokens  int
	done    bool
}

func newWriter(t *testing.T, m *llama.Model, schema []byte, seed uint32) writer {
	t.Helper()
	grammar, err := llama.SchemaToGrammar(schema)
	require.NoError(t, err, "%s", schema)
	missing, err := llama.SchemaGaps(schema)
	require.NoError(t, err)
	require.Empty(t, missing, "%s", schema)
	p := llama.DefaultSampler()
	p.Seed, p.Temperature, p.TopK = seed, 0.7, 40
	p.Grammar = llama.Grammar{Text: grammar}
	return writer{schema: schema, sampler: newSampler(t, m, p)}
}

// step samples one token for every writer that is not done and fills the next batch. It says
// whether one goes on.
func step(t *testing.T, c *llama.Context, writers []writer) bool {
	t.Helper()
	var picks []llama.Pick
	var who []int
	for i := range writers {
		if w := &writers[i]; !w.done {
			picks = append(picks, llama.Pick{Sampler: w.sampler, Place: w.place})
			who = append(who, i)
		}
	}
	if len(picks) == 0 {
		return false
	}
	require.NoError(t, c.Step(picks))
	for k, i := range who {
		w, p := &writers[i], &picks[k]
		if p.EOG {
			w.done = true
			continue
		}
		w.text.Write(p.Piece)
		w.tokens++
		var err error
		seq := llama.Seq(i)
		w.place, err = c.Batch().Add(p.Token, c.PosMax(seq)+1, seq, true)
		require.NoError(t, err)
	}
	return true
}

func (w *writer) check(t *testing.T) {
	t.Helper()
	require.True(t, w.done, "%s\nwrites without end: %s", w.schema, w.text.String())
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.schema))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	require.NoError(t, compiler.AddResource("schema.json", schema))
	compiled, err := compiler.Compile("schema.json")
	require.NoError(t, err, "%s", w.schema)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.text.Bytes()))
	require.NoError(t, err, "%s\n%s", w.schema, w.text.String())
	require.NoError(t, compiled.Validate(document), "%s\n%s", w.schema, w.text.String())
}

func TestSchemaErrors(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"items":`, 101) + "{}" + strings.Repeat("}", 101)
	for _, tt := range []struct{ name, schema, want string }{
		{"empty", ``, "not JSON"},
		{"no JSON", `{"type":`, "not JSON"},
		{"two values", `{} {}`, "not JSON"},
		{"deep", deep, "nests too deep"},
		{"large", `"` + strings.Repeat("x", llama.SchemaBytesMax) + `"`, "bytes, at most"},
		{"type", `{"type":"person"}`, "person"},
		{"reference", `{"$ref":"#/$defs/nowhere"}`, "nowhere"},
		{"remote", `{"$ref":"https://example.com/schema.json"}`, "example.com"},
		{"expression", `{"type":"string","pattern":"^(a$"}`, "unbalanced"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := llama.SchemaToGrammar([]byte(tt.schema))
			requireCode(t, llama.BadGrammar, err)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestSchemaBounds(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(`{"const":"%s"}`, strings.Repeat("x", 1000))
	padded := text + strings.Repeat(" ", llama.SchemaBytesMax-len(text))
	grammar, err := llama.SchemaToGrammar([]byte(padded))
	require.NoError(t, err)
	require.Contains(t, grammar, "root ::=")
	_, err = llama.SchemaToGrammar([]byte(padded + " "))
	requireCode(t, llama.BadGrammar, err)
	deep := strings.Repeat(`{"items":`, 100) + "{}" + strings.Repeat("}", 100)
	_, err = llama.SchemaToGrammar([]byte(deep)) // 101 levels
	requireCode(t, llama.BadGrammar, err)
	_, err = llama.SchemaToGrammar([]byte(deep[9 : len(deep)-1]))
	require.NoError(t, err)
}

func FuzzSchema(f *testing.F) {
	for _, s := range []string{
		`{"type":"object","properties":{"a":{"$ref":"#"}}}`, `{"enum":[]}`, `true`, `[]`,
		`{"type":"string","pattern":"^[a-z]+$","minLength":3}`, `{"minimum":1e400}`,
		`{"type":"integer","minimum":-9223372036854775808,"maximum":9}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, schema []byte) {
		grammar, err := llama.SchemaToGrammar(schema)
		if err != nil {
			requireCode(t, llama.BadGrammar, err)
			return
		}
		require.NotEmpty(t, grammar)
	})
}
