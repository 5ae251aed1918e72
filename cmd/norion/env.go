package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envName is the variable that gives a flag its default.
func envName(flag string) string {
	return "NORION_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applyEnv sets the grouped flags that the command line left out from the environment.
func (a *app) applyEnv(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || len(f.Annotations[groupAnnotation]) == 0 {
			return
		}
		value, ok := a.env(envName(f.Name))
		if !ok || value == "" {
			return
		}
		if e := cmd.Flags().Set(f.Name, value); e != nil {
			err = &usageError{
				message: fmt.Sprintf("the variable %s: %s", envName(f.Name), flagMessage(e)),
				hint:    "unset it, or give it a value that --" + f.Name + " takes",
			}
		}
	})
	return err
}

// group puts the flags that add makes under one heading of the help page.
func group(to *pflag.FlagSet, name string, add func(*pflag.FlagSet)) {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SortFlags = false
	add(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		f.Annotations = map[string][]string{groupAnnotation: {name}}
	})
	to.AddFlagSet(fs)
	to.SortFlags = false
	to.SetNormalizeFunc(normalise)
}

// spellings are llama.cpp's other names of flags.
var spellings = map[string]string{
	"ctx-size": "ctx", "n-predict": "predict", "batch-size": "batch", "ubatch-size": "ubatch",
	"n-gpu-layers": "gpu-layers", "temperature": "temp", "typical-p": "typical",
	"top-nsigma": "top-n-sigma", "system-prompt": "system", "lora-scaled": "lora",
	"chat-template-file": "template", "chat-template": "template", "grammar-file": "grammar",
	"json-schema-file": "schema", "json-schema": "schema", "cache-type": "kv-type",
}

func normalise(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if ours, ok := spellings[name]; ok {
		name = ours
	}
	return pflag.NormalizedName(name)
}
