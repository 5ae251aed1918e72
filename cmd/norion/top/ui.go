package top

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/norion/norion/cmd/norion/presence"
	"github.com/norion/norion/runtime/infer"
)

// Options is a live view. All are needed.
type Options struct {
	Name string                 // of the command, for errors
	Look func() (string, error) // gives the text of this moment
	In   io.Reader
	Out  io.Writer
}

// Terminal shows a text in a terminal, looking again each second, until the user quits.
func Terminal(ctx context.Context, o Options) error {
	u := &ui{o: o, width: 80, height: 24}
	_, err := tea.NewProgram(u, tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return &infer.Error{Op: o.Name, Kind: infer.KindCanceled, Err: err}
	}
	return errors.Join(err, u.err)
}

// ui is the model of the terminal program: Update changes it, View shows it.
type ui struct {
	o             Options
	text          string
	err           error // that ended it
	width, height int
}

// shown is what there is to show at a moment.
type shown struct {
	text string
	err  error
}

func (u *ui) look() tea.Msg {
	text, err := u.o.Look()
	return shown{text, err}
}

// Init implements tea.Model.
func (u *ui) Init() tea.Cmd { return u.look }

// Update implements tea.Model.
func (u *ui) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		u.width, u.height = msg.Width, msg.Height
	case shown:
		if u.text, u.err = msg.text, msg.err; u.err != nil {
			return u, tea.Quit
		}
		return u, tea.Tick(presence.Interval, func(time.Time) tea.Msg { return u.look() })
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return u, tea.Quit
		}
	}
	return u, nil
}

// View implements tea.Model: as many rows and columns as there is room for, and what quits.
func (u *ui) View() tea.View {
	rows := strings.Split(strings.TrimRight(u.text, "\n"), "\n")
	rows = append(rows[:min(len(rows), max(u.height-2, 1))], "", "q quits")
	line := lipgloss.NewStyle().MaxWidth(max(u.width, 1))
	for i, row := range rows {
		rows[i] = line.Render(row)
	}
	v := tea.NewView(strings.Join(rows, "\n"))
	v.AltScreen = true
	return v
}
