package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/norion/norion/runtime/llama"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// versionJSON is what `norion version --json` prints.
type versionJSON struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the sources, with "+dirty" where changed
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Llama    string `json:"llama_version,omitempty"`
	Commit   string `json:"llama_commit,omitempty"`
	Stamp    string `json:"native_stamp,omitempty"` // digest of the native libraries
	Flags    string `json:"native_flags,omitempty"` // cmake options of the native build
	System   string `json:"llama_system,omitempty"` // CPU features in use, and build options
	Native   string `json:"native,omitempty"`       // why there is no llama.cpp
}

func (a *app) newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say which norion this is, and which llama.cpp is in it",
		Args:  args(0, 0, "no argument"),
		RunE: a.ran(func(*cobra.Command, []string) error {
			v := versionFacts()
			if asJSON {
				return writeJSON(a.out, v)
			}
			var text strings.Builder
			for _, line := range [][2]string{
				{"norion", v.Version},
				{"revision", v.Revision},
				{"go", v.Go + " " + v.Platform},
				{"llama.cpp", v.Llama},
				{"commit", v.Commit},
				{"native", v.Stamp + v.Native},
				{"system", v.System},
				{"flags", buildFlags(v.Flags)},
			} {
				if line[1] != "" {
					fmt.Fprintf(&text, "%-10s %s\n", line[0], line[1])
				}
			}
			_, err := io.WriteString(a.out, text.String())
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func versionFacts() versionJSON {
	v := versionJSON{
		Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Stamp: llama.NativeStamp(), Flags: llama.NativeFlags(),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		dirty := ""
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					dirty = "+dirty"
				}
			}
		}
		v.Revision += dirty
	}
	var err error
	if v.Llama, v.Commit, v.System, err = llama.Version(); err != nil {
		v.Native = oneLine(err.Error())
	}
	return v
}

// buildFlags picks what is on in the native build, without cmake's own spelling.
func buildFlags(flags string) string {
	var on []string
	for _, f := range strings.Fields(flags) {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(f, "-D"), "=ON"); ok &&
			strings.HasPrefix(name, "GGML_") && !strings.HasPrefix(name, "GGML_METAL_") {
			on = append(on, strings.TrimPrefix(name, "GGML_"))
		}
	}
	return strings.Join(on, " ")
}
