package chat

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/norion/norion/runtime/infer"
)

const helpText = `/help               this page
/clear              forget the conversation
/system [TEXT]      show or set the system message; - removes it
/set [NAME VALUE]   show or change a setting, as /set temp 0.7
/undo               drop the last question and its answer
/regen              answer the last question again
/save FILE          write the conversation as Markdown
/stats              what the last answer cost
/cache              what the cache holds
/quit               end
A message that begins with a slash: write two.`

// CommandError is a line with a slash that asks for what cannot be done.
type CommandError string

// Error gives the message.
func (e CommandError) Error() string { return string(e) }

// outcome is what a line that was typed asks for.
type outcome struct {
	say  string // text to show
	send string // message to send
	quit bool
	err  error
}

// read takes a line: a command is carried out, anything else is a message to send.
func (s *session) read(line string) outcome {
	text := strings.TrimSpace(line)
	switch {
	case text == "":
		return outcome{}
	case !strings.HasPrefix(text, "/"):
		return outcome{send: text}
	case strings.HasPrefix(text, "//"):
		return outcome{send: text[1:]}
	}
	name, rest, _ := strings.Cut(text[1:], " ")
	rest = strings.TrimSpace(rest)
	switch name {
	case "help", "?":
		return outcome{say: helpText}
	case "clear":
		s.turns, s.last = nil, nil
		return outcome{say: "forgotten: the conversation starts anew"}
	case "system":
		return s.setSystem(rest)
	case "set":
		return s.set(rest)
	case "undo":
		if _, ok := s.undo(); !ok {
			return outcome{err: CommandError("there is nothing to undo")}
		}
		return outcome{say: fmt.Sprintf("dropped the last turn; %d left", len(s.turns))}
	case "regen":
		if user, ok := s.undo(); ok {
			return outcome{send: user}
		}
		return outcome{err: CommandError("there is no question yet")}
	case "save":
		return s.save(rest)
	case "stats":
		return outcome{say: s.stats()}
	case "cache":
		return s.cache()
	case "quit", "exit", "bye":
		return outcome{quit: true}
	}
	return outcome{err: CommandError("unknown command /" + name + "; /help lists them")}
}

func (s *session) cache() outcome {
	if s.o.Cache == nil {
		return outcome{err: CommandError("nobody can say what the cache holds")}
	}
	text, err := s.o.Cache()
	return outcome{say: strings.TrimRight(text, "\n"), err: err}
}

// undo drops the last turn and returns its question.
func (s *session) undo() (user string, ok bool) {
	n := len(s.turns)
	if n == 0 {
		return "", false
	}
	user = s.turns[n-1].user
	s.turns, s.last = s.turns[:n-1], nil
	if n > 1 {
		s.last = s.turns[n-2].final
	}
	return user, true
}

func (s *session) setSystem(text string) outcome {
	switch text {
	case "":
		if s.o.System == "" {
			return outcome{say: "no system message"}
		}
		return outcome{say: s.o.System}
	case "-":
		s.o.System = ""
		return outcome{say: "no system message from now on"}
	}
	s.o.System = text
	return outcome{say: "set"}
}

func (s *session) set(text string) outcome {
	if s.o.Set == nil {
		return outcome{err: CommandError("there are no settings")}
	}
	if text == "" {
		return outcome{say: strings.Join(s.o.Settings(), "\n")}
	}
	name, value, ok := strings.Cut(text, " ")
	if !ok {
		return outcome{err: CommandError("write /set NAME VALUE")}
	}
	r, err := s.o.Set(strings.TrimLeft(name, "-"), strings.TrimSpace(value))
	if err != nil {
		return outcome{err: err}
	}
	s.o.Request = r
	return outcome{say: "set"}
}

// save writes a new file; it never replaces one.
func (s *session) save(path string) outcome {
	if path == "" {
		return outcome{err: CommandError("write /save FILE")}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return outcome{err: err}
	}
	if _, err = f.WriteString(s.transcript()); err != nil {
		return outcome{err: errors.Join(err, f.Close())}
	}
	if err := f.Close(); err != nil {
		return outcome{err: err}
	}
	return outcome{say: fmt.Sprintf("wrote %s to %s", turns(len(s.turns)), path)}
}

// transcript is the conversation as Markdown.
func (s *session) transcript() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Chat with %s\n", s.o.Backend.Info().Model)
	if s.o.System != "" {
		fmt.Fprintf(&b, "\n## System\n\n%s\n", s.o.System)
	}
	for _, t := range s.turns {
		fmt.Fprintf(&b, "\n## User\n\n%s\n\n## Assistant\n\n%s\n", t.user, t.answer.Content)
	}
	return b.String()
}

func (s *session) stats() string {
	if s.last == nil {
		return "no answer yet"
	}
	return statsText(*s.last) + fmt.Sprintf("\nchat         %s, %d answer tokens, %s",
		turns(len(s.turns)), s.tokens, s.contextLine())
}

func turns(n int) string {
	if n == 1 {
		return "1 turn"
	}
	return fmt.Sprintf("%d turns", n)
}

func statsText(f infer.Final) string {
	u := f.Usage
	cached := fmt.Sprintf("%d of them cached", u.Cached.Live+u.Cached.RAM+u.Cached.Disk)
	if u.Cached.Moved > 0 {
		cached += fmt.Sprintf(" (%d moved: approximate)", u.Cached.Moved)
	}
	return fmt.Sprintf("prompt       %d tokens, %s, %.1f tokens/s\n"+
		"answer       %d tokens, %.1f tokens/s, ended by %s\n"+
		"first token  %s after the request\nseed         %d",
		u.PromptTokens, cached, u.PrefillRate(),
		u.CompletionTokens, u.DecodeRate(), f.Reason, u.Timings.TTFT.Round(time.Millisecond), f.Seed)
}
