package chat

import (
	"context"
	"errors"
	"strings"
	"time"

	"charm.land/bubbles/v2/key"
	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"

	"github.com/norion/norion/runtime/infer"
)

const (
	inputRowsMax  = 8
	chunksWaiting = 64 // chunks that the model may be ahead of the screen
	drawEvery     = 30 * time.Millisecond
)

// Terminal chats in a terminal. It returns when the user quits, and nil then.
func Terminal(ctx context.Context, o Options) error {
	u, err := newUI(ctx, o)
	if err != nil {
		return err
	}
	_, err = tea.NewProgram(u, tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out)).Run()
	u.stop()
	if u.live != nil {
		for range u.live.out { //nolint:revive // the goroutine of the answer ends before we do
		}
	}
	if errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return &infer.Error{Op: "chat", Kind: infer.KindCanceled, Err: err}
	}
	return err
}

// ui is the model of the terminal program: Update changes it, View shows it.
type ui struct {
	ctx     context.Context
	s       *session
	md      *markdown
	input   textarea.Model
	width   int
	height  int
	live    *live  // the answer that is coming, or nil
	notice  string // one line above the input, until the next key
	leaving bool   // the next Ctrl-C quits
	rate    float64
}

// live is an answer that is coming.
type live struct {
	cancel          context.CancelFunc
	out             chan event // closed by the goroutine of the answer
	user            string
	text, reasoning strings.Builder
	tokens          int
	first           time.Time // when the first token came

	width   int       // of its rows, which a change of the window leaves as they are
	rows    []string  // rendered at drawn
	printed int       // rows that are above the editor already
	drawn   time.Time //
}

// event is a chunk of an answer, or its end.
type event struct {
	chunk infer.Chunk
	end   *end
}

// end is how an answer ended.
type end struct {
	turn turn
	err  error
}

// eventsMsg are events in their order.
type eventsMsg []event

func newUI(ctx context.Context, o Options) (*ui, error) {
	s, err := newSession(o)
	if err != nil {
		return nil, err
	}
	in := textarea.New()
	in.Prompt = "┃ "
	in.Placeholder = "Ask something; /help lists the commands"
	in.ShowLineNumbers = false
	in.CharLimit = MessageBytesMax
	in.DynamicHeight, in.MinHeight, in.MaxHeight = true, 1, inputRowsMax
	in.MaxContentHeight = MessageBytesMax
	in.KeyMap.InsertNewline = key.NewBinding(key.WithKeys("alt+enter", "shift+enter", "ctrl+j"))
	in.SetVirtualCursor(false)
	u := &ui{ctx: ctx, s: s, md: newMarkdown(o.Color), input: in, width: 80, height: 24}
	u.restyle()
	u.input.SetWidth(u.width)
	u.input.Focus()
	return u, nil
}

// Init implements tea.Model.
func (u *ui) Init() tea.Cmd {
	info := u.s.o.Backend.Info()
	lines := []string{u.md.strong.Render(info.Model) + u.md.dim.Render("  "+info.Description)}
	for _, n := range info.Notes {
		lines = append(lines, u.md.dim.Render("note: "+printable(n)))
	}
	return tea.Println(strings.Join(lines, "\n"))
}

// Update implements tea.Model.
func (u *ui) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		u.width, u.height = msg.Width, msg.Height
		u.input.SetWidth(msg.Width)
		return u, nil
	case eventsMsg:
		return u, u.follow(msg)
	case tea.KeyPressMsg:
		if cmd, taken := u.press(msg); taken {
			return u, cmd
		}
	}
	var cmd tea.Cmd
	u.input, cmd = u.input.Update(msg)
	return u, cmd
}

// press handles the keys that are not the editor's.
func (u *ui) press(k tea.KeyPressMsg) (cmd tea.Cmd, taken bool) {
	leaving := u.leaving
	u.leaving, u.notice = false, ""
	switch k.String() {
	case "ctrl+c":
		if leaving {
			u.stop()
			return tea.Quit, true
		}
		u.leaving, u.notice = true, "Ctrl-C again ends the chat"
		u.stop()
		return nil, true
	case "ctrl+d":
		if u.live == nil && u.input.Value() == "" {
			return tea.Quit, true
		}
	case "enter":
		return u.enter(), true
	case "up":
		if u.input.Line() == 0 {
			return nil, u.recall(u.s.history.up(u.input.Value()))
		}
	case "down":
		if u.input.Line() == u.input.LineCount()-1 {
			return nil, u.recall(u.s.history.down())
		}
	}
	return nil, false
}

// recall puts an entry of the history into the editor.
func (u *ui) recall(text string, ok bool) bool {
	if ok {
		u.input.SetValue(text)
		u.input.MoveToEnd()
	}
	return ok
}

// enter sends the message, or carries out the command.
func (u *ui) enter() tea.Cmd {
	if u.live != nil {
		u.notice = "an answer is coming; Ctrl-C stops it"
		return nil
	}
	line := u.input.Value()
	o := u.s.read(line)
	if o.err != nil {
		u.notice = printable(o.err.Error())
		return nil
	}
	u.input.Reset()
	if strings.TrimSpace(line) != "" {
		if err := u.s.history.add(strings.TrimSpace(line)); err != nil {
			u.notice = printable(err.Error())
		}
	}
	switch {
	case o.quit:
		return tea.Quit
	case o.send != "":
		return u.ask(o.send)
	case o.say != "":
		return u.print(strings.Split(u.md.dim.Render(printable(o.say)), "\n")...)
	}
	return nil
}

// ask starts an answer.
func (u *ui) ask(text string) tea.Cmd {
	ctx, cancel := context.WithCancel(u.ctx)
	l := &live{cancel: cancel, out: make(chan event, chunksWaiting), user: text, width: u.width}
	u.live = l
	b, r := u.s.o.Backend, u.s.request(text)
	go func() {
		defer close(l.out)
		t, err := generate(ctx, b, r, func(c infer.Chunk) error {
			select {
			case l.out <- event{chunk: c}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		l.out <- event{end: &end{t, err}}
	}()
	return tea.Sequence(u.print(u.quote(text)...), l.listen())
}

// listen waits for the next event and takes all that are there.
func (l *live) listen() tea.Cmd {
	return func() tea.Msg {
		events := eventsMsg{<-l.out}
		for events[len(events)-1].end == nil {
			select {
			case e := <-l.out:
				events = append(events, e)
			default:
				return events
			}
		}
		return events
	}
}

// follow takes the next events of the answer that is coming.
func (u *ui) follow(events eventsMsg) tea.Cmd {
	for _, e := range events {
		if e.end != nil {
			return u.finish(*e.end)
		}
		u.live.add(e.chunk, u.s.o.Now())
	}
	l, now := u.live, u.s.o.Now()
	if now.Sub(l.drawn) < drawEvery {
		return l.listen()
	}
	l.drawn = now
	l.rows = u.md.render(l.text.String(), l.width)
	stable := u.md.stable(l.text.String(), l.width)
	if l.printed >= stable {
		return l.listen()
	}
	fresh := l.rows[l.printed:stable]
	l.printed = stable
	return tea.Sequence(u.print(fresh...), l.listen())
}

func (l *live) add(c infer.Chunk, now time.Time) {
	l.text.WriteString(c.Text)
	l.reasoning.WriteString(c.Reasoning)
	if l.tokens == 0 && c.Tokens > 0 {
		l.first = now
	}
	l.tokens += c.Tokens
}

// stop ends the answer that is coming, if any; its end follows.
func (u *ui) stop() {
	if u.live != nil {
		u.live.cancel()
	}
}

// finish takes the end of an answer.
func (u *ui) finish(m end) tea.Cmd {
	l := u.live
	l.cancel()
	u.live = nil
	if m.err != nil {
		message, hint := inChat(m.err)
		u.input.SetValue(l.user) // nothing typed is lost
		return u.print(u.md.strong.Render(message), u.md.dim.Render(hint))
	}
	u.s.accept(m.turn)
	rows := u.md.render(m.turn.answer.Content, l.width)
	rows = rows[min(l.printed, len(rows)):]
	switch {
	case m.turn.final == nil:
		rows = append(rows, u.md.dim.Render("(stopped)"))
	case m.turn.final.Reason == infer.FinishLength:
		rows = append(rows, u.md.dim.Render("(the answer ends here because of its length)"))
	}
	if m.turn.final != nil {
		u.rate = m.turn.final.Usage.DecodeRate()
	}
	return u.print(append(rows, "")...)
}
