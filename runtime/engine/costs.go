package engine

import (
	"math"
	"time"

	"github.com/norion/norion/kv"
)

// costs are what the engine has measured of its own work, in nanoseconds. The owner goroutine alone
// uses them.
type costs struct {
	prompt  estimate // of x tokens of prompts, before which y tokens lie, summed over the x
	copy    estimate // of x tokens into cells of their own
	save    estimate // of x tokens into memory
	restore estimate // of x tokens from memory
	disk    estimate // of x tokens from disk
	// decode is of a step that computes one token of so many answers, and one, while y cells of a
	// shared buffer are idle; x is 1.
	decode [decodeMax]estimate
}

const (
	promptMin  = 16    // a shorter chunk costs what reading the weights costs, not its tokens
	decodeMax  = 16    // answers in one step that are told apart
	decodeKeep = 0.999 // idle cells change seldom: the memory is of thousands of steps
	costsEvery = 32    // steps between two looks at the costs
)

// measure books what a step that took d says of the costs, before its tokens are appended, and what
// idle sequences have cost the answers in it.
func (w *worker) measure(d time.Duration) {
	books, k := w.cells.cache, &w.cells.costs
	if w.step.turn%costsEvery == 0 && k.prompt.known() {
		if err := books.SetCosts(k.books()); err != nil {
			w.e.log.Warn("measured costs cannot be used", "error", err)
		}
	}
	tokens, before, answers := 0, 0.0, 0
	for _, p := range w.step.parts {
		switch {
		case p.g.usage.CompletionTokens == 0:
			tokens += p.n
			before += float64(p.n) * (float64(books.Length(p.g.seq)) + float64(p.n)/2)
		case p.n == 1 && p.drafts == 0:
			answers++
		default: // it computes again, or guesses
			return
		}
	}
	// A step after a switch of adapters takes what llama.cpp needs to plan its graphs, too; and with
	// adapters, longer than without: that is not the idle cells.
	if answers == 0 && tokens >= promptMin && !w.step.switched {
		k.prompt.add(float64(tokens), before, float64(d))
	}
	if answers > 0 && w.e.shared {
		alike := w.step.group == w.base && !w.step.switched
		if tokens == 0 && answers <= decodeMax && alike {
			s, e := books.Stats(), &k.decode[answers-1]
			e.keep = decodeKeep
			e.add(1, float64(s.Cells-s.CellsBusy), float64(d))
		}
		w.idle.charge(w, answers)
	}
}

// moved books that an operation took d to move the state of so many tokens.
func (e *estimate) moved(tokens int, d time.Duration) { e.add(float64(tokens), 0, float64(d)) }

// books are the costs that the books decide by. What was not measured is 0: a default proportion of
// what a token of a prompt costs.
func (k *costs) books() kv.Costs {
	return kv.Costs{
		Compute: max(1, k.prompt.at(1, 0)), ComputePair: k.prompt.at(0, 1), Copy: k.copy.at(1, 0),
		Restore: k.restore.at(1, 0), RestoreDisk: k.disk.at(1, 0),
	}
}

// recompute is the time in which a prompt of so many tokens is computed, 0 while it is not known.
func (k *costs) recompute(tokens int) time.Duration {
	n := float64(tokens)
	return time.Duration(min(k.prompt.at(n, n*n/2), math.MaxInt64/2))
}

// idleCell is what one idle cell adds to a step of so many answers at least, 0 while it is not
// known.
func (k *costs) idleCell(answers int) float64 {
	if answers > decodeMax {
		return 0
	}
	return k.decode[answers-1].sure()
}
