package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// groupAnnotation names the heading under which help shows a flag.
const groupAnnotation = "group"

// topic is a page of `norion help` that is no command.
type topic struct{ name, short, text string }

var topics = []topic{
	{"exit-codes", "What the exit codes mean", "norion ends with these codes:\n\n" + exitCodesText},
	{"configuration", "The configuration file, and what comes before what", configurationText},
	{"environment", "Environment variables", environmentText},
}

const configurationText = `The configuration file:

norion run, chat and serve read config.toml in NORION_HOME, else in $XDG_CONFIG_HOME/norion, else
in norion's home; or the file of NORION_CONFIG or --config. Its keys are the flags that have a
heading in the help of these commands; those before the first table are for every command:

  threads = 4
  kv-type = "q8_0"

  [serve]
  sequences = 8
  allow-origin = ["https://chat.example"]
  drain = "1m"

What comes first counts: the flag, the variable (NORION_SEQUENCES=8), the table of the command,
the key before all tables, the default. An unknown key or a value of another type is refused, with
its line. --print-config prints what is in effect and where it comes from, without secrets.`

const environmentText = `Variables of the environment:

NORION_HOME      where models, prefixes and the record are kept (default: the user's data
                 directory and, for prefixes, the cache directory, as XDG says)
NORION_CONFIG    the configuration file; see norion help configuration
NORION_<FLAG>    a value of a flag that has a heading in norion help run, chat or serve:
                 NORION_THREADS=4, NORION_CTX=8192, NORION_KV_TYPE=q8_0, NORION_TEMP=0
NORION_PEERS     where norion bench --peer finds llama.cpp's own programs
HF_ENDPOINT      another address of the model hub
HF_TOKEN         sent to the model hub, and nowhere else
HTTPS_PROXY      and its relatives are obeyed
NO_COLOR         no colour`

// help writes the page of a command: what it is, usage, examples, subcommands, flags by group.
func (a *app) help(cmd *cobra.Command, _ []string) {
	a.reached = true
	h := helpPage{w: a.out, bold: isTerminal(a.out) && a.getenv("NO_COLOR") == ""}
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintln(h.w, strings.TrimRight(text, "\n"))
	if !cmd.Runnable() && !cmd.HasSubCommands() {
		return
	}
	h.title("Usage")
	fmt.Fprintf(h.w, "  %s\n", cmd.UseLine())
	if cmd.HasAvailableSubCommands() && cmd.Parent() == nil {
		fmt.Fprintf(h.w, "  %s COMMAND [flags]\n", cmd.CommandPath())
	}
	if cmd.Example != "" {
		h.title("Examples")
		fmt.Fprintln(h.w, strings.TrimRight(cmd.Example, "\n"))
	}
	h.commands(cmd)
	h.flags(cmd)
}

const helpColumns = 100

// plainTypes turns Go's names of types into words, without moving a column.
var plainTypes = strings.NewReplacer(" float32 ", " number  ", " int ", " N   ", " string ",
	" text   ")

type helpPage struct {
	w    io.Writer
	bold bool
}

func (h helpPage) title(s string) {
	if h.bold {
		s = "\x1b[1m" + s + "\x1b[m"
	}
	fmt.Fprintf(h.w, "\n%s\n", s)
}

func (h helpPage) commands(cmd *cobra.Command) {
	var commands, pages []*cobra.Command
	for _, c := range cmd.Commands() {
		switch {
		case c.IsAdditionalHelpTopicCommand():
			pages = append(pages, c)
		case c.IsAvailableCommand():
			commands = append(commands, c)
		}
	}
	for _, list := range []struct {
		title string
		of    []*cobra.Command
	}{{"Commands", commands}, {"More pages: norion help NAME", pages}} {
		if len(list.of) > 0 {
			h.title(list.title)
		}
		for _, c := range list.of {
			fmt.Fprintf(h.w, "  %-12s %s\n", c.Name(), c.Short)
		}
	}
}

func (h helpPage) flags(cmd *cobra.Command) {
	var order []string
	groups := map[string]*pflag.FlagSet{}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		name := "Flags"
		if g := f.Annotations[groupAnnotation]; len(g) > 0 {
			name = g[0]
		}
		if groups[name] == nil {
			groups[name] = pflag.NewFlagSet(name, pflag.ContinueOnError)
			groups[name].SortFlags = false
			order = append(order, name)
		}
		groups[name].AddFlag(f)
	})
	for _, name := range order {
		h.title(name)
		fmt.Fprint(h.w, plainTypes.Replace(groups[name].FlagUsagesWrapped(helpColumns)))
	}
}
