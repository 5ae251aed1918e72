package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/cmd/norion/top"
	"github.com/norion/norion/runtime/infer"
)

// topDir is where running processes show what they hold: beside the prefixes.
func topDir(prefixes string) string { return filepath.Join(filepath.Dir(prefixes), "running") }

func (a *app) newCacheTop() *cobra.Command {
	f := &cacheFlags{}
	once := false
	cmd := &cobra.Command{
		Use: "top", Short: "Watch what running commands hold",
		Long: `Watch what running commands with --cache hold: requests, cells, memory and disk, where the
tokens of prompts came from, and what is held, the most valuable of each place first. It is
looked up each second until q, or once over a pipe, with --once and with --json. Figures only:
no text of a prompt leaves its process.`,
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			return a.cacheTop(cmd.Context(), f, once)
		}),
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&once, "once", false, "print once, also in a terminal")
	return cmd
}

// topJSON is what running commands hold, for programs.
type topJSON struct {
	Processes  []top.Process  `json:"processes"`
	Unreadable int            `json:"unreadable"` // further processes
	Disk       cacheStatsJSON `json:"disk"`
}

func (a *app) cacheTop(ctx context.Context, f *cacheFlags, once bool) error {
	dir := f.dir
	if dir == "" {
		var err error
		if dir, err = cacheDir(a.getenv); err != nil {
			return err
		}
	}
	if _, err := os.Stat(dir); err != nil && f.dir != "" {
		return flagError("dir", "name the directory of a cache", "%w", err)
	}
	look := a.cacheLook(f, topDir(dir))
	if !f.json && !once && a.fullScreen() {
		return top.Terminal(ctx, top.Options{Name: "cache top", Look: look, In: a.in, Out: a.out})
	}
	if f.json {
		v, err := top.Read(topDir(dir))
		if err != nil {
			return err
		}
		out := topJSON{Processes: append([]top.Process{}, v.Processes...), Unreadable: v.Bad}
		if out.Disk, err = a.diskStats(f); err != nil {
			return err
		}
		return writeJSON(a.out, out)
	}
	text, err := look()
	if err == nil {
		_, err = fmt.Fprint(a.out, text)
	}
	return err
}

// cacheLook gives the text of a moment. While nothing runs the disk changes rarely: it is opened
// once, and again when something has run.
func (a *app) cacheLook(f *cacheFlags, running string) func() (string, error) {
	idle := ""
	return func() (string, error) {
		v, err := top.Read(running)
		if err != nil || len(v.Processes)+v.Bad > 0 {
			idle = ""
			return top.Text(v, time.Now()), err
		}
		if idle == "" {
			idle, err = a.noneRunning(f)
		}
		return idle, err
	}
}

// noneRunning says so, and what is on disk.
func (a *app) noneRunning(f *cacheFlags) (string, error) {
	s, err := a.diskStats(f)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	b.WriteString("nothing runs with --cache\n\n")
	err = writeCacheStats(&b, s)
	return b.String(), err
}

// diskStats opens the disk tier for a moment.
func (a *app) diskStats(f *cacheFlags) (cacheStatsJSON, error) {
	c, err := a.openCache(f)
	if err != nil {
		return cacheStatsJSON{}, err
	}
	return cacheStatsOf(c), c.close(nil)
}

// publish lets norion cache top see what a model holds, until the returned function is called.
func (a *app) publish(b *loaded, prefixes string) (stop func()) {
	o, ok := b.Backend.(infer.Observer)
	if !ok || prefixes == "" {
		return func() {}
	}
	p, err := top.Publish(topDir(prefixes), b.Info().Model, o)
	if err != nil {
		fmt.Fprintf(a.err, "note: norion cache top will not show this: %s\n", oneLine(err.Error()))
		return func() {}
	}
	return func() { _ = p.Close() } // who looks next removes what is left
}

// holding says what a model holds, for people.
func holding(ctx context.Context, b *loaded) (string, error) {
	o, ok := b.Backend.(infer.Observer)
	if !ok {
		return "this backend does not observe itself", nil
	}
	s, err := o.Stats(ctx)
	if err != nil {
		return "", err
	}
	now := time.Now()
	return top.Text(top.View{Processes: []top.Process{{
		PID: os.Getpid(), Model: b.Info().Model, Written: now, Stats: s,
	}}}, now), nil
}
