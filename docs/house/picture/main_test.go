package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWrap(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ab ", 40)
	lines := wrap("one\n\n" + long + "\n" + strings.Repeat("é", columns+1))
	require.Equal(t, "one", lines[0])
	require.Empty(t, lines[1])
	for _, l := range lines {
		require.LessOrEqual(t, len([]rune(l)), columns)
	}
	require.Equal(t, strings.TrimSpace(long), strings.TrimSpace(lines[2]+" "+lines[3]))
	require.Equal(t, "é", lines[len(lines)-1])
}

func TestDrawIsXML(t *testing.T) {
	t.Parallel()
	d := xml.NewDecoder(strings.NewReader(string(draw([]string{"$ a <b>", `"c" & d`}))))
	texts := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "text" {
			texts++
		}
	}
	require.Equal(t, 2, texts)
}
