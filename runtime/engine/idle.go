package engine

import "github.com/norion/norion/kv"

// idlers decides which idle sequences of a shared buffer move to memory. There each idle cell makes
// every step a little slower; in streams it costs nothing.
type idlers struct {
	// cell is what one idle cell costs a step of so many answers, price what it costs to park and
	// restore so many tokens; both in one unit of time, 0 while they are not known.
	cell  func(answers int) float64
	price func(tokens int) float64
	spent []idling // by sequence
}

// idling is what an idle sequence has cost since it was last used.
type idling struct {
	use  uint64 // kv.SeqInfo.LastUse
	cost float64
}

// stay adds what an idle sequence, last used at use, costs one more step. It says that the sequence
// should go: when it has cost as much as parking and restoring it would. This is the rule of ski
// rental: whenever the sequence is wanted again, the cost is at most twice that of the best
// decision in hindsight (Karlin, Manasse, Rudolph, Sleator, Competitive Snoopy Caching,
// Algorithmica 3, 1988).
func (i *idling) stay(use uint64, step, price float64) (goes bool) {
	if i.use != use {
		*i = idling{use: use}
	}
	i.cost += step
	return price > 0 && i.cost >= price
}

// newIdlers decides by what cells measure.
func newIdlers(x *cells, sequences int) idlers {
	return idlers{
		cell: x.costs.idleCell, spent: make([]idling, sequences),
		price: func(tokens int) float64 { return x.costs.parking(tokens, x.cache.Costs()) },
	}
}

// parking is what it costs to save so many tokens and to restore them, 0 while it is not known.
// What was not measured itself costs what the books think a restore does.
func (k *costs) parking(tokens int, books kv.Costs) float64 {
	save, restore := k.save.at(1, 0), k.restore.at(1, 0)
	if (save == 0 || restore == 0) && !k.prompt.known() {
		return 0 // the books have proportions, not times
	}
	if save == 0 {
		save = books.Restore
	}
	if restore == 0 {
		restore = books.Restore
	}
	return float64(tokens) * (save + restore)
}

// charge books what idle sequences cost a step of so many answers, and parks those that have cost
// enough. A pinned one stays, and so does one that no other request could use.
func (i *idlers) charge(w *worker, answers int) {
	cell, books := i.cell(answers), w.cells.cache
	if cell == 0 || books.Stats().RAM.Budget == 0 {
		return
	}
	for s := range i.spent {
		info := books.Sequence(kv.Seq(s))
		if info.State != kv.Idle || info.Pinned || info.Exact < info.Length || info.Length < keepMin {
			continue
		}
		step := cell * float64(info.Cells)
		if !i.spent[s].stay(info.LastUse, step, i.price(info.Length)) {
			continue
		}
		i.spent[s].cost = 0
		_, ops, err := books.Park(info.Seq)
		if err == nil {
			err = w.cells.run(ops)
		}
		if err != nil {
			w.e.log.Debug("an idle sequence stays in its cells", "tokens", info.Length, "error", err)
			continue
		}
		w.changes++
		w.e.log.Debug("an idle sequence was parked", "tokens", info.Length, "cells", info.Cells)
	}
}
