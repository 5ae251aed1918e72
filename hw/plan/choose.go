package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/runtime/gguf"
)

// Reserves, where the wish names none.
const (
	hostReserveMax        = gib
	acceleratorReserveMax = 512 * mib
)

// planner holds what does not depend on the context and the KV type.
type planner struct {
	shape   gguf.Shape
	machine device.Machine
	wish    Wish
	devices []device.Accelerator // that may be used
	slower  []device.Accelerator // left out because the host is faster
	places  []place              // of the host and the devices
	threads int
	batch   int
}

// choice is a context, a KV type and a placement.
type choice struct {
	context int
	kvType  string
	z       *sizes
	t       *timing
	where   *placement
	full    bool // every layer and expert is on an accelerator
}

func newPlanner(s gguf.Shape, m device.Machine, w Wish) (*planner, error) {
	p := &planner{shape: s, machine: m, wish: w}
	p.setThreads()
	p.places = []place{{
		budget: budgetOf(max(0, m.Memory.AvailableBytes-overheadOf(hostName)), w.ReserveBytes,
			hostReserveMax),
	}}
	allowed, err := p.allowed()
	if err != nil {
		return nil, err
	}
	if w.Priority == Memory {
		p.sortTypes()
	}
	z, err := sizesOf(s, w, w.ContextTokens, p.wish.KVTypes[0])
	if err != nil {
		return nil, err
	}
	kvType := p.wish.KVTypes[0]
	loads, host := loadsOf(s, w, z, kvType), hostRates(m, w, kvType, p.threads)
	for _, a := range allowed {
		pair := []rates{host, acceleratorRates(a, w, kvType)}
		if w.Devices == nil && w.GPULayers == nil && !newTiming(loads, pair, w).faster() {
			p.slower = append(p.slower, a)
			continue
		}
		p.use(a)
	}
	return p, nil
}

// use lets the search place layers on an accelerator.
func (p *planner) use(a device.Accelerator) {
	p.devices = append(p.devices, a)
	p.places = append(p.places, place{
		budget: budgetOf(max(0, a.FreeBytes-overheadOf(a.Kind)), p.wish.ReserveBytes,
			acceleratorReserveMax),
		unified: a.Unified,
	})
}

// setThreads takes the fast physical cores, within the quota of the control group: threads that
// wait for a slower one, or for the processor, hold up all the others.
func (p *planner) setThreads() {
	c := p.machine.CPU
	cores := cmp.Or(c.PerformanceCores, c.Cores, c.Threads, 1)
	if c.Quota > 0 {
		cores = min(cores, max(1, int(c.Quota)))
	}
	cores = min(cores, threadsMax)
	p.threads = cmp.Or(p.wish.Threads, cores)
	p.batch = cmp.Or(p.wish.BatchThreads, p.wish.Threads, cores)
}

// allowed gives the accelerators that the wish names.
func (p *planner) allowed() ([]device.Accelerator, error) {
	all := p.machine.Accelerators
	if p.wish.GPULayers != nil && *p.wish.GPULayers == 0 {
		return nil, nil
	}
	if p.wish.Devices == nil {
		return all, nil
	}
	names := []string{hostName}
	for _, a := range all {
		names = append(names, a.Name)
	}
	var out []device.Accelerator
	for _, name := range p.wish.Devices {
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
		if i < 0 {
			return nil, fault(ErrDevice, "devices", "there are "+strings.Join(names, ", "), "%q", name)
		}
		if i > 0 && !slices.ContainsFunc(out, func(a device.Accelerator) bool {
			return a.Name == all[i-1].Name
		}) {
			out = append(out, all[i-1])
		}
	}
	return out, nil
}

// sortTypes puts the KV types with the smallest cache first.
func (p *planner) sortTypes() {
	bits := func(name string) float64 {
		t, _ := gguf.ParseTensorType(name)
		block, bytes := t.Block()
		return float64(bytes) / float64(block)
	}
	p.wish.KVTypes = slices.Clone(p.wish.KVTypes)
	slices.SortStableFunc(p.wish.KVTypes, func(a, b string) int {
		return cmp.Compare(bits(a), bits(b))
	})
}

// try places the model with a context and a KV type; nil where it does not fit, or with full, where
// it does not fit without the host. The host may still get layers, where that is faster.
func (p *planner) try(w Wish, context int, kvType string, full bool) (*choice, error) {
	c, s, err := p.prepare(w, context, kvType)
	if err != nil {
		return nil, err
	}
	c.where = s.best(true)
	c.full = c.where != nil
	if full && !c.full {
		return nil, nil
	}
	if other := s.best(false); other != nil && (c.where == nil || other.time < c.where.time) {
		c.where, c.full = other, false
	}
	if c.where == nil {
		return nil, nil
	}
	return c, nil
}

func (p *planner) prepare(w Wish, context int, kvType string) (*choice, *search, error) {
	z, err := sizesOf(p.shape, w, context, kvType)
	if err != nil {
		return nil, nil, err
	}
	if p.shape.OutputBytes == 0 && slices.Contains(p.machine.CPU.Features, "amx_int8") {
		z.host[len(z.host)-1] += tiled(p.shape.InputBytes)
	}
	all := []rates{hostRates(p.machine, w, kvType, p.threads)}
	for _, a := range p.devices {
		all = append(all, acceleratorRates(a, w, kvType))
	}
	t := newTiming(loadsOf(p.shape, w, z, kvType), all, w)
	only := -1
	if p.wish.GPULayers != nil {
		only = *p.wish.GPULayers
	}
	return &choice{context: context, kvType: kvType, z: z, t: t},
		newSearch(z, t, p.places, only), nil
}

// choose leaves accelerators out that are slower than the host, unless nothing fits without them.
func (p *planner) choose() (*choice, error) {
	c, err := p.walk()
	if c != nil || err != nil {
		return c, err
	}
	if len(p.slower) > 0 {
		for _, a := range p.slower {
			p.use(a)
		}
		p.slower = nil
		if c, err := p.walk(); c != nil || err != nil {
			return c, err
		}
	}
	return nil, p.noFit()
}

// walk walks down from what was asked: all layers on accelerators, as asked, with another KV
// type, with a smaller context; then the fastest that fits, in the same order. With Quality, the
// context and the first type come before the layers.
func (p *planner) walk() (*choice, error) {
	w := p.wish
	first := len(w.KVTypes)
	if w.Priority == Quality {
		first = 1
	}
	if len(p.devices) > 0 && w.GPULayers == nil {
		for _, kvType := range w.KVTypes[:first] {
			if c, err := p.try(w, w.ContextTokens, kvType, true); c != nil || err != nil {
				return c, err
			}
		}
		if w.Priority != Quality {
			if c, err := p.shrink(w, true); c != nil || err != nil {
				return c, err
			}
		}
	}
	for _, kvType := range w.KVTypes {
		if c, err := p.try(w, w.ContextTokens, kvType, false); c != nil || err != nil {
			return c, err
		}
	}
	return p.shrink(w, false)
}

// shrink finds the largest context of ContextMin or more that fits.
func (p *planner) shrink(w Wish, full bool) (*choice, error) {
	if w.ContextMin == 0 || w.ContextMin == w.ContextTokens {
		return nil, nil
	}
	var best *choice
	for _, kvType := range w.KVTypes {
		c, err := p.largest(w, kvType, w.ContextMin, full)
		if err != nil {
			return nil, err
		}
		if c != nil && (best == nil || c.context > best.context) {
			best = c
		}
	}
	return best, nil
}

// largest finds the largest context from least up to the one asked for, in blocks of cells.
func (p *planner) largest(w Wish, kvType string, least int, full bool) (*choice, error) {
	best, err := p.try(w, least, kvType, full)
	if best == nil || err != nil {
		return nil, err
	}
	low, high := (least+blockCells-1)/blockCells, (w.ContextTokens-1)/blockCells
	for low <= high {
		mid := (low + high) / 2
		c, err := p.try(w, max(least, mid*blockCells), kvType, full)
		if err != nil {
			return nil, err
		}
		if c == nil {
			high = mid - 1
			continue
		}
		best, low = c, mid+1
	}
	return best, nil
}

// noFit says what is missing and which single changes would help.
func (p *planner) noFit() error {
	w := p.wish
	e := fault(ErrNoFit, "memory", "", "")
	c, s, err := p.prepare(w, w.ContextTokens, w.KVTypes[len(w.KVTypes)-1])
	if err != nil {
		return err
	}
	least := s.least()
	if least == nil {
		e.Field, e.Err = "gpu layers", fmt.Errorf("%d layers exceed the accelerators", *w.GPULayers)
		e.Hint = "leave the number of layers to the planner"
		return e
	}
	e.MissingBytes = least.host - p.places[0].budget
	e.Err = fmt.Errorf("%d MiB are missing: the host would hold %d MiB, of which %d MiB are for %d "+
		"cells of %s, and %d MiB may be used", ceilMiB(e.MissingBytes), least.host/mib,
		prefix(c.z.kv)[least.start]/mib, c.z.cells*c.z.streams, c.kvType, p.places[0].budget/mib)
	e.Ways = p.ways()
	words := make([]string, len(e.Ways))
	for i, way := range e.Ways {
		words[i] = way.Change
	}
	e.Hint = "choose a smaller model or quantisation"
	if len(words) > 0 {
		e.Hint = "try " + strings.Join(words, ", or ")
	}
	return e
}

func ceilMiB(n int64) int64 { return (n + mib - 1) / mib }

// ways are single changes of the wish with which something fits.
func (p *planner) ways() []Way {
	w := p.wish
	kvType := w.KVTypes[0]
	var out []Way
	add := func(c *choice, sequences int, format string, args ...any) {
		if c != nil {
			out = append(out, Way{fmt.Sprintf(format, args...), c.context, sequences, c.kvType})
		}
	}
	least := min(blockCells, w.ContextTokens)
	if c, err := p.largest(w, kvType, least, false); err == nil && c != nil {
		add(c, w.Sequences, "a context of %d tokens", c.context)
	}
	if !w.NoFlash && !slices.Contains(w.KVTypes, "q8_0") {
		if c, err := p.try(w, w.ContextTokens, "q8_0", false); err == nil {
			add(c, w.Sequences, "a KV cache of q8_0")
		}
	}
	low, high := 1, w.Sequences-1
	var fewer *choice
	at := 0
	for low <= high {
		mid := (low + high) / 2
		less := w
		less.Sequences = mid
		c, err := p.try(less, w.ContextTokens, kvType, false)
		if err != nil || c == nil {
			high = mid - 1
			continue
		}
		fewer, at, low = c, mid, mid+1
	}
	add(fewer, at, "%d sequences", at)
	return out
}

// seconds turns the time of a placement into seconds.
func seconds(picoseconds int64) float64 { return math.Round(float64(picoseconds)/1e3) / 1e9 }
