package llama

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
)

// SplitMode says how a model is spread over several GPUs.
type SplitMode int32

const (
	SplitLayer SplitMode = iota // whole layers, the default
	SplitNone
	SplitRow
	SplitTensor
)

// LoadMode says how weights come into memory.
type LoadMode int32

const (
	LoadAuto LoadMode = iota // mapped where the devices allow it
	LoadRead                 // into memory of its own, in huge pages where the system allows them
	LoadMap
	LoadLock
	LoadMapLock
	LoadDirect
)

// loadModes are llama.cpp's names, in the order of the constants.
var loadModes = [...]string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}

// LoadModes lists the names of the modes, LoadAuto's first.
func LoadModes() []string { return slices.Clone(loadModes[:]) }

// String is llama.cpp's name of the mode.
func (m LoadMode) String() string {
	if m < 0 || int(m) >= len(loadModes) {
		return fmt.Sprintf("LoadMode(%d)", m)
	}
	return loadModes[m]
}

// MarshalText gives the name.
func (m LoadMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a name. Errors: Invalid.
func (m *LoadMode) UnmarshalText(name []byte) error {
	i := slices.Index(loadModes[:], string(name))
	if i < 0 {
		return fail("load", Invalid, fmt.Sprintf("use one of %v", loadModes),
			"unknown load mode %.20q", name)
	}
	*m = LoadMode(i)
	return nil
}

// BufferOverride puts the tensors whose name matches Pattern into a buffer type.
type BufferOverride struct {
	Pattern string // regular expression over tensor names
	Buffer  string // such as CPU or CUDA0
}

// ModelParams chooses how a model is loaded. The zero value with Paths set loads it onto
// whatever devices there are.
type ModelParams struct {
	Paths          []string // the file, or its shards in order
	CPUOnly        bool     // no GPU takes part
	GPULayers      int      // layers on GPUs; 0 means all
	Split          SplitMode
	Load           LoadMode
	MainGPU        int
	Devices        []string  // names; nil means all
	TensorSplit    []float32 // share of each device; nil means by free memory
	Overrides      []BufferOverride
	VocabularyOnly bool // tokenise only
	CheckTensors   bool // refuse weights with NaN or impossible values
	NoRepack       bool // keep weights as they are in the file
	Dry            bool // read metadata and count bytes only

	// Progress is called with 0..1 during the load; false stops it. A panic stops it too.
	Progress func(done float32) bool
}

// Bounds of ModelParams, as in the pinned llama.cpp.
const (
	PathsMax     = 1024
	DevicesMax   = 16
	OverridesMax = 4095
)

// Validate refuses parameters that cannot be used.
func (p *ModelParams) Validate() error {
	const op = "load"
	switch {
	case len(p.Paths) == 0 || len(p.Paths) > PathsMax:
		return fail(op, Invalid, "", "%d paths, want 1..%d", len(p.Paths), PathsMax)
	case slices.Contains(p.Paths, ""):
		return fail(op, Invalid, "", "an empty path")
	case slices.ContainsFunc(p.texts(), hasNUL):
		return fail(op, Invalid, "", "a NUL byte in a path or name")
	case p.GPULayers < 0 || p.GPULayers > math.MaxInt32:
		return fail(op, Invalid, "use 0 for all layers", "%d GPU layers", p.GPULayers)
	case p.Split < SplitLayer || p.Split > SplitTensor:
		return fail(op, Invalid, "", "unknown split mode %d", p.Split)
	case p.Load < LoadAuto || p.Load > LoadDirect:
		return fail(op, Invalid, "", "unknown load mode %d", p.Load)
	case len(p.Devices) > DevicesMax || len(p.TensorSplit) > DevicesMax:
		return fail(op, Invalid, "", "more than %d devices", DevicesMax)
	case len(p.Overrides) > OverridesMax:
		return fail(op, Invalid, "", "more than %d overrides", OverridesMax)
	case p.MainGPU < 0 || p.MainGPU >= DevicesMax:
		return fail(op, Invalid, "", "main GPU %d is outside 0..%d", p.MainGPU, DevicesMax-1)
	}
	for _, share := range p.TensorSplit {
		if !(share >= 0) || math.IsInf(float64(share), 0) {
			return fail(op, Invalid, "", "tensor split share %v", share)
		}
	}
	return nil
}

// texts is everything that goes to C as a NUL-ended string.
func (p *ModelParams) texts() []string {
	all := slices.Concat(p.Paths, p.Devices)
	for _, o := range p.Overrides {
		all = append(all, o.Pattern, o.Buffer)
	}
	return all
}

// ModelInfo holds the facts of a loaded model. Token ids are -1 where the model has none.
type ModelInfo struct {
	Description     string
	Vocabulary      int   // tokens
	TrainedTokens   int   // context it was trained with
	EmbeddingSize   int   // values of an output vector
	Layers          int   //
	Heads, HeadsKV  int   // of the first layer
	Window          int   // sliding window in tokens; 0 for none
	Parameters      int64 // number of weights
	Bytes           int64 // of all tensors
	BOS, EOS, EOT   Token
	AddBOS, AddEOS  bool
	Encoder         bool // has an encoder that Encode runs
	Decoder         bool
	Recurrent       bool // state, not cells
	Hybrid          bool
	Diffusion       bool
	MultiplePosRope bool // several positions per token: no shifting
}

// Model is a loaded model: weights and vocabulary. Safe for concurrent use.
type Model struct {
	life
	h              modelHandle
	info           ModelInfo
	vocabularyOnly bool
	dry            bool
}

// LoadModel loads a model. Canceling ctx stops the load with Canceled. Start is called with a
// silent logger where nobody did. Errors: Invalid, Load, Memory, Canceled, Missing.
func LoadModel(ctx context.Context, p ModelParams) (*Model, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: "load", Code: Canceled, Err: context.Cause(ctx)}
	}
	if logger.Load() == nil {
		if err := Start(nil); err != nil {
			return nil, err
		}
	}
	watch := &progress{ctx: ctx, report: p.Progress}
	h, err := loadModel(&p, watch)
	if err != nil {
		return nil, watch.explain(err)
	}
	return &Model{
		h: h, info: modelInfo(h), vocabularyOnly: p.VocabularyOnly, dry: p.Dry,
	}, nil
}

// progress decides, from inside the load, whether it goes on.
type progress struct {
	ctx      context.Context
	report   func(float32) bool
	stopped  bool
	panicked any
}

// step is called from C; it never panics.
func (w *progress) step(done float32) (goOn bool) {
	defer func() {
		if r := recover(); r != nil {
			w.panicked, goOn = r, false
		}
	}()
	if w.ctx.Err() != nil || (w.report != nil && !w.report(done)) {
		w.stopped = true
		return false
	}
	return true
}

// explain turns the failure of a stopped load into its reason.
func (w *progress) explain(err error) error {
	switch {
	case w.panicked != nil:
		return fail("load", Internal, "", "the progress callback panicked: %v", w.panicked)
	case w.stopped:
		return &Error{Op: "load", Code: Canceled, Err: context.Cause(w.ctx)}
	}
	return err
}

// Info returns the facts of the model.
func (m *Model) Info() ModelInfo { return m.info }

// Close frees the model. It is InUse while a context, sampler, adapter or chat of it is open.
func (m *Model) Close() error {
	return m.close("close model", func() { freeModel(m.h) })
}

// Meta returns a metadata value as text, and whether the model has it. Arrays are not covered.
func (m *Model) Meta(key string) (string, bool) {
	if m.enter("meta") != nil {
		return "", false
	}
	defer m.leave()
	return modelMeta(m.h, key)
}

// TextBytesMax bounds one text given to Tokenize.
const TextBytesMax = 1 << 30

// Tokenize splits text. addSpecial adds the tokens that the model expects around a text;
// parseSpecial lets the spelling of a control token become that token. Each run of bytes that is
// not UTF-8 is read as U+FFFD: upstream reads overlong forms, and throws at what is too large.
func (m *Model) Tokenize(text string, addSpecial, parseSpecial bool) ([]Token, error) {
	if err := m.enter("tokenize"); err != nil {
		return nil, err
	}
	defer m.leave()
	if len(text) > TextBytesMax {
		return nil, fail("tokenize", Invalid, "", "%d bytes, at most %d", len(text), TextBytesMax)
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	tokens := make([]Token, len(text)/3+8)
	for {
		n := tokenize(m.h, text, tokens, addSpecial, parseSpecial)
		switch {
		case n >= 0:
			return tokens[:n], nil
		case n == math.MinInt32:
			return nil, fail("tokenize", Unsupported, "", "this model cannot tokenise this text")
		}
		tokens = make([]Token, -n)
	}
}

// AppendPiece appends the exact bytes of one token. They need not be valid UTF-8: a character
// may be spread over several tokens. Control tokens are spelled only when special is set.
func (m *Model) AppendPiece(dst []byte, token Token, special bool) ([]byte, error) {
	if err := m.enter("piece"); err != nil {
		return dst, err
	}
	defer m.leave()
	if err := m.checkToken("piece", token); err != nil {
		return dst, err
	}
	dst = slices.Grow(dst, 16)
	for {
		n := piece(m.h, token, dst[len(dst):cap(dst)], special)
		if n >= 0 {
			return dst[:len(dst)+n], nil
		}
		dst = slices.Grow(dst, -n)
	}
}

// Detokenize is the text of tokens as the model's own rules join them. removeSpecial drops the
// tokens that Tokenize adds around a text; special spells control tokens.
func (m *Model) Detokenize(tokens []Token, removeSpecial, special bool) (string, error) {
	if err := m.enter("detokenize"); err != nil {
		return "", err
	}
	defer m.leave()
	for _, t := range tokens {
		if err := m.checkToken("detokenize", t); err != nil {
			return "", err
		}
	}
	buf := make([]byte, len(tokens)*6+16)
	for {
		n := detokenize(m.h, tokens, buf, removeSpecial, special)
		if n >= 0 {
			return string(buf[:n]), nil
		}
		buf = make([]byte, -n)
	}
}

// EOG reports whether a token ends a generation.
func (m *Model) EOG(token Token) bool {
	if m.checkToken("eog", token) != nil || m.enter("eog") != nil {
		return false
	}
	defer m.leave()
	return tokenEOG(m.h, token)
}

// Bits of a token's attributes, as in llama.cpp.
const (
	AttrUnknown     = 1 << 0
	AttrUnused      = 1 << 1
	AttrNormal      = 1 << 2
	AttrControl     = 1 << 3
	AttrUserDefined = 1 << 4
	AttrByte        = 1 << 5
)

// Attr returns the attribute bits of a token, 0 for an unknown one.
func (m *Model) Attr(token Token) int {
	if m.checkToken("attr", token) != nil || m.enter("attr") != nil {
		return 0
	}
	defer m.leave()
	return tokenAttr(m.h, token)
}

func (m *Model) checkToken(op string, token Token) error {
	if token < 0 || int(token) >= m.info.Vocabulary {
		return fail(op, Invalid, "", "token %d is outside 0..%d", token, m.info.Vocabulary-1)
	}
	return nil
}

// Lora is a loaded adapter. It applies to a whole context.
type Lora struct {
	life
	h     loraHandle
	model *Model
}

// LoadLora loads an adapter for the model. Errors: Invalid, Load, Closed, Missing.
func (m *Model) LoadLora(path string) (*Lora, error) {
	if err := m.enter("load adapter"); err != nil {
		return nil, err
	}
	defer m.leave()
	if path == "" || hasNUL(path) {
		return nil, fail("load adapter", Invalid, "", "path %q", path)
	}
	if m.vocabularyOnly || m.dry {
		return nil, fail("load adapter", Unsupported, "load the whole model",
			"this model was loaded without weights")
	}
	h, err := loadLora(m.h, path)
	if err != nil {
		return nil, err
	}
	m.adopt()
	return &Lora{h: h, model: m}, nil
}

// Close frees the adapter. It must no longer be set on a context.
func (l *Lora) Close() error {
	return l.close("close adapter", func() {
		freeLora(l.h)
		l.model.disown()
	})
}
