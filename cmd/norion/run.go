package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/norion/norion/runtime/infer"
)

type runFlags struct {
	modelFlags
	requestFlags
	recordFlags
	file     string
	raw      bool
	logprobs int
	stats    bool
	json     bool
}

func (a *app) newRun() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run MODEL [PROMPT]",
		Short: "Let a model answer once",
		Long: `Let a model answer once.

MODEL is a name of the catalogue, which is pulled when it is missing, or a .gguf file. The prompt
is the argument, the file of -f and what comes through a pipe, joined in this order by blank
lines. It goes through the model's chat template, or as it is with --raw.`,
		Example: `  norion run smollm2:135m "Why is the sky blue?"
  git diff | norion run qwen3:4b "Write a commit message for this change"
  norion run ./model.gguf --raw "Once upon a time" -n 64 --temp 0
  norion run smollm2:135m --schema person.json --json "Invent a person"`,
		Args: args(1, 2, "MODEL [PROMPT]"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), f, args)
		}),
	}
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "read the prompt from `FILE`; - is a pipe")
	f.requestFlags.register(cmd)
	cmd.Flags().BoolVar(&f.raw, "raw", false, "no chat template: the model continues the text")
	cmd.Flags().IntVar(&f.logprobs, "logprobs", -1,
		"log-probabilities of the answer's tokens with `N` alternatives each; -1: none")
	cmd.Flags().BoolVar(&f.stats, "stats", false, "say on standard error what the answer cost")
	cmd.Flags().BoolVar(&f.json, "json", false, "one JSON object with the answer and its facts")
	f.recordFlags.add(cmd.Flags())
	f.modelFlags.register(cmd)
	return a.configured(cmd)
}

func (a *app) run(ctx context.Context, f *runFlags, args []string) (err error) {
	r, err := f.request()
	if err != nil {
		return err
	}
	if err := logprobs(&r, f.logprobs); err != nil {
		return err
	}
	o, err := f.modelFlags.options(a)
	if err == nil {
		err = f.kvFlags.options(a, &o)
	}
	if err != nil {
		return err
	}
	text, err := a.prompt(append(args, "")[1], f.file)
	if err != nil {
		return err
	}
	switch {
	case f.raw && f.system != "":
		return flagError("system", "put it into the prompt", "no place for it with --raw")
	case r.KV.PublicSystem && f.system == "":
		return flagError("public-system", "add --system", "there is no system prompt")
	case f.raw:
		r.Prompt = text
	default:
		if f.system != "" {
			r.Messages = append(r.Messages, infer.Message{Role: infer.RoleSystem, Content: f.system})
		}
		r.Messages = append(r.Messages, infer.Message{Role: infer.RoleUser, Content: text})
	}
	if err := r.Validate(); err != nil {
		return asFlag(err)
	}
	record, err := a.openRecorder(ctx, &f.recordFlags, single)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, record.close(a)) }()
	f.digest = f.record
	// There is one request: nothing will be cut back, unless it is kept for another, or guessed.
	o.SmallWindow = !f.kept() && r.KV.Evict == "" && r.Speculate == infer.SpeculateOff
	b, err := a.load(ctx, args[0], &f.modelFlags, o)
	if err != nil {
		return err
	}
	unpublish := a.publish(b, o.CacheDir)
	defer func() {
		err = errors.Join(err, f.endMetrics(b))
		unpublish()
		err = errors.Join(err, b.Close())
	}()
	a.notes(b)
	f.contextTokens = b.Info().ContextTokens
	if r.KV, err = f.policy(); err != nil {
		return err
	}
	if !f.raw {
		if err := needChat(b); err != nil {
			return err
		}
	}
	recorded := *b
	if recorded.Backend, err = record.over(b.Backend); err != nil {
		return err
	}
	return a.answer(ctx, &recorded, r, f)
}

// answer streams one answer. What was generated is printed whatever ends it.
func (a *app) answer(ctx context.Context, b *loaded, r infer.Request, f *runFlags) error {
	p := newPrinter(a, f, b)
	var failed error
	for c, err := range b.Generate(ctx, r) {
		if err != nil {
			failed = asFlag(err)
			break
		}
		if failed = p.chunk(c); failed != nil {
			break
		}
	}
	if ctx.Err() != nil && infer.KindOf(failed) == infer.KindCanceled {
		failed = errInterrupted
	}
	return errors.Join(failed, p.end(failed))
}
