package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/command"
	"github.com/norion/norion/runtime/conform"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/remote"
	"github.com/norion/norion/runtime/store"
)

// The directory of backends in norion's home: a file NAME.json for each.
const (
	backendsDir     = "backends"
	backendBytesMax = 4 << 20
	receiptLife     = 30 * 24 * time.Hour
)

// backendName is a name that can be a file's.
var backendName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// backend is one that was examined, as its file has it.
type backend struct {
	Manifest json.RawMessage `json:"manifest"`
	Receipt  json.RawMessage `json:"receipt"`
	KeyEnv   string          `json:"key_env,omitempty"` // the variable that has its key
	Env      []string        `json:"env,omitempty"`     // the variables that its program gets

	manifest conform.Manifest
	receipt  conform.Receipt
}

func (a *app) newBackends() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backends COMMAND",
		Short: "Examine servers and programs that run models, and list them",
		Long: `Examine servers and programs that run models, and list them. A backend passes when it
keeps every promise that norion's own models keep, or declares what it cannot do; the receipt holds
for 30 days, and for this backend only.`,
		Args: func(cmd *cobra.Command, got []string) error {
			if len(got) == 0 {
				return nil
			}
			return unknownCommand(cmd, got[0])
		},
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	cmd.AddCommand(a.newBackendsList(), a.newBackendsCheck(), a.newBackendsRemove())
	return cmd
}

func (a *app) newBackendsList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the backends that were examined", Args: cobra.NoArgs,
		RunE: a.ran(func(*cobra.Command, []string) error {
			all, err := a.readBackends()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.out, all)
			}
			if len(all) == 0 {
				_, err := fmt.Fprintln(a.out, "there are none; norion backends check URL examines one")
				return err
			}
			t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tMODEL\tENGINE\tREACHED BY\tSTATE")
			for _, b := range all {
				m := &b.manifest
				reached := m.Reached.URL
				if reached == "" {
					reached = strings.Join(m.Reached.Command, " ")
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.Name, oneLine(m.Model.Name),
					oneLine(m.Engine), oneLine(reached), backendState(b, time.Now()))
			}
			return t.Flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array of manifests and receipts")
	return cmd
}

// backendState says whether a receipt still holds.
func backendState(b *backend, now time.Time) string {
	err := b.receipt.Check(&b.manifest, now)
	switch {
	case err == nil:
		return "usable until " + b.receipt.Expires.Format(time.DateOnly)
	case errors.Is(err, conform.ErrFailed):
		return fmt.Sprintf("failed %d checks", len(b.receipt.Report.Failures()))
	case errors.Is(err, conform.ErrStale):
		return "its receipt is too old"
	case errors.Is(err, conform.ErrSuite):
		return "examined by another version of the suite"
	}
	return "its receipt is of another backend"
}

// checkFlags say what is examined.
type checkFlags struct {
	name, model, keyEnv string
	env                 []string
	time                time.Duration
	json                bool
}

func (a *app) newBackendsCheck() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check NAME|URL|-- PROGRAM [ARG...]",
		Short: "Examine a server, a program, or one of the list again",
		Example: "  norion backends check http://127.0.0.1:8080 --name lab\n" +
			"  norion backends check --name mine -- python3 model.py\n" +
			"  norion backends check lab",
		Args: args(1, 1000, "a NAME of norion backends list, a URL, or a PROGRAM behind --"),
		RunE: a.ran(func(cmd *cobra.Command, args []string) error {
			b, err := a.chosen(&f, args, cmd.ArgsLenAtDash() == 0)
			if err != nil {
				return err
			}
			return a.examine(cmd.Context(), b, &f)
		}),
	}
	fs := cmd.Flags()
	fs.StringVar(&f.name, "name", "", "`NAME` in the list; of a server, its host by itself")
	fs.StringVar(&f.model, "model", "", "`MODEL` as the server calls it, where it has several")
	fs.StringVar(&f.keyEnv, "key-env", "", "`VARIABLE` of the environment that has the server's key")
	fs.StringArrayVar(&f.env, "env", nil, "`VARIABLE` of the environment that the program gets, too")
	fs.DurationVar(&f.time, "check-time", 0, "time for one check; 0: 2 minutes")
	fs.BoolVar(&f.json, "json", false, "print the report as a JSON object")
	return cmd
}

// chosen gives the backend that the command line means.
func (a *app) chosen(f *checkFlags, args []string, program bool) (*backend, error) {
	b := &backend{KeyEnv: f.keyEnv, Env: f.env}
	m := &b.manifest
	m.Name, m.Model.Name = f.name, f.model
	u, err := url.Parse(args[0])
	switch {
	case program:
		m.Reached.Command = args
	case len(args) > 1:
		return nil, &usageError{
			message: fmt.Sprintf("%q is too much", args[1]), hint: "a program comes behind --",
		}
	case err == nil && u.Scheme != "" && u.Host != "":
		m.Reached.URL = args[0]
		if m.Name == "" {
			m.Name = strings.ReplaceAll(strings.ToLower(u.Host), ":", "-")
		}
	default:
		return a.readBackend(args[0])
	}
	if !backendName.MatchString(m.Name) {
		return nil, &usageError{
			message: fmt.Sprintf("%q is no name of a backend", m.Name), field: "--name",
			hint: "give one with --name: small letters, digits, dots, dashes",
		}
	}
	return b, nil
}

// open opens a backend by the way that its manifest has.
func (a *app) openBackend(ctx context.Context, b *backend) (infer.Backend, error) {
	m := &b.manifest
	if m.Reached.URL != "" {
		o := remote.Options{URL: m.Reached.URL, Model: m.Model.Name}
		if b.KeyEnv != "" {
			o.Key = a.getenv(b.KeyEnv)
		}
		r, err := remote.Open(ctx, o)
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	o := command.Options{
		Command: m.Reached.Command,
		Logger:  slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, name := range b.Env {
		o.Env = append(o.Env, name+"="+a.getenv(name))
	}
	c, err := command.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// examine runs the suite and keeps its receipt, whatever the outcome.
func (a *app) examine(ctx context.Context, b *backend, f *checkFlags) error {
	opened, err := a.openBackend(ctx, b)
	if err != nil {
		return err
	}
	life := conform.LifecycleExternal
	if len(b.manifest.Reached.Command) > 0 {
		life = conform.LifecycleChild
	}
	b.manifest = conform.NewManifest(b.manifest.Name, b.manifest.Reached, life, opened.Info())
	report, err := conform.Run(ctx, opened, conform.Options{CheckTime: f.time})
	if err != nil {
		return errors.Join(&infer.Error{Op: "check", Kind: infer.KindCanceled, Err: err}, opened.Close())
	}
	b.receipt, err = conform.NewReceipt(&b.manifest, report, time.Now(), receiptLife)
	if err != nil {
		return err
	}
	if err := a.writeBackend(b); err != nil {
		return err
	}
	if f.json {
		if err := writeJSON(a.out, b.receipt); err != nil {
			return err
		}
	} else if err := a.printReport(b); err != nil {
		return err
	}
	return b.receipt.Check(&b.manifest, time.Now())
}

// printReport shows what each check gave.
func (a *app) printReport(b *backend) error {
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	count := map[conform.Outcome]int{}
	for _, r := range b.receipt.Report.Results {
		count[r.Outcome]++
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Outcome, r.Check, oneLine(r.Why))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "%s: %d passed, %d skipped, %d failed; %s\n", b.manifest.Name,
		count[conform.Passed], count[conform.Skipped], count[conform.Failed],
		backendState(b, time.Now()))
	return err
}

func (a *app) newBackendsRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a backend", Args: args(1, 1, "a NAME of norion backends list"),
		RunE: a.ran(func(_ *cobra.Command, args []string) error {
			if _, err := a.readBackend(args[0]); err != nil {
				return err
			}
			dir, err := a.backendDir()
			if err != nil {
				return err
			}
			return errors.Join(dir.Remove(args[0]+".json"), dir.Close())
		}),
	}
}

// backendDir opens the directory of backends, and makes it where there is none.
func (a *app) backendDir() (disk.Dir, error) {
	home, err := store.Home(a.getenv)
	if err != nil {
		return nil, err
	}
	path := home + string(os.PathSeparator) + backendsDir
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	return disk.OpenDir(path)
}

// readBackend reads the file of one backend.
func (a *app) readBackend(name string) (b *backend, err error) {
	unknown := &usageError{
		message: fmt.Sprintf("no backend %q", name), hint: "see norion backends list",
	}
	if !backendName.MatchString(name) {
		return nil, unknown
	}
	dir, err := a.backendDir()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	data, err := disk.ReadFile(dir, name+".json", backendBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknown
	}
	if err != nil {
		return nil, err
	}
	b, err = parseBackend(data)
	if err == nil && b.manifest.Name != name {
		err = errors.New("it is of another name")
	}
	if err != nil {
		return nil, &infer.Error{
			Op: "read", Kind: infer.KindInvalid, Field: name,
			Hint: "remove it from " + dir.Path(name+".json") + " and examine it anew", Err: err,
		}
	}
	return b, nil
}

// parseBackend reads the text of a file of a backend.
func parseBackend(data []byte) (b *backend, err error) {
	b = &backend{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, err
	}
	if b.manifest, err = conform.ParseManifest(b.Manifest); err != nil {
		return nil, err
	}
	if b.receipt, err = conform.ParseReceipt(b.Receipt); err != nil {
		return nil, err
	}
	return b, nil
}

// readBackends reads all files, by name.
func (a *app) readBackends() (all []*backend, err error) {
	dir, err := a.backendDir()
	if err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(".")
	if err = errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !backendName.MatchString(name) {
			continue
		}
		b, err := a.readBackend(name)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(x, y *backend) int {
		return strings.Compare(x.manifest.Name, y.manifest.Name)
	})
	return all, nil
}

// writeBackend replaces the file of a backend in one step.
func (a *app) writeBackend(b *backend) (err error) {
	if b.Manifest, err = json.Marshal(b.manifest); err != nil {
		return err
	}
	if b.Receipt, err = json.Marshal(b.receipt); err != nil {
		return err
	}
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	dir, err := a.backendDir()
	if err != nil {
		return err
	}
	err = disk.WriteFile(dir, b.manifest.Name+".json", append(data, '\n'))
	return errors.Join(err, dir.Close())
}
