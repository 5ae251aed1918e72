package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/norion/norion/hw/disk"
	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/llama"
)

// Figures are what was measured of one model on one machine, with one build of llama.cpp.
type Figures struct {
	Version     int                `json:"version"`
	Machine     string             `json:"machine"` // its fingerprint
	Model       string             `json:"model"`   // its key
	Build       string             `json:"build"`   // of llama.cpp
	Calibration []plan.Calibration `json:"calibration,omitempty"`
	Loads       []plan.Load        `json:"loads,omitempty"` // the latest first
	Verified    *Result            `json:"verified,omitempty"`
}

const (
	figuresVersion  = 1
	figuresBytesMax = 1 << 20
	loadsMax        = 64
)

// Key names a model among figures: its digest, or for a file of which none is known, its path, size
// and time.
func Key(path, digest string) string {
	if digest == "" {
		digest = path
		if fi, err := os.Stat(path); err == nil {
			digest = fmt.Sprintf("%q %d %d", path, fi.Size(), fi.ModTime().UnixNano())
		}
	}
	sum := sha256.Sum256([]byte(digest))
	return hex.EncodeToString(sum[:16])
}

func fileName(machine, model string) string {
	return "model-" + machine[:min(16, len(machine))] + "-" + model + ".json"
}

// empty are the figures of a model of which nothing was measured.
func empty(machine, model string) Figures {
	return Figures{
		Version: figuresVersion, Machine: machine, Model: model, Build: llama.NativeStamp(),
	}
}

// Recall reads what was measured of a model before. Figures of another build of llama.cpp count as
// none. With an error the figures are empty and can be used all the same: the file is damaged, or
// of another user.
func Recall(path, machine, model string) (Figures, error) {
	none := empty(machine, model)
	dir, err := disk.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	var f Figures
	if err == nil {
		f, err = read(dir, fileName(machine, model))
		err = errors.Join(err, dir.Close())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return none, nil
	case err != nil:
		return none, fmt.Errorf("figures measured before are not used: %w", err)
	case f.Version != figuresVersion || f.Machine != machine || f.Model != model ||
		f.Build != none.Build:
		return none, nil
	}
	return f, nil
}

func read(dir disk.Dir, name string) (f Figures, err error) {
	data, err := disk.ReadFile(dir, name, figuresBytesMax)
	if err != nil {
		return f, err
	}
	return parse(name, data)
}

// parse reads a file of figures. What a plan would refuse is refused there.
func parse(name string, data []byte) (f Figures, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&f); err != nil {
		return Figures{}, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Figures{}, fmt.Errorf("%s: something follows the object", name)
	}
	return f, nil
}

// Keep writes figures down for the next plan, in a directory that is made for this user alone.
func (f Figures) Keep(path string) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	dir, err := disk.OpenDir(path)
	if err != nil {
		return err
	}
	err = disk.WriteFile(dir, fileName(f.Machine, f.Model), append(data, '\n'))
	return errors.Join(err, dir.Close())
}

// Saw adds a load, in place of what was known of the same settings.
func (f *Figures) Saw(l plan.Load) {
	f.Loads = slices.DeleteFunc(slices.Clone(f.Loads), func(old plan.Load) bool {
		return old.Settings == l.Settings && (old.Source == l.Source || l.Source == plan.SourceMeasured)
	})
	f.Loads = slices.Insert(f.Loads, 0, l)
	f.Loads = f.Loads[:min(len(f.Loads), loadsMax)]
}

// Calibrated takes in rates, in place of what was known of the same device, threads and cache.
func (f *Figures) Calibrated(c plan.Calibration) {
	f.Calibration = slices.DeleteFunc(slices.Clone(f.Calibration),
		func(old plan.Calibration) bool {
			return old.Device == c.Device && old.Threads == c.Threads && old.KVType == c.KVType &&
				old.NoFlash == c.NoFlash
		})
	f.Calibration = append(f.Calibration, c)
}

// Load gives what the devices of a plan hold, for the next plan. ok is false where a device has
// some that the plan does not name.
func (r *Result) Load() (l plan.Load, ok bool) {
	l = plan.Load{Settings: r.Plan.Settings(), Source: plan.SourceMeasured}
	for i, d := range r.Devices {
		if i >= len(r.Plan.Devices) {
			return l, false
		}
		l.Devices = append(l.Devices, d.Measured)
	}
	return l, true
}
