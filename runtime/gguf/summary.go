package gguf

import (
	"errors"
	"slices"
)

// Summary is what `norion show` prints about a model file. Text in it comes from the file and is
// not escaped; WriteTo escapes it, and so does encoding/json.
type Summary struct {
	Path         string      `json:"path,omitempty"`
	Shards       int         `json:"shards"`
	SizeBytes    int64       `json:"size_bytes"`
	Digest       string      `json:"digest,omitempty"` // set by the caller: it costs a full read
	GGUFVersion  uint32      `json:"gguf_version"`
	Kind         Kind        `json:"kind"`
	Architecture string      `json:"architecture,omitempty"`
	Supported    bool        `json:"supported"`         // CheckModel found nothing
	Problem      string      `json:"problem,omitempty"` // else what it found
	Hint         string      `json:"hint,omitempty"`    // and what to do about it
	Name         string      `json:"name,omitempty"`
	Licence      string      `json:"licence,omitempty"`
	LicenceLink  string      `json:"licence_link,omitempty"`
	FileType     string      `json:"file_type,omitempty"`
	Parameters   int64       `json:"parameters"`
	BitsPerValue float64     `json:"bits_per_value"` // tensor bytes * 8 / parameters
	TensorBytes  int64       `json:"tensor_bytes"`
	Tensors      int         `json:"tensors"`
	Mix          []TypeShare `json:"quantisation"`

	Layers          int        `json:"layers,omitempty"`
	DraftLayers     int        `json:"draft_layers,omitempty"`
	ContextLength   int        `json:"context_length,omitempty"` // tokens, as trained
	EmbeddingLength int        `json:"embedding_length,omitempty"`
	FeedForward     Range      `json:"feed_forward_length"`
	Heads           Range      `json:"heads"`
	KVHeads         Range      `json:"kv_heads"`
	KeyLength       Range      `json:"key_length"`
	ValueLength     Range      `json:"value_length"`
	Experts         int        `json:"experts,omitempty"`
	ExpertsUsed     int        `json:"experts_used,omitempty"`
	Pooling         string     `json:"pooling,omitempty"`
	RopeFreqBase    float64    `json:"rope_freq_base,omitempty"`
	RopeScaling     string     `json:"rope_scaling,omitempty"`
	CacheKind       CacheKind  `json:"cache_kind,omitempty"`
	Cache           []CacheRow `json:"cache,omitempty"` // f16, then q8_0 where that is possible

	Tokenizer    string            `json:"tokenizer,omitempty"`
	PreTokenizer string            `json:"pre_tokenizer,omitempty"`
	Tokens       int               `json:"vocabulary_size,omitempty"`
	Special      []SpecialToken    `json:"special_tokens,omitempty"`
	Templates    []TemplateSummary `json:"chat_templates,omitempty"`
	Notes        []string          `json:"notes,omitempty"`
}

// Range is the least and the greatest value over the layers.
type Range struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// CacheRow is the KV cost of one sequence for one cache type, keys and values alike.
type CacheRow struct {
	Type             string `json:"type"`
	FullLayers       int    `json:"full_layers"`
	FullTokenBytes   int64  `json:"full_bytes_per_token"` // all full layers together
	WindowLayers     int    `json:"window_layers"`
	WindowTokenBytes int64  `json:"window_bytes_per_token"` // all windowed layers together
	Window           int    `json:"window_tokens"`
	StateLayers      int    `json:"state_layers,omitempty"`  // constant size, not counted
	SharedLayers     int    `json:"shared_layers,omitempty"` // no cache of their own
	IndexNotCounted  bool   `json:"index_not_counted,omitempty"`
	ContextBytes     int64  `json:"context_bytes"` // at the trained context length
}

// TemplateSummary describes a chat template without its text.
type TemplateSummary struct {
	Name     string   `json:"name,omitempty"`
	Bytes    int      `json:"bytes"`
	Mentions []string `json:"mentions,omitempty"` // a reading of words, see Template.Mentions
}

// Summary collects the facts. It also works for a file that is not a supported model: then
// Problem says why, and what cannot be known is zero. Errors: ErrIO and ErrChanged only.
func (f *File) Summary() (Summary, error) {
	s := Summary{
		Shards: len(f.shards), SizeBytes: f.Size(), GGUFVersion: f.version, Kind: f.Kind(),
		FileType: f.FileType(), Tensors: len(f.tensors), Mix: f.Mix(), Path: f.shards[0].path,
	}
	for _, t := range []struct {
		key  string
		into *string
	}{
		{keyArchitecture, &s.Architecture},
		{"general.name", &s.Name},
		{"general.license", &s.Licence},
		{"general.license.link", &s.LicenceLink},
	} {
		text, err := f.optional(t.key)
		if err := s.tolerate(err); err != nil {
			return s, err
		}
		*t.into = text
	}
	for _, m := range s.Mix {
		s.Parameters = saturate(s.Parameters, m.Elements)
		s.TensorBytes += m.Bytes
	}
	if s.Parameters > 0 {
		s.BitsPerValue = float64(s.TensorBytes) * 8 / float64(s.Parameters)
	}
	if err := s.tolerate(f.checkKind()); err != nil {
		return s, err
	}
	if s.Kind != KindModel && s.Kind != KindVocabulary {
		return s, nil
	}
	if err := s.addShape(f); err != nil {
		return s, err
	}
	if err := s.addText(f); err != nil {
		return s, err
	}
	s.Supported = s.Problem == ""
	return s, nil
}

// tolerate keeps the first refusal as Problem and passes on what is no fact about the file.
func (s *Summary) tolerate(err error) error {
	if err == nil {
		return nil
	}
	if isUnreadable(err) {
		return err
	}
	var e *Error
	if s.Problem == "" && errors.As(err, &e) {
		s.Problem, s.Hint = e.what(), e.Hint
	}
	return nil
}

func (s *Summary) addShape(f *File) error {
	shape, err := f.Shape()
	if err != nil {
		return s.tolerate(err)
	}
	s.Layers, s.DraftLayers = len(shape.Layers), shape.DraftLayers
	s.ContextLength, s.EmbeddingLength = shape.ContextLength, shape.EmbeddingLength
	s.Experts, s.ExpertsUsed = shape.Experts, shape.ExpertsUsed
	s.RopeFreqBase, s.CacheKind = shape.Rope.FreqBase, shape.Cache
	if shape.Pooling != PoolingUnspecified {
		s.Pooling = shape.Pooling.String()
	}
	if shape.Rope.ScalingFactor != 1 {
		s.RopeScaling = shape.Rope.Scaling
	}
	s.FeedForward = shape.over(func(l Layer) int { return l.FeedForward })
	s.Heads = shape.over(func(l Layer) int { return l.Heads })
	s.KVHeads = shape.over(func(l Layer) int { return l.KVHeads })
	s.KeyLength = shape.over(func(l Layer) int { return l.KeyLength })
	s.ValueLength = shape.over(func(l Layer) int { return l.ValueLength })
	if shape.Cache == CacheNone {
		return nil
	}
	for _, t := range []TensorType{F16, Q8_0} {
		c, err := shape.CacheSize(t, t)
		if err != nil {
			s.Notes = append(s.Notes, "no "+t.String()+" KV cache: "+cause(err))
			continue
		}
		s.Cache = append(s.Cache, CacheRow{
			Type: t.String(), FullLayers: c.FullLayers, FullTokenBytes: c.FullBytes,
			WindowLayers: c.WindowLayers, WindowTokenBytes: c.WindowBytes, Window: c.Window,
			StateLayers: c.StateLayers, SharedLayers: c.SharedLayers,
			IndexNotCounted: c.IndexNotKnown, ContextBytes: c.Bytes(int64(shape.ContextLength)),
		})
	}
	return nil
}

// over is the range of a fact over the layers.
func (s Shape) over(fact func(Layer) int) Range {
	all := make([]int, len(s.Layers))
	for i, l := range s.Layers {
		all[i] = fact(l)
	}
	return Range{Min: slices.Min(all), Max: slices.Max(all)}
}

func (s *Summary) addText(f *File) error {
	v, err := f.Vocabulary()
	if err := s.tolerate(err); err != nil {
		return err
	}
	s.Tokenizer, s.PreTokenizer, s.Tokens, s.Special = v.Model, v.Pre, v.Tokens, v.Special
	s.Notes = append(s.Notes, v.Notes...)
	if v.InvalidUTF8 > 0 {
		s.Notes = append(s.Notes, count(v.InvalidUTF8, "token")+" without valid UTF-8")
	}
	templates, err := f.Templates()
	if err := s.tolerate(err); err != nil {
		return err
	}
	for _, t := range templates {
		s.Templates = append(s.Templates,
			TemplateSummary{Name: t.Name, Bytes: len(t.Text), Mentions: t.Mentions()})
	}
	return nil
}
