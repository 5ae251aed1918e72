package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
	"github.com/norion/norion/runtime/store"
)

// ledgerDir is the directory of the record in norion's home.
const ledgerDir = "ledger"

// ledgerFlags are those of every command on the record.
type ledgerFlags struct {
	dir     string
	witness string
	json    bool
}

func (f *ledgerFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.dir, "dir", "", "`DIR` of the record (default: ledger in norion's home)")
	fs.StringVar(&f.witness, "witness", "", "`FILE` with a second copy of the checkpoint")
	fs.BoolVar(&f.json, "json", false, "print JSON")
}

func (a *app) newLedger() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger COMMAND",
		Short: "Read, verify and prove the record of what happened",
		Long: `Read, verify and prove the record of what happened. What was recorded cannot be changed
unseen: docs/format/ledger.md says how, docs/runbook/ledger.md what to do when it does not verify.`,
		Args: func(cmd *cobra.Command, got []string) error {
			if len(got) == 0 {
				return nil
			}
			return unknownCommand(cmd, got[0])
		},
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	cmd.AddCommand(a.newLedgerVerify(), a.newLedgerShow(), a.newLedgerTail(), a.newLedgerProve(),
		a.newLedgerCheck(), a.newLedgerExport(), a.newLedgerRebuild(), a.newLedgerBackup(),
		a.newLedgerForget(), a.newLedgerStats())
	return cmd
}

// ledgerOptions names the record.
func (a *app) ledgerOptions(f *ledgerFlags) (ledger.Options, error) {
	o := ledger.Options{Dir: f.dir, Witness: f.witness, Now: time.Now}
	if o.Dir == "" {
		home, err := store.Home(a.getenv)
		if err != nil {
			return o, err
		}
		o.Dir = filepath.Join(home, ledgerDir)
	}
	return o, nil
}

// readLedger opens the record beside whoever writes to it.
func (a *app) readLedger(ctx context.Context, f *ledgerFlags, do func(*ledger.Reader) error) error {
	o, err := a.ledgerOptions(f)
	if err != nil {
		return err
	}
	r, err := ledger.OpenReader(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(do(r), r.Close())
}

// writeLedger opens a record that is there for writing.
func (a *app) writeLedger(
	ctx context.Context, f *ledgerFlags, do func(*ledger.Ledger) error,
) error {
	o, err := a.ledgerOptions(f)
	if err != nil {
		return err
	}
	// It makes no new one; an older one is migrated below.
	r, err := ledger.OpenReader(ctx, o)
	switch {
	case err == nil:
		err = r.Close()
	case errors.Is(err, ledger.ErrTooOld):
		err = nil
	}
	if err != nil {
		return err
	}
	l, err := ledger.Open(ctx, o)
	if err != nil {
		return err
	}
	err = do(l)
	a.sayDegraded(l)
	return errors.Join(err, l.Close())
}

func (a *app) newLedgerVerify() *cobra.Command {
	f := &ledgerFlags{}
	cmd := &cobra.Command{
		Use: "verify", Short: "Walk everything that was recorded and check it",
		Long: `Walk everything that was recorded and check it: signatures, the database, each event and
its place, sealed texts and projections. The exit code is 1 when anything is wrong.`,
		Args: cobra.NoArgs,
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			return a.readLedger(cmd.Context(), f, func(r *ledger.Reader) error {
				report, err := r.Verify(cmd.Context())
				return errors.Join(a.printLedgerReport(report, f.json), err)
			})
		}),
	}
	f.register(cmd)
	return cmd
}

func (a *app) printLedgerReport(r ledger.Report, asJSON bool) error {
	if asJSON {
		return writeJSON(a.out, r)
	}
	for _, x := range r.Findings {
		fmt.Fprintf(a.out, "%s: %s\n", oneLine(x.Where), oneLine(x.What))
	}
	if r.More > 0 {
		fmt.Fprintf(a.out, "and %d more\n", r.More)
	}
	for _, what := range r.Unchecked {
		fmt.Fprintf(a.out, "not checked: %s\n", oneLine(what))
	}
	if len(r.Findings) > 0 {
		return nil // the error says the rest
	}
	how := "open"
	if r.Closed {
		how = "closed, and every byte of it signed for"
	}
	_, err := fmt.Fprintf(a.out, "%d events, %d of them signed for; the database is %s\n"+
		"%d sealed texts, %d forgotten\nroot %s\n", r.Events, r.Signed, how, r.Payloads, r.Forgotten,
		r.Root)
	return err
}

func (a *app) newLedgerStats() *cobra.Command {
	f := &ledgerFlags{}
	cmd := &cobra.Command{
		Use: "stats", Short: "Count what was recorded", Args: cobra.NoArgs,
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			return a.readLedger(cmd.Context(), f, func(r *ledger.Reader) error {
				s, err := r.Stats(cmd.Context())
				if err != nil {
					return err
				}
				if f.json {
					return writeJSON(a.out, s)
				}
				return a.printStats(s)
			})
		}),
	}
	f.register(cmd)
	return cmd
}

func (a *app) printStats(s ledger.Stats) error {
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "events\t%d\nsigned for\t%d\nstreams\t%d\n", s.Events, s.Signed, s.Streams)
	fmt.Fprintf(t, "bytes of bodies\t%d\nbytes of the database\t%d\n", s.BodyBytes, s.FileBytes)
	fmt.Fprintf(t, "first\t%s\nlast\t%s\n", s.First.Format(time.RFC3339), s.Last.Format(time.RFC3339))
	for _, k := range slices.Sorted(maps.Keys(s.Kinds)) {
		fmt.Fprintf(t, "kind %s\t%d\n", k, s.Kinds[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Actors)) {
		fmt.Fprintf(t, "actor %s\t%d\n", k, s.Actors[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Scopes)) {
		fmt.Fprintf(t, "scope %s\t%d\n", k, s.Scopes[k])
	}
	return t.Flush()
}

// parseScope reads TENANT/WORKSPACE/SESSION; parts at the end may be left out.
func parseScope(text string) (event.Scope, error) {
	parts := strings.Split(text, "/")
	if len(parts) > 3 {
		return event.Scope{}, flagError("scope", "write TENANT/WORKSPACE/SESSION", "%d parts", len(parts))
	}
	parts = append(parts, "", "")
	s := event.Scope{Tenant: parts[0], Workspace: parts[1], Session: parts[2]}
	if err := s.Validate(); err != nil {
		return s, flagError("scope", "write TENANT/WORKSPACE/SESSION", "%w", err)
	}
	return s, nil
}
