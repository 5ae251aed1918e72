package chat

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/infer"
)

func TestConversationCarriesItsTurns(t *testing.T) {
	t.Parallel()
	f := &fake{answers: []string{"one", "two", "three"}}
	s := testSession(t, f)
	s.o.System = "be kind"
	s.turnOf(t, "a")
	s.turnOf(t, "b")
	require.Equal(t, []string{"system: be kind", "user: a", "assistant: one", "user: b"}, f.asked(1))
	require.Equal(t, "b", s.read("/regen").send)
	s.turnOf(t, "b")
	require.Equal(t, f.asked(1), f.asked(2), "regen asks the same again")
	require.Len(t, s.turns, 2)
}

func TestCommands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		want outcome
		like string // part of what is said
		err  string
	}{
		{line: ""},
		{line: "   "},
		{line: "hello", want: outcome{send: "hello"}},
		{line: " //etc ", want: outcome{send: "/etc"}},
		{line: "/help", like: "/regen"},
		{line: "/?", like: "/regen"},
		{line: "/clear", like: "anew"},
		{line: "/undo", err: "nothing to undo"},
		{line: "/regen", err: "no question"},
		{line: "/system", like: "no system message"},
		{line: "/system be brief", like: "set"},
		{line: "/system -", like: "no system message"},
		{line: "/set temp 1", err: "no settings"},
		{line: "/save", err: "/save FILE"},
		{line: "/stats", like: "no answer yet"},
		{line: "/quit", want: outcome{quit: true}},
		{line: "/exit", want: outcome{quit: true}},
		{line: "/frobnicate now", err: "unknown command /frobnicate"},
	} {
		got := testSession(t, &fake{}).read(c.line)
		if c.err != "" {
			require.ErrorContains(t, got.err, c.err, c.line)
			continue
		}
		require.NoError(t, got.err, c.line)
		require.Contains(t, got.say, c.like, c.line)
		got.say = ""
		require.Equal(t, c.want, got, c.line)
	}
}

func TestUndoClearAndStats(t *testing.T) {
	t.Parallel()
	f := &fake{}
	s := testSession(t, f)
	s.turnOf(t, "a")
	s.turnOf(t, "b")
	require.Contains(t, s.read("/stats").say, "2 turns, 2 answer tokens, 11 of 1000 tokens")
	require.Contains(t, s.read("/undo").say, "1 left")
	s.turnOf(t, "c")
	require.Equal(t, []string{"user: a", "assistant: ok", "user: c"}, f.asked(2))
	s.read("/clear")
	require.Empty(t, s.turns)
	require.Equal(t, "no answer yet", s.read("/stats").say)
	require.Equal(t, "context of 1000 tokens", s.contextLine())
}

func TestSetKeepsTheOldRequestOnError(t *testing.T) {
	t.Parallel()
	s := testSession(t, &fake{})
	s.o.Settings = func() []string { return []string{"temp 1"} }
	s.o.Set = func(name, value string) (infer.Request, error) {
		if value != "2" {
			return infer.Request{}, errors.New("no " + name)
		}
		return infer.Request{MaxTokens: 2}, nil
	}
	require.ErrorContains(t, s.read("/set temp 9").err, "no temp")
	require.ErrorContains(t, s.read("/set temp").err, "NAME VALUE")
	require.Zero(t, s.o.Request.MaxTokens)
	require.NoError(t, s.read("/set --n 2").err)
	require.Equal(t, 2, s.request("x").MaxTokens)
	require.Equal(t, "temp 1", s.read("/set").say)
}

func TestSaveNeverReplacesAFile(t *testing.T) {
	t.Parallel()
	s := testSession(t, &fake{answers: []string{"an answer"}})
	s.o.System = "sys"
	s.turnOf(t, "a question")
	path := filepath.Join(t.TempDir(), "chat.md")
	require.NoError(t, s.read("/save "+path).err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "# Chat with fake:1\n\n## System\n\nsys\n\n## User\n\na question\n\n"+
		"## Assistant\n\nan answer\n", string(data))
	require.ErrorIs(t, s.read("/save "+path).err, os.ErrExist)
}

func TestStoppedTurns(t *testing.T) {
	t.Parallel()
	f := &fake{answers: []string{"half an answer"}, hold: true}
	s := testSession(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	got, err := generate(ctx, f, s.request("q"), func(c infer.Chunk) error {
		if c.Text == "answer" {
			cancel()
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, "half an answer", got.answer.Content)
	require.Nil(t, got.final)
	s.accept(got)
	require.Len(t, s.turns, 1)
	s.accept(turn{user: "nothing was said"})
	require.Len(t, s.turns, 1)
}

func TestGenerateReturnsTheError(t *testing.T) {
	t.Parallel()
	f := &fake{fail: &infer.Error{Kind: infer.KindTooLong, Hint: "use --ctx"}}
	s := testSession(t, f)
	_, err := generate(t.Context(), f, s.request("q"), func(infer.Chunk) error { return nil })
	require.ErrorIs(t, err, infer.KindTooLong)
	message, hint := inChat(err)
	require.Equal(t, "too long", message)
	require.Contains(t, hint, "/clear")
	broken := errors.New("broken pipe")
	_, err = generate(t.Context(), &fake{}, s.request("q"), func(infer.Chunk) error { return broken })
	require.ErrorIs(t, err, broken)
}

func TestHistory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "typed")
	h, err := openHistory(path)
	require.NoError(t, err)
	for _, text := range []string{"one", "two\nlines", "two\nlines"} {
		require.NoError(t, h.add(text))
	}
	h, err = openHistory(path)
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two\nlines"}, h.entries)
	walk := func(text string, ok bool) string { return text + " " + strconv.FormatBool(ok) }
	require.Equal(t, "two\nlines true", walk(h.up("draft")))
	require.Equal(t, "one true", walk(h.up("two\nlines")))
	require.Equal(t, " false", walk(h.up("one")))
	require.Equal(t, "two\nlines true", walk(h.down()))
	require.Equal(t, "draft true", walk(h.down()))
	require.Equal(t, " false", walk(h.down()))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestHistoryBounds(t *testing.T) {
	t.Parallel()
	h, err := openHistory("")
	require.NoError(t, err)
	for i := range HistoryEntriesMax {
		require.NoError(t, h.add(strconv.Itoa(i)))
	}
	require.Len(t, h.entries, HistoryEntriesMax)
	require.Equal(t, "0", h.entries[0])
	require.NoError(t, h.add("more"))
	require.Len(t, h.entries, HistoryEntriesMax)
	require.Equal(t, "1", h.entries[0])

	path := filepath.Join(t.TempDir(), "not-a-history")
	require.NoError(t, os.WriteFile(path, []byte("hello\n"), 0o600))
	_, err = openHistory(path)
	require.ErrorContains(t, err, "not a history file")
	_, err = openHistory(t.TempDir())
	require.Error(t, err)
}

func TestPlainBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		bytes int
		kind  infer.Kind
	}{{MessageBytesMax - 1, ""}, {MessageBytesMax + 1, infer.KindTooLong}} {
		f := &fake{}
		var out, errs strings.Builder
		err := Plain(t.Context(), Options{
			Backend: f, In: strings.NewReader(strings.Repeat("x", c.bytes)), Out: &out, Err: &errs,
		})
		require.Equal(t, c.kind, infer.KindOf(err), "%d bytes", c.bytes)
	}
}

func TestPlainInteractive(t *testing.T) {
	t.Parallel()
	f := &fake{answers: []string{"first\x1b[2J answer", "second"}}
	var out, errs strings.Builder
	require.NoError(t, Plain(t.Context(), Options{
		Backend: f, Interactive: true, Out: &out, Err: &errs,
		In: strings.NewReader("hi\n/nonsense\nho\nlast without newline"),
	}))
	require.Equal(t, "first[2J answer\nsecond\nok\n", out.String(), "no escape reaches a terminal")
	require.Contains(t, errs.String(), "norion: unknown command /nonsense")
	require.Len(t, f.requests, 3)
}

func TestPlainInterrupts(t *testing.T) {
	t.Parallel()
	heard := make(chan os.Signal)
	in, typed, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(in.Close(), typed.Close())) })
	var out, errs strings.Builder
	f := &fake{hold: true}
	ended := make(chan error)
	go func() {
		ended <- Plain(t.Context(), Options{
			Backend: f, Interactive: true, Interrupts: heard, In: in, Out: &out, Err: &errs,
		})
	}()
	_, err = typed.WriteString("hi\n")
	require.NoError(t, err)
	heard <- os.Interrupt // stops the answer, or is heard at the prompt when it comes too early
	select {
	case heard <- os.Interrupt:
		require.NoError(t, <-ended)
	case err = <-ended:
		require.NoError(t, err)
	}
}

func TestPlainCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	in, typed, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(in.Close(), typed.Close())) })
	cancel()
	var out, errs strings.Builder
	err = Plain(ctx, Options{Backend: &fake{}, In: in, Out: &out, Err: &errs})
	require.ErrorIs(t, err, infer.KindCanceled)
}

func TestCacheCommand(t *testing.T) {
	t.Parallel()
	s := testSession(t, &fake{})
	require.Error(t, s.read("/cache").err, "nobody can say")
	s.o.Cache = func() (string, error) { return "a table\nof it\n", nil }
	require.Equal(t, outcome{say: "a table\nof it"}, s.read("/cache"))
	s.o.Cache = func() (string, error) { return "", infer.KindClosed }
	require.ErrorIs(t, s.read("/cache").err, infer.KindClosed)
}
