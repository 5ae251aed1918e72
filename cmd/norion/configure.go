package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/norion/norion/cmd/norion/config"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/store"
)

// The configuration file, in norion's home or where XDG says, unless --config names another.
const configName = "config.toml"

// secretFlags are not shown by --print-config.
var secretFlags = []string{"salt"}

// configurable are the flags of a command that its configuration sets: those of groups.
func configurable(cmd *cobra.Command) (flags []*pflag.Flag) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if len(f.Annotations[groupAnnotation]) > 0 {
			flags = append(flags, f)
		}
	})
	return flags
}

// configured gives a command a configuration file, and the flag that shows what is in effect.
func (a *app) configured(cmd *cobra.Command) *cobra.Command {
	show, asJSON := false, cmd.Flags().Lookup("json") != nil
	cmd.Flags().StringVar(&a.config, "config", "",
		"configuration `FILE`; without it NORION_CONFIG, or config.toml in norion's home")
	cmd.Flags().BoolVar(&show, "print-config", false,
		"print the configuration in effect, and where each value comes from")
	if !asJSON {
		cmd.Flags().Bool("json", false, "with --print-config: print a JSON object")
	}
	check, run := cmd.Args, cmd.RunE
	cmd.Args = func(cmd *cobra.Command, got []string) error {
		if show {
			return nil
		}
		return check(cmd, got)
	}
	cmd.RunE = func(cmd *cobra.Command, got []string) error {
		if show {
			a.reached = true
			return a.printConfig(cmd)
		}
		return run(cmd, got)
	}
	return cmd
}

// envName is the variable that gives a flag its default.
func envName(flag string) string {
	return "NORION_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configure sets the flags that the command line left out: from the environment, else from the
// configuration file. It remembers where each value came from.
func (a *app) configure(cmd *cobra.Command, _ []string) error {
	flags := configurable(cmd)
	if len(flags) == 0 {
		return nil
	}
	file, err := a.configFile(cmd.Root())
	if err != nil {
		return err
	}
	a.sources = map[string]string{}
	for _, f := range flags {
		if f.Changed {
			a.sources[f.Name] = "--" + f.Name
			continue
		}
		variable := envName(f.Name)
		if value, ok := a.env(variable); ok && value != "" {
			if err := cmd.Flags().Set(f.Name, value); err != nil {
				return &usageError{
					message: fmt.Sprintf("the variable %s: %s", variable, flagMessage(err)),
					hint:    "unset it, or give it a value that --" + f.Name + " takes",
				}
			}
			a.sources[f.Name] = variable
		} else if v, ok := file.Lookup(cmd.Name(), f.Name); ok {
			if err := setFlag(cmd.Flags(), f, v.Data); err != nil {
				return &infer.Error{
					Op: "configuration", Kind: infer.KindInvalid, Field: f.Name,
					Hint: "write a value that --" + f.Name + " takes", Err: fmt.Errorf("%s: %w", v.At, err),
				}
			}
			a.sources[f.Name] = v.At
		}
	}
	return nil
}

// configFile reads the configuration file. That of nobody's choice may be missing.
func (a *app) configFile(root *cobra.Command) (*config.File, error) {
	path, err := a.configPath()
	if err != nil {
		return nil, err
	}
	chosen := a.config != "" || a.getenv("NORION_CONFIG") != ""
	text, err := readText("config", path, config.BytesMax)
	missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	if missing && !chosen {
		return config.Parse("", nil)
	}
	if err != nil {
		return nil, err
	}
	file, err := config.Parse(path, []byte(text))
	if err != nil {
		return nil, err
	}
	known := map[string][]string{}
	for _, cmd := range root.Commands() {
		for _, f := range configurable(cmd) {
			known[cmd.Name()] = append(known[cmd.Name()], f.Name)
		}
	}
	return file, file.Check(known)
}

// configPath is where the configuration file lies.
func (a *app) configPath() (string, error) {
	if a.config != "" {
		return a.config, nil
	}
	if path := a.getenv("NORION_CONFIG"); path != "" {
		return path, nil
	}
	x := a.getenv("XDG_CONFIG_HOME")
	if a.getenv("NORION_HOME") == "" && filepath.IsAbs(x) {
		return filepath.Join(x, "norion", configName), nil
	}
	home, err := store.Home(a.getenv)
	return filepath.Join(home, configName), err
}

// setFlag gives a flag the value of a file, whose type must be the flag's.
func setFlag(fs *pflag.FlagSet, f *pflag.Flag, data any) error {
	list, isList := data.([]any)
	if isList != (f.Value.Type() == "stringArray") {
		return fmt.Errorf("%s takes %s", f.Name, typeName(f))
	}
	if !isList {
		list = []any{data}
	}
	for _, v := range list {
		fits := false
		switch v.(type) {
		case string:
			fits = !slices.Contains([]string{"int", "int64", "float32", "bool"}, f.Value.Type())
		case bool:
			fits = f.Value.Type() == "bool"
		case int64:
			fits = slices.Contains([]string{"int", "int64", "float32"}, f.Value.Type())
		case float64:
			fits = f.Value.Type() == "float32"
		}
		if !fits {
			return fmt.Errorf("%s takes %s", f.Name, typeName(f))
		}
		if err := fs.Set(f.Name, fmt.Sprint(v)); err != nil {
			return errors.New(flagMessage(err))
		}
	}
	return nil
}

// typeName says what a flag takes in a file.
func typeName(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "int", "int64":
		return "a whole number, without quotes"
	case "float32":
		return "a number, without quotes"
	case "stringArray":
		return `a list of texts, as ["a", "b"]`
	case "duration":
		return `a time in quotes, as "30s"`
	}
	return "a text in quotes"
}

// settingJSON is one value in effect. Source is default, environment, file or flag; From is the
// variable, the file and line, or the flag.
type settingJSON struct {
	Name   string `json:"name"`
	Value  any    `json:"value"` // null: a secret
	Source string `json:"source"`
	From   string `json:"from,omitempty"`
}

// printConfig prints what is in effect for a command: as a configuration file, or as JSON.
func (a *app) printConfig(cmd *cobra.Command) error {
	var all []settingJSON
	for _, f := range configurable(cmd) {
		s := settingJSON{Name: f.Name, Value: typed(f), From: a.sources[f.Name]}
		switch {
		case s.From == "":
			s.Source = "default"
		case strings.HasPrefix(s.From, "--"):
			s.Source = "flag"
		case s.From == envName(f.Name):
			s.Source = "environment"
		default:
			s.Source = "file"
		}
		if slices.Contains(secretFlags, f.Name) && f.Value.String() != "" {
			s.Value = nil
		}
		all = append(all, s)
	}
	path, err := a.configPath()
	if err != nil {
		return err
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return writeJSON(a.out, map[string]any{"file": path, "settings": all})
	}
	if _, err := os.Stat(path); err != nil {
		path += ", which is not there"
	}
	fmt.Fprintf(a.out, "# %s\n[%s]\n", path, cmd.Name())
	for _, s := range all {
		line := "# " + s.Name + " = a secret"
		if s.Value != nil {
			text, err := toml.Marshal(map[string]any{s.Name: s.Value})
			if err != nil {
				return err
			}
			line = strings.TrimSpace(string(text))
		}
		if _, err := fmt.Fprintf(a.out, "%-40s # %s\n", line, from(s)); err != nil {
			return err
		}
	}
	return nil
}

func from(s settingJSON) string {
	if s.From == "" {
		return s.Source
	}
	return s.From
}

// typed gives the value of a flag in the type that it has in a file.
func typed(f *pflag.Flag) any {
	text := f.Value.String()
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return append([]string{}, list.GetSlice()...)
	}
	var v any
	var err error
	switch f.Value.Type() {
	case "bool":
		v, err = strconv.ParseBool(text)
	case "int", "int64":
		v, err = strconv.ParseInt(text, 10, 64)
	case "float32":
		v, err = strconv.ParseFloat(text, 64)
	default:
		return text
	}
	if err != nil {
		return text
	}
	return v
}
