package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store"
)

// modelFlags are the flags that say how a model is loaded.
type modelFlags struct {
	o         engine.Options
	gpuLayers int
	loras     []string
	template  string
	plan      string
	verbose   bool

	sayPlan bool  // though nobody watches
	digest  bool  // the file's must be known, so that it can be recorded
	mapped  int64 // bytes that other models of this process map, which no probe sees in use
}

func (f *modelFlags) register(cmd *cobra.Command) {
	group(cmd.Flags(), "Model", func(fs *pflag.FlagSet) {
		o := &f.o
		fs.IntVarP(&o.ContextTokens, "ctx", "c", 0,
			"context in tokens, prompt and answer together; 0: 4096, or as trained if less")
		fs.IntVarP(&o.Threads, "threads", "t", 0,
			"threads of decoding; 0: the processors available, fewer while other programs use them")
		fs.IntVar(&o.ThreadsBatch, "threads-batch", 0, "threads of prefill; 0: as --threads")
		fs.IntVarP(&o.Batch, "batch", "b", 0, "most tokens of one step; 0: 2048")
		fs.IntVar(&o.MicroBatch, "ubatch", 0, "most tokens computed at once; 0: 512")
		fs.StringVar(&o.KVType, "kv-type", "", "`TYPE` of cached keys and values: f16, q8_0, ...")
		fs.StringArrayVar(&f.loras, "lora", nil, "adapter `PATH[:SCALE]`; may be repeated")
		fs.StringVar(&f.template, "template", "",
			"chat template: a Jinja `FILE`, or the name of one that ships with llama.cpp")
		fs.IntVar(&f.gpuLayers, "gpu-layers", -1, "layers on GPUs; -1: all")
		fs.BoolVar(&o.CPUOnly, "cpu", false, "use no GPU")
		fs.TextVar(&o.Load, "load-mode", llama.LoadAuto,
			"how weights come into memory: `MODE` none reads the file, mmap maps it, auto chooses")
		fs.StringVar(&f.plan, "plan", planAuto,
			"`PLAN` of the load: auto decides what other flags leave open, off leaves it to llama.cpp, "+
				"or a file of norion plan --json")
		fs.BoolVar(&o.NoFlash, "no-flash", false, "leave flash attention off")
	})
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log to standard error")
}

// options gives the options of the engine, all but the model itself.
func (f *modelFlags) options(a *app) (engine.Options, error) {
	o := f.o
	switch {
	case f.gpuLayers < -1:
		return o, flagError("gpu-layers", "-1 is all", "%d is below -1", f.gpuLayers)
	case f.gpuLayers == 0:
		o.CPUOnly = true
	}
	o.GPULayers = max(f.gpuLayers, 0)
	o.AdaptThreads = o.Threads == 0 && o.ThreadsBatch == 0
	if f.verbose {
		o.Logger = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, text := range f.loras {
		l, err := parseLora(text)
		if err != nil {
			return o, err
		}
		o.Loras = append(o.Loras, l)
	}
	if f.template != "" {
		text, err := readTemplate(f.template)
		if err != nil {
			return o, err
		}
		o.Template = text
	}
	probe := o
	probe.Paths = []string{"-"}
	return o, asFlag(probe.Validate())
}

// parseLora reads PATH[:SCALE].
func parseLora(text string) (engine.Lora, error) {
	l := engine.Lora{Path: text, Scale: 1}
	if i := strings.LastIndexByte(text, ':'); i > 0 {
		if scale, err := strconv.ParseFloat(text[i+1:], 32); err == nil {
			l.Path, l.Scale = text[:i], float32(scale)
		}
	}
	if !(l.Scale > -1000 && l.Scale < 1000) || l.Scale == 0 {
		return l, flagError("lora", "leave the adapter out in place of scale 0",
			"scale %v of %s", l.Scale, l.Path)
	}
	if _, err := os.Stat(l.Path); err != nil {
		return l, flagError("lora", "write PATH or PATH:SCALE", "%w", err)
	}
	return l, nil
}

// readTemplate reads the Jinja text of a file, or of a template that ships with llama.cpp.
func readTemplate(name string) (string, error) {
	if _, err := os.Stat(name); err == nil || strings.ContainsRune(name, filepath.Separator) {
		return readText("template", name, llama.TemplateBytesMax)
	}
	if slices.Contains(llama.PinnedTemplates(), name) {
		return pinnedTemplate(name)
	}
	hint := "give a file, or one of: " + strings.Join(llama.PinnedTemplates(), ", ")
	return "", flagError("template", hint, "no file and no template %q", name)
}

// pinnedTemplate is how the store finds the text of a template that the catalogue names.
func pinnedTemplate(name string) (string, error) {
	return llama.PinnedTemplate(strings.TrimPrefix(name, "llama.cpp:"))
}

func (a *app) openStore() (*store.Store, error) {
	return store.Open(store.Options{Getenv: a.getenv, Templates: pinnedTemplate})
}

// find resolves what the user calls a model, and pulls it when it has a name and is missing.
func (a *app) find(ctx context.Context, ref string) (m store.Model, err error) {
	s, err := a.openStore()
	if err != nil {
		if strings.HasSuffix(ref, ".gguf") { // a plain file needs no store
			return store.Model{Path: ref}, nil
		}
		return m, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	m, err = s.Resolve(ctx, ref)
	if errors.Is(err, store.ErrNotPulled) {
		return a.pull(ctx, s, ref)
	}
	return m, err
}

// notes says what the engine found degraded.
func (a *app) notes(b infer.Backend) {
	for _, n := range b.Info().Notes {
		fmt.Fprintf(a.err, "note: %s\n", oneLine(n))
	}
}

// needChat refuses a conversation with a model that has no chat template.
func needChat(b infer.Backend) error {
	info := b.Info()
	if info.Abilities.Chat || !info.Abilities.Generate {
		return nil // the engine says better what cannot generate at all
	}
	return &infer.Error{
		Op: "chat", Kind: infer.KindNoTemplate,
		Hint: "name one with --template FILE, or give the text as it is with norion run --raw",
		Err:  fmt.Errorf("%s has none that can be used", info.Model),
	}
}
