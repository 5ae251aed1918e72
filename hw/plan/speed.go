package plan

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

// Source says where a figure comes from, in the order of trust.
type Source string

const (
	SourceMeasured Source = "measured here" // a load, or a calibration of every device in use
	SourceDryLoad  Source = "dry load"      // bytes that llama.cpp counted without allocating them
	SourceFormula  Source = "formula"       // formulas over the header and the machine's rates
	SourceGuess    Source = "guess"         // a rate of the machine is not known either
)

// spread is how far a prediction may be off, as factors.
func (s Source) spread() (decode, prefill [2]float64) {
	switch s {
	case SourceMeasured:
		return [2]float64{0.85, 1.15}, [2]float64{0.8, 1.2}
	case SourceFormula:
		return [2]float64{0.7, 1.25}, [2]float64{0.4, 1.6}
	}
	return [2]float64{0.3, 2}, [2]float64{0.2, 3}
}

// rates are what a device reaches with a model.
type rates struct {
	bytes   float64 // a second, of weights read while decoding
	cache   float64 // likewise of the cache; 0: as bytes
	stepOps float64 // a second, of decoding, besides what is read; 0: see step
	ops     float64 // a second, of prefill
	link    float64 // bytes a second from the host's memory; 0: weights are never borrowed
	launch  float64 // seconds for a layer, besides

	bytesSource, opsSource Source
}

// Rates of a small device of its kind, for one of which nothing is known.
const (
	hostBytesGuess        = 20e9
	coreOpsGuess          = 60e9
	acceleratorBytesGuess = 200e9
	acceleratorOpsGuess   = 20e12
)

// What the processor reaches, and what the ways between devices cost.
const (
	hostBytesShare   = 0.8  // of its measured rate
	hostOpsShare     = 0.35 // of its peak at 8-bit multiply-adds
	coreBytesMax     = 12e9 // that one thread reads in a second
	hostLayerSeconds = 5e-6
	crossingSeconds  = 50e-6 // from one device to the next
)

// efficiency is the share of its rated bytes and operations that a kind of accelerator reaches, and
// the seconds that launching a layer takes. docs/plan.md has what they were taken from.
func efficiency(kind string) (bytes, ops, launch float64) {
	switch kind {
	case "cuda":
		return 0.78, 0.4, 20e-6
	case "metal":
		return 0.8, 0.6, 25e-6
	case "rocm":
		return 0.65, 0.3, 20e-6
	}
	return 0.6, 0.3, 30e-6
}

// calibrated gives what was measured of a device with such a cache, and of the processor with so
// many threads.
func (w *Wish) calibrated(name, kvType string, threads int) Calibration {
	for _, c := range w.Calibration {
		if strings.EqualFold(c.Device, name) && (c.Threads == 0 || c.Threads == threads) &&
			(c.KVType == "" || c.KVType == kvType) && c.NoFlash == w.NoFlash {
			return c
		}
	}
	return Calibration{}
}

// override puts what was measured in place of what was computed.
func (r *rates) override(c Calibration) {
	if c.BytesPerSecond > 0 {
		r.bytes, r.launch, r.bytesSource = c.BytesPerSecond, 0, SourceMeasured
		r.cache, r.stepOps = c.CacheBytesPerSecond, c.StepOpsPerSecond
	}
	if c.OpsPerSecond > 0 {
		r.ops, r.opsSource = c.OpsPerSecond, SourceMeasured
	}
}

// hostRates are those of the processor with so many threads.
func hostRates(m device.Machine, w Wish, kvType string, threads int) rates {
	r := rates{
		bytes: hostBytesShare * m.Memory.BytesPerSecond, ops: hostOpsShare * m.CPU.Int8OpsPerSecond,
		launch: hostLayerSeconds, bytesSource: SourceFormula, opsSource: SourceFormula,
	}
	n := float64(threads)
	if m.CPU.Quota > 0 {
		n = min(n, m.CPU.Quota)
	}
	if r.bytes == 0 {
		r.bytes, r.bytesSource = hostBytesGuess, SourceGuess
	}
	if r.ops == 0 {
		r.ops, r.opsSource = n*coreOpsGuess, SourceGuess
	} else if cores := float64(m.CPU.Cores); cores > n {
		r.ops *= n / cores
	}
	r.bytes = min(r.bytes, n*coreBytesMax)
	r.override(w.calibrated(hostName, kvType, threads))
	return r
}

func acceleratorRates(a device.Accelerator, w Wish, kvType string) rates {
	bytes, ops, launch := efficiency(a.Kind)
	r := rates{
		bytes: bytes * a.BytesPerSecond, ops: ops * a.FloatOpsPerSecond, launch: launch,
		bytesSource: SourceFormula, opsSource: SourceFormula,
	}
	if !a.Unified {
		r.link = a.LinkBytesPerSecond
	}
	if r.bytes == 0 {
		r.bytes, r.bytesSource = bytes*acceleratorBytesGuess, SourceGuess
	}
	if r.ops == 0 {
		r.ops, r.opsSource = ops*acceleratorOpsGuess, SourceGuess
	}
	r.override(w.calibrated(a.Name, kvType, 0))
	return r
}

// load is what computing an item costs, whatever the device.
type load struct {
	weights       float64 // bytes of it without routed experts
	experts       float64 // bytes of all routed experts
	cache         float64 // bytes read for each sequence and step
	ops           float64 // for each token, without experts
	expertOps     float64 // for each token, of the experts that it uses
	expertsUsed   float64 // share of the experts that one token uses
	prefillTokens float64 // that the weights are read for at once
	launches      float64 // 1, or 0 for a layer that is not loaded
	answersOnly   bool    // the output: a prompt needs it once
}

// loadsOf weighs the items at the depth that was asked for. A context that had to shrink is weighed
// there, too, so that speeds compare.
func loadsOf(s gguf.Shape, w Wish, z *sizes, kvType string) []load {
	out := make([]load, len(z.dense))
	kind, _ := gguf.ParseTensorType(kvType)
	depth := int64(w.DepthTokens)
	used := 0.0
	if s.Experts > 0 {
		used = float64(s.ExpertsUsed) / float64(s.Experts)
	}
	for i, l := range s.Layers {
		if i >= len(s.Layers)-s.DraftLayers {
			out[i].prefillTokens = float64(z.micro)
			continue
		}
		token, err := s.LayerCache(i, kind, kind)
		if err != nil {
			continue // sizesOf has refused it
		}
		seen := depth
		if l.Window > 0 {
			seen = min(seen, int64(l.Window))
		}
		attention := 4 * float64(l.Heads) * float64(l.KeyLength)
		out[i] = load{
			weights: float64(z.dense[i]), experts: float64(z.experts[i]),
			cache:       float64(token)*float64(seen) + 2*float64(l.StateBytes),
			ops:         2*float64(l.Parameters-l.ExpertParameters) + attention*256,
			expertOps:   2 * float64(l.ExpertParameters) * used,
			expertsUsed: used, prefillTokens: float64(z.micro), launches: 1,
		}
	}
	last := len(out) - 1
	out[last] = load{
		weights: float64(z.dense[last]), answersOnly: true, launches: 1,
		ops: 2 * float64(s.EmbeddingLength) * float64(s.VocabularySize),
	}
	return out
}

// step is the time of an item in a step of n sequences: what is read or what is computed, whichever
// takes longer, or both where each was measured.
func (l load) step(r rates, n float64) float64 {
	read := l.weights/r.bytes + n*l.cache/cmp.Or(r.cache, r.bytes)
	if r.stepOps > 0 {
		return read + n*l.ops/r.stepOps
	}
	return max(read, n*l.ops/r.ops) + l.launches*r.launch
}

// expertStep is the same for routed experts. Tokens choose theirs independently.
func (l load) expertStep(r rates, n float64) float64 {
	if l.experts == 0 {
		return 0
	}
	touched := 1 - math.Pow(1-l.expertsUsed, n)
	return max(l.experts*touched/r.bytes, n*l.expertOps/r.ops)
}

// prefill is the time of an item for one token of a prompt.
func (l load) prefill(r rates) float64 {
	if l.answersOnly {
		return 0
	}
	return max(l.ops/r.ops, l.weights/r.bytes/l.prefillTokens)
}

func (l load) expertPrefill(r rates) float64 {
	if l.experts == 0 {
		return 0
	}
	return max(l.expertOps/r.ops, l.experts/r.bytes/l.prefillTokens)
}

// borrowed are the rates at which an accelerator computes weights that lie in the host's memory: it
// copies them for each micro-batch.
func borrowed(r rates) rates {
	r.bytes = min(r.bytes, r.link)
	return r
}

// Tokens of the request that a plan is chosen for.
const (
	promptTokens = 512
	answerTokens = 128
)

// picoseconds makes times that add up the same in any order.
func picoseconds(seconds float64) int64 { return int64(min(seconds*1e12, 1e15)) }

// timing holds the costs of each item on each device: device 0 is the host. Costs are those of the
// request that the plan is chosen for.
type timing struct {
	loads     []load
	devices   []rates
	lender    int // the accelerator that computes prefills for the host, or 0
	sequences float64
	all       bool      // all sequences at once count
	dense     [][]int64 // picoseconds, sums of the first items
	experts   [][]int64
}

func newTiming(loads []load, devices []rates, w Wish) *timing {
	t := &timing{
		loads: loads, devices: devices, sequences: float64(w.Sequences),
		all: w.Priority == Throughput,
	}
	for d, r := range devices {
		if d > 0 && r.link > 0 && (t.lender == 0 || r.ops > devices[t.lender].ops) {
			t.lender = d
		}
	}
	n := 1.0
	if t.all {
		n = t.sequences
	}
	for d := range devices {
		dense, experts := make([]int64, len(loads)), make([]int64, len(loads))
		for i, l := range loads {
			r := devices[d]
			a, b := t.prefillOf(i, d)
			dense[i] = picoseconds(n*promptTokens*a + answerTokens*l.step(r, n))
			experts[i] = picoseconds(n*promptTokens*b + answerTokens*l.expertStep(r, n))
		}
		t.dense, t.experts = append(t.dense, prefix(dense)), append(t.experts, prefix(experts))
	}
	return t
}

// prefillOf is the time of an item and of its experts for one token of a prompt, where its weights
// lie on device d.
func (t *timing) prefillOf(i, d int) (dense, experts float64) {
	l, r := t.loads[i], t.devices[d]
	dense, experts = l.prefill(r), l.expertPrefill(r)
	if d == 0 && t.lender > 0 {
		b := borrowed(t.devices[t.lender])
		dense, experts = min(dense, l.prefill(b)), min(experts, l.expertPrefill(b))
	}
	return dense, experts
}

// faster says whether device 1 computes some item faster than the host, and no experts slower.
func (t *timing) faster() bool {
	some := false
	for i := range t.loads {
		if t.experts[1][i+1]-t.experts[1][i] > t.experts[0][i+1]-t.experts[0][i] {
			return false
		}
		some = some || t.dense[1][i+1]-t.dense[1][i] < t.dense[0][i+1]-t.dense[0][i]
	}
	return some
}

// Speed is a predicted rate.
type Speed struct {
	TokensPerSecond float64 `json:"tokens_per_second"`
	Low             float64 `json:"low"`
	High            float64 `json:"high"`
	Source          Source  `json:"source"`
}

// speeds predicts a placement: decode of one sequence, of all together, and prefill.
func (t *timing) speeds(p *placement) (decode, together, prefill Speed) {
	var one, all, prompt float64
	bytesSource, opsSource := SourceMeasured, SourceMeasured
	for i := range t.loads {
		d, experts := p.deviceOf(i)
		l := t.loads[i]
		one += l.step(t.devices[d], 1) + l.expertStep(t.devices[experts], 1)
		all += l.step(t.devices[d], t.sequences) + l.expertStep(t.devices[experts], t.sequences)
		dense, _ := t.prefillOf(i, d)
		_, routed := t.prefillOf(i, experts)
		prompt += dense + routed
		for _, used := range []int{d, experts} {
			bytesSource = worse(bytesSource, t.devices[used].bytesSource)
			opsSource = worse(opsSource, t.devices[used].opsSource)
		}
	}
	crossings := float64(p.crossings()) * crossingSeconds
	one, all = one+crossings, all+crossings
	prompt += crossings / t.loads[0].prefillTokens
	speed := func(tokens, seconds float64, f [2]float64, source Source) Speed {
		v := tokens / seconds
		return Speed{v, v * f[0], v * f[1], source}
	}
	f, _ := bytesSource.spread()
	_, g := opsSource.spread()
	return speed(1, one, f, bytesSource), speed(t.sequences, all, f, bytesSource),
		speed(1, prompt, g, opsSource)
}

// worse is the source that is trusted less.
func worse(a, b Source) Source {
	order := []Source{SourceMeasured, SourceFormula, SourceGuess}
	if slices.Index(order, a) > slices.Index(order, b) {
		return a
	}
	return b
}
