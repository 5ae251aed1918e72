package chat

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
)

// screen drives a ui without a terminal: it runs the commands that Update returns and collects
// what is printed above the editor.
type screen struct {
	t       *testing.T
	u       *ui
	printed string
	quit    bool
	pending []tea.Cmd // of answers that are still coming
}

func newScreen(t *testing.T, f *fake) *screen {
	t.Helper()
	now := time.Unix(0, 0)
	u, err := newUI(t.Context(), Options{
		Backend: f, Color: true, Out: &bytes.Buffer{}, Err: &bytes.Buffer{},
		Now: func() time.Time { now = now.Add(time.Second); return now },
	})
	require.NoError(t, err)
	s := &screen{t: t, u: u}
	s.run(u.Init())
	s.send(tea.WindowSizeMsg{Width: 60, Height: 20})
	return s
}

func (s *screen) send(msg tea.Msg) {
	_, cmd := s.u.Update(msg)
	s.run(cmd)
}

// run carries out a command. Messages that print are private to bubbletea: they are known by their
// name, and groups by being slices of commands.
func (s *screen) run(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	if s.u.live != nil && s.waits(cmd) {
		s.pending = append(s.pending, cmd)
		return
	}
	switch msg := cmd().(type) {
	case nil:
	case tea.QuitMsg:
		s.quit = true
	case eventsMsg:
		s.send(msg)
	default:
		v := reflect.ValueOf(msg)
		switch {
		case v.Kind() == reflect.Slice && v.Type().Elem() == reflect.TypeFor[tea.Cmd]():
			for i := range v.Len() {
				s.run(v.Index(i).Interface().(tea.Cmd))
			}
		case strings.Contains(v.Type().Name(), "rintLine"):
			s.printed += unstyled(fmt.Sprint(v.Field(0))) + "\n"
		}
	}
}

// waits says whether a held answer would block the command.
func (s *screen) waits(tea.Cmd) bool {
	return s.u.s.o.Backend.(*fake).hold && len(s.u.live.out) == 0
}

func (s *screen) typeText(text string) {
	for _, r := range text {
		if r == '\n' {
			s.press(tea.KeyPressMsg{Code: tea.KeyEnter, Mod: tea.ModAlt})
			continue
		}
		s.press(tea.KeyPressMsg{Code: r, Text: string(r)})
	}
}

func (s *screen) press(k tea.KeyPressMsg) { s.send(k) }

func (s *screen) view() string { return unstyled(s.u.View().Content) }

var (
	enter = tea.KeyPressMsg{Code: tea.KeyEnter}
	up    = tea.KeyPressMsg{Code: tea.KeyUp}
	down  = tea.KeyPressMsg{Code: tea.KeyDown}
	ctrlC = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
	ctrlD = tea.KeyPressMsg{Code: 'd', Mod: tea.ModCtrl}
)

func TestUIAnswers(t *testing.T) {
	t.Parallel()
	f := &fake{answers: []string{"Some **bold** words\n\n- and\n- a list"}, notes: []string{"slow"}}
	s := newScreen(t, f)
	require.Contains(t, s.printed, "fake:1  fake 1M\nnote: slow")
	s.typeText("first\nsecond")
	require.Contains(t, s.view(), "┃ first")
	require.Contains(t, s.view(), "┃ second")
	s.press(enter)
	require.Equal(t, []string{"user: first\nsecond"}, f.asked(0))
	require.Contains(t, s.printed, "┃ first\n┃ second\n")
	require.Contains(t, s.printed, "Some bold words\n\n• and\n• a list\n")
	require.Equal(t, 1, strings.Count(s.printed, "Some bold words"), "nothing is printed twice")
	require.Contains(t, s.view(), "fake:1 · 5.0 tokens/s · 16 of 1000 tokens · /help")
	require.Empty(t, s.u.input.Value())
}

func TestUIStopsAnAnswer(t *testing.T) {
	t.Parallel()
	f := &fake{answers: []string{"half an answer"}, hold: true, thought: "hmm"}
	s := newScreen(t, f)
	s.typeText("q")
	s.press(enter)
	for s.u.live.text.String() != "half an answer" { // each event is awaited by its receive
		s.send(s.u.live.listen()())
	}
	require.Contains(t, s.view(), "Ctrl-C stops")
	s.typeText("more")
	s.press(enter)
	require.Contains(t, s.view(), "an answer is coming")
	require.Equal(t, "more", s.u.input.Value(), "what is typed meanwhile stays")
	s.press(ctrlC)
	require.False(t, s.quit)
	l := s.u.live
	for s.u.live != nil {
		s.send(l.listen()())
	}
	require.Contains(t, s.printed, "half an answer\n(stopped)")
	require.Len(t, s.u.s.turns, 1)
	require.Contains(t, s.view(), "context of 1000 tokens")
	s.press(ctrlC)
	require.True(t, s.quit, "a second Ctrl-C ends")
}

func TestUIQuits(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string]func(*screen){
		"twice Ctrl-C": func(s *screen) { s.press(ctrlC); s.press(ctrlC) },
		"Ctrl-D":       func(s *screen) { s.press(ctrlD) },
		"/quit":        func(s *screen) { s.typeText("/quit"); s.press(enter) },
	} {
		s := newScreen(t, &fake{})
		keys(s)
		require.True(t, s.quit, name)
	}
	s := newScreen(t, &fake{})
	s.press(ctrlC)
	require.Contains(t, s.view(), "Ctrl-C again")
	s.typeText("x")
	require.NotContains(t, s.view(), "Ctrl-C again")
	s.press(ctrlC)
	s.press(ctrlD)
	require.False(t, s.quit, "another key takes the first Ctrl-C back, and Ctrl-D needs no text")
}

func TestUIErrorKeepsTheText(t *testing.T) {
	t.Parallel()
	f := &fake{fail: &infer.Error{Op: "generate", Kind: infer.KindTooLong}}
	s := newScreen(t, f)
	s.typeText("a long story")
	s.press(enter)
	require.Contains(t, s.printed, "generate: too long")
	require.Contains(t, s.printed, "/clear starts anew")
	require.Equal(t, "a long story", s.u.input.Value())
	require.Empty(t, s.u.s.turns)
}

func TestUIHistory(t *testing.T) {
	t.Parallel()
	s := newScreen(t, &fake{})
	for _, text := range []string{"one", "two"} {
		s.typeText(text)
		s.press(enter)
	}
	s.typeText("draft")
	s.press(up)
	require.Equal(t, "two", s.u.input.Value())
	s.press(up)
	s.press(up)
	require.Equal(t, "one", s.u.input.Value())
	s.press(down)
	s.press(down)
	require.Equal(t, "draft", s.u.input.Value())
}

func TestUICommands(t *testing.T) {
	t.Parallel()
	s := newScreen(t, &fake{reason: infer.FinishLength})
	s.typeText("/help")
	s.press(enter)
	require.Contains(t, s.printed, "/regen")
	s.typeText("/nonsense")
	s.press(enter)
	require.Contains(t, s.view(), "unknown command /nonsense")
	require.Equal(t, "/nonsense", s.u.input.Value(), "it can be corrected")
	s.u.input.Reset()
	s.typeText("q")
	s.press(enter)
	require.Contains(t, s.printed, "because of its length")
	s.typeText("/regen")
	s.press(enter)
	require.Len(t, s.u.s.turns, 1)
	require.Equal(t, 2, strings.Count(s.printed, "┃ q\n"))
}

func TestUIPrintsInPartsThatFit(t *testing.T) {
	t.Parallel()
	long := strings.TrimSpace(strings.Repeat("line of text\n\n", 100))
	s := newScreen(t, &fake{answers: []string{long}})
	s.typeText("q")
	s.press(enter)
	require.Equal(t, 100, strings.Count(s.printed, "line of text\n"))
	s.u.live = &live{rows: strings.Split(strings.Repeat("x\n", 100), "\n")}
	s.u.live.text.WriteString("x")
	require.LessOrEqual(t, strings.Count(s.view(), "\n"), 19, "the frame fits the screen")
	s.send(tea.WindowSizeMsg{Width: 1, Height: 1})
	require.NotEmpty(t, s.view())
	s.u.live = nil
	require.NotEmpty(t, s.view())
}
