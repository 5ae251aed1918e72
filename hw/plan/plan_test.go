package plan

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

// small is a dense model of 400 MiB in 8 layers and an output.
func small() gguf.Shape {
	s := gguf.Shape{
		Architecture: "llama", Layers: make([]gguf.Layer, 8), ContextLength: 32768,
		EmbeddingLength: 1024, VocabularySize: 32000, Causal: true, Cache: gguf.CacheFull,
		InputBytes: 20 * mib, OutputBytes: 40 * mib,
	}
	for i := range s.Layers {
		s.Layers[i] = gguf.Layer{
			Heads: 8, KVHeads: 2, KeyLength: 128, ValueLength: 128, FeedForward: 4096, Cached: true,
			Parameters: 80e6, Bytes: 45 * mib, LargestBytes: 8 * mib,
		}
	}
	return s
}

// host is a machine of a processor alone.
func host(available int64) device.Machine {
	return device.Machine{
		OS: "linux", Arch: "amd64",
		CPU:    device.CPU{Cores: 8, PerformanceCores: 8, Threads: 16},
		Memory: device.RAM{TotalBytes: available, AvailableBytes: available, BytesPerSecond: 50e9},
	}
}

// withGPU adds an accelerator with so much memory.
func withGPU(m device.Machine, name string, free int64) device.Machine {
	m.Accelerators = append(append([]device.Accelerator(nil), m.Accelerators...), device.Accelerator{
		Name: name, Kind: "cuda", TotalBytes: free, FreeBytes: free, BytesPerSecond: 500e9,
		FloatOpsPerSecond: 100e12, LinkBytesPerSecond: 20e9,
	})
	return m
}

func made(t testing.TB, s gguf.Shape, m device.Machine, w Wish) Plan {
	t.Helper()
	p, err := Make(s, m, w)
	require.NoError(t, err)
	require.NoError(t, sound(s, m, w, p))
	return p
}

// sound checks what must hold of every plan.
func sound(s gguf.Shape, m device.Machine, w Wish, p Plan) error {
	layers, unified := 0, int64(0)
	for _, d := range p.Devices {
		layers += d.Layers
		used := d.Bytes.Total() - d.Bytes.Overhead
		for _, a := range m.Accelerators {
			if a.Name == d.Name && a.Unified {
				unified += used
			}
		}
		if d.Name == hostName {
			used += unified
		}
		if d.Layers > 0 && used > d.BudgetBytes || d.BudgetBytes > d.FreeBytes {
			return errors.New(d.Name + " is over its budget")
		}
		if min(d.Bytes.Weights, d.Bytes.KV, d.Bytes.Compute, d.Bytes.Output) < 0 {
			return errors.New("negative bytes")
		}
	}
	host := p.Devices[len(p.Devices)-1]
	switch {
	case host.Name != hostName || host.Bytes.Total()-host.Bytes.Overhead+unified > host.BudgetBytes:
		return errors.New("the host is over its budget")
	case layers != len(s.Layers)+1:
		return errors.New("layers are lost")
	case p.GPULayers != layers-host.Layers:
		return errors.New("the layers do not add up")
	case p.ContextTokens < 1 || p.MicroBatch < 1 || p.Threads < 1 || p.BatchThreads < 1:
		return errors.New("a setting is zero")
	case w.ContextMin > 0 && p.ContextTokens < w.ContextMin:
		return errors.New("the context is too small")
	case len(p.Reasons) == 0:
		return errors.New("no reason is given")
	}
	for _, v := range []Speed{p.Decode, p.DecodeAll, p.Prefill} {
		if !(v.TokensPerSecond > 0) || math.IsInf(v.High, 0) || v.Low > v.TokensPerSecond ||
			v.High < v.TokensPerSecond {
			return errors.New("no speed: " + strconv.FormatFloat(v.TokensPerSecond, 'g', 3, 64))
		}
	}
	return nil
}

func TestProcessorOnly(t *testing.T) {
	t.Parallel()
	p := made(t, small(), host(16*gib), Wish{})
	require.Zero(t, p.GPULayers)
	require.Equal(t, 4096, p.ContextTokens)
	require.Len(t, p.Devices, 1)
	d := p.Devices[0]
	require.EqualValues(t, (8*45+40+20)*mib, d.Bytes.Weights)
	require.EqualValues(t, 8*2*2*128*2*4096, d.Bytes.KV)
	require.EqualValues(t, 4*32*32000, d.Bytes.Output)
	require.Equal(t, 8, p.Threads)
	require.Equal(t, LoadMap, p.Load)
	require.Equal(t, SourceGuess, p.Prefill.Source, "its operations are not known")
}

// TestLadder: what is given up, in order, as the accelerator shrinks.
func TestLadder(t *testing.T) {
	t.Parallel()
	s := small()
	w := Wish{ContextTokens: 16384, ContextMin: 4096, KVTypes: []string{"f16", "q8_0"}}
	plan := func(free int64, w Wish) Plan {
		return made(t, s, withGPU(host(16*gib), "CUDA0", free), w)
	}
	p := plan(2*gib, w)
	require.Equal(t, 9, p.GPULayers)
	require.Equal(t, "f16", p.KVType)
	require.Empty(t, p.Changes)
	require.Empty(t, p.Alternatives)

	p = plan(970*mib, w)
	require.Equal(t, 9, p.GPULayers)
	require.Equal(t, "q8_0", p.KVType)
	require.Equal(t, 16384, p.ContextTokens)
	require.Equal(t, "KV type", p.Changes[0].Field)
	require.NotEmpty(t, p.Alternatives)
	require.Less(t, p.Alternatives[0].GPULayers, 9, "as asked means fewer layers")

	p = plan(890*mib, w)
	require.Equal(t, 9, p.GPULayers)
	require.Less(t, p.ContextTokens, 16384)
	require.GreaterOrEqual(t, p.ContextTokens, 4096)
	require.Equal(t, "context", p.Changes[1].Field)

	p = plan(700*mib, w)
	require.Equal(t, 16384, p.ContextTokens)
	require.Equal(t, "f16", p.KVType)
	require.Less(t, p.GPULayers, 9)
	require.Positive(t, p.GPULayers)

	// Without leave, nothing shrinks; it is offered.
	p = plan(970*mib, Wish{ContextTokens: 16384})
	require.Less(t, p.GPULayers, 9)
	require.Empty(t, p.Changes)
	require.Len(t, p.Alternatives, 2)
	require.Equal(t, "q8_0", p.Alternatives[0].KVType)
	require.Greater(t, p.Alternatives[0].Decode.TokensPerSecond, p.Decode.TokensPerSecond)
	require.Less(t, p.Alternatives[1].ContextTokens, 16384)

	// Quality keeps both before it keeps layers on the accelerator.
	w.Priority = Quality
	p = plan(970*mib, w)
	require.Equal(t, "f16", p.KVType)
	require.Less(t, p.GPULayers, 9)
	w.Priority = Memory
	p = plan(2*gib, w)
	require.Equal(t, "q8_0", p.KVType)
	require.Equal(t, 128, p.MicroBatch)
}

func TestTwoDevices(t *testing.T) {
	t.Parallel()
	m := withGPU(withGPU(host(16*gib), "CUDA0", 800*mib), "CUDA1", 1000*mib)
	p := made(t, small(), m, Wish{})
	require.Equal(t, 9, p.GPULayers)
	require.Equal(t, p.Devices[0].Layers, p.TensorSplit[0])
	require.Equal(t, 9, p.TensorSplit[0]+p.TensorSplit[1])
	require.Greater(t, p.TensorSplit[1], p.TensorSplit[0], "the larger one takes more")

	// One that holds everything is used alone.
	m.Accelerators[1].FreeBytes = 4 * gib
	require.Equal(t, []int{0, 9}, made(t, small(), m, Wish{}).TensorSplit)
	// The wish may name one, in any case of letters.
	p = made(t, small(), m, Wish{Devices: []string{"cuda0"}})
	require.Len(t, p.Devices, 2)
	require.Less(t, p.GPULayers, 9)
	p = made(t, small(), m, Wish{Devices: []string{"CPU"}})
	require.Zero(t, p.GPULayers)
	// One that is slower than the host is left out, unless it is named or nothing fits without it.
	m = withGPU(host(16*gib), "CUDA0", 4*gib)
	m.Accelerators[0].BytesPerSecond, m.Accelerators[0].FloatOpsPerSecond = 1e9, 1e9
	p = made(t, small(), m, Wish{})
	require.Len(t, p.Devices, 1)
	require.Contains(t, p.Reasons, "CUDA0 is left out: the processor is faster.")
	require.Len(t, made(t, small(), m, Wish{Devices: []string{"CUDA0"}}).Devices, 2)
	m.Memory.AvailableBytes = 400 * mib
	require.Positive(t, made(t, small(), m, Wish{}).GPULayers)
}

// TestUnified: what an accelerator takes of shared memory is missing on the host.
func TestUnified(t *testing.T) {
	t.Parallel()
	m := withGPU(host(3*gib), "Metal", 2*gib)
	m.Accelerators[0].Unified, m.Accelerators[0].Kind = true, "metal"
	require.Equal(t, 9, made(t, small(), m, Wish{}).GPULayers)
	m.Memory.AvailableBytes = 500 * mib
	_, err := Make(small(), m, Wish{})
	require.ErrorIs(t, err, ErrNoFit)
}

// TestExperts: routed experts go to the host first, layer by layer.
func TestExperts(t *testing.T) {
	t.Parallel()
	s := small()
	s.Experts, s.ExpertsUsed, s.ExpertLength = 64, 2, 256
	for i := 1; i < len(s.Layers); i++ { // the first is dense
		l := &s.Layers[i]
		l.Bytes, l.ExpertBytes, l.ExpertTensors = 545*mib, 500*mib, 3
		l.Parameters, l.ExpertParameters, l.LargestBytes = 1080e6, 1000e6, 170*mib
	}
	p := made(t, s, withGPU(host(16*gib), "CUDA0", 1300*mib), Wish{})
	require.Equal(t, 9, p.GPULayers)
	require.Equal(t, []Override{{expertTensors, hostName}}, p.Overrides)
	require.Equal(t, 7, p.Devices[1].ExpertLayers)

	p = made(t, s, withGPU(host(16*gib), "CUDA0", 2*gib), Wish{})
	require.Equal(t, 9, p.GPULayers)
	require.Regexp(t, `^blk\\.\(1(\|\d)*\)\\.ffn`, p.Overrides[0].Pattern)
	require.Equal(t, 7, p.Devices[0].ExpertLayers+p.Devices[1].ExpertLayers)
	require.Positive(t, p.Devices[0].ExpertLayers)

	p = made(t, s, withGPU(host(16*gib), "CUDA0", 8*gib), Wish{})
	require.Empty(t, p.Overrides)
	require.Equal(t, 7, p.Devices[0].ExpertLayers)
}

// TestFixed: what the user fixed stays.
func TestFixed(t *testing.T) {
	t.Parallel()
	m := withGPU(host(16*gib), "CUDA0", 4*gib)
	for _, n := range []int{0, 1, 5, 9, 99} {
		p := made(t, small(), m, Wish{GPULayers: &n, Threads: 3, Load: LoadRead})
		require.Equal(t, min(n, 9), p.GPULayers)
		require.Equal(t, 3, p.Threads)
		require.Equal(t, 3, p.BatchThreads)
		require.Equal(t, LoadRead, p.Load)
	}
	n := 9
	m.Accelerators[0].FreeBytes = 600 * mib
	_, err := Make(small(), m, Wish{GPULayers: &n})
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, ErrNoFit, e.Kind)
	require.Equal(t, "gpu layers", e.Field)
}

func TestThreads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cpu  device.CPU
		want int
	}{
		{device.CPU{Cores: 12, PerformanceCores: 4, Threads: 16}, 4},
		{device.CPU{Cores: 8, Threads: 16}, 8},
		{device.CPU{Threads: 6}, 6},
		{device.CPU{}, 1},
		{device.CPU{Cores: 8, PerformanceCores: 8, Quota: 2.5}, 2},
		{device.CPU{Cores: 8, PerformanceCores: 8, Quota: 0.5}, 1},
		{device.CPU{Cores: 9999}, 512},
	} {
		m := host(16 * gib)
		m.CPU = c.cpu
		require.Equal(t, c.want, made(t, small(), m, Wish{}).Threads)
	}
}

func TestMemoryPolicy(t *testing.T) {
	t.Parallel()
	m := host(16 * gib)
	m.Memory.HugePages, m.Memory.SwapBytes = true, gib
	m.NUMA = []device.Node{{ID: 0}, {ID: 1}}
	p := made(t, small(), m, Wish{})
	require.Equal(t, LoadRead, p.Load)
	require.True(t, p.Lock)
	require.Equal(t, NUMADistribute, p.NUMA)
	p = made(t, small(), withGPU(m, "CUDA0", 8*gib), Wish{})
	require.Equal(t, LoadMap, p.Load)
	require.False(t, p.Lock)
	require.Empty(t, p.NUMA)
	m.Memory.AvailableBytes = 900 * mib
	p = made(t, small(), m, Wish{})
	require.Equal(t, LoadMap, p.Load, "it would leave less than half")
}

func TestJSON(t *testing.T) {
	t.Parallel()
	p := made(t, small(), withGPU(host(16*gib), "CUDA0", 700*mib), Wish{})
	data, err := json.Marshal(p)
	require.NoError(t, err)
	var back Plan
	require.NoError(t, strict(data, &back))
	require.Equal(t, p, back)
}

// TestNoFit says how much is missing, and offers what would fit.
func TestNoFit(t *testing.T) {
	t.Parallel()
	s := small()
	w := Wish{ContextTokens: 32768, Sequences: 4}
	_, err := Make(s, host(gib), w)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, ErrNoFit, e.Kind)
	require.Positive(t, e.MissingBytes)
	require.Len(t, e.Ways, 2, "q8_0 alone is not enough: %v", e.Ways)
	for _, way := range e.Ways {
		fixed := w
		fixed.ContextTokens, fixed.Sequences = way.ContextTokens, way.Sequences
		fixed.KVTypes = []string{way.KVType}
		made(t, s, host(gib), fixed)
		require.Contains(t, e.Hint, way.Change)
	}
	// With what is missing, it fits.
	made(t, s, host(gib+e.MissingBytes+e.MissingBytes/8+64*mib), w)

	_, err = Make(s, host(100*mib), Wish{})
	require.ErrorAs(t, err, &e)
	require.Empty(t, e.Ways)
	require.Contains(t, e.Hint, "smaller model")
}

// TestTiledOutput: where the processor has AMX, an output that reuses the input embedding is a copy
// in another order.
func TestTiledOutput(t *testing.T) {
	t.Parallel()
	s, m := small(), host(16*gib)
	s.OutputBytes = 0
	plain := made(t, s, m, Wish{}).Devices[0].Bytes.Weights
	m.CPU.Features = []string{"amx_int8", "avx2"}
	require.Equal(t, plain+s.InputBytes*9/8, made(t, s, m, Wish{}).Devices[0].Bytes.Weights)
	s.OutputBytes = 1000
	require.Less(t, made(t, s, m, Wish{}).Devices[0].Bytes.Weights, plain+s.InputBytes)
}

func TestCalibration(t *testing.T) {
	t.Parallel()
	w := Wish{Calibration: []Calibration{{Device: "cpu", BytesPerSecond: 10e9, OpsPerSecond: 1e12}}}
	p := made(t, small(), host(16*gib), w)
	require.Equal(t, SourceMeasured, p.Decode.Source)
	read := float64(8*45+40)*mib + 8*2048*2*256*2
	require.InEpsilon(t, 10e9/read, p.Decode.TokensPerSecond, 0.01)
	require.InEpsilon(t, 1e12/(2*8*80e6), p.Prefill.TokensPerSecond, 0.02)
	plain := made(t, small(), host(16*gib), Wish{})
	require.Greater(t, plain.Decode.High/plain.Decode.Low, p.Decode.High/p.Decode.Low)

	w.Calibration[0].CacheBytesPerSecond, w.Calibration[0].StepOpsPerSecond = 2e9, 1e11
	w.Sequences = 4
	p = made(t, small(), host(16*gib), w)
	weights, cache, ops := float64(8*45+40)*mib, 8*2048*2*256*2.0, 2*8*80e6
	one := weights/10e9 + cache/2e9 + ops/1e11
	require.InEpsilon(t, 1/one, p.Decode.TokensPerSecond, 0.03)
	require.InEpsilon(t, 4/(one+3*(cache/2e9+ops/1e11)), p.DecodeAll.TokensPerSecond, 0.03)
}

// TestCalibrationOf takes rates for what they were measured with, and for nothing else.
func TestCalibrationOf(t *testing.T) {
	t.Parallel()
	of := func(kvType string, noFlash bool, threads int, bytes float64) Calibration {
		return Calibration{
			Device: "CPU", KVType: kvType, NoFlash: noFlash, Threads: threads,
			BytesPerSecond: bytes,
		}
	}
	w := Wish{Threads: 2, Calibration: []Calibration{
		of("f16", false, 1, 1e9), of("f16", false, 2, 2e9), of("q8_0", false, 2, 3e9),
		of("f16", true, 2, 4e9),
	}}
	speed := func(change func(*Wish)) Speed {
		asked := w
		change(&asked)
		return made(t, small(), host(16*gib), asked).Decode
	}
	f16 := speed(func(*Wish) {}).TokensPerSecond
	require.InEpsilon(t, f16/2, speed(func(w *Wish) { w.Threads = 1 }).TokensPerSecond, 0.01)
	require.Greater(t, speed(func(w *Wish) { w.KVTypes = []string{"q8_0"} }).TokensPerSecond, f16)
	require.InEpsilon(t, 2*f16, speed(func(w *Wish) { w.NoFlash = true }).TokensPerSecond, 0.01)
	require.Equal(t, SourceFormula, speed(func(w *Wish) { w.Threads = 3 }).Source)
	require.Equal(t, SourceFormula, speed(func(w *Wish) { w.KVTypes = []string{"bf16"} }).Source)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	minus := -1
	type machine = device.Machine
	good := small()
	for name, c := range map[string]struct {
		change func(*gguf.Shape, *machine, *Wish)
		kind   Kind
	}{
		"no layers": {func(s *gguf.Shape, _ *machine, _ *Wish) { s.Layers = nil }, ErrModel},
		"layers": {func(s *gguf.Shape, _ *machine, _ *Wish) {
			s.Layers = make([]gguf.Layer, gguf.LayersMax+1)
		}, ErrModel},
		"drafts":   {func(s *gguf.Shape, _ *machine, _ *Wish) { s.DraftLayers = 8 }, ErrModel},
		"negative": {func(s *gguf.Shape, _ *machine, _ *Wish) { s.Layers[3].Bytes = -1 }, ErrModel},
		"huge":     {func(s *gguf.Shape, _ *machine, _ *Wish) { s.InputBytes = 1 << 60 }, ErrModel},
		"heads":    {func(s *gguf.Shape, _ *machine, _ *Wish) { s.Layers[0].Heads = 1 << 30 }, ErrModel},
		"experts":  {func(s *gguf.Shape, _ *machine, _ *Wish) { s.ExpertsUsed = 3 }, ErrModel},
		"no memory": {func(_ *gguf.Shape, m *machine, _ *Wish) {
			m.Memory.AvailableBytes = 0
		}, ErrMachine},
		"a quota": {func(_ *gguf.Shape, m *machine, _ *Wish) { m.CPU.Quota = math.NaN() }, ErrMachine},
		"a rate": {func(_ *gguf.Shape, m *machine, _ *Wish) {
			m.Memory.BytesPerSecond = math.Inf(1)
		}, ErrMachine},
		"a device": {func(_ *gguf.Shape, _ *machine, w *Wish) {
			w.Devices = []string{"CUDA7"}
		}, ErrDevice},
		"context": {func(_ *gguf.Shape, _ *machine, w *Wish) { w.ContextTokens = -1 }, ErrWish},
		"too long": {func(_ *gguf.Shape, _ *machine, w *Wish) {
			w.ContextTokens = contextMax + 1
		}, ErrWish},
		"least": {func(_ *gguf.Shape, _ *machine, w *Wish) { w.ContextMin = 5000 }, ErrWish},
		"sequences": {func(_ *gguf.Shape, _ *machine, w *Wish) {
			w.Sequences = sequencesMax + 1
		}, ErrWish},
		"type":     {func(_ *gguf.Shape, _ *machine, w *Wish) { w.KVTypes = []string{"q9"} }, ErrWish},
		"priority": {func(_ *gguf.Shape, _ *machine, w *Wish) { w.Priority = "fun" }, ErrWish},
		"layout":   {func(_ *gguf.Shape, _ *machine, w *Wish) { w.Layout = "heap" }, ErrWish},
		"load":     {func(_ *gguf.Shape, _ *machine, w *Wish) { w.Load = "fast" }, ErrWish},
		"reserve":  {func(_ *gguf.Shape, _ *machine, w *Wish) { w.ReserveBytes = -1 }, ErrWish},
		"gpu":      {func(_ *gguf.Shape, _ *machine, w *Wish) { w.GPULayers = &minus }, ErrWish},
		"no flash": {func(_ *gguf.Shape, _ *machine, w *Wish) {
			w.NoFlash, w.KVTypes = true, []string{"q8_0"}
		}, ErrWish},
		"block": {func(s *gguf.Shape, _ *machine, w *Wish) {
			s.Layers[2].KeyLength, w.KVTypes = 80, []string{"q8_0"}
		}, ErrWish},
		"calibration": {func(_ *gguf.Shape, _ *machine, w *Wish) {
			w.Calibration = []Calibration{{Device: "CPU", BytesPerSecond: math.NaN()}}
		}, ErrWish},
	} {
		s, m, w := good, host(16*gib), Wish{}
		s.Layers = append([]gguf.Layer(nil), good.Layers...)
		c.change(&s, &m, &w)
		_, err := Make(s, m, w)
		require.ErrorIs(t, err, c.kind, name)
		var e *Error
		require.ErrorAs(t, err, &e, name)
		require.NotEmpty(t, e.Error())
	}
}

// TestNotLoaded: layers that only draft hold nothing; what is not counted is said.
func TestNotLoaded(t *testing.T) {
	t.Parallel()
	s := small()
	whole := made(t, s, host(16*gib), Wish{})
	s.DraftLayers, s.CacheExtra = 2, true
	p := made(t, s, host(16*gib), Wish{})
	require.Equal(t, whole.Devices[0].Bytes.Weights-2*45*mib, p.Devices[0].Bytes.Weights)
	require.Equal(t, whole.Devices[0].Bytes.KV/8*6, p.Devices[0].Bytes.KV)
	require.Contains(t, p.Reasons, "The last 2 layers only draft and are not loaded.")
	require.Contains(t, p.Reasons,
		"The model keeps an index beside its cache that is not counted: allow for more.")
	require.Greater(t, p.Decode.TokensPerSecond, whole.Decode.TokensPerSecond)
}

// TestHostRates: a prefill is as fast as the processor's share of its measured operations.
func TestHostRates(t *testing.T) {
	t.Parallel()
	m := host(16 * gib)
	m.CPU.Int8OpsPerSecond = 8e12
	p := made(t, small(), m, Wish{})
	require.Equal(t, SourceFormula, p.Prefill.Source)
	m.CPU.Quota = 2
	slow := made(t, small(), m, Wish{})
	require.InEpsilon(t, p.Prefill.TokensPerSecond/4, slow.Prefill.TokensPerSecond, 0.05)
	require.Less(t, slow.Decode.TokensPerSecond, p.Decode.TokensPerSecond,
		"two processors do not read as much as eight")
}
