package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/norion/norion/kv/snapshot"
)

// fileJSON is the verdict on one file, for programs.
type fileJSON struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes,omitempty"`
	Bad   string `json:"bad,omitempty"` // "" for a good file
	Why   string `json:"why,omitempty"`
}

func (a *app) newCacheVerify() *cobra.Command {
	f := &cacheFlags{}
	cmd := &cobra.Command{
		Use: "verify", Short: "Read every file and check it",
		Long: `Read every file and check it. The exit code is 1 when one is bad. Nothing need be done
about it: norion takes a bad file for one that is not there, and removes it when it is wanted or
when others are written. A foreign file, of another key or version, cannot be checked and is not
bad; it is the first to go for others.`,
		RunE: a.ran(func(cmd *cobra.Command, _ []string) (err error) {
			c, err := a.openCache(f)
			if err != nil {
				return err
			}
			defer func() { err = c.close(err) }()
			return a.verifyCache(cmd.Context(), c, f.json)
		}),
	}
	f.register(cmd)
	return cmd
}

// verifyCache reports on every file.
func (a *app) verifyCache(ctx context.Context, c openedCache, asJSON bool) error {
	verdicts := []fileJSON{}
	bad, foreign := 0, 0
	if c.Store != nil {
		reports, err := c.Verify(ctx)
		if err != nil {
			return err
		}
		for _, r := range reports {
			v := fileJSON{Name: r.Name, Bytes: r.Bytes, Bad: string(r.Bad)}
			switch r.Bad {
			case "":
			case snapshot.MissForeign:
				foreign++
			default:
				bad++
			}
			if r.Err != nil {
				v.Why = r.Err.Error()
			}
			verdicts = append(verdicts, v)
		}
	}
	if err := a.writeVerdicts(verdicts, bad, foreign, asJSON); err != nil || bad == 0 {
		return err
	}
	return &snapshot.Error{
		Op: "verify", Kind: snapshot.ErrInvalid,
		Err:  fmt.Errorf("%d of %s", bad, files(len(verdicts))),
		Hint: "a bad file counts as not there; norion cache clear removes all files",
	}
}

func (a *app) writeVerdicts(all []fileJSON, bad, foreign int, asJSON bool) error {
	if asJSON {
		return writeJSON(a.out, all)
	}
	for _, v := range all {
		if v.Bad != "" {
			fmt.Fprintf(a.out, "%s  %s\n", oneLine(v.Name), oneLine(v.Why))
		}
	}
	_, err := fmt.Fprintf(a.out, "%d good, %d bad, %d foreign\n", len(all)-bad-foreign, bad, foreign)
	return err
}

// clearedJSON is what a clear removed, for programs.
type clearedJSON struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (a *app) newCacheClear() *cobra.Command {
	f := &cacheFlags{}
	yes := false
	cmd := &cobra.Command{
		Use: "clear", Short: "Remove every kept prefix",
		Long: `Remove every kept prefix, foreign and half-written files too. The key stays. A program
that uses the cache meanwhile computes again what it does not find.`,
		RunE: a.ran(func(cmd *cobra.Command, _ []string) (err error) {
			c, err := a.openCache(f)
			if err != nil {
				return err
			}
			defer func() { err = c.close(err) }()
			var out clearedJSON
			if c.Store != nil {
				if err := a.consent(c, yes); err != nil {
					return err
				}
				if out.Files, out.Bytes, err = c.Clear(cmd.Context()); err != nil {
					return err
				}
			}
			if f.json {
				return writeJSON(a.out, out)
			}
			_, err = fmt.Fprintf(a.out, "removed %s, %s freed\n", files(out.Files), size(out.Bytes))
			return err
		}),
	}
	f.register(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// consent asks before everything is removed. Where nobody can be asked, --yes is needed.
func (a *app) consent(c openedCache, yes bool) error {
	refuse := &usageError{
		message: "norion cache clear removes every kept prefix", hint: "add --yes", field: "--yes",
	}
	switch {
	case yes:
		return nil
	case !isTerminal(a.in):
		return refuse
	}
	fmt.Fprintf(a.err, "Remove all of %s, %s? [y/N] ", oneLine(c.dir), size(c.Stats().Bytes))
	const answerBytesMax = 1024
	line, _ := bufio.NewReader(io.LimitReader(a.in, answerBytesMax)).ReadString('\n')
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(line))) {
		refuse.message = "nothing was removed"
		return refuse
	}
	return nil
}
