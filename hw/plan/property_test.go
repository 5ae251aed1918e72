package plan

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

// drawShape makes up a model: dense or with experts, with windows, states or neither.
func drawShape(t *rapid.T) gguf.Shape {
	number := func(name string, low, high int) int { return rapid.IntRange(low, high).Draw(t, name) }
	s := gguf.Shape{
		Architecture: "llama", Layers: make([]gguf.Layer, number("layers", 1, 40)),
		ContextLength: 131072, EmbeddingLength: 64 * number("width", 1, 128),
		VocabularySize: number("vocabulary", 100, 260000), Causal: number("causal", 0, 9) > 0,
		InputBytes: int64(number("input", 0, gib)), OtherBytes: 4096, Cache: gguf.CacheFull,
	}
	if number("tied", 0, 1) == 0 {
		s.OutputBytes = s.InputBytes
	}
	if number("experts", 0, 2) == 0 {
		s.Experts = number("number of experts", 2, 256)
		s.ExpertsUsed, s.ExpertLength = number("used", 1, s.Experts), 64*number("length", 1, 64)
	}
	if number("drafts", 0, 4) == 0 {
		s.DraftLayers = len(s.Layers) / 2
	}
	if number("windows", 0, 3) == 0 {
		s.Window = number("window", 1, 8192)
	}
	heads, bytes := number("heads", 1, 64), int64(number("bytes", 1, gib))
	for i := range s.Layers {
		l := &s.Layers[i]
		*l = gguf.Layer{
			Heads: heads, KVHeads: number("kv heads", 1, heads), KeyLength: 32 * number("head", 1, 8),
			FeedForward: 4 * s.EmbeddingLength, Cached: number("cached", 0, 3) > 0, Bytes: bytes,
			Parameters: bytes * 2, LargestBytes: bytes / 4,
		}
		l.ValueLength = l.KeyLength
		if i%2 == 1 {
			l.Window = s.Window
		}
		if s.Experts > 0 && i > 0 {
			l.ExpertBytes, l.ExpertTensors = bytes/10*9, 3
			l.ExpertParameters = l.Parameters / 10 * 9
		}
		if !l.Cached {
			l.Recurrent, l.StateBytes = true, int64(number("state", 0, 10*mib))
		}
	}
	return s
}

func drawMachine(t *rapid.T) device.Machine {
	bytes := rapid.Int64Range(1, 128*gib)
	m := device.Machine{
		CPU: device.CPU{
			Cores:   rapid.IntRange(0, 64).Draw(t, "cores"),
			Threads: rapid.IntRange(0, 128).Draw(t, "threads"),
			Quota:   float64(rapid.IntRange(0, 40).Draw(t, "quota")) / 4,
		},
		Memory: device.RAM{
			AvailableBytes: bytes.Draw(t, "available"),
			BytesPerSecond: rapid.SampledFrom([]float64{0, 1e9, 50e9, 500e9}).Draw(t, "memory rate"),
			SwapBytes:      rapid.Int64Range(0, gib).Draw(t, "swap"),
		},
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "accelerators") {
		m.Accelerators = append(m.Accelerators, device.Accelerator{
			Name: fmt.Sprintf("GPU%d", i), Unified: rapid.IntRange(0, 4).Draw(t, "unified") == 0,
			Kind:      rapid.SampledFrom([]string{"cuda", "metal", "vulkan", "rocm"}).Draw(t, "kind"),
			FreeBytes: rapid.Int64Range(0, 48*gib).Draw(t, "free"),
			BytesPerSecond: rapid.SampledFrom([]float64{0, 20e9, 300e9, 3000e9}).Draw(t,
				"rate"),
			FloatOpsPerSecond:  rapid.SampledFrom([]float64{0, 1e12, 300e12}).Draw(t, "ops"),
			LinkBytesPerSecond: rapid.SampledFrom([]float64{0, 5e9, 50e9}).Draw(t, "link"),
		})
	}
	return m
}

func drawWish(t *rapid.T) Wish {
	w := Wish{
		ContextTokens: rapid.IntRange(1, 65536).Draw(t, "context"),
		Sequences:     rapid.IntRange(1, 16).Draw(t, "sequences"),
		Layout:        rapid.SampledFrom([]Layout{Shared, Streams}).Draw(t, "layout"),
		KVTypes: rapid.SampledFrom([][]string{
			{"f16"}, {"q8_0"}, {"f16", "q8_0"}, {"f16", "q8_0", "q4_0"},
		}).Draw(t, "types"),
		MicroBatch: rapid.SampledFrom([]int{0, 1, 64, 2048}).Draw(t, "micro-batch"),
		Priority: rapid.SampledFrom([]Priority{
			Latency, Throughput, Memory, Quality,
		}).Draw(t, "priority"),
		FullWindow: rapid.Bool().Draw(t, "full window"),
	}
	if rapid.Bool().Draw(t, "may shrink") {
		w.ContextMin = rapid.IntRange(1, w.ContextTokens).Draw(t, "least")
	}
	if w.KVTypes[0] == "f16" && len(w.KVTypes) == 1 {
		w.NoFlash = rapid.Bool().Draw(t, "no flash")
	}
	return w
}

// TestPlansAreSound: on any machine, a plan keeps every budget, or says how much is missing. What
// it offers then fits.
func TestPlansAreSound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, m, w := drawShape(t), drawMachine(t), drawWish(t)
		p, err := Make(s, m, w)
		if err == nil {
			require.NoError(t, sound(s, m, w, p))
			again, err := Make(s, m, w)
			require.NoError(t, err)
			require.Equal(t, p, again)
			return
		}
		var e *Error
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, ErrNoFit)
		require.Positive(t, e.MissingBytes)
		for _, way := range e.Ways {
			w.ContextTokens, w.ContextMin, w.Sequences = way.ContextTokens, 0, way.Sequences
			w.KVTypes = []string{way.KVType}
			_, err := Make(s, m, w)
			require.NoError(t, err, way.Change)
		}
	})
}

// TestMoreMemoryIsNoLoss: with more memory anywhere, nothing that fitted stops fitting, and no plan
// for the same context and KV type gets slower.
func TestMoreMemoryIsNoLoss(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, m, w := drawShape(t), drawMachine(t), drawWish(t)
		before, err := Make(s, m, w)
		for errors.Is(err, ErrNoFit) && m.Memory.AvailableBytes < 1<<50 {
			m.Memory.AvailableBytes *= 2
			before, err = Make(s, m, w)
		}
		require.NoError(t, err)
		more := rapid.Int64Range(0, 32*gib)
		m.Memory.AvailableBytes += more.Draw(t, "more memory")
		m.Accelerators = slices.Clone(m.Accelerators)
		for i := range m.Accelerators {
			m.Accelerators[i].FreeBytes += more.Draw(t, "more on an accelerator")
		}
		after, err := Make(s, m, w)
		require.NoError(t, err)
		if len(m.Accelerators) == 0 {
			require.GreaterOrEqual(t, after.ContextTokens, before.ContextTokens)
		}
		// Accelerators that are slower than the host count only where nothing fits without them.
		if before.ContextTokens == after.ContextTokens && before.KVType == after.KVType &&
			len(before.Devices) == len(after.Devices) {
			require.LessOrEqual(t, after.RequestSeconds, before.RequestSeconds)
		}
	})
}

// TestSearchIsExact compares the search with all placements of small models on two accelerators.
func TestSearchIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, m, w := drawShape(t), drawMachine(t), drawWish(t)
		s.Layers = s.Layers[:min(len(s.Layers), 5)]
		s.DraftLayers = min(s.DraftLayers, len(s.Layers)-1)
		m.Accelerators = m.Accelerators[:min(len(m.Accelerators), 2)]
		p, err := newPlanner(s, m, w.withDefaults(s))
		require.NoError(t, err)
		full := rapid.Bool().Draw(t, "full")
		c, search, err := p.prepare(p.wish, p.wish.ContextTokens, p.wish.KVTypes[0])
		require.NoError(t, err)
		got := search.best(full)
		want := int64(-1)
		for _, all := range everyPlacement(len(c.z.dense), len(p.devices)) {
			if time, ok := judge(p, c, all, full); ok && (want < 0 || time < want) {
				want = time
			}
		}
		if want < 0 {
			require.Nil(t, got)
			return
		}
		require.NotNil(t, got)
		require.LessOrEqual(t, got.time, want)
	})
}

// everyPlacement lists the starts and ends of up to two spans.
func everyPlacement(items, devices int) [][]int {
	var out [][]int
	for start := range items + 1 {
		switch devices {
		case 0:
			if start == items {
				out = append(out, []int{start})
			}
		case 1:
			out = append(out, []int{start, items})
		default:
			for mid := start; mid <= items; mid++ {
				out = append(out, []int{start, mid, items})
			}
		}
	}
	return out
}

// judge weighs a placement by itself: the bytes of each device, item by item, with the routed
// experts of as many last layers of a span as have room.
func judge(p *planner, c *choice, ends []int, full bool) (time int64, ok bool) {
	copies := int64(1)
	if full && len(p.devices) > 1 {
		copies = 4
	}
	one := func(d, i int) int64 { return c.t.dense[d][i+1] - c.t.dense[d][i] }
	routed := func(d, i int) int64 { return c.t.experts[d][i+1] - c.t.experts[d][i] }
	crossing := answerTokens * picoseconds(crossingSeconds)
	host := c.z.input + c.z.outputs + c.z.hostCompute(ends[0] > 0 || !full)
	for i := range ends[0] {
		host += c.z.host[i] + c.z.kv[i] + c.z.experts[i]
		time += one(0, i) + routed(0, i)
	}
	entered := ends[0] > 0
	for d := 1; d < len(ends); d++ {
		from, to := ends[d-1], ends[d]
		if from == to {
			continue
		}
		used := c.z.compute(to == len(c.z.dense), !full, copies)
		for i := from; i < to; i++ {
			used += c.z.dense[i] + c.z.kv[i]
			time += one(d, i)
		}
		keep := to
		for keep > from && used+c.z.experts[keep-1] <= p.places[d].budget {
			keep--
			used += c.z.experts[keep]
			time += routed(d, keep)
		}
		for i := from; i < keep; i++ {
			host += c.z.experts[i]
			time += routed(0, i) + 2*crossing
		}
		if used > p.places[d].budget || full && (keep > from || ends[0] > 0) {
			return 0, false
		}
		if p.places[d].unified {
			host += used
		}
		if entered {
			time += crossing
		}
		entered = true
	}
	return time, host <= p.places[0].budget && !(full && ends[0] > 0)
}

// TestSteady: a few MiB more or less do not turn a plan over. At most two layers move.
func TestSteady(t *testing.T) {
	t.Parallel()
	s := shapeOf(t, "llama-3.3-70b-q4_k_m")
	for _, name := range []string{"desktop-24gb", "dual-24gb", "h100-80gb"} {
		m := machineOf(t, name)
		before := made(t, s, m, Wish{})
		for step := range 40 {
			m.Accelerators = slices.Clone(m.Accelerators)
			for i := range m.Accelerators {
				m.Accelerators[i].FreeBytes -= 5 * mib
			}
			p := made(t, s, m, Wish{})
			require.InDelta(t, before.GPULayers, p.GPULayers, 1, "%s after %d steps", name, step)
			for i, d := range p.Devices {
				require.InDelta(t, before.Devices[i].Layers, d.Layers, 2)
			}
			before = p
		}
	}
}
