package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write what the commands print into docs/cli.md")

// TestCLIDoc runs the commands of the console blocks in docs/cli.md and compares what they print.
// Blocks of other kinds hold outputs that depend on the machine.
func TestCLIDoc(t *testing.T) {
	t.Parallel()
	const path = "../../docs/cli.md"
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var got strings.Builder
	blocks := 0
	for i, part := range strings.SplitAfter(string(data), "```console\n") {
		if i == 0 {
			got.WriteString(part)
			continue
		}
		block, after, found := strings.Cut(part, "```\n")
		require.True(t, found, "a block that is not closed")
		blocks++
		line, _, _ := strings.Cut(block, "\n")
		got.WriteString(line + "\n" + printed(t, strings.TrimPrefix(line, "$ norion")))
		got.WriteString("```\n" + after)
	}
	require.Greater(t, blocks, 2)
	if *rewrite {
		require.NoError(t, os.WriteFile(path, []byte(got.String()), 0o644))
		return
	}
	require.Equal(t, string(data), got.String(), "go test ./cmd/norion -run CLIDoc -rewrite")
}

// printed runs a command line in an empty environment.
func printed(t *testing.T, line string) string {
	t.Helper()
	home := t.TempDir()
	var out bytes.Buffer
	env := map[string]string{"NORION_HOME": home}
	a := &app{out: &out, err: &out, env: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
	a.main(t.Context(), strings.Fields(line))
	return out.String()
}
