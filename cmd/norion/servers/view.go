package servers

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/norion/norion/cmd/norion/top"
)

// Table lists servers, one line each.
func Table(all []Server, now time.Time) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tADDRESS\tUP\tREQUESTS\tMODELS")
	for i := range all {
		s := &all[i]
		var names []string
		for _, m := range s.Models {
			names = append(names, m.Name)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%s\n", s.ID, s.PID, s.Address(),
			top.Age(now.Sub(s.Started).Seconds()), s.InFlight, strings.Join(names, ", "))
	}
	_ = w.Flush() // into memory
	return b.String()
}

// Activity is a table of what the models of servers do.
func Activity(all []Server) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tMODEL\tRUN\tWAIT\tPARKED\tTOKENS/S\tTTFT P50\tP95\tCELLS\tPROMPT\tREUSED\t"+
		"RESTARTS")
	for _, s := range all {
		for _, m := range s.Models {
			if !m.Loaded {
				fmt.Fprintf(w, "%s\t%s\t-\tnot loaded\n", s.ID, m.Name)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%.1f\t%s\t%s\t%d/%d\t%d\t%.0f %%\t%d\n", s.ID, m.Name,
				m.Running, m.Waiting, m.Parked, m.Rate, seconds(m.TTFT50), seconds(m.TTFT95), m.Cells,
				m.CellsTotal, m.Prompt, 100*float64(m.Reused)/float64(max(m.Prompt, 1)), m.Restarts)
		}
	}
	_ = w.Flush() // into memory
	return b.String()
}

// seconds is a time in the unit that suits it; 0 is not known.
func seconds(s float64) string {
	switch {
	case !(s > 0):
		return "-"
	case s < 1:
		return fmt.Sprintf("%.0f ms", 1000*s)
	}
	return fmt.Sprintf("%.1f s", s)
}
