package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
)

func (a *app) newLedgerRebuild() *cobra.Command {
	f := &ledgerFlags{}
	cmd := &cobra.Command{
		Use: "rebuild", Short: "Make the current state anew from the events",
		Long: `Make the current state anew from the events, and the database of an older norion a current
one, after a backup. No event changes. Nothing else may write to the record meanwhile.`,
		Args: cobra.NoArgs,
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			return a.writeLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
				before, after, err := l.Rebuild(cmd.Context())
				if err != nil {
					return err
				}
				return a.printRebuilt(before, after, f.json)
			})
		}),
	}
	f.register(cmd)
	return cmd
}

// rebuiltJSON is what became of a projection, for programs.
type rebuiltJSON struct {
	Name   string       `json:"name"`
	Before event.Digest `json:"before"`
	After  event.Digest `json:"after"`
}

func (a *app) printRebuilt(before, after map[string]event.Digest, asJSON bool) error {
	all := []rebuiltJSON{}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		all = append(all, rebuiltJSON{name, before[name], after[name]})
	}
	if asJSON {
		return writeJSON(a.out, all)
	}
	for _, p := range all {
		how := "as it was"
		if p.Before != p.After {
			how = "changed"
		}
		fmt.Fprintf(a.out, "%s  %s  %s\n", p.Name, p.After, how)
	}
	_, err := fmt.Fprintf(a.out, "%d projections\n", len(all))
	return err
}

func (a *app) newLedgerBackup() *cobra.Command {
	f := &ledgerFlags{}
	var keys bool
	cmd := &cobra.Command{
		Use: "backup NEWDIR", Short: "Copy the record and verify the copy",
		Long: `Copy the record into a new directory and verify the copy. It may be written to meanwhile.
Without --keys the copy can be verified, but not go on, and its sealed texts cannot be opened. A
text that is forgotten later can still be opened in a copy with keys.`,
		Args: args(1, 1, "a NEWDIR: where the copy goes"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			return a.readLedger(cmd.Context(), f, func(r *ledger.Reader) error {
				report, err := r.Backup(cmd.Context(), args[0], keys)
				if err != nil && !errors.Is(err, ledger.ErrDamaged) {
					return err
				}
				return errors.Join(a.printLedgerReport(report, f.json), err)
			})
		}),
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&keys, "keys", false, "copy the secret keys, too")
	return cmd
}

func (a *app) newLedgerForget() *cobra.Command {
	f := &ledgerFlags{}
	var scope, reason string
	cmd := &cobra.Command{
		Use: "forget DIGEST", Short: "Destroy the key of a sealed text, for ever",
		Long: `Destroy the key of a sealed text, for ever, and record that. The text cannot be read any
more; every proof stays valid. Backups with keys that were made before still have it.`,
		Args: args(1, 1, "a DIGEST: the payload of an event"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			d, err := event.ParseDigest(args[0])
			if err != nil || d.IsZero() {
				return &usageError{
					message: fmt.Sprintf("%q is no digest", args[0]),
					hint:    "norion ledger show NUMBER shows an event's payload",
				}
			}
			by := event.Draft{Stream: "payload", Actor: "operator"}
			if by.Scope, err = parseScope(scope); err != nil {
				return err
			}
			body := event.Forgotten{Payload: d, Reason: reason}
			return a.writeLedger(cmd.Context(), f, func(l *ledger.Ledger) error {
				if err := l.Forget(cmd.Context(), by, body); err != nil {
					return err
				}
				if f.json {
					return writeJSON(a.out, map[string]event.Digest{"forgotten": d})
				}
				_, err := fmt.Fprintf(a.out, "forgotten: %s\n", d)
				return err
			})
		}),
	}
	f.register(cmd)
	cmd.Flags().StringVar(&scope, "scope", "", "`TENANT/WORKSPACE/SESSION` that it belongs to")
	cmd.Flags().StringVar(&reason, "reason", "operator", "reason `CODE` to record")
	return cmd
}
