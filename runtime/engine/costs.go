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
}

const (
	promptMin  = 16 // a shorter chunk costs what reading the weights costs, not its tokens
	costsEvery = 32 // steps between two looks at the costs
)

// measure books what a step that took d says of the costs, before its tokens are appended.
func (w *worker) measure(d time.Duration) {
	books, k := w.cells.cache, &w.cells.costs
	tokens, before := 0, 0.0
	for _, p := range w.step.parts {
		if p.g.usage.CompletionTokens > 0 {
			return // an answer
		}
		tokens += p.n
		before += float64(p.n) * (float64(books.Length(p.g.seq)) + float64(p.n)/2)
	}
	if tokens >= promptMin {
		k.prompt.add(float64(tokens), before, float64(d))
	}
	if w.step.turn%costsEvery == 0 && k.prompt.known() {
		if err := books.SetCosts(k.books()); err != nil {
			w.e.log.Warn("measured costs cannot be used", "error", err)
		}
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
