package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/norion/norion/control/event"
	"github.com/norion/norion/control/ledger"
)

// bodyColumns is how much of a body a line of events has.
const bodyColumns = 60

// showFlags select events.
type showFlags struct {
	ledgerFlags
	since, until, scope, kind string
	changes                   bool
	filter                    ledger.Filter
}

func (a *app) newLedgerShow() *cobra.Command {
	f := &showFlags{}
	cmd := &cobra.Command{
		Use: "show [NUMBER]", Short: "Show what happened or changed, and when",
		Long: `Show events, one a line, or the one of a NUMBER in full. --changes leaves what is different
now: applied and undone changes, policies, operators and forgotten texts. Times are dates
(2026-11-26), moments (2026-11-26T08:00:00Z) or durations ago (36h).`,
		Example: "  norion ledger show --changes --since 168h\n" +
			"  norion ledger show --kind request. --scope team-a --since 2026-11-01 --until 2026-12-01",
		Args: args(0, 1, "a NUMBER at most"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				n, err := parseSeq(args[0])
				if err != nil {
					return err
				}
				f.filter.First, f.filter.Last = n, n
			}
			if err := f.parse(time.Now()); err != nil {
				return err
			}
			return a.readLedger(cmd.Context(), &f.ledgerFlags, func(r *ledger.Reader) error {
				n, err := a.showEvents(cmd.Context(), r, f, len(args) == 1)
				if err == nil && n == 0 && len(args) == 1 {
					err = &ledger.Error{Op: "show", Kind: ledger.ErrNotFound, Field: "event " + args[0]}
				}
				return err
			})
		}),
	}
	f.register(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.since, "since", "", "only from `WHEN` on")
	fs.StringVar(&f.until, "until", "", "only before `WHEN`")
	fs.StringVar(&f.scope, "scope", "", "only of `TENANT/WORKSPACE/SESSION` and below")
	fs.StringVar(&f.kind, "kind", "", "only of `KIND`; one that ends with a dot: all that begin so")
	fs.StringVar(&f.filter.Actor, "actor", "", "only by `ACTOR`")
	fs.StringVar(&f.filter.Stream, "stream", "", "only of `STREAM`")
	fs.BoolVar(&f.changes, "changes", false, "only what is different from then on")
	return cmd
}

// parse reads the flags into the filter.
func (f *showFlags) parse(now time.Time) (err error) {
	f.filter.Kind = event.Kind(f.kind)
	if f.filter.Since, err = parseWhen("since", f.since, now); err != nil {
		return err
	}
	if f.filter.Until, err = parseWhen("until", f.until, now); err != nil {
		return err
	}
	if f.scope != "" {
		s, err := parseScope(f.scope)
		if err != nil {
			return err
		}
		f.filter.Scope = &s
	}
	return nil
}

// parseWhen reads a date, a moment or a duration ago; "" is the zero time.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, flagError(flag, "write 2026-11-26, 2026-11-26T08:00:00Z or 36h",
		"%q is no time", text)
}

// parseSeq reads the number of an event.
func parseSeq(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, &usageError{
			message: fmt.Sprintf("%q is no number of an event", text), hint: "see norion ledger show",
		}
	}
	return n, nil
}

// showEvents prints the selected events and returns how many there were.
func (a *app) showEvents(ctx context.Context, r *ledger.Reader, f *showFlags, full bool) (
	n int, err error,
) {
	err = r.Events(ctx, f.filter, func(e event.Event) error {
		if f.changes && !e.Kind.Change() {
			return nil
		}
		n++
		return a.printEvent(e, f.json, full)
	})
	return n, err
}

// printEvent prints a line, or all of an event.
func (a *app) printEvent(e event.Event, asJSON, full bool) error {
	if asJSON {
		_, err := fmt.Fprintf(a.out, "%s\n", e.AppendCanonical(nil))
		return err
	}
	at := e.Time.Format("2006-01-02 15:04:05")
	if !full {
		body := visible(e.Body)
		if letters := []rune(body); len(letters) > bodyColumns {
			body = string(letters[:bodyColumns]) + "…"
		}
		_, err := fmt.Fprintf(a.out, "%d  %s  %s  %s  %s  %s  %s\n", e.Seq, at, e.Kind, e.Scope,
			e.Stream, e.Actor, body)
		return err
	}
	fmt.Fprintf(a.out, "event    %d\ntime     %s\nkind     %s, version %d\nscope    %s\n"+
		"stream   %s, number %d\nactor    %s\n", e.Seq, e.Time.Format(time.RFC3339Nano), e.Kind,
		e.Schema, e.Scope, e.Stream, e.Version, e.Actor)
	if e.Key != "" {
		fmt.Fprintf(a.out, "key      %s\n", e.Key)
	}
	if !e.Payload.IsZero() {
		fmt.Fprintf(a.out, "payload  %s\n", e.Payload)
	}
	_, err := fmt.Fprintf(a.out, "body     %s\n", visible(e.Body))
	return err
}

// visible spells what a terminal would act on or hide, such as a change of the writing direction,
// as an escape of JSON.
func visible(body []byte) string {
	var b strings.Builder
	for _, r := range string(body) {
		if unicode.IsGraphic(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, "\\u%04x", unit)
		}
	}
	return b.String()
}

// pollInterval is how often tail --follow looks for new events.
const pollInterval = 500 * time.Millisecond

func (a *app) newLedgerTail() *cobra.Command {
	f := &showFlags{}
	var lines int64
	var follow bool
	cmd := &cobra.Command{
		Use: "tail", Short: "Show the newest events", Args: cobra.NoArgs,
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			if lines < 0 {
				return flagError("lines", "0 shows none", "%d is negative", lines)
			}
			return a.readLedger(cmd.Context(), &f.ledgerFlags, func(r *ledger.Reader) error {
				return a.tail(cmd.Context(), r, f, lines, follow)
			})
		}),
	}
	f.register(cmd)
	cmd.Flags().Int64VarP(&lines, "lines", "n", 10, "how many")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more, until interrupted")
	return cmd
}

func (a *app) tail(ctx context.Context, r *ledger.Reader, f *showFlags, lines int64,
	follow bool,
) error {
	last, err := r.Last(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for from := max(1, last-lines+1); ; {
		f.filter.First = from
		n, err := a.showEvents(ctx, r, f, false)
		if err != nil || !follow {
			return err
		}
		from += int64(n)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errInterrupted
		}
	}
}
