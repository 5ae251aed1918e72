package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/norion/norion/runtime/store"
)

func (a *app) newPull() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Fetch a model by its name",
		Long: `Fetch a model by its name. An interrupted pull is continued by the next one where the
source can do that; what arrives is checked against its digest before it can be used.`,
		Example: "  norion pull smollm2:135m\n  norion list --all",
		Args:    args(1, 1, "the NAME of a model"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) (err error) {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			m, err := a.pull(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.out, modelOf(m))
			}
			_, err = fmt.Fprintf(a.out, "%s is ready: %s, %s\n", m.Name, size(m.SizeBytes), m.Digest)
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the model as a JSON object")
	return cmd
}

// pull fetches a model, with a progress bar where standard error is a terminal. Licence terms with
// a notice are always shown.
func (a *app) pull(ctx context.Context, s *store.Store, ref string) (store.Model, error) {
	show := newProgress(a.err, isTerminal(a.err))
	m, err := s.Pull(ctx, ref, store.PullOptions{
		Progress: show.report,
		Terms: func(l store.Licence) error {
			_, err := fmt.Fprintf(a.err, "licence: %s %s\n%s\n", l.Title, l.URL, l.Notice)
			return err
		},
	})
	show.end(err == nil)
	return m, err
}

// size gives bytes in binary units.
func size(n int64) string {
	v, unit := float64(n), 0
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB"}
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}
