package engine

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// Options chooses a model and how it is run. The zero value with Paths set is a good start. What
// has the tag "-" belongs to this process and is not sent to another.
type Options struct {
	Paths    []string // the GGUF file, or its first shard, or all shards in order
	Model    string   // name shown to users; "" means the file's name
	Digest   string   // "sha256:..." where the caller knows it
	Template string   // Jinja chat template in place of the model's own; "" keeps that
	Loras    []Lora   // applied to every request
	// Adapters are loaded, too, but apply only to the requests that name them (infer.Request), on top
	// of Loras. A step computes requests of one set of adapters; sets take turns.
	Adapters map[string]Lora

	ContextTokens int    // prompt and answer of one request; 0 means 4096, or as trained if less
	Batch         int    // most tokens of one step; 0 means 2048
	MicroBatch    int    // most tokens computed at once; 0 means 512
	Threads       int    // of a decode step; 0 means the processors available
	ThreadsBatch  int    // of a prefill; 0 means Threads
	KVType        string // type of cached keys and values: f16, q8_0, ...; "" means f16
	NoFlash       bool   // leave flash attention off
	// SmallWindow keeps only the window of sliding-window layers. It saves memory; a later
	// request can then reuse a prefix only where it leaves the last one within the window.
	SmallWindow  bool
	CPUOnly      bool // use no GPU
	GPULayers    int  // layers on GPUs; 0 means all
	CheckTensors bool // refuse weights with NaN or impossible values
	// Devices are the names of the GPUs to use; nil means all. TensorSplit is the share of each of
	// them; nil means by free memory. Overrides put tensors elsewhere, by name.
	Devices     []string
	TensorSplit []float32
	Overrides   []llama.BufferOverride
	// Distribute spreads pages and threads over the machine's memory nodes: for all engines of the
	// process, as llama.cpp has it, and until it ends.
	Distribute bool
	// AdaptThreads computes with fewer threads, down to one, while other programs use the processors
	// and that is faster, and with Threads again after them. The last digits of scores depend on the
	// number of threads, and so may a greedy answer; requests that are deterministic keep Threads.
	AdaptThreads bool
	// Load says how weights come into memory. LoadAuto maps the file, as llama.cpp does; but where
	// the processor computes, huge pages are to be had and half of the free memory stays free, it
	// reads the weights into huge pages, from which they are used faster.
	Load llama.LoadMode

	// Sequences is how many requests run at once, and how many prefixes lie ready to be used again;
	// 0 means 1.
	Sequences int
	// Shared lets all sequences lie in one buffer of Cells cells: a prefix is then shared without a
	// copy, and a long prompt can have the room that others leave. Otherwise each has a stream of
	// ContextTokens cells of its own, and the others cost it no attention.
	Shared bool
	Cells  int // of a shared buffer; 0 means ContextTokens x Sequences
	// RAM is bytes for parked requests and prefixes that lost their cells; 0 keeps none. What
	// memory has to spare is counted. Beside it one more request's state is kept room for, for
	// copies and restores, and what waits to be written to CacheDir: at most 256 MiB, or one state.
	RAM int64
	// CacheDir keeps prefixes on disk, in DiskBytes (0 means 8 GiB), through RAM, so that they outlive
	// the process; "" keeps none. The files are encrypted with a key beside the directory, unless
	// CachePlain is set.
	CacheDir   string
	DiskBytes  int64
	CachePlain bool
	// Evict gives up tokens of requests that name no policy of their own when the context is full;
	// nil ends the answer there. Evictors are further policies that requests can name.
	Evict    kv.Evictor            `json:"-"`
	Evictors map[string]kv.Evictor `json:"-"`
	// Stall bounds how long a step may take in which prompts are computed while answers stream, as
	// a multiple of a step without; 0 means 2.
	Stall float64

	// Speculate guesses what answers go on with: "ngram" from what stood in the request's text before,
	// adaptively unless a request says otherwise; "" leaves it to the requests. It makes room for the
	// logits of a draft of each sequence; without, running answers share what there is.
	Speculate string

	QueueMax int // requests waiting; 0 means 64

	// Logger never sees text of prompts or answers; nil is silent.
	Logger *slog.Logger `json:"-"`
	// Progress gets 0..1 while loading, and stops it with false.
	Progress func(done float32) bool `json:"-"`
}

// Lora is an adapter file and how strongly it applies.
type Lora struct {
	Path  string
	Scale float32 // 0 means 1; of Options.Adapters, where a request names none
}

// Bounds and defaults of Options.
const (
	ContextTokensDefault = 4096
	QueueDefault         = 64
	QueueMax             = 65536
	LorasMax             = 64
	diskDefault          = 8 << 30
	stallMax             = 1000
)

// Validate refuses options that cannot be used. The error is an *infer.Error that names the
// field.
func (o *Options) Validate() error {
	for _, f := range []struct {
		field      string
		value, max int
	}{
		{"context", o.ContextTokens, llama.ContextTokensMax},
		{"batch", o.Batch, llama.ContextTokensMax},
		{"micro-batch", o.MicroBatch, llama.ContextTokensMax},
		{"threads", o.Threads, llama.ThreadsMax},
		{"batch threads", o.ThreadsBatch, llama.ThreadsMax},
		{"GPU layers", o.GPULayers, 1 << 20},
		{"queue", o.QueueMax, QueueMax},
		{"adapters", len(o.Loras) + len(o.Adapters), LorasMax},
		{"sequences", o.Sequences, llama.SequencesMax},
		{"cells", o.Cells, llama.ContextTokensMax},
	} {
		if f.value < 0 || f.value > f.max {
			return &infer.Error{
				Op: "options", Kind: infer.KindInvalid, Field: f.field,
				Hint: "use 0 for the default",
				Err:  fmt.Errorf("%d is outside 0..%d", f.value, f.max),
			}
		}
	}
	if o.KVType != "" && !slices.Contains(llama.KVTypes(), o.KVType) {
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: "KV type",
			Hint: fmt.Sprintf("use one of %v", llama.KVTypes()),
			Err:  fmt.Errorf("unknown type %q", o.KVType),
		}
	}
	if o.Stall != 0 && !(o.Stall >= 1 && o.Stall <= stallMax) || o.RAM < 0 || o.DiskBytes < 0 {
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: "stall", Hint: "use 0 for the default",
			Err: fmt.Errorf("stall %v is outside 1..%d, or a budget of %d or %d bytes is negative", o.Stall,
				stallMax, o.RAM, o.DiskBytes),
		}
	}
	if o.Speculate != "" && o.Speculate != "ngram" {
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: "speculate", Hint: "use ngram, or nothing",
			Err: fmt.Errorf("unknown way %.40q", o.Speculate),
		}
	}
	if o.Load < llama.LoadAuto || o.Load > llama.LoadDirect {
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: "load mode", Hint: "use auto",
			Err: fmt.Errorf("unknown mode %d", o.Load),
		}
	}
	if err := o.validateAdapters(); err != nil {
		return err
	}
	if len(o.Paths) == 0 {
		return &infer.Error{
			Op: "options", Kind: infer.KindInvalid, Field: "model",
			Hint: "name a model or a .gguf file", Err: fmt.Errorf("no path"),
		}
	}
	return nil
}

func (o *Options) sequences() int { return cmp.Or(o.Sequences, 1) }

// cells is how many cells the context has for so many tokens of one request. A stream is padded to
// a whole block.
func (o *Options) cells(tokens int) int {
	if o.Shared {
		return max(tokens, cmp.Or(o.Cells, tokens*o.sequences()))
	}
	if o.sequences() > 1 {
		tokens = (tokens + cellBlock - 1) / cellBlock * cellBlock
	}
	return tokens * o.sequences()
}

// cellBlock is what llama.cpp rounds the cells of a stream up to.
const cellBlock = 256
