package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store"
)

// completeModel offers models to the shell: those of this machine, then those of the catalogue. A
// path is completed by the shell itself.
func (a *app) completeModel(
	cmd *cobra.Command, args []string, _ string,
) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Name() != "rm" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	if home, err := store.Home(a.getenv); err == nil {
		if _, err := os.Stat(home); err == nil { // completion creates nothing
			names = a.pulledNames(cmd)
		}
	}
	if c, err := store.DefaultCatalogue(); err == nil && cmd.Name() != "rm" {
		for _, e := range c.Models {
			names = append(names, e.Name.String()+"\t"+e.Description)
		}
	}
	return names, cobra.ShellCompDirectiveDefault
}

func (a *app) pulledNames(cmd *cobra.Command) []string {
	s, err := a.openStore()
	if err != nil {
		return nil
	}
	defer func() { _ = s.Close() }() // completion has nowhere to say it
	models, err := s.List(cmd.Context())
	if err != nil {
		return nil
	}
	var names []string
	for _, m := range models {
		names = append(names, m.Name.String()+"\ton this machine")
	}
	return names
}

// completeFlags offers the values of flags that have a list of them.
func completeFlags(cmd *cobra.Command) {
	for flag, values := range map[string]func() []string{
		"kv-type": llama.KVTypes, "load-mode": llama.LoadModes, "template": llama.PinnedTemplates,
		"evict": evictPolicies, "speculate": speculations,
		"machine": plan.Machines, "priority": priorities,
	} {
		if cmd.Flags().Lookup(flag) == nil {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc(flag, func( // fails only for a flag that is not there
			*cobra.Command, []string, string,
		) ([]string, cobra.ShellCompDirective) {
			return values(), cobra.ShellCompDirectiveDefault
		})
	}
}
