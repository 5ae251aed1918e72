package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/norion/norion/bench"
	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/store"
)

// scenarioFlags are those that benchmarks of requests have in common.
type scenarioFlags struct {
	model     string
	threads   int
	rounds    int
	peer      bool
	peerFlags string
	shared    bool
	plan      string
	quick     bool
	json      bool
	html      string
	progress  bool
}

func (f *scenarioFlags) register(fs *pflag.FlagSet) {
	fs.StringVarP(&f.model, "model", "m", "", "model name or path of a .gguf file")
	fs.IntVarP(&f.threads, "threads", "t", 0, "threads (default: physical cores)")
	fs.IntVar(&f.rounds, "rounds", 0, "rounds (default: 1; in turns 5, --quick: 3)")
	fs.BoolVar(&f.peer, "peer", false, "run llama-server of the same build in turns")
	fs.StringVar(&f.peerFlags, "peer-flags", "",
		"`FLAGS` of llama-server in place of those that were found best")
	fs.BoolVar(&f.shared, "shared", false, "norion's sequences in one buffer, not in streams")
	fs.StringVar(&f.plan, "plan", planAuto, "`PLAN` of norion's loads: auto, off or a file")
	fs.BoolVar(&f.quick, "quick", false, "a look: small prompts, few rounds")
	fs.BoolVar(&f.json, "json", false, "the report as JSON, all samples in it")
	fs.StringVar(&f.html, "html", "", "write the report as a page with plots to `FILE`")
	fs.BoolVar(&f.progress, "progress", false, "say on standard error what runs")
}

// measured is a finished benchmark.
type measured func(ctx context.Context, s bench.Scenario) (bench.Report, []bench.Pair, error)

// benchScenario runs a benchmark of requests and prints its report.
func (a *app) benchScenario(ctx context.Context, f *scenarioFlags, args []string,
	run measured,
) error {
	s := bench.Scenario{
		Method: a.benchMethod(f.rounds, f.quick, f.progress, args), Model: f.model,
		Threads: f.threads, Shared: f.shared, PlanFlag: f.plan, Planner: a.planner(f.plan),
	}
	if f.peerFlags != "" {
		s.PeerFlags = strings.Fields(f.peerFlags)
	}
	var err error
	if f.peer {
		if err := s.Method.Validate(); err != nil {
			return err
		}
		if s.Norion.Path, err = os.Executable(); err != nil {
			return err
		}
		if s.Server.Path, err = bench.FindPeer("llama-server", a.getenv); err != nil {
			return err
		}
	}
	report, pairs, err := run(ctx, s)
	if err != nil {
		return err
	}
	return a.benchReport(&report, pairs, f.html, f.json)
}

// planner plans loads of benchmarks as --plan says. The model's name is not known to it: what was
// measured on this machine before is not used.
func (a *app) planner(how string) bench.Planner {
	return func(ctx context.Context, o *engine.Options) (string, error) {
		p, err := a.follow(ctx, &modelFlags{plan: how}, store.Model{Path: o.Paths[0]}, o, 0)
		if err != nil || p == nil {
			return "", err
		}
		return planLine(*p), nil
	}
}

// writePage writes the report's page. An existing file is replaced.
func writePage(path string, r *bench.Report) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteHTML(file), file.Close())
}

// newBenchScenario makes one command. own registers what only this benchmark has.
func (a *app) newBenchScenario(use, short, long, example string, own func(*pflag.FlagSet),
	run func(*scenarioFlags) measured,
) *cobra.Command {
	f := &scenarioFlags{}
	cmd := &cobra.Command{
		Use: use, Short: short, Long: short + ".\n\n" + long, Example: example,
		Args: args(0, 0, "no argument"),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	f.register(fs)
	own(fs)
	cmd.RunE = a.ran(func(cmd *cobra.Command, _ []string) error {
		var given []string
		fs.Visit(func(g *pflag.Flag) { given = append(given, "--"+g.Name+"="+g.Value.String()) })
		return asBench(a.benchScenario(cmd.Context(), f, append([]string{cmd.Name()}, given...), run(f)))
	})
	return cmd
}

func (a *app) newBenchReuse() *cobra.Command {
	var sizes bench.Sizes
	var patterns []string
	return a.newBenchScenario("reuse -m MODEL",
		"Count the prompt tokens that are computed again, and what that costs",
		`Scripted requests that have text in common are asked: a chat, one system prompt for many users
at once, branches and retries, an agent that edits its history, documents in another order, a
restart, and a conversation that was put aside. Prompts are seeded text; answers have a fixed
length.`,
		`  norion bench reuse -m smollm2:135m --quick
  norion bench reuse -m smollm2:135m --pattern chat,restart --peer --html report.html`,
		func(fs *pflag.FlagSet) {
			fs.StringSliceVar(&patterns, "pattern", nil, "only these `PATTERNS`")
			fs.IntVar(&sizes.System, "system", 0, "tokens that all begin with (1500; --quick: 192)")
			fs.IntVar(&sizes.Turn, "turn", 0, "tokens of what a user says (24; --quick: 8)")
			fs.IntVar(&sizes.Answer, "answer", 0, "tokens of an answer (16; --quick: 4)")
			fs.IntVar(&sizes.Turns, "turns", 0, "turns of a conversation (6; --quick: 3)")
			fs.IntSliceVar(&sizes.Users, "users", nil, "users at once (16,64; --quick: 16)")
		},
		func(*scenarioFlags) measured {
			return func(ctx context.Context, s bench.Scenario) (bench.Report, []bench.Pair, error) {
				return s.Reuse(ctx, sizes, patterns)
			}
		})
}

func (a *app) newBenchConcurrency() *cobra.Command {
	var load bench.Load
	var patterns []string
	return a.newBenchScenario("concurrency -m MODEL",
		"Measure streams that run at once, and what a long prompt does to them",
		`Each number of streams is measured by itself: tokens per second of all together, time to the
first token, and time between tokens. Then a long prompt comes while three streams run.`,
		`  norion bench concurrency -m smollm2:135m --quick
  norion bench concurrency -m smollm2:135m --streams 1,4 --peer --json > report.json`,
		func(fs *pflag.FlagSet) {
			fs.StringSliceVar(&patterns, "pattern", nil, "only these: streams-N, admission")
			fs.IntSliceVar(&load.Streams, "streams", nil, "streams (1,2,4,8,16; --quick: 1,4)")
			fs.IntVar(&load.Prompt, "prompt", 0, "tokens of a stream's prompt (32; --quick: 16)")
			fs.IntVar(&load.Gen, "gen", 0, "tokens that a stream generates (96; --quick: 24)")
			fs.IntVar(&load.Admit, "admit", 0, "tokens of the long prompt (4096; --quick: 512)")
		},
		func(*scenarioFlags) measured {
			return func(ctx context.Context, s bench.Scenario) (bench.Report, []bench.Pair, error) {
				return s.Concurrency(ctx, load, patterns)
			}
		})
}

func (a *app) newBenchSpeculate() *cobra.Command {
	var drafts bench.Drafts
	var patterns []string
	return a.newBenchScenario("speculate -m MODEL",
		"Measure n-gram speculation against none",
		`Answers that repeat what stood before (a quotation, JSON records, edited code) and a sampled
one that does not are decoded in turns: without speculation, adaptively, and whenever there is a
guess. Tokens per second are those after the first token.`,
		`  norion bench speculate -m smollm2:135m --quick
  norion bench speculate -m smollm2:135m --pattern quote,free --peer --json > report.json`,
		func(fs *pflag.FlagSet) {
			fs.StringSliceVar(&patterns, "pattern", nil, "only these: quote, json, edit, free")
			fs.IntVar(&drafts.Lines, "lines", 0, "lines that a prompt shows (16; --quick: 8)")
			fs.IntVar(&drafts.Gen, "gen", 0, "tokens of an answer (256; --quick: 64)")
		},
		func(*scenarioFlags) measured {
			return func(ctx context.Context, s bench.Scenario) (bench.Report, []bench.Pair, error) {
				return s.Speculate(ctx, drafts, patterns)
			}
		})
}

func (a *app) newBenchPlan() *cobra.Command {
	var p bench.Plans
	var sweep bool
	return a.newBenchScenario("plan -m MODEL",
		"Hold plans against their loads",
		`Each combination of context, KV type, sequences and flash attention is planned, loaded and asked
a little: bytes by the planner's formulas, speeds by the rates that were measured in between.
With --sweep, the threads and the micro-batch of the plan are held against all others.`,
		`  norion bench plan -m smollm2:135m --quick
  norion bench plan -m smollm2:135m --sweep
  norion bench plan -m gemma3:270m --contexts 512,8192`,
		func(fs *pflag.FlagSet) {
			fs.IntSliceVar(&p.Contexts, "contexts", nil, "tokens (512,4096,8192; --quick: 512)")
			fs.IntSliceVar(&p.Sequences, "sequences", nil, "sequences (1,4,16; --quick: 1,2)")
			fs.StringSliceVar(&p.KVTypes, "kv-type", nil, "`TYPES` (f16,q8_0; --quick: f16)")
			fs.BoolVar(&sweep, "sweep", false,
				"measure the threads and the micro-batch that are planned in turns with all others")
		},
		func(f *scenarioFlags) measured {
			return func(ctx context.Context, s bench.Scenario) (bench.Report, []bench.Pair, error) {
				if sweep {
					return s.Sweep(ctx, bench.Sweep{})
				}
				return s.Plan(ctx, p.Fill(f.quick))
			}
		})
}

// textBytesMax bounds the text that is scored.
const textBytesMax = 16 << 20

func (a *app) newBenchSinks() *cobra.Command {
	var sinks bench.Sinks
	var patterns []string
	var text string
	return a.newBenchScenario("sinks -m MODEL",
		"Measure a stream without an end: speed, memory and perplexity",
		`One long answer outgrows the context: the first tokens and the latest ones are kept. Tokens per
second and memory at its end are held against its beginning. With --text, the perplexity of a long
text is held against a window that is computed anew, with and without sinks.`,
		`  norion bench sinks -m smollm2:135m --tokens 100000
  norion bench sinks -m smollm2:135m --pattern perplexity --text book.txt`,
		func(fs *pflag.FlagSet) {
			fs.StringSliceVar(&patterns, "pattern", nil, "only these: stream, perplexity")
			fs.IntVar(&sinks.Sinks, "sinks", 0, "tokens kept from the start (4; -1 for none)")
			fs.IntVar(&sinks.Window, "window", 0, "latest tokens kept (1020; --quick: 124)")
			fs.IntVar(&sinks.Block, "block", 0, "tokens given up at a time (64; --quick: 16)")
			fs.IntVar(&sinks.Tokens, "tokens", 0, "tokens to generate (8192; --quick: 512)")
			fs.IntVar(&sinks.Score, "score", 0, "tokens to score at most (4096; --quick: 256)")
			fs.StringVar(&text, "text", "", "`FILE` with a long natural text to score")
		},
		func(*scenarioFlags) measured {
			return func(ctx context.Context, s bench.Scenario) (bench.Report, []bench.Pair, error) {
				if text != "" {
					var err error
					if sinks.Text, err = readText("text", text, textBytesMax); err != nil {
						return bench.Report{}, nil, err
					}
				}
				return s.Stream(ctx, sinks, patterns)
			}
		})
}
