package conform

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/norion/norion/runtime/infer"
)

// Versions of the formats of this package.
const (
	manifestVersion = 1
	receiptVersion  = 1
)

// FileBytesMax bounds the text of a manifest and of a receipt.
const FileBytesMax = 1 << 20

// Manifest says what a backend is: whatever of it changes makes another backend, which must be
// examined anew. Counts that are not known are 0, texts "".
type Manifest struct {
	Version   int             `json:"version"`
	Name      string          `json:"name"`
	Reached   Reached         `json:"reached"`
	Engine    string          `json:"engine"`
	Model     Model           `json:"model"`
	Devices   []string        `json:"devices,omitempty"` // sorted; where they are known
	Limits    Limits          `json:"limits"`
	Abilities infer.Abilities `json:"abilities"`
	Lifecycle Lifecycle       `json:"lifecycle"`
}

// Reached says how norion comes to a backend. One of the fields is set.
type Reached struct {
	URL     string   `json:"url,omitempty"`
	Command []string `json:"command,omitempty"` // the program and its arguments
}

// Model is the identity and shape of the model behind a backend.
type Model struct {
	Name          string `json:"name"`
	Digest        string `json:"digest,omitempty"` // "sha256:..." of its file
	Licence       string `json:"licence,omitempty"`
	Architecture  string `json:"architecture,omitempty"`
	Parameters    int64  `json:"parameters,omitempty"`
	Bytes         int64  `json:"bytes,omitempty"` // of all tensors
	Vocabulary    int    `json:"vocabulary,omitempty"`
	EmbeddingSize int    `json:"embedding_size,omitempty"`
	TrainedTokens int    `json:"trained_tokens,omitempty"`
}

// Limits bound the requests of a backend.
type Limits struct {
	ContextTokens int `json:"context_tokens,omitempty"` // prompt and answer together
	Sequences     int `json:"sequences,omitempty"`      // requests that run at once
}

// Lifecycle says who starts and ends what answers.
type Lifecycle string

const (
	LifecycleExternal Lifecycle = "external" // it runs whether norion does or not
	LifecycleChild    Lifecycle = "child"    // norion starts it, ends it and starts it again
)

// NewManifest fills in what Info tells. Devices and licence are the caller's to add.
func NewManifest(name string, r Reached, l Lifecycle, i infer.Info) Manifest {
	return Manifest{
		Version: manifestVersion, Name: name, Reached: r, Engine: i.Engine,
		Model: Model{
			Name: i.Model, Digest: i.Digest, Architecture: i.Architecture, Parameters: i.Parameters,
			Bytes: i.Bytes, Vocabulary: i.Vocabulary, EmbeddingSize: i.EmbeddingSize,
			TrainedTokens: i.TrainedTokens,
		},
		Limits:    Limits{ContextTokens: i.ContextTokens, Sequences: i.Sequences},
		Abilities: i.Abilities, Lifecycle: l,
	}
}

// Validate refuses a manifest that describes no backend.
func (m *Manifest) Validate() error {
	bad := func(field, format string, args ...any) error {
		return &infer.Error{
			Op: "manifest", Kind: infer.KindInvalid, Field: field, Err: fmt.Errorf(format, args...),
		}
	}
	switch {
	case m.Version != manifestVersion:
		return bad("version", "%d, this norion reads %d", m.Version, manifestVersion)
	case m.Name == "":
		return bad("name", "empty")
	case (m.Reached.URL == "") == (len(m.Reached.Command) == 0):
		return bad("reached", "want a url or a command")
	case m.Model.Name == "":
		return bad("model.name", "empty")
	case m.Lifecycle != LifecycleExternal && m.Lifecycle != LifecycleChild:
		return bad("lifecycle", "unknown %.40q", m.Lifecycle)
	case !slices.IsSorted(m.Devices):
		return bad("devices", "not sorted")
	}
	for _, f := range []struct {
		field string
		value int64
	}{
		{"model.parameters", m.Model.Parameters},
		{"model.bytes", m.Model.Bytes},
		{"model.vocabulary", int64(m.Model.Vocabulary)},
		{"model.embedding_size", int64(m.Model.EmbeddingSize)},
		{"model.trained_tokens", int64(m.Model.TrainedTokens)},
		{"limits.context_tokens", int64(m.Limits.ContextTokens)},
		{"limits.sequences", int64(m.Limits.Sequences)},
	} {
		if f.value < 0 {
			return bad(f.field, "%d is negative", f.value)
		}
	}
	return nil
}

// Digest is "sha256:..." of the manifest's canonical JSON (RFC 8785).
func (m *Manifest) Digest() (string, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	v := jsontext.Value(data)
	if err := v.Canonicalize(); err != nil {
		return "", err
	}
	sum := sha256.Sum256(v)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// ParseManifest reads a manifest strictly: doubled and unknown names are refused.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := parse("manifest", data, &m); err != nil {
		return Manifest{}, err
	}
	if err := m.Validate(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// parse reads one JSON value of a format of this package.
func parse(op string, data []byte, into any) error {
	err := errors.New("too large")
	if len(data) <= FileBytesMax {
		err = json.Unmarshal(data, into, json.RejectUnknownMembers(true))
	}
	if err == nil {
		return nil
	}
	return &infer.Error{Op: op, Kind: infer.KindInvalid, Err: err}
}
