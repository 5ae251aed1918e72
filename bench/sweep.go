package bench

import (
	"context"
	"fmt"
	"slices"

	"github.com/norion/norion/hw/device"
	"github.com/norion/norion/hw/plan"
)

// Sweep are the settings that a plan's choice is held against: all numbers of threads with all
// micro-batches for prefill, and all numbers of threads for decode.
type Sweep struct {
	Threads      []int // empty: powers of two, the physical cores and the processors
	MicroBatches []int // empty: 128 to 2048
	Prompt, Gen  int   // tokens of a test; 0: 2048 and 64
}

// sweepBatch is the most tokens of one step, as the engine has it.
const sweepBatch = 2048

// barSweep is how much slower than any other setting the chosen one may be.
var barSweep = Bar{Limit: 0.97}

// fill puts defaults in place of what is empty.
func (s Sweep) fill(quick bool) Sweep {
	if len(s.Threads) == 0 {
		most := ThisMachine().Processors
		for n := 1; n < most; n *= 2 {
			s.Threads = append(s.Threads, n)
		}
		s.Threads = append(s.Threads, DefaultThreads(), most)
		slices.Sort(s.Threads)
		s.Threads = slices.Compact(s.Threads)
	}
	if len(s.MicroBatches) == 0 {
		s.MicroBatches = []int{128, 256, 512, 1024, 2048}
		if quick {
			s.MicroBatches = []int{128, 512}
		}
	}
	if s.Prompt == 0 {
		s.Prompt = 2048
		if quick {
			s.Prompt = 512
		}
	}
	if s.Gen == 0 {
		s.Gen = 64
		if quick {
			s.Gen = 16
		}
	}
	return s
}

// Sweep measures the threads and the micro-batch that a plan chooses in turns with all others.
// Each of them is a side. Errors: those of planning and loading, and ErrFlag.
func (s Scenario) Sweep(ctx context.Context, w Sweep) (Report, []Pair, error) {
	w = w.fill(s.Quick)
	if s.Rounds == 0 && !s.Quick {
		s.Rounds = RoundsMin
	}
	g, err := s.begin(ctx, "plan")
	if err != nil {
		return Report{}, nil, err
	}
	path := g.paths[s.Model]
	shape, err := shapeOf(path)
	if err != nil {
		return Report{}, nil, err
	}
	machine, err := device.Probe(ctx, device.Options{})
	if err != nil {
		return Report{}, nil, err
	}
	p, err := plan.Make(shape, machine, plan.Wish{ContextTokens: max(w.Prompt, w.Gen)})
	if err != nil {
		return Report{}, nil, err
	}
	prefill := Test{Model: path, Prompt: w.Prompt, Threads: p.BatchThreads}
	decode := Test{Model: path, Gen: w.Gen, Threads: p.Threads}
	return g.measure(ctx, []subject{
		settings(fmt.Sprintf("prefill of %d tokens, %s", w.Prompt, s.Model), prefill, p, w.Threads,
			w.MicroBatches),
		settings(fmt.Sprintf("decode of %d tokens, %s", w.Gen, s.Model), decode, p, w.Threads,
			[]int{p.MicroBatch}),
	})
}

// settings is one test with the settings of a plan, and with all others.
func settings(name string, t Test, p plan.Plan, threads, microBatches []int) subject {
	t.Batch, t.MicroBatch = sweepBatch, p.MicroBatch
	t.TypeK, t.TypeV, t.Poll, t.GPULayers = p.KVType, p.KVType, 50, p.GPULayers
	t.Flash, t.Load = FlashAuto, LoadAuto
	chosen := t
	out := subject{
		name:  fmt.Sprintf("%s, planned t=%d ub=%d", name, t.Threads, t.MicroBatch),
		turns: []turn{settingTurn(SideNorion, chosen)},
	}
	for _, t.Threads = range threads {
		for _, t.MicroBatch = range microBatches {
			if t == chosen {
				continue
			}
			side := Side(fmt.Sprintf("t=%d ub=%d", t.Threads, t.MicroBatch))
			out.turns = append(out.turns, settingTurn(side, t))
			out.claims = append(out.claims, wanted{MeasureRate, side, barSweep})
		}
	}
	return out
}

// settingTurn measures a test once.
func settingTurn(side Side, t Test) turn {
	return turn{side, func(ctx context.Context) (run Run, err error) {
		err = Native{Reps: 1}.Run(ctx, []Test{t}, func(r Record) error {
			run.Rate = r.Rate()
			return nil
		})
		return run, err
	}}
}
