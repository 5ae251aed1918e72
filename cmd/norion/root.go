package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot builds the tree of commands.
func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "norion",
		Short: "Run language models on this machine", Version: version,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(a.out, firstWords)
			return err
		}),
		PersistentPreRunE:          a.configure,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetHelpFunc(a.help)
	root.SetFlagErrorFunc(flagFault)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.AddCommand(a.newRun(), a.newChat(), a.newPull(), a.newList(), a.newShow(), a.newRemove(),
		a.newServe(), a.newPs(), a.newTop(), a.newLogs(), a.newStop(), a.newKeys(), a.newLedger(),
		a.newBackends(), a.newPlan(), a.newCache(), a.newDevices(), a.newBench(), a.newVersion(),
		a.newWorker())
	for _, cmd := range root.Commands() {
		if strings.Contains(cmd.Use, "MODEL") || strings.Contains(cmd.Use, "NAME") {
			cmd.ValidArgsFunction = a.completeModel
		}
		completeFlags(cmd)
	}
	for _, topic := range topics {
		root.AddCommand(&cobra.Command{Use: topic.name, Short: topic.short, Long: topic.text})
	}
	strict(root)
	return root
}

// strict makes cobra's own commands refuse what they do not know; by themselves they print a page
// about something else.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if at, _, err := root.Find(args); err != nil || at == root && len(args) > 0 {
					return unknownCommand(root, args[0])
				}
				return nil
			}
		case "completion":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return &usageError{
						message: fmt.Sprintf("no script for %q", args[0]),
						hint:    "there are bash, zsh, fish and powershell",
					}
				}
				return nil
			}
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// firstWords is what norion says when it is called alone.
const firstWords = `norion runs language models on this machine.

Type this first; it fetches a small model (89 MiB) and lets it answer:

  norion run smollm2:135m "Why is the sky blue?"

And then:

  norion chat smollm2:135m     talk with it
  norion list --all            models that can be pulled by name
  norion run ./model.gguf ...  any GGUF file works, too
  norion help                  all commands
`

// ran marks that a command's own code runs: what fails before it is a fault of the command line.
func (a *app) ran(
	run func(*cobra.Command, []string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.reached = true
		return run(cmd, args)
	}
}

// unknownCommand says what could have been meant. A model's name or path asks for run.
func unknownCommand(root *cobra.Command, name string) error {
	e := &usageError{message: fmt.Sprintf("unknown command %q", name), hint: "see norion help"}
	if strings.ContainsAny(name, ":/\\") || strings.HasSuffix(name, ".gguf") {
		e.hint = "to run a model: norion run " + name
	} else if near := root.SuggestionsFor(name); len(near) > 0 {
		e.hint = "did you mean norion " + strings.Join(near, ", norion ") + "?"
	}
	return e
}

// flagFault says in words what is wrong with a flag.
func flagFault(cmd *cobra.Command, err error) error {
	e := &usageError{message: flagMessage(err), hint: hintOf(err)}
	if at, ok := errors.AsType[interface {
		error
		GetFlag() *pflag.Flag
	}](err); ok {
		e.field = "--" + at.GetFlag().Name
	}
	if e.hint == "" {
		e.hint = "see " + cmd.CommandPath() + " --help"
	}
	return e
}

// flagMessage is the text of an error of pflag without the words of Go.
func flagMessage(err error) string {
	bad, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err.Error()
	}
	return "--" + bad.GetFlag().Name + ": " + valueFault(bad.GetFlag(), bad.GetValue(), bad.Unwrap())
}

// valueFault says why a flag does not take a value.
func valueFault(f *pflag.Flag, value string, err error) string {
	want := map[string]string{
		"int": "a whole number", "int64": "a whole number", "float32": "a number",
		"bool": "true or false",
	}[f.Value.Type()]
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Sprintf("%s is out of range", value)
	case want != "":
		return fmt.Sprintf("%q is not %s", value, want)
	}
	return err.Error()
}

// args bounds the positional arguments and names them in the refusal.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		hint := "see " + cmd.CommandPath() + " --help"
		if strings.Contains(names, "PROMPT") {
			hint = "put a text of several words into quotes"
		}
		switch {
		case len(got) < least:
			return &usageError{
				message: fmt.Sprintf("%s needs %s", cmd.CommandPath(), names),
				hint:    "see " + cmd.CommandPath() + " --help",
			}
		case len(got) > most:
			return &usageError{
				message: fmt.Sprintf("%s takes %s: %q is too much", cmd.CommandPath(), names,
					got[most]),
				hint: hint,
			}
		}
		return nil
	}
}
