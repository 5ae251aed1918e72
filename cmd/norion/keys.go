package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/norion/norion/control/httpapi"
	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
)

// The file of keys, in norion's home.
const (
	keysName     = "keys.json"
	keysBytesMax = 8 << 20
)

func (a *app) newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys COMMAND",
		Short: "Make and revoke keys for norion serve",
		Long: `Make and revoke keys for norion serve. Of a key only a digest is kept, in keys.json in
norion's home: its text is printed once. A server that runs sees changes at its next request.`,
		Args: func(cmd *cobra.Command, got []string) error {
			if len(got) == 0 {
				return nil
			}
			return unknownCommand(cmd, got[0])
		},
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	cmd.AddCommand(a.newKeysCreate(), a.newKeysList(), a.newKeysRevoke())
	return cmd
}

func (a *app) newKeysCreate() *cobra.Command {
	var k httpapi.Key
	var role string
	var life time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key and print it",
		Example: "  norion keys create laptop\n" +
			"  norion keys create team-a --tenant a --tokens-per-minute 20000 --expires 720h",
		Args: args(1, 1, "a NAME: whom the key is for"),
		RunE: a.ran(func(_ *cobra.Command, args []string) error {
			k.Name, k.Role, k.Created = args[0], httpapi.Role(role), time.Now().UTC().Truncate(time.Second)
			if life < 0 {
				return flagError("expires", "0 is never", "%s is negative", life)
			}
			if life > 0 {
				k.Expires = k.Created.Add(life)
			}
			made, text, err := httpapi.NewKey(k)
			if err != nil {
				return flagError("role", "role is user or operator, and limits are positive", "%w", err)
			}
			if err := a.changeKeys(func(all []httpapi.Key) ([]httpapi.Key, error) {
				return append(all, made), nil
			}); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.out, map[string]any{"id": made.ID, "key": text})
			}
			_, err = fmt.Fprintln(a.out, text)
			return err
		}),
	}
	fs := cmd.Flags()
	fs.StringVar(&role, "role", string(httpapi.RoleUser),
		"`ROLE` user or operator (who sees /metrics)")
	fs.StringVar(&k.Tenant, "tenant", "", "`NAME` of whose prefixes are reused among its keys only")
	fs.StringVar(&k.Workspace, "workspace", "", "`NAME` of a part of the tenant, likewise apart")
	fs.DurationVar(&life, "expires", 0, "time after which the key is refused; 0: never")
	fs.IntVar(&k.RequestsPerMinute, "requests-per-minute", 0, "most requests; 0: no limit")
	fs.IntVar(&k.TokensPerMinute, "tokens-per-minute", 0,
		"most tokens of prompts and answers; 0: no limit")
	fs.BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func (a *app) newKeysList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the keys", Args: cobra.NoArgs,
		RunE: a.ran(func(*cobra.Command, []string) error {
			all, err := a.readKeys()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.out, all)
			}
			if len(all) == 0 {
				_, err := fmt.Fprintln(a.out, "there are no keys; norion keys create NAME makes one")
				return err
			}
			t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ID\tNAME\tROLE\tTENANT\tCREATED\tSTATE")
			for _, k := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, oneLine(k.Name), k.Role, oneLine(k.Tenant),
					k.Created.Format(time.DateOnly), keyState(k, time.Now()))
			}
			return t.Flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array, without secrets")
	return cmd
}

func keyState(k httpapi.Key, now time.Time) string {
	switch {
	case !k.Revoked.IsZero():
		return "revoked " + k.Revoked.Format(time.DateOnly)
	case !k.Active(now):
		return "expired " + k.Expires.Format(time.DateOnly)
	case !k.Expires.IsZero():
		return "until " + k.Expires.Format(time.DateOnly)
	}
	return "active"
}

func (a *app) newKeysRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Refuse a key from now on",
		Args: args(1, 1, "an ID of norion keys list"),
		RunE: a.ran(func(_ *cobra.Command, args []string) error {
			return a.changeKeys(func(all []httpapi.Key) ([]httpapi.Key, error) {
				i := slices.IndexFunc(all, func(k httpapi.Key) bool { return k.ID == args[0] })
				if i < 0 {
					return nil, &usageError{
						message: fmt.Sprintf("no key %q", args[0]), hint: "see norion keys list",
					}
				}
				if all[i].Revoked.IsZero() {
					all[i].Revoked = time.Now().UTC().Truncate(time.Second)
				}
				return all, nil
			})
		}),
	}
}

// readKeys reads the file of keys; without one there are none.
func (a *app) readKeys() (all []httpapi.Key, err error) {
	home, err := store.Home(a.getenv)
	if err != nil {
		return nil, err
	}
	dir, err := disk.OpenDir(home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	data, err := disk.ReadFile(dir, keysName, keysBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseKeys(data)
}

// parseKeys reads the text of a file of keys.
func parseKeys(data []byte) (all []httpapi.Key, err error) {
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", keysName, err)
	}
	if _, err := httpapi.NewKeyring(all); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", keysName, err)
	}
	return all, nil
}

// changeKeys replaces the file of keys in one step.
func (a *app) changeKeys(change func([]httpapi.Key) ([]httpapi.Key, error)) (err error) {
	home, err := store.Home(a.getenv)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	dir, err := disk.OpenDir(home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	unlock, ok, err := dir.TryLock(keysName + ".lock")
	if err != nil {
		return err
	}
	if !ok {
		return &infer.Error{
			Op: "keys", Kind: infer.KindBusy, Hint: "try again",
			Err: errors.New("another norion changes the keys"),
		}
	}
	defer func() { err = errors.Join(err, unlock()) }()
	all, err := a.readKeys()
	if err != nil {
		return err
	}
	if all, err = change(all); err != nil {
		return err
	}
	if _, err := httpapi.NewKeyring(all); err != nil {
		return err
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return disk.WriteFile(dir, keysName, append(data, '\n'))
}

// keyFile gives the keys of this moment: it reads the file again when it has changed. It is safe
// for concurrent use.
type keyFile struct {
	a      *app
	path   string
	logger *slog.Logger

	mu   sync.Mutex
	seen fs.FileInfo
	ring *httpapi.Keyring
}

// openKeys reads the keys for a server.
func (a *app) openKeys(logger *slog.Logger) (*keyFile, error) {
	home, err := store.Home(a.getenv)
	if err != nil {
		return nil, err
	}
	f := &keyFile{a: a, path: filepath.Join(home, keysName), logger: logger}
	return f, f.read()
}

func (f *keyFile) read() error {
	now, err := os.Stat(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all, err := f.a.readKeys()
	if err != nil {
		return err
	}
	f.seen = now
	f.ring, err = httpapi.NewKeyring(all)
	return err
}

// get gives the keys. While the file cannot be read, those before it still hold.
func (f *keyFile) get() *httpapi.Keyring {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	same := err == nil && f.seen != nil && os.SameFile(now, f.seen) &&
		now.ModTime().Equal(f.seen.ModTime()) && now.Size() == f.seen.Size()
	if !same {
		if err := f.read(); err != nil {
			f.logger.Error("the file of keys cannot be read; the keys before it hold", "error", err)
		}
	}
	return f.ring
}
