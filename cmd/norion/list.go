package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/runtime/store"
)

// modelJSON is a pulled model for programs.
type modelJSON struct {
	Name      string    `json:"name"`
	Path      string    `json:"path"`
	Digest    string    `json:"digest"`
	SizeBytes int64     `json:"size_bytes"`
	Licence   string    `json:"licence,omitempty"`
	Source    string    `json:"source,omitempty"`
	PulledAt  time.Time `json:"pulled_at,omitzero"`
	Template  string    `json:"template,omitempty"` // named by the catalogue
	Problem   string    `json:"problem,omitempty"`  // why it cannot be used
}

func modelOf(m store.Model) modelJSON {
	j := modelJSON{
		Name: m.Name.String(), Path: m.Path, Digest: m.Digest.String(), SizeBytes: m.SizeBytes,
		Licence: m.Licence.Name, Source: m.Source, PulledAt: m.PulledAt, Template: m.TemplateName,
	}
	if m.Problem != nil {
		j.Problem = m.Problem.Error()
	}
	return j
}

func (a *app) newList() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the models on this machine",
		Args:    args(0, 0, "no argument"),
		RunE: a.ran(func(cmd *cobra.Command, _ []string) (err error) {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			if all {
				return a.listCatalogue(s, asJSON)
			}
			return a.listPulled(cmd.Context(), s, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "list what can be pulled by name")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return cmd
}

func (a *app) listPulled(ctx context.Context, s *store.Store, asJSON bool) error {
	models, err := s.List(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		out := make([]modelJSON, 0, len(models))
		for _, m := range models {
			out = append(out, modelOf(m))
		}
		return writeJSON(a.out, out)
	}
	if len(models) == 0 {
		_, err := fmt.Fprintln(a.err, "no model has been pulled yet; "+
			"norion list --all shows what there is, norion pull smollm2:135m is a start")
		return err
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSIZE\tLICENCE\tDIGEST\tPULLED")
	for _, m := range models {
		pulled := m.PulledAt.Local().Format(time.DateOnly)
		if m.Problem != nil {
			pulled = oneLine(m.Problem.Error())
		}
		digest := m.Digest.String()
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.Name, size(m.SizeBytes), oneLine(m.Licence.Name),
			digest[:min(len(digest), len("sha256:")+12)], pulled)
	}
	return t.Flush()
}

func (a *app) listCatalogue(s *store.Store, asJSON bool) error {
	models := s.Catalogue().Models
	if asJSON {
		return writeJSON(a.out, models)
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tQUANTISATION\tLICENCE\tDESCRIPTION")
	for _, e := range models {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", e.Name, e.Quantisation, e.Licence.Name, e.Description)
	}
	return t.Flush()
}

func (a *app) newRemove() *cobra.Command {
	var prune bool
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove models from this machine",
		Long: `Remove models from this machine. The file of a model goes when no other name uses it;
files outside the store are never removed.`,
		Args: func(cmd *cobra.Command, got []string) error {
			if prune {
				return args(0, 0, "no NAME with --prune")(cmd, got)
			}
			return args(1, math.MaxInt, "the NAME of a model")(cmd, got)
		},
		RunE: a.ran(func(cmd *cobra.Command, names []string) (err error) {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			if prune {
				freed, err := s.Prune(cmd.Context())
				if err == nil {
					_, err = fmt.Fprintf(a.out, "%s freed\n", size(freed))
				}
				return err
			}
			for _, name := range names {
				freed, err := s.Remove(cmd.Context(), name)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "removed %s, %s freed\n", name, size(freed))
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&prune, "prune", false, "delete interrupted downloads and files of no model")
	return cmd
}
