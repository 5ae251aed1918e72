package top

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/norion/norion/runtime/infer"
)

// Options is a live view. All are needed.
type Options struct {
	Dir  string                 // that processes publish into
	None func() (string, error) // the text while none does
	In   io.Reader
	Out  io.Writer
}

// Terminal shows the directory in a terminal, looking again each second, until the user quits.
func Terminal(ctx context.Context, o Options) error {
	u := &ui{o: o, width: 80, height: 24}
	_, err := tea.NewProgram(u, tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return &infer.Error{Op: "cache top", Kind: infer.KindCanceled, Err: err}
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

// look reads the directory.
func (u *ui) look() tea.Msg {
	v, err := Read(u.o.Dir)
	if err != nil || len(v.Processes)+v.Bad > 0 {
		return shown{Text(v, time.Now()), err}
	}
	text, err := u.o.None()
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
		return u, tea.Tick(interval, func(time.Time) tea.Msg { return u.look() })
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
