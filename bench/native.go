package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/llama"
)

// Native runs tests as llama-bench does: random tokens, no sampling, one warm-up, a thread pool
// of its own for each test, the depth computed once and restored afterwards, and a wait for the
// device after every generated token. It goes through runtime/llama, as the engine does.
type Native struct {
	Reps     int  // measurements of each test; 0 means 5
	NoWarmup bool // leave the warm-up out
	// Resolve gives the path of a model. Default: its name is the path.
	Resolve func(ctx context.Context, model string) (string, error)
	// Progress is told what happens next. Default: nobody.
	Progress func(string)
	// Now gives the time of a test. Default: time.Now.
	Now func() time.Time
}

// Run measures the tests in order and emits each record as it is ready. It stops at the first
// error: of emit, of a model, or ctx's.
func (n Native) Run(ctx context.Context, tests []Test, emit func(Record) error) (err error) {
	if n.Reps == 0 {
		n.Reps = 5
	}
	if n.Resolve == nil {
		n.Resolve = func(_ context.Context, model string) (string, error) { return model, nil }
	}
	if n.Progress == nil {
		n.Progress = func(string) {}
	}
	if n.Now == nil {
		n.Now = time.Now
	}
	// The compute library keeps a team of threads for each thread that calls it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := runner{Native: n, random: rand.New(rand.NewPCG(1, 1))}
	defer func() { err = errors.Join(err, r.unload()) }()
	for i, t := range tests {
		n.Progress(fmt.Sprintf("test %d of %d: %s, %s, %d threads", i+1, len(tests), t.Model, t,
			t.Threads))
		rec, err := r.test(ctx, t)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", t, t.Model, err)
		}
		if err := emit(rec); err != nil {
			return err
		}
	}
	return nil
}

// runner holds what one test leaves for the next.
type runner struct {
	Native
	random *rand.Rand

	model *llama.Model
	key   modelKey

	depth int // tokens in state, 0 for none
	state []byte
}

// modelKey is what a loaded model depends on.
type modelKey struct {
	model     string
	gpuLayers int
	load      LoadMode
}

func (r *runner) unload() error {
	if r.model == nil {
		return nil
	}
	m := r.model
	r.model, r.depth = nil, 0
	return m.Close()
}

// load makes r.model the model of t.
func (r *runner) load(ctx context.Context, t Test) error {
	key := modelKey{t.Model, t.GPULayers, t.Load}
	if r.model != nil && r.key == key {
		return nil
	}
	if err := r.unload(); err != nil {
		return err
	}
	path, err := r.Resolve(ctx, t.Model)
	if err != nil {
		return err
	}
	paths, weights, err := checkFile(path)
	if err != nil {
		return err
	}
	mode := map[LoadMode]llama.LoadMode{LoadNone: llama.LoadRead, LoadMap: llama.LoadMap}[t.Load]
	if t.Load == LoadAuto {
		mode = engine.AutoLoad(weights, 0, t.GPULayers == 0)
	}
	m, err := llama.LoadModel(ctx, llama.ModelParams{
		Paths: paths, CPUOnly: t.GPULayers == 0, GPULayers: max(0, t.GPULayers),
		Load: mode,
	})
	if err != nil {
		return err
	}
	r.model, r.key = m, key
	return nil
}

// checkFile validates the model's files before C sees them, and gives back the memory that this
// took, so that it does not count against the model's. It also returns the bytes of all tensors.
func checkFile(path string) (paths []string, weights int64, err error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, 0, err
	}
	paths = f.Paths()
	err = f.CheckModel()
	if err == nil {
		var shape gguf.Shape
		shape, err = f.Shape()
		weights = shape.TensorBytes
	}
	err = errors.Join(err, f.Close())
	debug.FreeOSMemory()
	return paths, weights, err
}

// contextBlock is what llama.cpp rounds the size of a context up to.
const contextBlock = 256

// test measures one test.
func (r *runner) test(ctx context.Context, t Test) (rec Record, err error) {
	if err := r.load(ctx, t); err != nil {
		return rec, err
	}
	tokens := t.Prompt + t.Gen + t.Depth
	c, err := r.model.NewContext(llama.ContextParams{
		Tokens: (tokens + contextBlock - 1) / contextBlock * contextBlock,
		Batch:  t.Batch, MicroBatch: t.MicroBatch, Threads: t.Threads, ThreadsBatch: t.Threads,
		TypeK: t.TypeK, TypeV: t.TypeV, NoOffloadKQV: t.NoKVOffload, SmallWindow: true,
		Flash: map[Flash]llama.FlashAttention{
			FlashAuto: llama.FlashAuto, FlashOn: llama.FlashOn, FlashOff: llama.FlashOff,
		}[t.Flash],
	})
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	pool, err := llama.NewThreads(llama.ThreadsParams{N: t.Threads, Poll: t.Poll})
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, c.Attach(nil, nil), pool.Close()) }()
	if err := c.Attach(pool, nil); err != nil {
		return rec, err
	}
	defer context.AfterFunc(ctx, c.Abort)()
	if rec, err = r.record(t); err != nil {
		return rec, err
	}
	if !r.NoWarmup {
		if err := r.work(c, t.Prompt, min(1, t.Gen)); err != nil {
			return rec, err
		}
	}
	for range r.Reps {
		ns, err := r.sample(c, t)
		if err != nil {
			return rec, err
		}
		rec.SamplesNs = append(rec.SamplesNs, ns)
	}
	return rec, nil
}

// sample times the test once, from an empty cache or from the test's depth.
func (r *runner) sample(c *llama.Context, t Test) (int64, error) {
	if err := c.Clear(); err != nil {
		return 0, err
	}
	if t.Depth > 0 {
		if err := r.reach(c, t.Depth); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	if err := r.work(c, t.Prompt, t.Gen); err != nil {
		return 0, err
	}
	return max(1, time.Since(start).Nanoseconds()), nil
}

// reach fills an empty cache to the depth: from the state of an earlier time where that fits,
// else by computing it, and the state is kept.
func (r *runner) reach(c *llama.Context, depth int) error {
	if r.depth == depth && c.StateSet(0, r.state, 0) == nil {
		return nil
	}
	if err := r.prefill(c, depth); err != nil {
		return err
	}
	size, err := c.StateSize(0, 0)
	if err != nil {
		return err
	}
	r.depth, r.state = 0, make([]byte, size)
	if _, err := c.StateGet(0, r.state, 0); err != nil {
		return err
	}
	r.depth = depth
	return nil
}

// work is what is timed: a prefill, then a generation.
func (r *runner) work(c *llama.Context, prompt, gen int) error {
	if prompt > 0 {
		if err := r.prefill(c, prompt); err != nil {
			return err
		}
	}
	if gen > 0 {
		return r.generate(c, gen)
	}
	return nil
}

// prefill computes n random tokens after what sequence 0 has, in batches, and waits at the end.
func (r *runner) prefill(c *llama.Context, n int) error {
	info, b := r.model.Info(), c.Batch()
	pos := c.PosMax(0) + 1
	for done := 0; done < n; {
		b.Reset()
		size := min(n-done, b.Room())
		for i := range size {
			token := r.token(info)
			if done+i == 0 && info.AddBOS {
				token = info.BOS
			}
			if _, err := b.Add(token, pos, 0, i == size-1); err != nil {
				return err
			}
			pos++
		}
		if err := c.Decode(); err != nil {
			return err
		}
		done += size
	}
	return c.Sync()
}

// generate computes n random tokens one by one and waits after each.
func (r *runner) generate(c *llama.Context, n int) error {
	info, b := r.model.Info(), c.Batch()
	token := r.token(info)
	if info.AddBOS {
		token = info.BOS
	}
	pos := c.PosMax(0) + 1
	for range n {
		b.Reset()
		if _, err := b.Add(token, pos, 0, true); err != nil {
			return err
		}
		if err := c.Decode(); err != nil {
			return err
		}
		if err := c.Sync(); err != nil {
			return err
		}
		token = r.token(info)
		pos++
	}
	return nil
}

func (r *runner) token(info llama.ModelInfo) llama.Token {
	return llama.Token(r.random.IntN(info.Vocabulary))
}

// record fills in all but the samples. What norion leaves as llama.cpp has it carries
// llama-bench's default.
func (r *runner) record(t Test) (Record, error) {
	_, commit, _, err := llama.Version()
	if err != nil {
		return Record{}, err
	}
	devices, err := llama.Devices()
	if err != nil {
		return Record{}, err
	}
	info := r.model.Info()
	rec := Record{
		BuildCommit: commit, ModelFilename: t.Model, ModelType: info.Description,
		ModelSize: info.Bytes, ModelParams: info.Parameters, Batch: t.Batch,
		MicroBatch: t.MicroBatch, Threads: t.Threads, CPUMask: "0x0", Poll: t.Poll,
		TypeK: t.TypeK, TypeV: t.TypeV, GPULayers: t.GPULayers, SplitMode: "layer",
		NoKVOffload: t.NoKVOffload, Flash: t.Flash, Devices: "auto", TensorSplit: "0.00",
		TensorBuftOverrides: "none", LoadMode: t.Load, LazyMode: "auto", Repack: true,
		Prompt: t.Prompt, Gen: t.Gen, Depth: t.Depth, TestTime: r.Now(),
	}
	rec.CPUInfo, rec.GPUInfo, rec.Backends = describe(devices)
	return rec, nil
}

// describe gives the descriptions of the processors and of the GPUs, and the names of the back
// ends other than the CPU's. A back end's name is its devices' without their number.
func describe(devices []llama.Device) (cpus, gpus, backends string) {
	var cpu, gpu, names []string
	for _, d := range devices {
		name := strings.TrimRight(d.Name, "0123456789")
		if name != "CPU" && !strings.Contains(strings.Join(names, ","), name) {
			names = append(names, name)
		}
		if d.Type == llama.DeviceGPU || d.Type == llama.DeviceIntegratedGPU {
			gpu = append(gpu, d.Description)
		} else {
			cpu = append(cpu, d.Description)
		}
	}
	if len(names) == 0 {
		names = []string{"CPU"}
	}
	return strings.Join(cpu, ", "), strings.Join(gpu, ", "), strings.Join(names, ",")
}
