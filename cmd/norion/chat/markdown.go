package chat

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// markdown renders answers for a terminal. The parser is shared; it keeps nothing between calls.
type markdown struct {
	md                                 goldmark.Markdown
	heading, strong, em, code, dim, at lipgloss.Style
}

// newMarkdown makes a renderer; without color only bold, italic and faint are used.
func newMarkdown(color bool) *markdown {
	s := lipgloss.NewStyle()
	m := &markdown{
		md: goldmark.New(), heading: s.Bold(true), strong: s.Bold(true), em: s.Italic(true),
		code: s, dim: s.Faint(true), at: s.Underline(true),
	}
	if color {
		m.heading, m.code = m.heading.Foreground(lipgloss.Cyan), m.code.Foreground(lipgloss.Yellow)
		m.at = m.at.Foreground(lipgloss.Blue)
	}
	return m
}

// render gives rows that are at most width columns wide, but for code, which is never broken.
func (m *markdown) render(source string, width int) []string {
	rows, _ := m.rows(source, width)
	return rows
}

// stable is how many of the rows stay as they are when the source grows: those of all but the last
// block, where a line that is not complete does not count yet.
func (m *markdown) stable(source string, width int) int {
	_, before := m.rows(source[:strings.LastIndexByte(source, '\n')+1], width)
	return before
}

// rows renders a source; before is how many rows come before those of the last block.
func (m *markdown) rows(source string, width int) (rows []string, before int) {
	src := []byte(printable(source))
	doc := m.md.Parser().Parse(text.NewReader(src))
	for n := doc.FirstChild(); n != nil; n = n.NextSibling() {
		block := m.block(n, src, max(width, 10))
		if block == "" {
			continue
		}
		if before = len(rows); before > 0 {
			rows, before = append(rows, ""), before+1
		}
		rows = append(rows, strings.Split(block, "\n")...)
	}
	return rows, before
}

// children renders the blocks below n, with a separator between them.
func (m *markdown) children(n ast.Node, src []byte, width int, separator string) string {
	var parts []string
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if s := m.block(c, src, width); s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, separator)
}

func (m *markdown) block(n ast.Node, src []byte, width int) string {
	switch n := n.(type) {
	case *ast.Heading:
		return lipgloss.Wrap(m.heading.Render(strings.Repeat("#", n.Level)+" "+m.inline(n, src)),
			width, "")
	case *ast.List:
		return m.list(n, src, width)
	case *ast.Blockquote:
		return indent(m.children(n, src, width-2, "\n\n"), m.dim.Render("│ "), m.dim.Render("│ "))
	case *ast.FencedCodeBlock, *ast.CodeBlock:
		return indent(m.lines(n, src, m.code), "  ", "  ")
	case *ast.HTMLBlock:
		return m.lines(n, src, m.dim)
	case *ast.ThematicBreak:
		return m.dim.Render(strings.Repeat("─", min(width, 40)))
	}
	return lipgloss.Wrap(m.inline(n, src), width, "")
}

func (m *markdown) list(n *ast.List, src []byte, width int) string {
	separator := "\n\n"
	if n.IsTight {
		separator = "\n"
	}
	var items []string
	number := n.Start
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		mark := "• "
		if n.IsOrdered() {
			mark = fmt.Sprintf("%d. ", number)
			number++
		}
		pad := lipgloss.Width(mark)
		items = append(items, indent(m.children(c, src, width-pad, separator), mark,
			strings.Repeat(" ", pad)))
	}
	return strings.Join(items, separator)
}

// lines are the literal lines of a block, each in the style.
func (m *markdown) lines(n ast.Node, src []byte, style lipgloss.Style) string {
	var out []string
	for i := range n.Lines().Len() {
		at := n.Lines().At(i)
		text := strings.TrimRight(string(at.Value(src)), "\n")
		out = append(out, style.Render(strings.ReplaceAll(text, "\t", "    ")))
	}
	return strings.Join(out, "\n")
}

// inline renders what is in a paragraph. Line breaks of the source are kept.
func (m *markdown) inline(n ast.Node, src []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			b.WriteString(plain(c.Segment.Value(src), c.IsRaw()))
			if c.SoftLineBreak() || c.HardLineBreak() {
				b.WriteByte('\n')
			}
		case *ast.String:
			b.Write(c.Value)
		case *ast.CodeSpan:
			b.WriteString(m.code.Render(m.inline(c, src)))
		case *ast.Emphasis:
			style := m.em
			if c.Level > 1 {
				style = m.strong
			}
			b.WriteString(style.Render(m.inline(c, src)))
		case *ast.Link:
			label, address := m.inline(c, src), string(c.Destination)
			b.WriteString(label)
			if label != address {
				b.WriteString(" (" + m.at.Render(address) + ")")
			}
		case *ast.AutoLink:
			b.WriteString(m.at.Render(string(c.URL(src))))
		case *ast.RawHTML:
			for i := range c.Segments.Len() {
				at := c.Segments.At(i)
				b.Write(at.Value(src))
			}
		default:
			b.WriteString(m.inline(c, src))
		}
	}
	return b.String()
}

// plain undoes escapes and references.
func plain(s []byte, raw bool) string {
	if raw {
		return string(s)
	}
	s = util.ResolveEntityNames(util.ResolveNumericReferences(util.UnescapePunctuations(s)))
	return printable(string(s))
}

// indent puts first before the first line and rest before the others.
func indent(s, first, rest string) string {
	return first + strings.ReplaceAll(s, "\n", "\n"+rest)
}
