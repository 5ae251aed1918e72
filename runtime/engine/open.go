package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/llama"
)

// outputsMax bounds the logits that Score and Embed take from one step; each costs vocabulary x
// 4 bytes, twice.
const outputsMax = 32

// Open validates the model file in Go, checks that it fits into memory, loads it and starts the
// engine. Every error is an *infer.Error: KindInvalid for options, KindModel for a file that is
// no model of the pinned llama.cpp, KindNoMemory, KindCanceled, KindMissing.
func Open(ctx context.Context, o Options) (*Engine, error) {
	var w *worker
	ready := make(chan error)
	go func() {
		// OpenMP keeps a team of threads for each thread of the system that calls it, as a load does.
		// With more of them than processors they sleep where they would spin, and a step may take
		// twice as long. So all calls come from one thread, which ends with the goroutine, as it is
		// never unlocked.
		runtime.LockOSThread()
		var err error
		w, err = open(ctx, o)
		ready <- err
		if err == nil {
			w.e.own(w)
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return w.e, nil
}

// open is what the owner goroutine does first.
func open(ctx context.Context, o Options) (*worker, error) {
	const op = "open"
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.CacheDir != "" {
		o.DiskBytes, o.RAM = cmp.Or(o.DiskBytes, diskDefault), cmp.Or(o.RAM, ramForDisk)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	file, err := gguf.Open(o.Paths[0])
	if err != nil {
		return nil, fail(op, err)
	}
	defer file.Close()
	plan, err := o.check(file)
	if err != nil {
		return nil, fail(op, err)
	}
	if err := llama.Start(o.Logger); err != nil {
		return nil, fail(op, err)
	}
	if o.Distribute {
		llama.Distribute()
	}
	model, err := llama.LoadModel(ctx, o.modelParams(file.Paths(), plan.need))
	if err != nil {
		return nil, fail(op, err)
	}
	e := &Engine{
		log: o.Logger, model: model, done: make(chan struct{}),
		bounded: plan.contextTokens, bytes: plan.contextTokens * plan.tokenBytes,
		pooling: plan.pooling, queue: newQueue(cmp.Or(o.QueueMax, QueueDefault)),
		shared: o.Shared, evict: o.Evict, evictors: maps.Clone(o.Evictors),
		asked: make(chan chan<- infer.Stats),
	}
	e.drafts = o.draftOutputs(model.Info())
	if o.Speculate != "" {
		e.speculate = infer.SpeculateAdaptive
	}
	c, err := e.prepareContext(&o, plan)
	if err == nil {
		err = file.CheckUnchanged()
	}
	if err != nil {
		return nil, fail(op, errors.Join(err, e.free(c)))
	}
	if !o.CPUOnly && hasGPU() && plan.causal {
		if err := warm(c); err != nil {
			return nil, fail(op, errors.Join(err, e.free(c)))
		}
	}
	e.outputs = min(outputsMax, c.Info().Batch)
	e.life, e.end = context.WithCancelCause(context.WithoutCancel(ctx))
	e.describe(&o, file, c, plan.notes)
	w := &worker{e: e, c: c, applied: e.base}
	if o.AdaptThreads {
		w.threads = newThreads(c.Info().Threads, c.Info().ThreadsBatch)
	}
	w.base = &group{set: e.base, pace: pace{stall: cmp.Or(o.Stall, stallDefault)}}
	if err := w.open(&o, plan); err != nil {
		return nil, fail(op, errors.Join(err, e.free(c)))
	}
	return w, nil
}

// warm computes a short prompt and a token after it, and forgets them: a GPU's libraries load their
// kernels at first use, which took 30 ms of the first answer on an H100.
func warm(c *llama.Context) error {
	if c.Info().Tokens <= chunkTile {
		return nil
	}
	at := llama.Pos(0)
	for _, n := range []int{min(chunkTile, c.Info().MicroBatch), 1} {
		for i := range n {
			if _, err := c.Batch().Add(0, at, 0, i == n-1); err != nil {
				return err
			}
			at++
		}
		if err := c.Decode(); err != nil {
			return err
		}
	}
	c.Batch().Reset()
	return c.Clear()
}

// open begins the books of a model that keeps a cache.
func (w *worker) open(o *Options, plan loadPlan) (err error) {
	if !w.c.Info().Memory {
		return nil
	}
	cfg := w.e.books(o, plan)
	w.e.checkpoints = cfg.RAMBytes > 0 && (cfg.Recurrent || cfg.Window > 0)
	if w.cells, err = newCells(w.c, cfg); err != nil {
		return err
	}
	w.idle = newIdlers(w.cells, cfg.Sequences)
	note, err := w.cells.openStore(o, w.e, cfg.CellBytes*int64(w.e.bounded))
	if note != "" {
		w.e.info.Notes = append(w.e.info.Notes, note)
	}
	if err != nil {
		err = errors.Join(err, w.cells.close())
	}
	return err
}

// books configures the books of the context's cells.
func (e *Engine) books(o *Options, plan loadPlan) kv.Config {
	m := e.model.Info()
	cfg := kv.Config{
		Layout: kv.Streams, Sequences: o.sequences(), Cells: e.bounded, RAMBytes: o.RAM,
		CellBytes: plan.need.cache / int64(max(1, plan.need.cells)),
		Window:    m.Window, SmallWindow: o.SmallWindow && m.Window > 0,
		Recurrent: m.Recurrent || m.Hybrid, CanShift: e.info.Abilities.Shift, CopyByState: true,
	}
	if cfg.SmallWindow {
		cfg.CanShift = false // llama.cpp could where the context is no longer than the window's cells
	}
	if o.CacheDir != "" {
		cfg.DiskBytes, cfg.WriteThrough = o.DiskBytes, true
	}
	if o.Shared {
		cfg.Layout, cfg.Cells, cfg.CopyByState = kv.Shared, plan.need.cells, false
	}
	cfg.CheckpointEvery = checkpointEvery(e.bounded, max(1, m.Window), cfg.CellBytes, o.RAM)
	return cfg
}

// Bounds of the checkpoints between the marks of a prompt.
const (
	checkpointShare  = 4 // those of the longest prompt take at most one part in so many of the memory
	checkpointTokens = 256
)

// checkpointEvery is the distance in tokens of the checkpoints of a long prompt, 0 for none. A
// prompt that leaves an earlier one anywhere is computed from the last checkpoint before, so
// closer is better, but each has the bytes of a window, and what they take is missing elsewhere.
// Closer than a window they would have the same cells twice.
func checkpointEvery(tokens, window int, cellBytes, memory int64) int {
	count := memory / checkpointShare / max(1, int64(window)*cellBytes)
	if count == 0 {
		return 0
	}
	closest := max(window, checkpointTokens, (tokens+kv.CheckpointsMax-1)/kv.CheckpointsMax)
	return max(closest, int((int64(tokens)+count-1)/count))
}

func (o *Options) modelParams(paths []string, n need) llama.ModelParams {
	p := llama.ModelParams{
		Paths: paths, CPUOnly: o.CPUOnly, GPULayers: o.GPULayers, CheckTensors: o.CheckTensors,
		Progress: o.Progress, Load: o.Load, Devices: o.Devices, TensorSplit: o.TensorSplit,
		Overrides: o.Overrides,
	}
	if o.Load == llama.LoadAuto {
		p.Load = AutoLoad(n.all, add(n.cache, n.compute), o.CPUOnly)
	}
	return p
}

// prepareContext makes the context, the adapters and the chat template.
func (e *Engine) prepareContext(o *Options, plan loadPlan) (*llama.Context, error) {
	c, err := e.newContext(o, plan)
	if err != nil {
		return nil, err
	}
	if err := e.loadAdapters(o, c); err != nil {
		return c, err
	}
	if o.Template == "" && !plan.template {
		return c, nil // such a model simply cannot chat
	}
	return c, e.prepareChat(o.Template)
}

func (e *Engine) newContext(o *Options, plan loadPlan) (*llama.Context, error) {
	p := llama.ContextParams{
		Tokens: plan.need.cells, Sequences: o.sequences(), Unified: o.Shared,
		Batch: o.Batch, MicroBatch: o.MicroBatch,
		Outputs: max(outputsMax, o.sequences()+e.drafts),
		Threads: o.Threads, ThreadsBatch: o.ThreadsBatch,
		TypeK: o.KVType, TypeV: o.KVType, Pooling: llama.PoolingNone,
		SmallWindow: o.SmallWindow,
	}
	if p.Threads == 0 {
		// It honours affinity and the control group's quota.
		p.Threads = min(runtime.GOMAXPROCS(0), llama.ThreadsMax)
	}
	if o.NoFlash {
		p.Flash = llama.FlashOff
	}
	if !plan.causal || !e.model.Info().Decoder { // it reads a whole text at once
		p.Embeddings, p.Pooling, p.Outputs = true, llama.PoolingModel, 0
		p.Tokens, p.Unified = plan.contextTokens, true // of all the texts that it reads together
		// llama.cpp ends the process where a batch is no multiple of the sequences.
		p.Batch = (p.Tokens + p.Sequences - 1) / p.Sequences * p.Sequences
		p.MicroBatch = p.Batch
		if plan.pooling != gguf.PoolingCLS && plan.pooling != gguf.PoolingLast {
			p.Pooling = llama.PoolingMean
		}
	}
	return e.model.NewContext(p)
}

// prepareChat reads the chat template: the given one, or with "" the model's own.
func (e *Engine) prepareChat(template string) error {
	chat, err := llama.NewChat(e.model, template)
	if err != nil {
		if template != "" {
			return err
		}
		e.log.Warn("the model's chat template cannot be used", "error", err)
		return nil
	}
	if !chat.Info().Explicit {
		return chat.Close()
	}
	e.chat = chat
	return nil
}

// describe fills Info.
func (e *Engine) describe(o *Options, file *gguf.File, c *llama.Context, notes []string) {
	m, ctx := e.model.Info(), c.Info()
	version, _, _, _ := llama.Version()
	arch, _ := file.String("general.architecture")
	e.info = infer.Info{
		Model: o.Model, Digest: o.Digest, Architecture: arch, Description: m.Description,
		Engine: "llama.cpp " + version, Parameters: m.Parameters, Bytes: m.Bytes,
		Vocabulary: m.Vocabulary, EmbeddingSize: m.EmbeddingSize, ContextTokens: e.bounded,
		TrainedTokens: m.TrainedTokens, Sequences: ctx.Sequences, Threads: ctx.Threads,
		Abilities: abilities(m, ctx, e.pooling), Notes: notes,
	}
	e.info.Adapters = slices.Sorted(maps.Keys(o.Adapters))
	e.key = kv.Key{Model: o.Digest, Adapters: e.base.key}
	if o.Digest == "" {
		e.key.Model = versions(file.Paths()...)
	}
	if e.info.Model == "" {
		e.info.Model = strings.TrimSuffix(filepath.Base(o.Paths[0]), ".gguf")
	}
	if e.chat != nil {
		e.info.Abilities.Chat = true
		e.info.Abilities.Tools = e.chat.Info().Tools
		e.info.Abilities.Reasoning = e.chat.Info().Reasoning
	}
}

// versions names files, and what is in them as far as that can be told without reading them.
func versions(paths ...string) string {
	out := ""
	for _, path := range paths {
		out += fmt.Sprintf("%q", path)
		if fi, err := os.Stat(path); err == nil {
			out += fmt.Sprintf(" %d %d ", fi.Size(), fi.ModTime().UnixNano())
		}
	}
	return out
}

// abilities says what this engine can do with a model. One with an encoder and a decoder would
// need both in turn, which it cannot; one that ranks gives scores of pairs, not vectors.
func abilities(m llama.ModelInfo, c llama.ContextInfo, p gguf.Pooling) infer.Abilities {
	causal := c.Memory && m.Decoder && !m.Encoder
	return infer.Abilities{
		Generate: causal, Grammar: causal, Score: causal, Shift: c.Shift,
		Embed: p != gguf.PoolingRank && !(m.Encoder && m.Decoder),
	}
}
