package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
)

// Bounds of the files that norion ledger check reads.
const (
	proofFileMax = 256 << 20
	noteFileMax  = 16 << 10
)

func (a *app) newLedgerProve() *cobra.Command {
	f := &ledgerFlags{}
	var since string
	cmd := &cobra.Command{
		Use:   "prove [NUMBER]",
		Short: "Print a proof that an event is in the record, or that the record only grew",
		Long: `Print a proof that the event of a NUMBER is in the record, with the event; or, with
--since, that the record continues an older checkpoint, a copy of the file of that name in its
directory. norion ledger check checks it anywhere, with the record's log.pub alone.`,
		Example: "  norion ledger prove 17 > 17.tlog-proof\n" +
			"  norion ledger prove --since checkpoint.monday > week.proof",
		Args: args(0, 1, "a NUMBER or --since"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (since != "") {
				return &usageError{
					message: "norion ledger prove needs a NUMBER or --since, and not both",
					hint:    "see norion ledger prove --help",
				}
			}
			return a.readLedger(cmd.Context(), f, func(r *ledger.Reader) error {
				data, err := prove(cmd.Context(), r, args, since)
				if err == nil {
					_, err = a.out.Write(data)
				}
				return err
			})
		}),
	}
	f.register(cmd)
	cmd.Flags().StringVar(&since, "since", "", "`FILE` with an older checkpoint")
	return cmd
}

func prove(ctx context.Context, r *ledger.Reader, args []string, since string) ([]byte, error) {
	if len(args) == 1 {
		n, err := parseSeq(args[0])
		if err != nil {
			return nil, err
		}
		p, err := r.Prove(ctx, n)
		return p.Marshal(), err
	}
	old, err := readCheckpoint(since, r.Key())
	if err != nil {
		return nil, err
	}
	c, err := r.ProveConsistency(ctx, old)
	return c.Marshal(), err
}

func readCheckpoint(path string, key note.Verifier) (ledger.Checkpoint, error) {
	data, err := readBounded("since", path, noteFileMax)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	return ledger.ParseCheckpoint(data, key)
}

// readProof reads the file of an argument.
func readProof(path string) (data []byte, err error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, &usageError{message: err.Error(), hint: "name a file that is there"}
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	data, err = io.ReadAll(io.LimitReader(in, proofFileMax+1))
	if err == nil && len(data) > proofFileMax {
		err = &usageError{message: fmt.Sprintf("%s has more than %d bytes", path, proofFileMax)}
	}
	return data, err
}

func (a *app) newLedgerCheck() *cobra.Command {
	f := &ledgerFlags{}
	var key, since string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a proof, an export or a checkpoint without the record",
		Long: `Check a proof, an export or a checkpoint with the record's public key alone, and print the
events that it proves. The exit code is 1 when it does not hold. A proof that the record only grew
needs --since, the older checkpoint that you kept.`,
		Args: args(1, 1, "a FILE"),
		RunE: a.ran(func(_ *cobra.Command, args []string) error {
			if key == "" {
				o, err := a.ledgerOptions(f)
				if err != nil {
					return err
				}
				key = filepath.Join(o.Dir, "log.pub")
			}
			text, err := readBounded("key", key, noteFileMax)
			if err != nil {
				return err
			}
			v, err := ledger.ParseKey(text)
			if err != nil {
				return flagError("key", "name the log.pub of a record", "%w", err)
			}
			data, err := readProof(args[0])
			if err != nil {
				return err
			}
			return a.check(data, v, since, f.json)
		}),
	}
	f.register(cmd)
	cmd.Flags().StringVar(&key, "key", "",
		"`FILE` with the public key (default: the record's log.pub)")
	cmd.Flags().StringVar(&since, "since", "", "`FILE` with an older checkpoint")
	return cmd
}

// checkJSON is what norion ledger check found, for programs.
type checkJSON struct {
	Events []event.Event `json:"events"`
	Size   int64         `json:"size"` // events that the checkpoint covers
	Root   string        `json:"root"`
	Since  int64         `json:"since,omitempty"` // events of the older checkpoint
}

// check tells by its first line what a file is.
func (a *app) check(data []byte, key note.Verifier, since string, asJSON bool) error {
	found := checkJSON{Events: []event.Event{}}
	var cp ledger.Checkpoint
	var err error
	switch first, _, _ := bytes.Cut(data, []byte("\n")); string(first) {
	case "c2sp.org/tlog-proof@v1":
		var p ledger.Proof
		if p, err = ledger.ParseProof(data); err == nil {
			var e event.Event
			e, cp, err = p.Check(key)
			found.Events = append(found.Events, e)
		}
	case "norion/export@v1":
		var x ledger.Export
		if x, err = ledger.ParseExport(data); err == nil {
			found.Events, cp, err = x.Check(key)
		}
	case "norion/consistency@v1":
		found.Since, cp, err = checkConsistency(data, key, since)
	default:
		cp, err = ledger.ParseCheckpoint(data, key)
	}
	if err != nil {
		return err
	}
	found.Size, found.Root = cp.Size, cp.Root.String()
	if asJSON {
		return writeJSON(a.out, found)
	}
	for _, e := range found.Events {
		if err := a.printEvent(e, false, len(found.Events) == 1); err != nil {
			return err
		}
	}
	if found.Since > 0 {
		fmt.Fprintf(a.out, "it only grew since %d events\n", found.Since)
	}
	_, err = fmt.Fprintf(a.out, "holds: signed by %s for %d events, root %s\n", key.Name(), cp.Size,
		cp.Root)
	return err
}

func checkConsistency(data []byte, key note.Verifier, since string) (
	int64, ledger.Checkpoint, error,
) {
	if since == "" {
		return 0, ledger.Checkpoint{}, flagError("since", "name the older checkpoint that you kept",
			"this proof needs it")
	}
	old, err := readCheckpoint(since, key)
	if err != nil {
		return 0, old, err
	}
	c, err := ledger.ParseConsistency(data)
	if err != nil {
		return 0, old, err
	}
	cp, err := c.Check(key, old)
	return old.Size, cp, err
}

func (a *app) newLedgerExport() *cobra.Command {
	f := &ledgerFlags{}
	cmd := &cobra.Command{
		Use: "export FIRST LAST", Short: "Print a range of events, sealed with a proof",
		Example: "  norion ledger export 1 1000 > first.export",
		Args:    args(2, 2, "the numbers of the FIRST and the LAST event"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			first, err := parseSeq(args[0])
			if err != nil {
				return err
			}
			last, err := parseSeq(args[1])
			if err != nil {
				return err
			}
			return a.readLedger(cmd.Context(), f, func(r *ledger.Reader) error {
				x, err := r.Export(cmd.Context(), first, last)
				if err == nil {
					_, err = a.out.Write(x.Marshal())
				}
				return err
			})
		}),
	}
	f.register(cmd)
	return cmd
}
