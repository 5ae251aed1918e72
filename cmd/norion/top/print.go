package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Text is a view as plain text: a line for each process, then what is worth most of all that they
// hold. It ends with a newline unless it is empty.
func Text(v View, now time.Time) string {
	var b strings.Builder
	if len(v.Processes) > 0 {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "PID\tMODEL\tRUN\tWAIT\tPARKED\tCELLS\tRAM\tDISK\t"+
			"PROMPT\tCOMPUTED\tLIVE\tRAM\tDISK")
		for _, p := range v.Processes {
			n := p.Stats.Now
			fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%d/%d\t%s\t%s\t%s\n", p.PID, p.Model, n.Running,
				n.Waiting, n.Parked, n.Cells, n.CellsTotal, size(n.RAM.Used), size(n.Disk.Used),
				shares(p.Stats.Totals))
		}
		_ = w.Flush() // into memory
	}
	if v.Bad > 0 {
		fmt.Fprintf(&b, "%d more cannot be read\n", v.Bad)
	}
	if table := held(v, now); table != "" {
		b.WriteString("\n" + table)
	}
	return b.String()
}

// shares says how many prompt tokens there were, and where they came from.
func shares(t infer.Totals) string {
	parts := []int64{
		t.Computed, int64(t.Cached.Live), int64(t.Cached.RAM), int64(t.Cached.Disk),
	}
	all := parts[0] + parts[1] + parts[2] + parts[3]
	text := fmt.Sprint(all)
	for _, n := range parts {
		text += fmt.Sprintf("\t%.0f %%", 100*float64(n)/float64(max(1, all)))
	}
	return text
}

// held is the table of what is held, most valuable first within each place.
func held(v View, now time.Time) string {
	type row struct {
		infer.Held
		pid int
	}
	var rows []row
	for _, p := range v.Processes {
		for _, h := range p.Stats.Held {
			h.AgeSeconds += max(0, now.Sub(p.Written).Seconds())
			rows = append(rows, row{h, p.PID})
		}
	}
	if len(rows) == 0 {
		return ""
	}
	order := []string{"live", "ram", "disk"}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Place), slices.Index(order, b.Place)),
			-cmp.Compare(a.Worth, b.Worth))
	})
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tENTRY\tPLACE\tTOKENS\tSIZE\tUSES\tLEASES\tWORTH\tAGE")
	for _, r := range rows {
		marks := ""
		if r.Pinned {
			marks = " pinned"
		}
		if r.Checkpoint {
			marks = " checkpoint"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%d\t%d\t%.3g\t%s%s\n", r.pid, r.Name, r.Place, r.Tokens,
			size(r.Bytes), r.Uses, r.Leases, r.Worth, Age(r.AgeSeconds), marks)
	}
	_ = w.Flush() // into memory
	return b.String()
}

// Age is a time in the unit that suits it.
func Age(seconds float64) string {
	for _, u := range []struct {
		of   float64
		unit string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}} {
		if seconds >= u.of {
			return fmt.Sprintf("%.0f%s", seconds/u.of, u.unit)
		}
	}
	return fmt.Sprintf("%.0fs", max(0, seconds))
}

// size is a number of bytes in the unit that suits it.
func size(n int64) string {
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < 3 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGT"[unit])
}
