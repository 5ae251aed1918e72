package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/norion/norion/hw/device"
)

// gateJSON is the verdict on a machine, for programs.
type gateJSON struct {
	Met    bool           `json:"met"`
	Checks []device.Check `json:"checks"`
}

func (a *app) newDevicesGate() *cobra.Command {
	var manifest, machine string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gate",
		Short: "Check whether this machine meets a model's manifest",
		Long: `Check whether this machine, or the one of --machine, meets a manifest: a JSON file that
says what a model needs. Each need is a line of the answer. The exit code is 0 when all are met and
4 when one is not; what is not known of the machine is not met. docs/cli.md has the fields.`,
		Args: args(0, 0, "no argument"),
		RunE: a.ran(func(cmd *cobra.Command, _ []string) error {
			return a.devicesGate(cmd.Context(), manifest, machine, asJSON)
		}),
	}
	cmd.Flags().StringVar(&manifest, "manifest", "", "the `FILE` that says what is needed")
	cmd.Flags().StringVar(&machine, "machine", "",
		"a `FILE` that norion devices --json wrote, instead of this machine")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func (a *app) devicesGate(ctx context.Context, manifest, machine string, asJSON bool) error {
	if manifest == "" {
		return flagError("manifest", "name a file: --manifest FILE", "it is missing")
	}
	data, err := readBounded("manifest", manifest, device.ManifestBytesMax)
	if err != nil {
		return err
	}
	needs, err := device.ParseManifest(data)
	if err != nil {
		return err
	}
	m, err := a.gateMachine(ctx, machine)
	if err != nil {
		return err
	}
	checks := device.Gate(m, needs)
	unmet := device.Unmet(checks)
	if asJSON {
		return errors.Join(writeJSON(a.out, gateJSON{unmet == nil, checks}), unmet)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NEED\tWANTED\tHERE\tMET")
	for _, c := range checks {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Field, c.Wanted, oneLine(c.Here),
			map[bool]string{true: "yes", false: "no"}[c.Met])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if unmet != nil && machine == "" {
		for _, n := range m.Notes { // they may say why
			fmt.Fprintln(a.err, "note:", oneLine(n))
		}
	}
	return unmet
}

// gateMachine is the machine of a file, or this one.
func (a *app) gateMachine(ctx context.Context, file string) (device.Machine, error) {
	if file != "" {
		data, err := readBounded("machine", file, device.MachineBytesMax)
		if err != nil {
			return device.Machine{}, err
		}
		return device.ParseMachine(data)
	}
	o, notes, err := a.probeOptions()
	if err != nil {
		return device.Machine{}, err
	}
	m, err := device.Probe(ctx, o)
	m.Notes = append(m.Notes, notes...)
	return m, err
}

// readBounded reads the file of a flag, up to one byte more than its bound.
func readBounded(flag, path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, flagError(flag, "name a file that can be read", "%w", err)
	}
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, flagError(flag, "name a file that can be read", "%w", err)
	}
	return data, nil
}
