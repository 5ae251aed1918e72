package main

import "github.com/spf13/pflag"

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
