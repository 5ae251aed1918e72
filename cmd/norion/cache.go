package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/kv/snapshot"
	"github.com/norion/norion/runtime/store"
)

// cacheDiskBytes is the room of the prefixes on disk.
const cacheDiskBytes = 8 << 30

// cacheDir is where prefixes are kept: NORION_HOME/cache; else XDG_CACHE_HOME/norion when that is
// absolute; else cache beside the models. It creates nothing.
func cacheDir(getenv func(string) string) (string, error) {
	if x := getenv("XDG_CACHE_HOME"); getenv("NORION_HOME") == "" && filepath.IsAbs(x) {
		return filepath.Join(x, "norion", "prefixes"), nil
	}
	home, err := store.Home(getenv)
	return filepath.Join(home, "cache", "prefixes"), err
}

// cacheFlags are the flags of the commands below `norion cache`.
type cacheFlags struct {
	dir         string
	plain, json bool
}

func (a *app) newCache() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache COMMAND",
		Short: "Look after the prefixes that are kept on disk",
		Long: `Look after the prefixes that are kept on disk: what norion run --cache and norion chat
--cache computed of a prompt, so that the next one with the same beginning need not.

The directory is NORION_HOME/cache/prefixes, else XDG_CACHE_HOME/norion/prefixes, else
cache/prefixes beside the models. The key of the files lies beside it, in prefixes.key.`,
		Args: func(cmd *cobra.Command, got []string) error {
			if len(got) == 0 {
				return nil
			}
			e := &usageError{
				message: fmt.Sprintf("unknown command %q of norion cache", got[0]),
				hint:    "there are ls, stats, top, verify and clear",
			}
			if near := cmd.SuggestionsFor(got[0]); len(near) > 0 {
				e.hint = "did you mean norion cache " + near[0] + "?"
			}
			return e
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(a.newCacheList(), a.newCacheStats(), a.newCacheTop(), a.newCacheVerify(),
		a.newCacheClear())
	return cmd
}

func (f *cacheFlags) register(cmd *cobra.Command) {
	cmd.Args = args(0, 0, "no argument")
	cmd.Flags().StringVar(&f.dir, "dir", "", "another `DIRECTORY` of kept prefixes")
	cmd.Flags().BoolVar(&f.plain, "plain", false, "look at those that --cache-plain kept")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// openedCache is a cache that a command works on. Its store is nil where nothing was ever kept.
type openedCache struct {
	*snapshot.Store
	dir       string
	encrypted bool
}

// close ends the use of a cache.
func (c openedCache) close(err error) error {
	if c.Store == nil {
		return err
	}
	return errors.Join(err, c.Store.Close())
}

// openCache opens what is there, and creates nothing.
func (a *app) openCache(f *cacheFlags) (c openedCache, err error) {
	c.encrypted = !f.plain
	if c.dir = f.dir; c.dir == "" {
		if c.dir, err = cacheDir(a.getenv); err != nil {
			return c, err
		}
	}
	fi, err := os.Stat(c.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.dir == "":
		return c, nil
	case err != nil:
		return c, flagError("dir", "name the directory of a cache", "%w", err)
	case !fi.IsDir():
		return c, flagError("dir", "name the directory of a cache", "%s is a file", c.dir)
	}
	// Only a directory that this program has written into is opened: opening makes the lock.
	if fi, err := os.Lstat(filepath.Join(c.dir, "lock")); err != nil || !fi.Mode().IsRegular() {
		return c, nil //nolint:nilerr // no cache is there yet
	}
	_, err = os.Lstat(filepath.Clean(c.dir) + ".key")
	c.encrypted = err == nil && !f.plain
	c.Store, err = snapshot.Open(snapshot.Options{
		Dir: c.dir, DiskBytes: cacheDiskBytes, Plain: !c.encrypted,
	})
	if err != nil {
		return c, err
	}
	return c, c.usable()
}

// usable refuses a cache that cannot be read.
func (c openedCache) usable() error {
	st := c.Stats()
	if st.Degraded == "" || st.Files+st.Foreign > 0 {
		return nil
	}
	why, _ := strings.CutPrefix(st.Degraded, "open: "+string(snapshot.ErrDisk)+": ")
	return c.close(&snapshot.Error{
		Op: "cache", Kind: snapshot.ErrDisk, Field: c.dir, Err: errors.New(why),
		Hint: "the directory and its key must belong to this user, who alone may write to them",
	})
}

// prefixJSON is a kept prefix for programs. Whose it is, is not shown.
type prefixJSON struct {
	ID      string    `json:"id"`
	Model   string    `json:"model"`
	Engine  string    `json:"engine"`
	Context string    `json:"context"` // what else it depends on
	Part    string    `json:"part"`    // full, or partial: the window only
	Tokens  int       `json:"tokens"`
	Bytes   int64     `json:"bytes"`
	Saved   time.Time `json:"saved"`
}

func (a *app) newCacheList() *cobra.Command {
	f := &cacheFlags{}
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the kept prefixes",
		RunE: a.ran(func(cmd *cobra.Command, _ []string) (err error) {
			c, err := a.openCache(f)
			if err != nil {
				return err
			}
			defer func() { err = c.close(err) }()
			return a.listCache(cmd, c, f.json)
		}),
	}
	f.register(cmd)
	return cmd
}

func (a *app) listCache(cmd *cobra.Command, c openedCache, asJSON bool) error {
	out := []prefixJSON{}
	if c.Store != nil {
		names := a.modelNames(cmd)
		for _, i := range c.List() {
			p := prefixJSON{
				ID: i.ID.String(), Model: i.Model, Engine: i.Engine, Context: i.Context,
				Part: i.Part.String(), Tokens: i.Tokens, Bytes: i.FileBytes, Saved: i.Saved,
			}
			if name, ok := names[i.Model]; ok && !asJSON {
				p.Model = name
			}
			out = append(out, p)
		}
	}
	switch {
	case asJSON:
		return writeJSON(a.out, out)
	case len(out) == 0:
		_, err := fmt.Fprintln(a.err, "no prefix is kept; norion run --cache keeps them")
		return err
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tTOKENS\tSIZE\tPART\tSAVED\tMODEL")
	for _, p := range out {
		const short = 12
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", p.ID[:short], p.Tokens, size(p.Bytes), p.Part,
			p.Saved.Local().Format(time.DateTime), oneLine(p.Model))
	}
	return t.Flush()
}

// modelNames are the names of pulled models by digest.
func (a *app) modelNames(cmd *cobra.Command) map[string]string {
	names := map[string]string{}
	home, err := store.Home(a.getenv)
	if err != nil {
		return names
	}
	if _, err := os.Stat(filepath.Join(home, "models")); err != nil { // nothing is created
		return names
	}
	s, err := a.openStore()
	if err != nil {
		return names
	}
	defer func() { _ = s.Close() }() // the list can do without names
	models, _ := s.List(cmd.Context())
	for _, m := range models {
		names[m.Digest.String()] = m.Name.String()
	}
	return names
}

// cacheStatsJSON is what a cache holds, for programs.
type cacheStatsJSON struct {
	Dir         string `json:"dir"`
	Encrypted   bool   `json:"encrypted"`
	Prefixes    int    `json:"prefixes"`
	Tokens      int    `json:"tokens"`
	Bytes       int64  `json:"bytes"`
	BudgetBytes int64  `json:"budget_bytes"`
	Foreign     int    `json:"foreign_files"` // of another key or version
	Problem     string `json:"problem,omitempty"`
}

func (a *app) newCacheStats() *cobra.Command {
	f := &cacheFlags{}
	cmd := &cobra.Command{
		Use: "stats", Short: "Say how much is kept, and where",
		RunE: a.ran(func(*cobra.Command, []string) (err error) {
			c, err := a.openCache(f)
			if err != nil {
				return err
			}
			defer func() { err = c.close(err) }()
			return a.cacheStats(c, f.json)
		}),
	}
	f.register(cmd)
	return cmd
}

func (a *app) cacheStats(c openedCache, asJSON bool) error {
	s := cacheStatsOf(c)
	if asJSON {
		return writeJSON(a.out, s)
	}
	return writeCacheStats(a.out, s)
}

func cacheStatsOf(c openedCache) cacheStatsJSON {
	s := cacheStatsJSON{Dir: c.dir, Encrypted: c.encrypted, BudgetBytes: cacheDiskBytes}
	if c.Store != nil {
		st := c.Stats()
		s.Prefixes, s.Bytes, s.Foreign = st.Files, st.Bytes, st.Foreign
		s.Problem = st.Degraded
		for _, i := range c.List() {
			s.Tokens += i.Tokens
		}
	}
	return s
}

func writeCacheStats(to io.Writer, s cacheStatsJSON) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "directory\t%s\nprefixes\t%d, of %d tokens together\nsize\t%s of %s\n",
		oneLine(s.Dir), s.Prefixes, s.Tokens, size(s.Bytes), size(s.BudgetBytes))
	fmt.Fprintf(w, "encrypted\t%s\n", map[bool]string{true: "yes", false: "no"}[s.Encrypted])
	if s.Foreign > 0 {
		fmt.Fprintf(w, "foreign\t%s of another key or version\n", files(s.Foreign))
	}
	if s.Problem != "" {
		fmt.Fprintf(w, "problem\t%s\n", oneLine(s.Problem))
	}
	return w.Flush()
}

// files says how many there are.
func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
