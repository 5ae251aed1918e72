package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/norion/norion/kv"
	"github.com/norion/norion/runtime/infer"
)

// Stats implements infer.Observer. The owner answers between two steps, however many requests run
// and wait. O(sequences and saved states).
func (e *Engine) Stats(ctx context.Context) (infer.Stats, error) {
	reply := make(chan infer.Stats, 1)
	select {
	case e.asked <- reply:
	case <-e.life.Done():
		return infer.Stats{}, errClosed
	case <-ctx.Done():
		return infer.Stats{}, ended("stats", ctx)
	}
	s := <-reply
	s.Totals.Requests = e.ends.get()
	return s, nil
}

// observe answers one who asks for Stats, if there is one.
func (w *worker) observe() {
	if w.cells != nil {
		w.ages.note(w.cells.cache.Uses(), time.Now())
	}
	select {
	case reply := <-w.e.asked:
		reply <- w.stats()
	default:
	}
}

// stats are the figures of this moment, all but Totals.Requests.
func (w *worker) stats() infer.Stats {
	s := infer.Stats{
		Totals: w.totals,
		Now: infer.Gauges{
			Running: len(w.running) + w.visits, Parked: len(w.parked),
			Waiting: len(w.e.queue.tasks(nil)),
		},
		Held: []infer.Held{},
	}
	if w.cells == nil {
		return s
	}
	books := w.cells.cache.Stats()
	s.Now.Idle = books.Sequences[kv.Idle]
	s.Now.Cells, s.Now.CellsTotal = books.Cells, books.CellsTotal
	s.Now.RAM = infer.Bytes{Used: books.RAM.Bytes, Budget: books.RAM.Budget}
	files := w.cells.store.Stats()
	s.Now.Disk = infer.Bytes{Used: files.Bytes, Budget: files.BudgetBytes}
	s.Held = w.held()
	return s
}

// held lists what the books hold.
func (w *worker) held() []infer.Held {
	books, now := w.cells.cache, time.Now()
	w.ages.note(books.Uses(), now)
	all := slices.SortedFunc(books.Held(), func(a, b kv.Held) int {
		return cmp.Or(cmp.Compare(a.Place, b.Place), -cmp.Compare(a.Worth, b.Worth),
			cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Blob, b.Blob))
	})
	out := make([]infer.Held, 0, min(len(all), infer.HeldMax))
	for _, h := range all[:min(len(all), infer.HeldMax)] {
		name := fmt.Sprint("sequence ", h.Seq)
		if h.Place != kv.Live {
			name = fmt.Sprint("state ", h.Blob)
		}
		out = append(out, infer.Held{
			Name: name, Place: h.Place.String(), Checkpoint: h.Checkpoint, Tokens: h.Tokens,
			Bytes: h.Bytes, Uses: h.Uses, Leases: h.Leases, Worth: h.Worth, Pinned: h.Pinned,
			AgeSeconds: w.ages.since(h.LastUse, now).Seconds(),
		})
	}
	return out
}

// reused counts what an admission found.
func (w *worker) reused(c infer.Cached) {
	t := &w.totals.Cached
	t.Live, t.RAM, t.Disk, t.Moved = t.Live+c.Live, t.RAM+c.RAM, t.Disk+c.Disk, t.Moved+c.Moved
}

// ends counts how requests ended.
type ends struct {
	mu sync.Mutex
	n  map[string]int64
}

func (e *ends) add(how string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n == nil {
		e.n = map[string]int64{}
	}
	e.n[how]++
}

func (e *ends) get() map[string]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[string]int64, len(e.n))
	maps.Copy(out, e.n)
	return out
}

// howEnded names the end of a request: its kind where it failed.
func howEnded(err error) string {
	return cmp.Or(string(infer.KindOf(err)), "done")
}

// agesMax bounds what ages remember.
const agesMax = 1024

// ages remember when the books had counted so many uses: they know no time. An entry stands for
// the uses since the one before it.
type ages []age

type age struct {
	uses uint64
	at   time.Time
}

// note remembers that there were so many uses by now. When there is too much to remember, every
// second moment is forgotten: the uses at it count as of the next.
func (a *ages) note(uses uint64, now time.Time) {
	list := *a
	if n := len(list); n > 0 && list[n-1].uses == uses {
		return
	}
	if len(list) == agesMax {
		for i := range agesMax / 2 {
			list[i] = list[2*i+1]
		}
		list = list[:agesMax/2]
	}
	list = append(list, age{uses, now})
	*a = list
}

// since is how long ago a use was.
func (a ages) since(use uint64, now time.Time) time.Duration {
	i, _ := slices.BinarySearchFunc(a, use, func(e age, use uint64) int {
		return cmp.Compare(e.uses, use)
	})
	if i == len(a) {
		return 0
	}
	return now.Sub(a[i].at)
}
