package chat

import (
	"fmt"
	"strings"
	"time"

	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
)

const (
	reasoningRows  = 4           // shown of the reasoning that is coming
	reasoningBytes = 4096        // and what they are taken from
	rateAfter      = time.Second // before that a rate says nothing
)

// restyle takes the colours of lines and cursor out of the editor.
func (u *ui) restyle() {
	plain := lipgloss.NewStyle()
	state := textarea.StyleState{Placeholder: u.md.dim, Prompt: u.md.dim, Base: plain, Text: plain}
	u.input.SetStyles(textarea.Styles{
		Focused: state, Blurred: state, Cursor: textarea.CursorStyle{Shape: tea.CursorBar},
	})
}

// View implements tea.Model: the end of the answer that is coming, the editor and a status line.
// What is finished has been printed above and belongs to the terminal.
func (u *ui) View() tea.View {
	var rows []string
	if u.live != nil {
		rows = append(tail(u.liveRows(), u.liveRowsMax()), "")
	}
	if u.notice != "" {
		rows = append(rows, u.md.dim.Render(u.notice))
	}
	above := len(rows)
	rows = append(rows, u.input.View(), u.status())
	v := tea.NewView(strings.Join(rows, "\n"))
	if c := u.input.Cursor(); c != nil {
		c.Y += above
		v.Cursor = c
	}
	return v
}

// liveRows are the rows of the answer that is coming.
func (u *ui) liveRows() []string {
	var rows []string
	answer := u.live.text.String()
	if think := u.live.reasoning.String(); think != "" && answer == "" {
		text := lipgloss.Wrap(printable(think[max(0, len(think)-reasoningBytes):]), u.width, "")
		for _, row := range tail(strings.Split(text, "\n"), reasoningRows) {
			rows = append(rows, u.md.dim.Render(row))
		}
	}
	if answer == "" {
		return append(rows, u.md.dim.Render("..."))
	}
	return u.live.rows[min(u.live.printed, len(u.live.rows)):]
}

// liveRowsMax is how many rows of the answer that is coming are shown: what is complete is above.
func (u *ui) liveRowsMax() int { return max(u.height/2-2, 1) }

func tail(rows []string, n int) []string { return rows[max(0, len(rows)-n):] }

// status names the model, the speed and how full the context is.
func (u *ui) status() string {
	parts := []string{u.s.o.Backend.Info().Model}
	rate := u.rate
	if l := u.live; l != nil {
		rate = 0
		if d := u.s.o.Now().Sub(l.first); l.tokens > 1 && d >= rateAfter {
			rate = float64(l.tokens-1) / d.Seconds()
		}
		parts = append(parts, fmt.Sprintf("%d tokens", l.tokens))
	}
	if rate > 0 {
		parts = append(parts, fmt.Sprintf("%.1f tokens/s", rate))
	}
	if u.live != nil {
		parts = append(parts, "Ctrl-C stops")
	} else {
		parts = append(parts, u.s.contextLine(), "/help")
	}
	line := strings.Join(parts, " · ")
	return u.md.dim.Render(lipgloss.NewStyle().MaxWidth(max(u.width, 1)).Render(line))
}

// quote is how a question looks once it is sent.
func (u *ui) quote(text string) []string {
	rows := strings.Split(lipgloss.Wrap(printable(text), max(u.width-2, 1), ""), "\n")
	for i, row := range rows {
		rows[i] = u.md.dim.Render("┃ ") + u.md.strong.Render(row)
	}
	return append(rows, "")
}

// print writes rows above the editor, in parts that fit the screen together with the tallest frame:
// bubbletea would else lose rows.
func (u *ui) print(rows ...string) tea.Cmd {
	part := max(u.height-u.liveRowsMax()-u.input.Height()-4, 1)
	var cmds []tea.Cmd
	for len(rows) > 0 {
		n := min(part, len(rows))
		cmds = append(cmds, tea.Println(strings.Join(rows[:n], "\n")))
		rows = rows[n:]
	}
	return tea.Sequence(cmds...)
}
