package chat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/norion/norion/runtime/infer"
)

// line is one message read, or the error that ended the input.
type line struct {
	text string
	err  error
}

// Plain chats without a terminal UI: each line is a message, a backslash at its end continues it on
// the next line, and answers are written as they come. Unless a person types, the first error ends
// the chat and is returned.
func Plain(ctx context.Context, o Options) error {
	s, err := newSession(o)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	lines := readLines(o.In, done)
	for {
		if o.Interactive {
			fmt.Fprint(o.Err, "> ")
		}
		select {
		case <-ctx.Done():
			return &infer.Error{Op: "chat", Kind: infer.KindCanceled, Err: context.Cause(ctx)}
		case <-o.Interrupts:
			fmt.Fprintln(o.Err)
			return nil
		case l := <-lines:
			if errors.Is(l.err, io.EOF) {
				return nil
			}
			if l.err != nil {
				return l.err
			}
			quit, err := s.plainLine(ctx, l.text)
			if err != nil && !o.Interactive {
				return err
			}
			if err != nil {
				message, hint := inChat(err)
				fmt.Fprintf(o.Err, "norion: %s\n", message)
				if hint != "" {
					fmt.Fprintf(o.Err, "hint: %s\n", hint)
				}
			}
			if quit {
				return nil
			}
		}
	}
}

// readLines reads messages in a goroutine, so that an interrupt is heard while nothing comes. It
// ends at the end of the input, or with the process when the input blocks for ever.
func readLines(in io.Reader, done <-chan struct{}) <-chan line {
	out := make(chan line)
	send := func(l line) bool {
		select {
		case out <- l:
			return true
		case <-done:
			return false
		}
	}
	go func() {
		scan := bufio.NewScanner(in)
		scan.Buffer(nil, MessageBytesMax)
		var message strings.Builder
		for scan.Scan() {
			text, more := strings.CutSuffix(scan.Text(), "\\")
			if message.WriteString(text); more && message.Len() < MessageBytesMax {
				message.WriteByte('\n')
				continue
			}
			if !send(line{text: message.String()}) {
				return
			}
			message.Reset()
		}
		switch err := scan.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			send(line{err: &infer.Error{
				Op: "chat", Kind: infer.KindTooLong, Field: "message",
				Err: fmt.Errorf("a line of more than %d bytes", MessageBytesMax),
			}})
		case err != nil:
			send(line{err: fmt.Errorf("read the input: %w", err)})
		case message.Len() == 0 || send(line{text: message.String()}):
			send(line{err: io.EOF})
		}
	}()
	return out
}

// plainLine handles one line.
func (s *session) plainLine(ctx context.Context, text string) (quit bool, err error) {
	o := s.read(text)
	if o.say != "" {
		fmt.Fprintln(s.o.Err, printable(o.say))
	}
	if o.quit || o.err != nil || o.send == "" {
		return o.quit, o.err
	}
	if err := s.history.add(o.send); err != nil {
		return false, err
	}
	return false, s.plainAnswer(ctx, o.send)
}

// plainAnswer streams one answer. An interrupt stops it.
func (s *session) plainAnswer(ctx context.Context, text string) error {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		select {
		case <-s.o.Interrupts:
			cancel()
		case <-over:
		}
	}()
	shown := ""
	t, err := generate(ctx, s.o.Backend, s.request(text), func(c infer.Chunk) error {
		if c.Text != "" {
			shown = c.Text
		}
		if s.o.Interactive {
			c.Text = printable(c.Text)
		}
		_, err := io.WriteString(s.o.Out, c.Text)
		return err
	})
	close(over)
	<-heard
	cancel()
	if shown != "" && !strings.HasSuffix(shown, "\n") {
		fmt.Fprintln(s.o.Out)
	}
	if err != nil {
		if e, ok := errors.AsType[*infer.Error](err); ok {
			out := *e
			_, out.Hint = inChat(err)
			return &out
		}
		return err
	}
	s.accept(t)
	if t.final != nil && t.final.Reason == infer.FinishLength {
		fmt.Fprintln(s.o.Err, "note: the answer ends here because of its length")
	}
	return nil
}
