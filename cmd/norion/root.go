package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// newRoot builds the tree of commands.
func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "norion",
		Short: "Run language models on this machine",
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
		PersistentPreRunE:          func(cmd *cobra.Command, _ []string) error { return a.applyEnv(cmd) },
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetHelpFunc(a.help)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return err })
	root.AddCommand(a.newRun(), a.newChat(), a.newPull(), a.newList(), a.newShow(), a.newRemove(),
		a.newBench(), a.newVersion())
	for _, cmd := range root.Commands() {
		if strings.Contains(cmd.Use, "MODEL") || strings.Contains(cmd.Use, "NAME") {
			cmd.ValidArgsFunction = a.completeModel
		}
		completeFlags(cmd)
	}
	for _, topic := range topics {
		root.AddCommand(&cobra.Command{Use: topic.name, Short: topic.short, Long: topic.text})
	}
	return root
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

// args bounds the positional arguments and names them in the refusal.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
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
				hint: "put a text of several words into quotes",
			}
		}
		return nil
	}
}
