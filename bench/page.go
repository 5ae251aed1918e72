package bench

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

// WriteHTML writes the report as one page that needs nothing else: no network, no script. Bars are
// medians over the rounds, with a line from the smallest to the largest.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return err
	}
	p := page{Report: r}
	for i := range r.Claims {
		p.Claims = append(p.Claims, pageClaim{r.Claims[i], r.Claims[i].verdict()})
	}
	for _, s := range r.sides() {
		p.Sides = append(p.Sides, pageSide{
			s, s.cachedText(), some("%.1f", s.Rate),
			some("%.0f", s.PeakMiB),
		})
	}
	for _, subject := range r.subjects() {
		p.Subjects = append(p.Subjects, pageSubject{
			Name: subject, Panels: r.panels(subject), Plots: r.plots(subject),
		})
	}
	return t.Execute(w, p)
}

// page is what the template is given.
type page struct {
	*Report
	Subjects []pageSubject
	Claims   []pageClaim
	Sides    []pageSide
}

type pageClaim struct {
	Claim
	Verdict string
}

type pageSide struct {
	sideSummary
	Cached, RateText, Peak string
}

type pageSubject struct {
	Name   string
	Panels []panel
	Plots  []plot
}

// Sizes of drawings, in pixels.
const (
	panelLabel = 96  // for the sides' names
	panelPlot  = 240 // for the longest bar
	panelRow   = 22
	plotWidth  = 720
	plotHeight = 200
	plotMargin = 44
)

// panel is one measure of all sides of a subject.
type panel struct {
	Title   string
	Height  int
	Bars    []bar
	Ideal   float64 // where the ideal lies, 0 for none
	IdealAt float64
}

// bar is one side's figure; lengths are in pixels from the left of the panel.
type bar struct {
	Side           Side
	Y              int
	At, To, Lo, Hi float64
	Text           string
}

// subjects lists the names of what was run, in order.
func (r *Report) subjects() []string {
	var out []string
	for _, run := range r.Runs {
		if !slices.Contains(out, run.Subject) {
			out = append(out, run.Subject)
		}
	}
	return out
}

// allSides is the order in which sides are drawn.
var allSides = [...]Side{SideNorion, SideOff, SideOn, SidePeer, SidePeerDefault}

// panels draws the measures that a subject has.
func (r *Report) panels(subject string) []panel {
	var out []panel
	for _, m := range []Measure{
		MeasureComputed, MeasureRate, MeasureFirst, MeasureFirst50, MeasureFirst95, MeasureGap50,
		MeasureGap99, MeasureBefore, MeasureDuring, MeasurePlay, MeasureRSS,
	} {
		p := panel{Title: m.Name + ", " + m.Unit}
		most := 0.0
		var sums []Summary
		for _, side := range allSides {
			s := Summarize(positive(r.samples(subject, m, side)))
			sums = append(sums, s)
			most = max(most, s.Max)
		}
		if most == 0 {
			continue
		}
		if m.Name == MeasureComputed.Name {
			p.Ideal = r.ideal(subject)
			most = max(most, p.Ideal)
			p.IdealAt = panelLabel + panelPlot*p.Ideal/most
		}
		for i, side := range allSides {
			if sums[i].N == 0 {
				continue
			}
			at := func(v float64) float64 { return math.Round(panelLabel + panelPlot*v/most) }
			p.Bars = append(p.Bars, bar{
				Side: side, Y: panelRow * len(p.Bars), At: panelLabel, To: at(sums[i].Median) - panelLabel,
				Lo: at(sums[i].Min), Hi: at(sums[i].Max), Text: short(sums[i].Median),
			})
		}
		p.Height = panelRow * len(p.Bars)
		out = append(out, p)
	}
	return out
}

// ideal is the fewest prompt tokens that the subject could compute.
func (r *Report) ideal(subject string) float64 {
	for _, run := range r.Runs {
		if run.Subject == subject && run.Ideal > 0 {
			return float64(run.Ideal)
		}
	}
	return 0
}

// short prints a figure with three digits or all before the point.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// plot is points over time, one series for each side.
type plot struct {
	Title, X, Y    string
	Width, Height  int
	Series         []series
	YMost, XMost   string
	YLeast         string // at the bottom, where the axis is logarithmic
	Bottom, Margin int
}

type series struct {
	Side Side
	Path string // of an SVG path: dots or a line
	Line bool
}

// point is one value at a time.
type point struct{ x, y float64 }

// plots draws, of the first round, the time between tokens where many came, and memory and speed of
// a long stream.
func (r *Report) plots(subject string) []plot {
	bySide, memory, speed := map[Side][]point{}, map[Side][]point{}, map[Side][]point{}
	for _, run := range r.Runs {
		if run.Subject != subject || run.Round != 0 {
			continue
		}
		for i, m := range run.Marks {
			at := float64(m.Tokens)
			memory[run.Side] = append(memory[run.Side], point{at, float64(m.RSSBytes) / (1 << 20)})
			if i > 0 && m.Ns > run.Marks[i-1].Ns {
				rate := 1e9 * (at - float64(run.Marks[i-1].Tokens)) / float64(m.Ns-run.Marks[i-1].Ns)
				speed[run.Side] = append(speed[run.Side], point{at, rate})
			}
		}
		for _, s := range run.Samples {
			at := s.StartNs + s.FirstNs
			for _, gap := range s.GapsNs {
				at += gap
				bySide[run.Side] = append(bySide[run.Side], point{float64(at) / 1e9, ms(float64(gap))})
			}
		}
	}
	const few = 32
	var out []plot
	if len(bySide[SideNorion]) >= few {
		out = append(out, draw("time between tokens", "s", "ms", bySide, false))
	}
	if len(memory) > 0 {
		out = append(out, draw("resident memory", "tokens", "MiB", memory, true),
			draw("speed", "tokens", "tokens/s", speed, true))
	}
	return out
}

// draw scales points to a plot. Both axes begin at 0, but for dots, whose values are drawn on a
// logarithmic axis.
func draw(title, x, y string, bySide map[Side][]point, line bool) plot {
	p := plot{
		Title: title, X: x, Y: y, Width: plotWidth, Height: plotHeight, Margin: plotMargin,
		Bottom: plotHeight - plotMargin/2,
	}
	const least = 0.1
	scale := func(y float64) float64 {
		if line {
			return y
		}
		return math.Log10(max(y, least) / least)
	}
	var xMost, yMost float64
	for _, points := range bySide {
		for _, v := range points {
			xMost, yMost = max(xMost, v.x), max(yMost, v.y)
		}
	}
	if xMost == 0 || scale(yMost) == 0 {
		return p
	}
	if !line {
		p.YLeast = short(least)
	}
	for _, side := range allSides {
		var b strings.Builder
		for i, v := range bySide[side] {
			px := plotMargin + v.x/xMost*(plotWidth-plotMargin-8)
			py := float64(p.Bottom) - scale(v.y)/scale(yMost)*float64(p.Bottom-8)
			switch {
			case line && i > 0:
				fmt.Fprintf(&b, "L%.1f %.1f", px, py)
			case line:
				fmt.Fprintf(&b, "M%.1f %.1f", px, py)
			default:
				fmt.Fprintf(&b, "M%.1f %.1fh0", px, py) // a dot, by the round end of a line
			}
		}
		if b.Len() > 0 {
			p.Series = append(p.Series, series{side, b.String(), line})
		}
	}
	p.XMost, p.YMost = short(xMost), short(yMost)
	return p
}
