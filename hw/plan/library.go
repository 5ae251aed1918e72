package plan

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

//go:embed library
var library embed.FS

// Machines returns the names of the library's machines, sorted.
func Machines() []string { return names("machines") }

// Models returns the names of the library's shapes, sorted.
func Models() []string { return names("models") }

func names(dir string) []string {
	entries, err := library.ReadDir("library/" + dir)
	if err != nil {
		return nil // the directory is in the binary
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".json"))
	}
	return out
}

// entry reads a file of the library.
func entry(dir, name string) ([]byte, error) {
	all := names(dir)
	if !slices.Contains(all, name) {
		e := fault(ErrUnknown, strings.TrimSuffix(dir, "s"), "there are "+strings.Join(all, ", "),
			"%q", name)
		e.Op = "read"
		return nil, e
	}
	return library.ReadFile(path.Join("library", dir, name+".json"))
}

// Machine returns a machine of the library, with nothing else running on it. Errors: ErrUnknown.
func Machine(name string) (device.Machine, error) {
	data, err := entry("machines", name)
	if err != nil {
		return device.Machine{}, err
	}
	return ReadMachine(data)
}

// machineFile is a machine and what its figures were taken from.
type machineFile struct {
	Source string `json:"source,omitempty"`
	device.Machine
}

// ReadMachine reads a machine as JSON: a device.Machine, besides which "source" may say where its
// figures are from. Errors: ErrMachine.
func ReadMachine(data []byte) (device.Machine, error) {
	var m machineFile
	if err := strict(data, &m); err != nil {
		e := fault(ErrMachine, "", "norion plan takes what norion's machine files look like", "%w", err)
		e.Op = "read"
		return device.Machine{}, e
	}
	return m.Machine, checkMachine(m.Machine)
}

// strict decodes one JSON value with no field that v lacks.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

// modelFile has the parameters from which the tensors of a model follow, and what they were taken
// from. Lengths are in elements.
type modelFile struct {
	Source       string `json:"source"`
	FileBytes    int64  `json:"file_bytes"` // of a published file, to compare with
	Architecture string `json:"architecture"`
	Quantisation string `json:"quantisation"` // Q4_K_M or Q8_0
	Layers       int    `json:"layers"`
	Context      int    `json:"context"`
	Embedding    int    `json:"embedding"`
	Heads        int    `json:"heads"`
	KVHeads      int    `json:"kv_heads"`
	Head         int    `json:"head"` // length of a head
	FeedForward  int    `json:"feed_forward"`
	Vocabulary   int    `json:"vocabulary"`
	Tied         bool   `json:"tied,omitempty"`  // the output reuses the token embedding
	Norms        int    `json:"norms,omitempty"` // elements of norms in a layer, beside the usual two

	Window      int `json:"window,omitempty"`
	WindowEvery int `json:"window_every,omitempty"` // the last layer of so many has no window

	Experts       int `json:"experts,omitempty"`
	ExpertsUsed   int `json:"experts_used,omitempty"`
	ExpertsShared int `json:"experts_shared,omitempty"`
	ExpertLength  int `json:"expert_length,omitempty"`
	DenseLayers   int `json:"dense_layers,omitempty"` // the first ones, without experts
	// PlainExperts: it was quantised when llama-quantize gave no expert more bits than others.
	PlainExperts bool `json:"plain_experts,omitempty"`

	Latent *latentAttention `json:"latent,omitempty"`
}

// latentAttention has the ranks of multi-head latent attention (MLA).
type latentAttention struct {
	QueryRank int `json:"query_rank"`
	KVRank    int `json:"kv_rank"`
	Rotary    int `json:"rotary"` // part of a key head with positions
	Plain     int `json:"plain"`  // and without
	Value     int `json:"value"`
}

// Shape returns the shape of a model of the library. Errors: ErrUnknown.
func Shape(name string) (gguf.Shape, error) {
	data, err := entry("models", name)
	if err != nil {
		return gguf.Shape{}, err
	}
	var m modelFile
	if err := strict(data, &m); err != nil {
		return gguf.Shape{}, fmt.Errorf("library: %s: %w", name, err)
	}
	return m.shape(), nil
}
