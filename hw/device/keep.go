package device

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/norion/norion/hw/disk"
)

// Fingerprint is the same for as long as figures measured on the machine hold: it covers processor,
// quota, memory, kernel and accelerators, and nothing that changes by the minute.
func (m Machine) Fingerprint() string {
	key := struct {
		OS, Arch, Kernel, Name string
		Features, UUIDs        []string
		Cores, Threads         int
		Quota                  float64
		TotalBytes, LimitBytes int64
	}{
		OS: m.OS, Arch: m.Arch, Kernel: m.Kernel, Name: m.CPU.Name, Features: m.CPU.Features,
		Cores: m.CPU.Cores, Threads: m.CPU.Threads, Quota: m.CPU.Quota,
		TotalBytes: m.Memory.TotalBytes, LimitBytes: m.Memory.LimitBytes,
	}
	for _, a := range m.Accelerators {
		key.UUIDs = append(key.UUIDs, a.UUID)
	}
	data, _ := json.Marshal(key) // numbers, texts and lists of them
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// kept is a file of figures that were measured: JSON, one file for each fingerprint.
type kept struct {
	Version              int     `json:"version"`
	Fingerprint          string  `json:"fingerprint"`
	MemoryBytesPerSecond float64 `json:"memory_bytes_per_second"`
}

const (
	keptVersion  = 1
	keptBytesMax = 4 << 10
	rateMax      = 1e15 // bytes a second: no memory is that fast
)

var errForeign = errors.New("not a file of this program, user and machine")

func keptName(fingerprint string) string { return "machine-" + fingerprint + ".json" }

// recall fills in what was measured before. What is damaged or foreign is named and counts as
// missing.
func (m *Machine) recall(path string) (ok bool) {
	dir, err := disk.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	var k kept
	if err == nil {
		k, err = readKept(dir, m.Fingerprint())
		err = errors.Join(err, dir.Close())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case err != nil:
		m.note("figures measured before are not used: " + err.Error())
		return false
	}
	m.Memory.BytesPerSecond = k.MemoryBytesPerSecond
	return true
}

// keep writes down what was measured.
func (m *Machine) keep(path string) {
	err := os.MkdirAll(path, 0o700)
	var dir disk.Dir
	if err == nil {
		dir, err = disk.OpenDir(path)
	}
	if err == nil {
		err = writeKept(dir, kept{keptVersion, m.Fingerprint(), m.Memory.BytesPerSecond})
		err = errors.Join(err, dir.Close())
	}
	if err != nil {
		m.note("measured figures are not kept: " + err.Error())
	}
}

// readKept reads and checks the file of a fingerprint.
func readKept(dir disk.Dir, fingerprint string) (k kept, err error) {
	name := keptName(fingerprint)
	data, err := disk.ReadFile(dir, name, keptBytesMax)
	if err != nil {
		return k, err
	}
	if err := decodeStrict(data, &k); err != nil {
		return kept{}, fmt.Errorf("%s: %w", name, err)
	}
	if k.Version != keptVersion || k.Fingerprint != fingerprint ||
		!(k.MemoryBytesPerSecond > 0 && k.MemoryBytesPerSecond < rateMax) {
		return kept{}, fmt.Errorf("%s: %w", name, errForeign)
	}
	return k, nil
}

// writeKept replaces the file of a fingerprint in one step.
func writeKept(dir disk.Dir, k kept) error {
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return disk.WriteFile(dir, keptName(k.Fingerprint), append(data, '\n'))
}
