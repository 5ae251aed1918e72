package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/cmd/norion/servers"
	"github.com/norion/norion/cmd/norion/top"
	"github.com/norion/norion/runtime/infer"
)

// noServer is said where none runs.
const noServer = "no server runs; norion serve MODEL starts one"

func (a *app) newPs() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the servers that run",
		Long: `List the norion servers of this user that run on this machine: where they listen, and
what they have.`,
		Args: args(0, 0, "no argument"),
		RunE: a.ran(func(*cobra.Command, []string) error {
			return a.showServers(asJSON, func(all []servers.Server) string {
				return servers.Table(all, time.Now())
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func (a *app) newTop() *cobra.Command {
	asJSON, once := false, false
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch what servers do",
		Long: `Watch what the norion servers of this user do: for each model the requests that run and
wait, tokens of answers in a second, quantiles of the time to the first token since it began,
cells of the KV cache, and how much of prompts was reused. It is looked up each second until q, or
once over a pipe, with --once and with --json. norion cache top shows what caches hold.`,
		Args: args(0, 0, "no argument"),
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			if !asJSON && !once && a.fullScreen() {
				return top.Terminal(cmd.Context(), top.Options{
					Name: "top", Look: a.lookAtServers, In: a.in, Out: a.out,
				})
			}
			return a.showServers(asJSON, activity)
		}),
	}
	cmd.Flags().BoolVar(&once, "once", false, "print once, also in a terminal")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// activity is what norion top shows of servers.
func activity(all []servers.Server) string {
	return servers.Table(all, time.Now()) + "\n" + servers.Activity(all)
}

// lookAtServers is the text of a moment.
func (a *app) lookAtServers() (string, error) {
	all, bad, err := a.servers()
	switch {
	case err != nil:
		return "", err
	case len(all)+bad == 0:
		return noServer + "\n", nil
	case len(all) == 0:
		return unreadable(bad), nil
	}
	return activity(all) + unreadable(bad), nil
}

func unreadable(bad int) string {
	if bad == 0 {
		return ""
	}
	return fmt.Sprintf("%d more cannot be read: of another version, or damaged\n", bad)
}

// servers gives those that run.
func (a *app) servers() (all []servers.Server, bad int, err error) {
	path, err := a.homeDir(serversDir)
	if err != nil {
		return nil, 0, err
	}
	return servers.List(path)
}

// serversJSON is what runs, for programs.
type serversJSON struct {
	Servers    []servers.Server `json:"servers"`
	Unreadable int              `json:"unreadable"` // further servers
}

// showServers prints the servers that run, in a view or as JSON.
func (a *app) showServers(asJSON bool, view func([]servers.Server) string) error {
	all, bad, err := a.servers()
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.out, serversJSON{append([]servers.Server{}, all...), bad})
	}
	fmt.Fprint(a.err, unreadable(bad))
	if len(all) == 0 {
		_, err := fmt.Fprintln(a.err, noServer)
		return err
	}
	_, err = fmt.Fprint(a.out, view(all))
	return err
}

// pick gives the servers of ids; without any the only one.
func (a *app) pick(ids []string) ([]servers.Server, error) {
	all, _, err := a.servers()
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, &usageError{message: "no server runs", hint: "norion serve MODEL starts one"}
	case len(ids) == 0 && len(all) > 1:
		var names []string
		for _, s := range all {
			names = append(names, s.ID)
		}
		return nil, &usageError{
			message: fmt.Sprintf("%d servers run", len(all)),
			hint:    "name one of " + strings.Join(names, ", ") + "; norion ps says more",
		}
	case len(ids) == 0:
		return all, nil
	}
	var picked []servers.Server
	for _, id := range ids {
		i := slices.IndexFunc(all, func(s servers.Server) bool { return s.ID == id })
		if i < 0 {
			return nil, &usageError{
				message: fmt.Sprintf("no server %.40q runs", id), hint: "see norion ps",
			}
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

func (a *app) newStop() *cobra.Command {
	everyone := false
	wait := time.Minute
	cmd := &cobra.Command{
		Use:   "stop [ID...]",
		Short: "End servers when their answers have ended",
		Long: `End the server of an ID of norion ps, or the only one. It takes no new request, and answers
that run have its --drain to end. The command waits until the server is gone.`,
		Args: func(cmd *cobra.Command, got []string) error {
			if everyone {
				return args(0, 0, "no ID with --all")(cmd, got)
			}
			return args(0, math.MaxInt, "an ID of norion ps")(cmd, got)
		},
		RunE: a.ran(func(cmd *cobra.Command, ids []string) error {
			if wait <= 0 {
				return flagError("timeout", "name a time, as 1m", "%s is not above 0", wait)
			}
			if everyone {
				all, _, err := a.servers()
				if err != nil {
					return err
				}
				return a.stop(cmd.Context(), all, wait)
			}
			picked, err := a.pick(ids)
			if err != nil {
				return err
			}
			return a.stop(cmd.Context(), picked, wait)
		}),
	}
	cmd.Flags().BoolVar(&everyone, "all", false, "end all servers of this user")
	cmd.Flags().DurationVar(&wait, "timeout", wait, "how long to wait for them to be gone")
	return cmd
}

// stop asks servers to end and waits until they are gone.
func (a *app) stop(ctx context.Context, which []servers.Server, wait time.Duration) error {
	path, err := a.homeDir(serversDir)
	if err != nil {
		return err
	}
	for _, s := range which {
		if err := servers.Stop(path, s); err != nil {
			return err
		}
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	tick := time.NewTicker(stopLook)
	defer tick.Stop()
	for {
		left, err := a.left(which)
		if err != nil || len(left) == 0 {
			return err
		}
		which = left
		select {
		case <-ctx.Done():
			return &infer.Error{Op: "stop", Kind: infer.KindCanceled, Err: ctx.Err()}
		case <-late.C:
			return &infer.Error{
				Op: "stop", Kind: infer.KindDeadline, Field: which[0].ID,
				Hint: fmt.Sprintf("wait longer with --timeout, or end the process %d", which[0].PID),
				Err:  fmt.Errorf("%d requests are still in flight", which[0].InFlight),
			}
		case <-tick.C:
		}
	}
}

// stopLook is how often norion stop looks whether servers are gone.
const stopLook = 100 * time.Millisecond

// left gives those of some servers that still run, as they are now, and says which do not.
func (a *app) left(which []servers.Server) (left []servers.Server, err error) {
	all, _, err := a.servers()
	if err != nil {
		return nil, err
	}
	for _, s := range which {
		i := slices.IndexFunc(all, func(now servers.Server) bool { return now.ID == s.ID })
		if i >= 0 {
			left = append(left, all[i])
		} else if _, err := fmt.Fprintf(a.out, "stopped %s\n", s.ID); err != nil {
			return nil, err
		}
	}
	return left, nil
}

func (a *app) newLogs() *cobra.Command {
	asJSON, follow, lines := false, false, -1
	cmd := &cobra.Command{
		Use:   "logs [ID]",
		Short: "Print the log of a server",
		Long: `Print the log of a server: of an ID of norion ps, of the only one that runs, or of the one
that wrote last. It has a line for each request: route, status, model, tokens and times, no text
of prompts or answers. A log has at most 16 MiB; those of the last servers that ended are kept.`,
		Example: "  norion logs -f\n  norion logs -n 20 --json | jq .took_s",
		Args:    args(0, 1, "an ID of norion ps"),
		RunE: a.ran(func(cmd *cobra.Command, ids []string) error {
			path, alive, err := a.serverLogOf(ids)
			if err != nil {
				return err
			}
			if !follow {
				alive = nil
			}
			err = servers.ReadLog(cmd.Context(), path, lines, alive, func(line []byte) error {
				text := string(line)
				if !asJSON {
					text = servers.Line(line)
				}
				_, err := fmt.Fprintln(a.out, text)
				return err
			})
			if err == nil && cmd.Context().Err() != nil {
				return errInterrupted
			}
			return err
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on while the server runs")
	cmd.Flags().IntVarP(&lines, "lines", "n", lines, "the last `N` lines only; -1: all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the records as they are: JSON, one a line")
	return cmd
}

// serverLogOf gives the path of a server's log, and what says that the server runs.
func (a *app) serverLogOf(ids []string) (path string, alive func() bool, err error) {
	dir, err := a.homeDir(logsDir)
	if err != nil {
		return "", nil, err
	}
	all, _, err := a.servers()
	if err != nil {
		return "", nil, err
	}
	id := append(ids, "")[0]
	if id == "" && len(all) == 1 {
		id = all[0].ID
	}
	path, id, err = servers.FindLog(dir, id)
	if err == nil && path == "" {
		err = &usageError{
			message: "no such log", hint: "see norion ps; norion serve MODEL starts a server",
		}
	}
	return path, func() bool {
		all, _, err := a.servers()
		return err == nil &&
			slices.ContainsFunc(all, func(s servers.Server) bool { return s.ID == id })
	}, err
}
