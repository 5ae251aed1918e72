package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/store"
)

// showJSON is what `norion show --json` prints.
type showJSON struct {
	Model string `json:"model,omitempty"` // its name in the store
	gguf.Summary
	Template string `json:"catalogue_template,omitempty"` // used where the file carries none
}

func (a *app) newShow() *cobra.Command {
	var asJSON, digest bool
	cmd := &cobra.Command{
		Use:   "show MODEL",
		Short: "Show what is in a model file",
		Long: `Show what is in a model file: architecture, parameters, quantisation mix, context, KV cache
per token, chat template and licence. Nothing is loaded; only the header is read.`,
		Args: args(1, 1, "a MODEL: a name or a .gguf file"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			return a.show(cmd.Context(), args[0], digest, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&digest, "digest", false, "read the whole file and compute its SHA-256")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func (a *app) show(ctx context.Context, ref string, digest, asJSON bool) (err error) {
	s, err := a.openStore()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	m, err := s.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	file, err := gguf.Open(m.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	summary, err := file.Summary()
	if err != nil {
		return err
	}
	summary.Digest = m.Digest.String()
	if summary.Licence == "" {
		summary.Licence, summary.LicenceLink = m.Licence.Name, m.Licence.URL
	}
	if digest {
		if summary.Digest, err = a.digest(ctx, file); err != nil {
			return err
		}
		if want := m.Digest.String(); want != "" && want != summary.Digest {
			return &store.Error{
				Op: "show", Kind: store.ErrDigest, Name: ref,
				Hint: fmt.Sprintf("norion rm %s, then pull it again", ref),
				Err:  fmt.Errorf("the file has %s, the store recorded %s", summary.Digest, want),
			}
		}
	}
	checked := digest && !m.Digest.IsZero()
	if asJSON {
		return writeJSON(a.out, showJSON{m.Name.String(), summary, m.TemplateName})
	}
	if _, err := summary.WriteTo(a.out); err != nil {
		return err
	}
	if m.TemplateName != "" && len(summary.Templates) == 0 {
		fmt.Fprintf(a.out, "%-14s chat template %s\n", "catalogue", m.TemplateName)
	}
	if checked {
		fmt.Fprintf(a.out, "%-14s every byte is as it was pulled\n", "checked")
	}
	return nil
}

// digest reads the whole file, with a percentage where standard error is a terminal.
func (a *app) digest(ctx context.Context, file *gguf.File) (string, error) {
	if !isTerminal(a.err) {
		return file.Digest(ctx, nil)
	}
	defer fmt.Fprint(a.err, "\r\x1b[K")
	return file.Digest(ctx, func(done, total int64) {
		fmt.Fprintf(a.err, "\rreading %3d %%", 100*done/max(total, 1))
	})
}
