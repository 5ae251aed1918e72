package gguf

import "slices"

// architectures are the values of general.architecture that the pinned llama.cpp knows, sorted.
// "clip" is left out: it marks a projector, not a model.
var architectures = [...]string{
	"afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe", "bailingmoe2",
	"bailingmoe3", "bert", "bitnet", "bloom", "chameleon", "chatglm", "codeshell", "cogvlm",
	"cohere2", "cohere2moe", "command-r", "dbrx", "deci", "deepseek", "deepseek2",
	"deepseek2-ocr", "deepseek32", "deepseek4", "dflash", "dots1", "dots3note", "dream",
	"eagle3", "ernie4_5", "ernie4_5-moe", "eurobert", "exaone", "exaone-moe", "exaone4",
	"falcon", "falcon-h1", "gemma", "gemma-embedding", "gemma2", "gemma3", "gemma3n", "gemma4",
	"gemma4-assistant", "glm-dsa", "glm4", "glm4moe", "glm5-next", "gpt-oss", "gpt2", "gptj",
	"gptneox", "granite", "granite_swa", "granitehybrid", "granitemoe", "graniteswitch",
	"grok", "grovemoe", "hrm_text", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3",
	"hy_v4", "internlm2", "jais", "jais2", "jamba", "jina-bert-v2", "jina-bert-v3", "kimi-k3",
	"kimi-linear", "laguna", "lfm2", "lfm2moe", "llada", "llada-moe", "llama", "llama-embed",
	"llama4", "maincoder", "mamba", "mamba2", "maple", "mellum", "mimo2", "minicpm",
	"minicpm3", "minimax-01", "minimax-m2", "minimax-m3", "mistral3", "mistral4",
	"modern-bert", "mpt", "muse-glimmer", "nanbeige", "nemotron", "nemotron_h",
	"nemotron_h_moe", "neo-bert", "nomic-bert", "nomic-bert-moe", "olmo", "olmo2", "olmoe",
	"openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo",
	"plamo2", "plamo3", "plm", "pockettts", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3",
	"qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3tts", "qwen3vl", "qwen3vlmoe",
	"qwen4exp", "refact", "rnd1", "rwkv6", "rwkv6qwen2", "rwkv7", "seed_oss", "smallthinker",
	"smollm3", "spark2_5", "stablelm", "starcoder", "starcoder2", "step35", "t5", "t5encoder",
	"talkie", "wavtokenizer-dec", "xverse",
}

// KnownArchitecture reports whether the pinned llama.cpp can load models of this architecture.
func KnownArchitecture(name string) bool {
	_, ok := slices.BinarySearch(architectures[:], name)
	return ok
}

// Architectures returns the names that KnownArchitecture accepts, sorted.
func Architectures() []string { return slices.Clone(architectures[:]) }

// CacheKind says what a model remembers about the tokens before.
type CacheKind string

// Cache kinds of the pinned llama.cpp.
const (
	CacheNone      CacheKind = "none"      // encoders and diffusion models
	CacheFull      CacheKind = "full"      // every layer keeps keys and values of all tokens
	CacheWindow    CacheKind = "window"    // some layers keep a sliding window only
	CacheHybrid    CacheKind = "hybrid"    // some layers are recurrent, of constant size
	CacheRecurrent CacheKind = "recurrent" // all layers are recurrent
)

// cacheOf gives the kind that llama.cpp creates for an architecture. extra is true where it also
// keeps an index (sparse attention) or a compressed form, which is not counted here.
func cacheOf(arch string) (kind CacheKind, extra bool) {
	switch arch {
	case "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert",
		"eurobert", "wavtokenizer-dec", "modern-bert", "gemma-embedding", "dream", "llada",
		"llada-moe", "rnd1":
		return CacheNone, false
	case "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7":
		return CacheRecurrent, false
	case "jamba", "falcon-h1", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h",
		"nemotron_h_moe", "qwen3next", "kimi-linear", "bailingmoe3", "kimi-k3", "qwen35",
		"qwen35moe", "minimax-01":
		return CacheHybrid, false
	case "glm5-next", "qwen4exp":
		return CacheHybrid, true
	case "minimax-m3", "glm-dsa", "deepseek32", "hy_v4", "dots3note", "deepseek4", "dflash":
		return CacheFull, true
	}
	return CacheFull, false
}

// windowRule is how llama.cpp decides which layers of an architecture use the sliding window.
type windowRule struct {
	period     int  // one full layer in each period; 0: the per-layer array must say
	denseFirst bool // the full layer is the first of its period, else the last
	window     int  // used where the file does not say; 0: no window then
	fixed      bool // window is used even where the file says another
}

// windowRuleOf gives the rule; ok is false for architectures that never use a window, whatever
// the file says (llama and phi3 among them).
func windowRuleOf(arch string, layers int) (r windowRule, ok bool) {
	switch arch {
	case "gemma2":
		return windowRule{period: 2, window: 4096}, true
	case "gemma3", "gemma-embedding":
		return windowRule{period: 6}, true
	case "gemma3n":
		return windowRule{period: 5}, true
	case "gpt-oss":
		return windowRule{period: 2}, true
	case "cohere2", "olmo2", "muse-glimmer", "afmoe", "mellum":
		return windowRule{period: 4}, true
	case "cohere2moe", "laguna":
		return windowRule{period: 4, denseFirst: true}, true
	case "smallthinker":
		return windowRule{period: 4, denseFirst: true, window: 4096, fixed: true}, true
	case "exaone4":
		return windowRule{period: 4, window: 4096}, layers == 64
	case "exaone-moe":
		return windowRule{period: 4, window: 128}, true
	case "plamo3":
		return windowRule{period: 8}, true
	case "llama4":
		return windowRule{period: 4, window: 8192, fixed: true}, true
	case "modern-bert":
		return windowRule{period: 3, denseFirst: true}, true
	case "lfm2", "lfm2moe", "deepseek4":
		return windowRule{period: windowEveryLayer}, true
	case "gemma4", "gemma4-assistant", "granite_swa", "mimo2", "maple", "step35", "spark2_5",
		"dots3note", "dflash":
		return windowRule{}, true
	}
	return windowRule{}, false
}

// windowEveryLayer is a period in which no layer is full.
const windowEveryLayer = -1

// windowed reports whether layer i uses the window under r (for rules without a per-layer array).
func (r windowRule) windowed(i, period int) bool {
	switch {
	case period <= 0:
		return true
	case r.denseFirst:
		return i%period != 0
	}
	return i%period < period-1
}
