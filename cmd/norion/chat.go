package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/norion/norion/cmd/norion/chat"
	"github.com/norion/norion/runtime/infer"
)

type chatFlags struct {
	modelFlags
	requestFlags
	plain   bool
	history string
}

func (a *app) newChat() *cobra.Command {
	f := &chatFlags{}
	cmd := &cobra.Command{
		Use:   "chat MODEL",
		Short: "Talk with a model",
		Long: `Talk with a model. Enter sends; Alt-Enter or Ctrl-J begins a new line; the up and down keys
bring back what was typed; /help lists the commands. Ctrl-C stops an answer, a second one ends.

Over a pipe, or with --plain, each line is a message and answers are plain text; a backslash at
the end of a line continues the message.`,
		Example: "  norion chat smollm2:135m\n" +
			"  printf 'My name is Ada.\\nWhat is my name?\\n' | norion chat smollm2:135m",
		Args: args(1, 1, "a MODEL: a name or a .gguf file"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			return a.chat(cmd.Context(), f, cmd.Flags(), args[0])
		}),
	}
	cmd.Flags().BoolVar(&f.plain, "plain", false, "lines in, answers out: no terminal interface")
	cmd.Flags().StringVar(&f.history, "history", "", "keep what is typed in `FILE`")
	f.requestFlags.register(cmd)
	group(cmd.Flags(), "Cache", f.addMoves)
	f.modelFlags.register(cmd)
	return a.configured(cmd)
}

func (a *app) chat(ctx context.Context, f *chatFlags, fs *pflag.FlagSet, ref string) (err error) {
	r, err := f.request()
	if err != nil {
		return err
	}
	o, err := f.modelFlags.options(a)
	if err == nil {
		err = f.kvFlags.options(a, &o)
	}
	if err != nil {
		return err
	}
	b, err := a.load(ctx, ref, &f.modelFlags, o)
	if err != nil {
		return err
	}
	unpublish := a.publish(b, o.CacheDir)
	defer func() {
		err = errors.Join(err, f.endMetrics(b))
		unpublish()
		err = errors.Join(err, b.Close())
	}()
	if err := needChat(b); err != nil {
		return err
	}
	f.contextTokens = b.Info().ContextTokens
	if r.KV, err = f.policy(); err != nil {
		return err
	}
	set := settings{f: f, fs: fs}
	c := chat.Options{
		Backend: b, Request: r, System: f.system, Set: set.set, Settings: set.list,
		Cache:   func() (string, error) { return holding(ctx, b) },
		History: f.history, Color: a.getenv("NO_COLOR") == "", In: a.in, Out: a.out, Err: a.err,
		Interactive: isTerminal(a.in),
	}
	if a.fullScreen() && !f.plain {
		return chat.Terminal(ctx, c)
	}
	a.notes(b)
	if c.Interactive { // Ctrl-C stops an answer, not the program
		heard := make(chan os.Signal, 1)
		signal.Notify(heard, os.Interrupt)
		defer signal.Stop(heard)
		c.Interrupts = heard
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM)
		defer stop()
	}
	return chat.Plain(ctx, c)
}

// settings are the flags that /set can change while the chat goes on.
type settings struct {
	f  *chatFlags
	fs *pflag.FlagSet
}

func (s settings) lookup(name string) *pflag.Flag {
	f := s.fs.Lookup(name)
	if f != nil && (slices.Contains(f.Annotations[groupAnnotation], "Sampling") ||
		f.Name == "predict") {
		return f
	}
	return nil
}

// set changes a setting. A value that cannot be used changes nothing.
func (s settings) set(name, value string) (infer.Request, error) {
	f := s.lookup(name)
	if f == nil {
		return infer.Request{}, &usageError{
			message: fmt.Sprintf("no setting %q; /set lists them", name),
		}
	}
	old := f.Value.String()
	list, isList := f.Value.(pflag.SliceValue)
	var before []string
	if isList {
		before = list.GetSlice()
	}
	restore := func() {
		if isList {
			_ = list.Replace(before) // they were accepted before
			return
		}
		_ = f.Value.Set(old)
	}
	var err error
	if isList {
		err = list.Replace([]string{value})
	} else if err = f.Value.Set(value); err != nil {
		err = &usageError{message: name + ": " + valueFault(f, value, err)}
	}
	if err != nil {
		restore()
		return infer.Request{}, err
	}
	r, err := s.f.request()
	if err != nil {
		restore()
	}
	return r, err
}

// list gives the settings and their values.
func (s settings) list() []string {
	var out []string
	s.fs.VisitAll(func(f *pflag.Flag) {
		if s.lookup(f.Name) != nil {
			out = append(out, fmt.Sprintf("%-22s %s", f.Name, strings.TrimSpace(f.Value.String())))
		}
	})
	return out
}
