package llama

// SchemaToGrammar is a GBNF grammar of the JSON documents that a JSON schema allows. What
// upstream's converter does not know it leaves out: SchemaGaps tells what. Errors: BadGrammar with
// upstream's reason, Missing.
func SchemaToGrammar(schema []byte) (string, error) {
	const op = "schema"
	if err := checkSchema(op, schema); err != nil {
		return "", err
	}
	grammar, err := schemaGrammar(string(schema))
	return string(grammar), err
}

func checkSchema(op string, schema []byte) error {
	if len(schema) > SchemaBytesMax {
		return fail(op, BadGrammar, "", "%d bytes, at most %d", len(schema), SchemaBytesMax)
	}
	if err := checkJSON(schema); err != nil {
		return fail(op, BadGrammar, "", "%w", err)
	}
	return nil
}
