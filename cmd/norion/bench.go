package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/norion/norion/bench"
)

type benchFlags struct {
	grid     bench.Grid
	output   string
	peer     bool
	rounds   int
	quick    bool
	json     bool
	html     string
	noWarmup bool
	progress bool
}

func (a *app) newBench() *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "bench [native] -m MODEL",
		Short: "Measure speed and memory, alone or against llama.cpp's own programs",
		Long: `Measure speed and memory, alone or against llama.cpp's own programs.

The flags of a test, their lists (1,2,8) and ranges (1-4, 64-512+64, 1-16*2), the work and the
output are those of llama-bench. With --peer, llama-bench of the same build runs in turns with
norion, and what counts is the ratio of each round; see docs/bench.md.`,
		Example: `  norion bench -m smollm2:135m
  norion bench -m smollm2:135m -p 512 -n 128 -t 1,2 -o json
  norion bench -m smollm2:135m,gemma3:270m -t 1,2 --peer`,
		DisableFlagParsing: true, // llama-bench's flags have several letters behind one dash
	}
	f.register(cmd)
	cmd.AddCommand(a.newBenchReuse(), a.newBenchConcurrency(), a.newBenchSinks(), a.newBenchPlan(),
		a.newBenchSpeculate())
	cmd.RunE = a.ran(func(cmd *cobra.Command, args []string) error {
		cmd.InheritedFlags() // brings the root's flags in
		if err := cmd.Flags().Parse(bench.LongArgs(args)); err != nil {
			return benchUsage(err)
		}
		if help, err := cmd.Flags().GetBool("help"); err == nil && help {
			return cmd.Help()
		}
		if names := cmd.Flags().Args(); len(names) > 1 || len(names) == 1 && names[0] != "native" {
			return &usageError{
				message: fmt.Sprintf("unknown benchmark %q", names[len(names)-1]),
				hint:    "norion bench native, and the model with -m",
			}
		}
		return asBench(a.bench(cmd.Context(), f, args))
	})
	return cmd
}

func (f *benchFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	for _, b := range bench.Flags() {
		usage := b.Usage
		if b.Default != "" {
			usage += " (default " + b.Default + ")"
		}
		if b.Alias != "" {
			usage = "-" + b.Alias + ": " + usage
		}
		fs.VarP(f.grid.Value(b), b.Name, b.Short, usage)
	}
	fs.BoolVar(&f.noWarmup, "no-warmup", false, "leave the warm-up out")
	fs.StringVarP(&f.output, "output", "o", "md", "llama-bench's `FORMAT`: md, json, jsonl or csv")
	fs.BoolVar(&f.progress, "progress", false, "say on standard error what runs")
	fs.BoolVar(&f.peer, "peer", false, "run llama.cpp's own programs in turns and print ratios")
	fs.IntVar(&f.rounds, "rounds", 0, "rounds of --peer (default 5; --quick: 3)")
	fs.BoolVar(&f.quick, "quick", false, "a look in under a minute: small tests, few rounds")
	fs.BoolVar(&f.json, "json", false, "with --peer: norion's report as JSON, all samples in it")
	fs.StringVar(&f.html, "html", "", "with --peer: the report as a page with plots, to `FILE`")
}

// bench measures. args are for the report only.
func (a *app) bench(ctx context.Context, f *benchFlags, args []string) error {
	format, err := bench.ParseFormat(f.output)
	if err != nil {
		return err
	}
	if f.json && !f.peer {
		return flagError("json", "use -o json without --peer", "it is the report of --peer")
	}
	if f.html != "" && !f.peer {
		return flagError("html", "add --peer", "it is the report of --peer")
	}
	if err := f.grid.Validate(); err != nil {
		return err
	}
	if f.peer {
		return a.benchPeer(ctx, f, args)
	}
	if f.quick {
		f.grid = bench.QuickGrid(f.grid)
	}
	n := bench.Native{
		Reps: f.grid.Reps, NoWarmup: f.noWarmup,
		Resolve: func(ctx context.Context, ref string) (string, error) {
			m, err := a.find(ctx, ref)
			return m.Path, err
		},
	}
	if f.progress {
		n.Progress = a.benchProgress
	}
	p := bench.NewPrinter(a.out, format, f.grid)
	err = n.Run(ctx, f.grid.Tests(), p.Print)
	return errors.Join(err, p.Close())
}

func (a *app) benchPeer(ctx context.Context, f *benchFlags, args []string) (err error) {
	c := bench.Compare{Method: a.benchMethod(f.rounds, f.quick, f.progress, args)}
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Norion.Path, err = os.Executable(); err != nil {
		return err
	}
	if c.Bench.Path, err = bench.FindPeer("llama-bench", a.getenv); err != nil {
		return err
	}
	if c.Completion.Path, err = bench.FindPeer("llama-completion", a.getenv); err != nil {
		return err
	}
	report, pairs, err := c.Run(ctx, f.grid)
	if err != nil {
		return err
	}
	return a.benchReport(&report, pairs, f.html, f.json)
}

// benchReport writes a report: to a page where one is named, and as JSON or for people.
func (a *app) benchReport(r *bench.Report, pairs []bench.Pair, page string, asJSON bool) error {
	if page != "" {
		if err := writePage(page, r); err != nil {
			return err
		}
	}
	if asJSON {
		return r.WriteJSON(a.out)
	}
	return r.WriteText(a.out, pairs)
}

// benchMethod finds models as all commands do. flags are for the report only.
func (a *app) benchMethod(rounds int, quick, progress bool, flags []string) bench.Method {
	m := bench.Method{
		Rounds: rounds, Quick: quick, Flags: flags,
		Resolve: func(ctx context.Context, ref string) (string, string, error) {
			m, err := a.find(ctx, ref)
			digest := ""
			if !m.Digest.IsZero() {
				digest = m.Digest.String()
			}
			return m.Path, digest, err
		},
	}
	if progress || isTerminal(a.err) {
		m.Progress = a.benchProgress
	}
	return m
}

func (a *app) benchProgress(what string) { fmt.Fprintf(a.err, "%s\n", oneLine(what)) }

// benchUsage is the refusal of a flag.
func benchUsage(err error) error {
	if e, ok := errors.AsType[*bench.Error](err); ok {
		return &usageError{message: fmt.Sprintf("--%s: %v", e.Field, e.Err), hint: e.Hint}
	}
	return &usageError{message: err.Error(), hint: "see norion bench --help"}
}

// asBench makes a refused value a fault of the command line.
func asBench(err error) error {
	if errors.Is(err, bench.ErrFlag) {
		return benchUsage(err)
	}
	return err
}
