// Package chat is the conversation of `norion chat`. It owns turns, slash commands, history and
// the two faces of the chat: a terminal UI, and lines in and answers out over a plain pipe. It must
// not know models, files of models, or flags: it talks to an infer.Backend, and what a setting is
// called comes from the caller.
package chat

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/norion/norion/runtime/infer"
)

// Bounds of a chat.
const (
	MessageBytesMax   = 1 << 20 // of one message typed or piped
	HistoryEntriesMax = 1000    // messages remembered for the up key
)

// Options is one chat. Backend, In, Out and Err are needed.
type Options struct {
	Backend infer.Backend
	Request infer.Request // sampling and limits of every turn; its messages and prompt are ignored
	System  string        // system message, or ""

	// Set changes a setting by name and returns the request that follows. nil: there are none.
	Set func(name, value string) (infer.Request, error)
	// Settings gives one line for each setting and its value.
	Settings func() []string
	// Cache says what the backend's cache holds, in lines. nil: nobody can say.
	Cache func() (string, error)

	History string // file that keeps what was typed, or ""
	Color   bool
	In      io.Reader
	Out     io.Writer
	Err     io.Writer

	// Interactive says, for Plain, that a person types: prompts are shown, an error does not end
	// the chat, and an interrupt stops an answer only.
	Interactive bool
	Interrupts  <-chan os.Signal // Ctrl-C, for Plain
	Now         func() time.Time // nil: time.Now
}

// session is a chat under way. It is used by one goroutine.
type session struct {
	o       Options
	turns   []turn
	last    *infer.Final
	tokens  int // answer tokens of all turns
	history *history
}

// turn is one question and its answer.
type turn struct {
	user   string
	answer infer.Message
	final  *infer.Final // nil when the answer was stopped
}

func newSession(o Options) (*session, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	h, err := openHistory(o.History)
	return &session{o: o, history: h}, err
}

// request is the conversation so far and the next question.
func (s *session) request(text string) infer.Request {
	r := s.o.Request
	r.Prompt, r.Tokens, r.Messages = "", nil, nil
	if s.o.System != "" {
		r.Messages = append(r.Messages, infer.Message{Role: infer.RoleSystem, Content: s.o.System})
	}
	for _, t := range s.turns {
		r.Messages = append(r.Messages, infer.Message{Role: infer.RoleUser, Content: t.user}, t.answer)
	}
	r.Messages = append(r.Messages, infer.Message{Role: infer.RoleUser, Content: text})
	return r
}

// accept adds a finished or stopped turn. One that was stopped before its first word is dropped.
func (s *session) accept(t turn) {
	if t.final != nil {
		s.last = t.final
		s.tokens += t.final.Usage.CompletionTokens
	} else if t.answer.Content == "" && t.answer.Reasoning == "" {
		return
	}
	s.turns = append(s.turns, t)
}

// generate asks for one answer and shows it as it comes. When ctx ends it early, the turn holds
// what there is and the error is nil.
func generate(
	ctx context.Context, b infer.Backend, r infer.Request, show func(infer.Chunk) error,
) (turn, error) {
	t := turn{user: r.Messages[len(r.Messages)-1].Content}
	var text, reasoning strings.Builder
	for c, err := range b.Generate(ctx, r) {
		if err == nil {
			text.WriteString(c.Text)
			reasoning.WriteString(c.Reasoning)
			t.final = c.Final
			err = show(c)
		}
		if err != nil && ctx.Err() == nil {
			return turn{}, err
		}
		if err != nil {
			break
		}
	}
	t.answer = infer.Message{
		Role: infer.RoleAssistant, Content: text.String(), Reasoning: reasoning.String(),
	}
	if t.final != nil && t.final.Answer.Role != "" {
		t.answer = t.final.Answer
	}
	return t, nil
}

// inChat adds to a refusal what can be done about it here.
func inChat(err error) (message, hint string) {
	hint = infer.HintOf(err)
	if infer.KindOf(err) == infer.KindTooLong {
		hint = "/clear starts anew, /undo drops the last turn; start with a larger --ctx for more"
	}
	return printable(err.Error()), printable(hint)
}

// contextLine says how full the context is, where that is known.
func (s *session) contextLine() string {
	room := s.o.Backend.Info().ContextTokens
	if n := len(s.turns); n == 0 || s.turns[n-1].final == nil {
		return fmt.Sprintf("context of %d tokens", room)
	}
	return fmt.Sprintf("%d of %d tokens", s.last.Usage.PromptTokens+s.last.Usage.CompletionTokens,
		room)
}

// printable drops what could command a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
