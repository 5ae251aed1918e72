package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// sideSummary is what one side of a subject did, over its rounds.
type sideSummary struct {
	Subject                 string
	Side                    Side
	Rounds                  int
	Computed, Ideal, Prompt float64 // tokens of one round
	Live, RAM, Disk         float64 // tokens that were not computed, by where they lay
	Told                    bool    // whether the side says where they lay
	Rate                    float64 // tokens/s, 0 when the scenario has none
	First50, First95        Summary // ms
	Gap50, Gap99            Summary // ms
	Play                    Summary // ms
	PeakMiB                 float64 // 0 when it was not measured
}

// sides summarises the runs that have requests, in the order in which they came first.
func (r *Report) sides() []sideSummary {
	type key struct {
		subject string
		side    Side
	}
	var order []key
	runs := map[key][]Run{}
	for _, run := range r.Runs {
		if len(run.Samples) == 0 {
			continue
		}
		k := key{run.Subject, run.Side}
		if runs[k] == nil {
			order = append(order, k)
		}
		runs[k] = append(runs[k], run)
	}
	var out []sideSummary
	for _, k := range order {
		of := func(f func(Run) float64) Summary {
			var v []float64
			for _, run := range runs[k] {
				v = append(v, f(run))
			}
			return Summarize(v)
		}
		count := func(f func(Sample) int) float64 {
			return of(func(r Run) float64 { return float64(r.sum(f)) }).Median
		}
		cached := func(where func(Sample) int) float64 {
			return count(func(s Sample) int {
				if s.Cached == nil {
					return 0
				}
				return where(s)
			})
		}
		out = append(out, sideSummary{
			Subject: k.subject, Side: k.side, Rounds: len(runs[k]),
			Computed: of(MeasureComputed.Of).Median,
			Ideal:    of(func(r Run) float64 { return float64(r.Ideal) }).Median,
			Prompt:   count(func(s Sample) int { return s.Prompt }),
			Live:     cached(func(s Sample) int { return s.Cached.Live }),
			RAM:      cached(func(s Sample) int { return s.Cached.RAM }),
			Disk:     cached(func(s Sample) int { return s.Cached.Disk }),
			Told:     k.side != SidePeer && k.side != SidePeerDefault,
			Rate:     of(MeasureRate.Of).Median,
			First50:  of(MeasureFirst50.Of), First95: of(MeasureFirst95.Of),
			Gap50: of(MeasureGap50.Of), Gap99: of(MeasureGap99.Of),
			Play: of(MeasurePlay.Of), PeakMiB: of(MeasureRSS.Of).Median,
		})
	}
	return out
}

// cachedText says how many prompt tokens were not computed: from live cells, RAM and disk, or
// together.
func (s sideSummary) cachedText() string {
	if s.Told {
		return fmt.Sprintf("%.0f + %.0f + %.0f", s.Live, s.RAM, s.Disk)
	}
	return fmt.Sprintf("%.0f", s.Prompt-s.Computed)
}

// writeRequests writes the table of what each side did; nothing when no run has requests.
func (r *Report) writeRequests(w io.Writer) error {
	sides := r.sides()
	if len(sides) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	// Errors of a tabwriter come back from Flush.
	fmt.Fprint(t, "\nmedians over rounds\tside\tprompt\tcomputed\tideal\tlive + RAM + disk",
		"\tTTFT p50, ms\tp95\tITL p50, ms\tp99\ttotal, ms\ttokens/s\tpeak MiB\trounds\n")
	for _, s := range sides {
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%.0f\t%s\t%s\t%.0f\t%.0f\t%.1f\t%.1f\t%.0f\t%s\t%s\t%d\n",
			s.Subject, s.Side, s.Prompt, s.Computed, some("%.0f", s.Ideal), s.cachedText(),
			s.First50.Median, s.First95.Median, s.Gap50.Median, s.Gap99.Median, s.Play.Median,
			some("%.1f", s.Rate), some("%.0f", s.PeakMiB), s.Rounds)
	}
	return t.Flush()
}

// some prints a figure that was measured.
func some(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}
