package gguf

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Shape is what follows from the header about the size and form of a model, with the defaults
// that the pinned llama.cpp applies. Lengths are in elements, contexts and windows in tokens.
type Shape struct {
	Architecture    string
	Layers          []Layer // block_count entries, draft layers (NextN) included
	DraftLayers     int     // of them, the last ones that only predict ahead
	ContextLength   int     // tokens that the model was trained on
	EmbeddingLength int
	VocabularySize  int // tokens
	Experts         int // 0 for a dense model
	ExpertsUsed     int // per token, the most of any layer
	ExpertsShared   int
	ExpertLength    int // feed-forward length of one routed expert; 0 for a dense model
	Window          int // sliding window in tokens; 0 when no layer has one
	Rope            Rope
	Cache           CacheKind
	CacheExtra      bool    // an index or compressed cache comes on top, which is not counted
	Pooling         Pooling // of an embedding model
	Causal          bool
	Parameters      int64 // elements of all tensors
	TensorBytes     int64 // bytes of all tensors, without padding
	InputBytes      int64 // of them, the token embedding
	TableBytes      int64 // of them, other tables that are only looked up, as positions
	OutputBytes     int64 // of them, the output projection; 0 when it reuses the embedding
	OtherBytes      int64 // of them, neither in a layer nor input nor output
}

// Layer is one block of the model.
type Layer struct {
	Heads        int
	KVHeads      int
	KeyLength    int   // per head
	ValueLength  int   // per head; 0 where values are read from the keys (MLA)
	FeedForward  int   // of a dense layer
	Window       int   // tokens that its cache keeps; 0: all
	Recurrent    bool  // has a state of constant size
	StateBytes   int64 // of that state, for each sequence
	Cached       bool  // keeps keys and values of its own
	Parameters   int64 // elements of its tensors
	Bytes        int64 // tensor bytes
	LargestBytes int64 // of its largest tensor
	// Of these, what routed experts take.
	ExpertParameters int64
	ExpertBytes      int64
	ExpertTensors    int
}

// Rope holds the rotary position facts.
type Rope struct {
	Dimensions      int
	FreqBase        float64
	Scaling         string  // none, linear, yarn, longrope
	ScalingFactor   float64 // 1: not scaled
	OriginalContext int     // tokens before scaling
}

// Pooling is how an embedding model joins its tokens; the numbers are llama.cpp's.
type Pooling int

// Pooling types. PoolingUnspecified: the file does not say, as in a generating model.
const (
	PoolingUnspecified Pooling = iota - 1
	PoolingNone
	PoolingMean
	PoolingCLS
	PoolingLast
	PoolingRank
)

// String returns llama.cpp's name.
func (p Pooling) String() string {
	names := [...]string{"none", "mean", "cls", "last", "rank"}
	if p >= 0 && int(p) < len(names) {
		return names[p]
	}
	return "unspecified"
}

// Bounds of single facts: far above any model, and small enough that no product below overflows.
const (
	contextMax   = math.MaxInt32
	embeddingMax = 1 << 24
	headsMax     = 1 << 16
	headMax      = 1 << 20
)

// Shape derives the facts. Errors: ErrNoKey, ErrKeyType, ErrCorrupt, ErrLimit, ErrIO.
func (f *File) Shape() (Shape, error) {
	arch, err := f.short(keyArchitecture)
	if err != nil {
		return Shape{}, err
	}
	r := &shapeReader{f: f, arch: arch}
	s := Shape{Architecture: arch, Pooling: PoolingUnspecified}
	r.whole(&s)
	if r.err != nil {
		return Shape{}, r.err
	}
	r.heads(&s)
	r.windows(&s)
	r.cache(&s)
	r.states(&s)
	r.rope(&s)
	if r.err != nil {
		return Shape{}, r.err
	}
	f.weigh(&s)
	return s, nil
}

// shapeReader reads "<arch>.<key>" values; the first failure sticks.
type shapeReader struct {
	f    *File
	arch string
	err  error
}

// integer reads a value up to limit; otherwise is taken when the key is absent.
func (r *shapeReader) integer(key string, limit, otherwise int) int {
	if r.err != nil {
		return 0
	}
	v, err := r.f.Uint(r.arch + "." + key)
	if errors.Is(err, ErrNoKey) {
		return otherwise
	}
	if err == nil && v > uint64(limit) {
		err = r.fault(ErrLimit, key, "%d is above %d", v, limit)
	}
	if err != nil {
		r.err = err
		return 0
	}
	return int(v)
}

// required is integer for a key that llama.cpp insists on; it is at least 1.
func (r *shapeReader) required(key string, limit int) int {
	if r.err == nil && !r.f.Has(r.arch+"."+key) {
		r.err = r.fault(ErrNoKey, key, "required of every model")
	}
	v := r.integer(key, limit, 0)
	if r.err == nil && v == 0 {
		r.err = r.fault(ErrCorrupt, key, "is 0")
	}
	return v
}

func (r *shapeReader) float(key string, otherwise float64) float64 {
	if r.err != nil {
		return 0
	}
	v, err := r.f.Float(r.arch + "." + key)
	if errors.Is(err, ErrNoKey) {
		return otherwise
	}
	if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
		err = r.fault(ErrCorrupt, key, "is %v", v)
	}
	r.err = err
	return v
}

func (r *shapeReader) boolean(key string, otherwise bool) bool {
	if r.err != nil {
		return false
	}
	v, err := r.f.Bool(r.arch + "." + key)
	if errors.Is(err, ErrNoKey) {
		return otherwise
	}
	r.err = err
	return v
}

// perLayer reads a value that is one number for all n layers, or an array with one for each.
func (r *shapeReader) perLayer(key string, n, limit int, otherwise []int) []int {
	full := r.arch + "." + key
	if t, _, ok := r.f.Type(full); r.err != nil || !ok || t != TypeArray {
		if !ok && otherwise != nil {
			return otherwise
		}
		return slices.Repeat([]int{r.integer(key, limit, 0)}, n)
	}
	out := make([]int, n)
	length, err := r.f.Len(full)
	if err == nil && length != n {
		err = r.fault(ErrCorrupt, key, "has %d elements, block_count is %d", length, n)
	}
	var all []uint64
	if err == nil {
		all, err = r.f.Uints(full)
	}
	for i, v := range all {
		if v > uint64(limit) {
			err = r.fault(ErrLimit, key, "element %d: %d is above %d", i, v, limit)
			break
		}
		out[i] = int(v)
	}
	r.err = err
	return out
}

func (r *shapeReader) fault(kind error, key, format string, args ...any) error {
	e := fault(kind, "key "+clip(r.arch+"."+key), -1, hintRegenerate, format, args...)
	if i, ok := r.f.index[r.arch+"."+key]; ok {
		e.Offset = r.f.entries[i].off
	}
	e.Op = "check"
	return r.f.stamp(e)
}

// whole reads what concerns the model as a whole; llama.cpp aborts on what is refused here.
func (r *shapeReader) whole(s *Shape) {
	n := r.required("block_count", LayersMax)
	s.ContextLength = r.required("context_length", contextMax)
	s.EmbeddingLength = r.required("embedding_length", embeddingMax)
	s.DraftLayers = r.integer("nextn_predict_layers", LayersMax, 0)
	s.Experts = r.integer("expert_count", ExpertsMax, 0)
	s.ExpertsShared = r.integer("expert_shared_count", ExpertsMax, 0)
	s.Causal = r.boolean("attention.causal", true)
	s.Pooling = Pooling(r.integer("pooling_type", int(PoolingRank), int(PoolingUnspecified)))
	if r.err != nil {
		return
	}
	s.Layers = make([]Layer, n)
	s.ExpertsUsed = slices.Max(r.perLayer("expert_used_count", n, ExpertsMax, nil))
	switch {
	case r.err != nil:
	case s.DraftLayers >= n:
		r.err = r.fault(ErrCorrupt, "nextn_predict_layers", "%d of %d layers", s.DraftLayers, n)
	case s.ExpertsUsed > s.Experts || s.Experts > 0 && s.ExpertsUsed == 0:
		r.err = r.fault(ErrCorrupt, "expert_used_count", "%d of %d experts", s.ExpertsUsed, s.Experts)
	}
	if s.Experts > 0 {
		s.ExpertLength = r.integer("expert_feed_forward_length", embeddingMax, 0)
	}
	s.VocabularySize = r.integer("vocab_size", VocabularyMax, 0)
	if tokens, err := r.f.Len(keyTokens); err == nil && tokens > 0 {
		s.VocabularySize = tokens
	}
}

// heads fills the attention and feed-forward sizes of each layer.
func (r *shapeReader) heads(s *Shape) {
	n := len(s.Layers)
	heads := r.perLayer("attention.head_count", n, headsMax, nil)
	kv := r.perLayer("attention.head_count_kv", n, headsMax, heads)
	ff := r.perLayer("feed_forward_length", n, embeddingMax, nil)
	var key, value int
	if heads[0] > 0 {
		key = r.integer("attention.key_length", headMax, s.EmbeddingLength/heads[0])
		value = r.integer("attention.value_length", headMax, s.EmbeddingLength/heads[0])
	}
	if r.integer("attention.key_length_mla", headMax, 0) > 0 &&
		r.integer("attention.value_length_mla", headMax, 0) > 0 {
		value = 0
	}
	for i := range s.Layers {
		l := &s.Layers[i]
		l.Heads, l.KVHeads, l.FeedForward = heads[i], kv[i], ff[i]
		l.KeyLength, l.ValueLength = key, value
	}
	if s.Experts > 0 && s.ExpertLength == 0 { // as in Mixtral
		s.ExpertLength = slices.Max(ff)
	}
}

// windows marks the layers that use the sliding window, by llama.cpp's rule.
func (r *shapeReader) windows(s *Shape) {
	trunk := len(s.Layers) - s.DraftLayers
	rule, ok := windowRuleOf(s.Architecture, trunk)
	if !ok || r.err != nil {
		return
	}
	const patternKey = "attention.sliding_window_pattern"
	window := r.integer("attention.sliding_window", contextMax, rule.window)
	if rule.fixed && window > 0 {
		window = rule.window
	}
	var each []uint64
	period := rule.period
	if t, _, there := r.f.Type(r.arch + "." + patternKey); there && t == TypeArray {
		if n, _ := r.f.Len(r.arch + "." + patternKey); n > LayersMax {
			r.err = r.fault(ErrLimit, patternKey, "%d elements are above %d", n, LayersMax)
			return
		}
		each, r.err = r.f.Uints(r.arch + "." + patternKey)
	} else if there {
		period = r.integer(patternKey, LayersMax, 0)
	}
	if window == 0 || r.err != nil || (each == nil && rule.period == 0) {
		return
	}
	s.Window = window
	key := r.integer("attention.key_length_swa", headMax, s.Layers[0].KeyLength)
	value := r.integer("attention.value_length_swa", headMax, s.Layers[0].ValueLength)
	for i := range trunk {
		if each != nil && (i >= len(each) || each[i] == 0) ||
			each == nil && !rule.windowed(i, period) {
			continue
		}
		l := &s.Layers[i]
		l.Window, l.KeyLength, l.ValueLength = window, key, value
	}
}

// cache decides which layers keep keys and values.
func (r *shapeReader) cache(s *Shape) {
	s.Cache, s.CacheExtra = cacheOf(s.Architecture)
	n, trunk := len(s.Layers), len(s.Layers)-s.DraftLayers
	from := trunk // layers from here on reuse the cache of an earlier one
	switch s.Architecture {
	case "gemma3n":
		from = min(trunk, 20)
	case "gemma4":
		from = max(0, n-r.integer("attention.shared_kv_layers", LayersMax, 0))
	}
	recurrent := r.recurrent(s)
	for i := range s.Layers {
		l := &s.Layers[i]
		l.Recurrent = recurrent != nil && recurrent(i)
		l.Cached = i < from && i < trunk && s.Cache != CacheNone && s.Cache != CacheRecurrent &&
			l.KVHeads > 0 && (!l.Recurrent || s.Architecture == "falcon-h1")
		if strings.HasPrefix(s.Architecture, "nemotron_h") && l.FeedForward > 0 {
			l.Cached = false
		}
	}
	if s.Cache == CacheFull && s.Window > 0 {
		s.Cache = CacheWindow
	}
}

// recurrent tells which layers of a hybrid or recurrent model have a state instead of a cache.
func (r *shapeReader) recurrent(s *Shape) func(i int) bool {
	trunk := len(s.Layers) - s.DraftLayers
	switch s.Cache {
	case CacheRecurrent:
		return func(int) bool { return true }
	case CacheHybrid:
	default:
		return nil
	}
	switch s.Architecture {
	case "falcon-h1":
		return func(int) bool { return true }
	case "qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01":
		if r.f.Has(r.arch + ".attention.recurrent_layers") {
			each := r.perLayer("attention.recurrent_layers", len(s.Layers), 1, nil)
			return func(i int) bool { return each[i] != 0 }
		}
		every := max(1, r.integer("full_attention_interval", LayersMax, 4))
		return func(i int) bool { return i < trunk && (i+1)%every != 0 }
	case "nemotron_h", "nemotron_h_moe":
		return func(i int) bool {
			return i < trunk && s.Layers[i].KVHeads == 0 && s.Layers[i].FeedForward == 0
		}
	}
	return func(i int) bool { return s.Layers[i].KVHeads == 0 }
}

func (r *shapeReader) rope(s *Shape) {
	p := &s.Rope
	p.Dimensions = r.integer("rope.dimension_count", headMax, s.Layers[0].KeyLength)
	p.FreqBase = r.float("rope.freq_base", 10000)
	p.OriginalContext = r.integer("rope.scaling.original_context_length", contextMax, s.ContextLength)
	p.ScalingFactor = r.float("rope.scaling.factor", r.float("rope.scale_linear", 1))
	if p.ScalingFactor == 0 {
		p.ScalingFactor = 1
	}
	if r.err != nil {
		return
	}
	const key = "rope.scaling.type"
	scaling, err := r.f.short(r.arch + "." + key)
	switch {
	case errors.Is(err, ErrNoKey):
		p.Scaling = "linear"
	case err != nil:
		r.err = err
	case scaling == "none" || scaling == "linear" || scaling == "yarn" || scaling == "longrope":
		p.Scaling = scaling
	default:
		r.err = r.fault(ErrCorrupt, key, "%s does not exist", clip(scaling))
	}
}

// weigh sums tensor sizes per layer and in all.
func (f *File) weigh(s *Shape) {
	for _, t := range f.tensors {
		s.Parameters = saturate(s.Parameters, t.Elements())
		s.TensorBytes += t.Bytes
		if i, ok := layerOf(t.Name); ok && i < len(s.Layers) {
			l := &s.Layers[i]
			l.Parameters = saturate(l.Parameters, t.Elements())
			l.Bytes += t.Bytes
			l.LargestBytes = max(l.LargestBytes, t.Bytes)
			if strings.Contains(t.Name, "_exps.") {
				l.ExpertParameters = saturate(l.ExpertParameters, t.Elements())
				l.ExpertBytes += t.Bytes
				l.ExpertTensors++
			}
			continue
		}
		switch t.Name {
		case "token_embd.weight":
			s.InputBytes += t.Bytes
		case "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight":
			s.TableBytes += t.Bytes
		case "output.weight":
			s.OutputBytes += t.Bytes
		default:
			s.OtherBytes += t.Bytes
		}
	}
}

// layerOf reads the layer out of a name like "blk.7.attn_q.weight".
func layerOf(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, ".")
	if !ok || len(digits) > 4 {
		return 0, false
	}
	i, err := strconv.Atoi(digits)
	return i, err == nil && i >= 0
}

// saturate adds without wrapping.
func saturate(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
