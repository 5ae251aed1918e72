package chat

import (
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// unstyled takes the escape sequences of colours and attributes out.
func unstyled(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, s, _ = strings.Cut(after, "m")
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	m := newMarkdown(true)
	for _, c := range []struct{ name, source, want string }{
		{"paragraphs", "one\ntwo\n\nthree", "one\ntwo\n\nthree"},
		{"wrapped", strings.Repeat("word ", 9), "word word word word\nword word word word\nword"},
		{"heading", "# Title\ntext", "# Title\n\ntext"},
		{"emphasis", "**bold** and *it* and `code`", "bold and it and code"},
		{"unclosed", "**bold", "**bold"},
		{"list", "- a\n- b\n  - c", "• a\n• b\n  • c"},
		{"ordered", "3. a\n4. b", "3. a\n4. b"},
		{"loose", "- a\n\n- b", "• a\n\n• b"},
		{"fence", "```go\nfunc f() {\n\tx\n}\n```", "  func f() {\n      x\n  }"},
		{"open fence", "```\nabc", "  abc"},
		{"quote", "> a\n> b", "│ a\n│ b"},
		{"rule", "a\n\n---", "a\n\n" + strings.Repeat("─", 20)},
		{"link", "[at](https://x.test)", "at (https://x.test)"},
		{"auto", "<https://x.test>", "https://x.test"},
		{"escapes", `\* &amp; &lt;`, "* & <"},
		{"html", "<b>x</b>", "<b>x</b>"},
		{"table", "| a | b |\n|---|---|", "| a | b |\n|---|---|"},
		{"control", "a\x1b[31mb\x07&#27;c", "a[31mbc"},
		{"empty", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rows := m.render(c.source, 20)
			require.Equal(t, c.want, unstyled(strings.Join(rows, "\n")))
		})
	}
}

// TestMarkdownGrows checks what the terminal UI relies on: rows that are called stable stay as they
// are while an answer grows.
func TestMarkdownGrows(t *testing.T) {
	t.Parallel()
	m := newMarkdown(true)
	piece := rapid.SampledFrom([]string{
		"word ", "\n", "\n\n", "- item\n", "1. one\n", "```\n", "# head\n", "> quote\n", "**", "`",
		"a longer line of text that wraps\n", "***\n", "  ", "\x1b[2J", "é日本語 ", "| a | b |\n",
	})
	rapid.Check(t, func(t *rapid.T) {
		source, printed := "", []string{}
		for _, p := range rapid.SliceOfN(piece, 1, 30).Draw(t, "pieces") {
			source += p
			rows, stable := m.render(source, 24), m.stable(source, 24)
			require.LessOrEqual(t, stable, len(rows))
			require.GreaterOrEqual(t, len(rows), len(printed), "%q", source)
			require.Equal(t, printed, append([]string{}, rows[:len(printed)]...), "%q", source)
			printed = append([]string{}, rows[:max(stable, len(printed))]...)
			for _, row := range rows {
				require.NotContains(t, unstyled(row), "\x1b")
			}
		}
	})
}

func TestMarkdownWithoutColour(t *testing.T) {
	t.Parallel()
	rows := newMarkdown(false).render("# a\n`b` [c](d)", 40)
	require.NotContains(t, strings.Join(rows, ""), "\x1b[3", "no foreground colour")
	require.Equal(t, 3, len(rows))
	require.Equal(t, 3, lipgloss.Width(rows[0]))
}
