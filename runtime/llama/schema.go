package llama

// SchemaToGrammar is a GBNF grammar of the JSON documents that a JSON schema allows. A pattern
// that is not anchored, or uses what a grammar cannot say, allows any string. Errors: BadGrammar
// with upstream's reason, Missing.
func SchemaToGrammar(schema []byte) (string, error) {
	const op = "schema"
	if len(schema) > SchemaBytesMax {
		return "", fail(op, BadGrammar, "", "%d bytes, at most %d", len(schema), SchemaBytesMax)
	}
	if err := checkJSON(schema); err != nil {
		return "", fail(op, BadGrammar, "", "%w", err)
	}
	grammar, err := schemaGrammar(string(schema))
	return string(grammar), err
}
