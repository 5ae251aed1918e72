package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/norion/norion/runtime/infer"
)

// requestFlags are the flags that make a request, without its text.
type requestFlags struct {
	samplingFlags
	kvFlags
	predict         int
	stop            []string
	schema, grammar string
	system          string
	noReasoning     bool
	metrics         string
}

func (f *requestFlags) register(cmd *cobra.Command) {
	group(cmd.Flags(), "Sampling", f.samplingFlags.add)
	group(cmd.Flags(), "Constraint", func(fs *pflag.FlagSet) {
		fs.StringVar(&f.schema, "schema", "", "answer in JSON that follows the schema in `FILE`")
		fs.StringVar(&f.grammar, "grammar", "", "answer by a GBNF grammar: a `FILE`, or its text")
	})
	group(cmd.Flags(), "Cache", f.kvFlags.add)
	cmd.Flags().StringVar(&f.system, "system", "", "system message")
	cmd.Flags().IntVarP(&f.predict, "predict", "n", -1,
		"most tokens of an answer; -1 or 0: all that fit")
	cmd.Flags().StringArrayVar(&f.stop, "stop", nil, "`TEXT` that ends an answer; may be repeated")
	cmd.Flags().BoolVar(&f.noReasoning, "no-reasoning", false, "ask the model not to reason first")
	cmd.Flags().StringVar(&f.metrics, "metrics", "",
		"at the end write what was done to `FILE`, in Prometheus' text format")
}

// request gives a request that lacks only its text.
func (f *requestFlags) request() (infer.Request, error) {
	s, err := f.sampling()
	if err != nil {
		return infer.Request{}, err
	}
	r := infer.Request{
		Sampling: s, Stop: f.stop, IgnoreEOS: f.ignoreEOS, NoReasoning: f.noReasoning,
		MaxTokens: max(f.predict, 0), Speculate: infer.Speculation(f.speculate),
	}
	if r.KV, err = f.policy(); err != nil {
		return r, err
	}
	if !utf8.ValidString(f.system) {
		return r, flagError("system", "send UTF-8 text", "not valid UTF-8")
	}
	if f.predict < -1 {
		return r, flagError("predict", "-1 is as many as fit", "%d is below -1", f.predict)
	}
	if f.schema != "" {
		text, err := readText("schema", f.schema, infer.ConstraintBytesMax)
		if err != nil {
			return r, err
		}
		r.Constraint.Schema = json.RawMessage(text)
	}
	if r.Constraint.Grammar = f.grammar; f.grammar != "" && !strings.Contains(f.grammar, "::=") {
		r.Constraint.Grammar, err = readText("grammar", f.grammar, infer.ConstraintBytesMax)
		if err != nil {
			return r, err
		}
	}
	probe := r
	probe.Messages = []infer.Message{{Role: infer.RoleUser}}
	return r, asFlag(probe.Validate())
}

// logprobs asks for log-probabilities with n alternatives; -1 asks for none.
func logprobs(r *infer.Request, n int) error {
	switch {
	case n < -1 || n > infer.TopLogprobsMax:
		return flagError("logprobs", "0 reports the chosen tokens only", "%d is outside 0..%d", n,
			infer.TopLogprobsMax)
	case n >= 0:
		r.Logprobs, r.TopLogprobs = true, n
	}
	return nil
}

// readText reads a file that a flag names, at most limit bytes.
func readText(flag, path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrNotExist) {
			hint = "check the path given to --" + flag
		}
		return "", flagError(flag, hint, "%w", err)
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	text, err := readAll(f, limit)
	if err != nil {
		return "", flagError(flag, "", "%s: %w", path, err)
	}
	return text, nil
}

// readAll reads all of r, and refuses more than limit bytes.
func readAll(r io.Reader, limit int64) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &infer.Error{
			Kind: infer.KindTooLong, Err: fmt.Errorf("more than %d bytes", limit),
		}
	}
	return string(data), err
}

// prompt joins the text of a request from the argument, the file and standard input where it is a
// pipe or a file, in this order, with a blank line between them.
func (a *app) prompt(arg, file string) (string, error) {
	parts := []string{arg}
	if file != "" && file != "-" {
		text, err := readText("file", file, infer.PromptBytesMax)
		if err != nil {
			return "", err
		}
		parts = append(parts, text)
	}
	if file == "-" || isPiped(a.in) {
		text, err := readAll(a.in, infer.PromptBytesMax)
		if err != nil {
			return "", fmt.Errorf("read standard input: %w", err)
		}
		parts = append(parts, text)
	}
	var kept []string
	for _, p := range parts {
		if p = strings.TrimRight(p, "\r\n"); p != "" {
			kept = append(kept, p)
		}
	}
	if len(kept) == 0 {
		return "", &usageError{
			message: "no prompt",
			hint:    "give it as an argument, with -f FILE, or through a pipe; or try norion chat",
		}
	}
	return strings.Join(kept, "\n\n"), nil
}

// jsonNumber keeps a number that JSON cannot state out of it.
func jsonNumber(v float32) *float32 {
	if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
		return nil
	}
	return &v
}
