package gguf

import (
	"errors"
	"strings"
)

const (
	keyArchitecture = "general.architecture"
	keyGeneralType  = "general.type"
)

// Kind says what a file holds.
type Kind string

// Kinds of file.
const (
	KindModel      Kind = "model"
	KindAdapter    Kind = "adapter"    // LoRA and its relatives
	KindProjector  Kind = "projector"  // turns images or sound into embeddings (mmproj)
	KindImatrix    Kind = "imatrix"    // importance matrix, an aid of quantisation
	KindVocabulary Kind = "vocabulary" // a model without tensors
	KindUnknown    Kind = "unknown"
)

// Kind tells what the file says it is. It looks at metadata and at whether there are tensors.
func (f *File) Kind() Kind {
	// An unreadable or over-long value is no kind we know: "" falls through to unknown.
	kind, _ := f.optional(keyGeneralType)
	arch, _ := f.optional(keyArchitecture)
	switch {
	case kind == "adapter" || f.Has("adapter.type"):
		return KindAdapter
	case kind == "imatrix" || f.Has("imatrix.datasets"):
		return KindImatrix
	case kind == "mmproj" || kind == "clip-vision" || arch == "clip" || hasPrefix(f, "clip."):
		return KindProjector
	case kind != "" && kind != "model" || arch == "":
		return KindUnknown
	case len(f.tensors) == 0:
		return KindVocabulary
	}
	return KindModel
}

func hasPrefix(f *File, prefix string) bool {
	for i := range f.entries {
		if strings.HasPrefix(f.entries[i].key, prefix) {
			return true
		}
	}
	return false
}

// CheckModel reports why the pinned llama.cpp cannot generate or embed with this file, as far as
// the header tells: another kind of file, an unknown architecture, a fact that it aborts on, a
// vocabulary that it refuses. Errors: ErrNotModel, ErrUnknownArch, and those of Shape and
// Vocabulary.
func (f *File) CheckModel() error {
	if err := f.checkKind(); err != nil {
		return err
	}
	if _, err := f.Shape(); err != nil {
		return err
	}
	_, err := f.Vocabulary()
	return err
}

func (f *File) checkKind() error {
	refuse := func(kind error, field, hint, format string, args ...any) error {
		e := fault(kind, field, -1, hint, format, args...)
		e.Op = "check"
		return f.stamp(e)
	}
	switch kind := f.Kind(); kind {
	case KindModel:
	case KindAdapter:
		return refuse(ErrNotModel, keyGeneralType,
			"load the base model and add this file with --lora", "is an adapter")
	case KindProjector:
		return refuse(ErrNotModel, keyGeneralType,
			"give the language model that this projector belongs to", "is a multimodal projector")
	case KindImatrix:
		return refuse(ErrNotModel, keyGeneralType,
			"give a model: this file only helps to quantise one", "is an importance matrix")
	case KindVocabulary:
		return refuse(ErrNotModel, "header tensor count",
			"give the full model", "is a vocabulary without weights")
	default:
		return refuse(ErrNotModel, keyGeneralType,
			"give a model file", "says neither what it is nor its architecture")
	}
	arch, err := f.short(keyArchitecture)
	if err != nil {
		return err
	}
	if !KnownArchitecture(arch) {
		return refuse(ErrUnknownArch, keyArchitecture,
			"update norion, or choose another model", "%s", clip(arch))
	}
	return nil
}

// isAbsent reports a key that is not there, which most facts may be.
func isAbsent(err error) bool { return errors.Is(err, ErrNoKey) }
