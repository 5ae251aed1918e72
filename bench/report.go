package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// ReportSchema names the form of Report. A change of meaning changes the number.
const ReportSchema = "norion.bench/1"

// Report is what every benchmark leaves behind: where, what and how it was measured, every raw
// sample, and what follows from them.
type Report struct {
	Schema    string    `json:"schema"`
	Name      string    `json:"name"`  // of the benchmark: "native"
	Quick     bool      `json:"quick"` // fewer rounds and smaller tests: a look, no evidence
	Started   time.Time `json:"started"`
	DurationS float64   `json:"duration_s"`
	Machine   Machine   `json:"machine"`
	Build     Build     `json:"build"`
	Models    []Model   `json:"models"`
	Flags     []string  `json:"flags"`  // of this run
	Rounds    int       `json:"rounds"` // asked for; a claim says how many there were
	OwnPeak   int64     `json:"own_peak_rss_bytes"`
	LeftOut   []string  `json:"left_out,omitempty"` // subjects that a quick run had no time for
	Runs      []Run     `json:"runs"`
	Claims    []Claim   `json:"claims"`
}

// Model is a measured file.
type Model struct {
	Name   string `json:"name"`   // as given
	Digest string `json:"digest"` // "sha256:..." of the file
	Bytes  int64  `json:"bytes"`
}

// Side says who ran.
type Side string

const (
	SideNorion      Side = "norion"
	SidePeer        Side = "peer"          // with its best documented flags
	SidePeerDefault Side = "peer-defaults" // as it comes
	// Sides that are norion too, against which norion is held: with speculation otherwise.
	SideOff Side = "speculation-off"
	SideOn  Side = "speculation-on"
)

// Run is one measured process.
type Run struct {
	Subject   string  `json:"subject"`        // what was run: "tg128 smollm2:135m t=1"
	Case      string  `json:"case,omitempty"` // of a grid: which point; then Round counts the points
	Side      Side    `json:"side"`
	Round     int     `json:"round"`                // from 0
	Turn      int     `json:"turn"`                 // place in the round, from 0
	Rate      float64 `json:"rate,omitempty"`       // tokens per second, the mean of its samples
	SamplesNs []int64 `json:"samples_ns,omitempty"` // as the process reported them
	// Of a scenario: its requests, the time from the first's start to the last's end, the fewest
	// prompt tokens that could be computed, and a digest of the scripted text.
	Samples []Sample `json:"requests,omitempty"`
	PlayNs  int64    `json:"play_ns,omitempty"`
	Ideal   int      `json:"ideal_tokens,omitempty"`
	Work    string   `json:"work,omitempty"`
	// Of a long stream, its moments; of what is no time, figures by name.
	Marks  []Mark             `json:"marks,omitempty"`
	Values map[string]float64 `json:"values,omitempty"`
	Plan   string             `json:"plan,omitempty"` // of norion's load, in one line
	Use
}

// Measure is one figure of a Run.
type Measure struct {
	Name string
	Unit string
	Of   func(Run) float64 // 0 when it was not measured
}

// The measures of runs.
var (
	MeasureRate = Measure{"rate", "tokens/s", func(r Run) float64 { return r.Rate }}
	MeasureRSS  = Measure{"peak RSS", "MiB", func(r Run) float64 {
		return float64(r.PeakRSSBytes) / (1 << 20)
	}}
	MeasureFirst = Measure{"first byte", "ms", func(r Run) float64 {
		return float64(r.FirstByteNs) / 1e6
	}}
)

// Claim is a statement with what it rests on.
type Claim struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"` // median over the rounds
	Unit    string  `json:"unit"`  // "ratio" for a ratio
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Bar     string  `json:"bar,omitempty"`   // such as ">= 0.98"; "" when none is set
	Holds   *bool   `json:"holds,omitempty"` // whether Value meets Bar; absent without one
	Samples int     `json:"samples"`         // paired rounds behind it
	// Noise is how far ratios of a program to itself lay from 1 in this run. WithinNoise says that
	// it is wider than the distance of Value from Bar, or unknown since there was one round only:
	// more rounds or a calmer machine are needed.
	Noise       float64 `json:"noise"`
	WithinNoise bool    `json:"within_noise"`
}

// Bar is a limit that a claim is held against. The zero Bar is none.
type Bar struct {
	AtMost bool // Value must not be above Limit; else not below
	Limit  float64
}

// String gives ">= 0.98", or "" for the zero Bar.
func (b Bar) String() string {
	switch {
	case b.Limit == 0:
		return ""
	case b.AtMost:
		return fmt.Sprintf("<= %.2f", b.Limit)
	}
	return fmt.Sprintf(">= %.2f", b.Limit)
}

// Pair compares two sides of one subject in one measure, round by round.
type Pair struct {
	Subject  string
	Measure  Measure
	A, B     Summary // of each side
	Ratio    Summary // A to B of each round
	SelfA    Summary // A to A of the round before
	SelfB    Summary
	aSide, b Side
}

// Pair computes a comparison. Runs of a side are taken in the order of rounds.
func (r *Report) Pair(subject string, m Measure, a, b Side) Pair {
	as, bs := r.samples(subject, m, a), r.samples(subject, m, b)
	return Pair{
		Subject: subject, Measure: m, aSide: a, b: b,
		A: Summarize(positive(as)), B: Summarize(positive(bs)), Ratio: Summarize(Ratios(as, bs)),
		SelfA: Summarize(Consecutive(as)), SelfB: Summarize(Consecutive(bs)),
	}
}

// samples is one figure per round, 0 where a round lacks it.
func (r *Report) samples(subject string, m Measure, side Side) []float64 {
	var out []float64
	for _, run := range r.Runs {
		if run.Subject != subject || run.Side != side {
			continue
		}
		for len(out) <= run.Round {
			out = append(out, 0)
		}
		out[run.Round] = m.Of(run)
	}
	return out
}

func positive(v []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(v), func(x float64) bool { return x <= 0 })
}

// Claim holds the pair's ratio against a bar. There is none, and ok is false, without a round.
func (p Pair) Claim(bar Bar) (c Claim, ok bool) {
	if p.Ratio.N == 0 {
		return c, false
	}
	c = Claim{
		Name:  fmt.Sprintf("%s, %s, %s to %s", p.Subject, p.Measure.Name, p.aSide, p.b),
		Value: p.Ratio.Median, Unit: "ratio", Min: p.Ratio.Min, Max: p.Ratio.Max,
		Bar: bar.String(), Samples: p.Ratio.N, Noise: max(p.SelfA.Spread(), p.SelfB.Spread()),
	}
	if bar == (Bar{}) {
		return c, true
	}
	holds := bar.met(p.Ratio.Median)
	c.Holds = &holds
	c.WithinNoise = p.SelfA.N == 0 || math.Abs(p.Ratio.Median-bar.Limit) < c.Noise
	return c, true
}

// Hold holds one side's figure against a bar. There is none, and ok is false, without a round.
// It is within noise when some rounds meet the bar and others do not.
func (r *Report) Hold(subject string, m Measure, side Side, bar Bar) (c Claim, ok bool) {
	s := Summarize(r.samples(subject, m, side))
	if s.N == 0 {
		return c, false
	}
	c = Claim{
		Name:  fmt.Sprintf("%s, %s, %s", subject, m.Name, side),
		Value: s.Median, Unit: m.Unit, Min: s.Min, Max: s.Max, Bar: bar.String(), Samples: s.N,
	}
	if bar != (Bar{}) {
		holds := bar.met(s.Median)
		c.Holds = &holds
		c.WithinNoise = bar.met(s.Min) != bar.met(s.Max)
	}
	return c, true
}

// met says whether a value is on the right side.
func (b Bar) met(v float64) bool {
	if b.AtMost {
		return v <= b.Limit
	}
	return v >= b.Limit
}

// WriteJSON writes the report, indented.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// WriteText writes the report for people: the pairs, then the claims.
func (r *Report) WriteText(w io.Writer, pairs []Pair) error {
	if _, err := fmt.Fprintf(w, "%s, %s, %d processors, llama.cpp %s (%s)\n", r.Machine.CPU,
		r.Machine.OS, r.Machine.Processors, r.Build.LlamaVersion, r.Build.LlamaCommit); err != nil {
		return err
	}
	if r.Quick {
		text := "quick: fewer rounds and smaller tests; no evidence\n"
		for _, s := range r.LeftOut {
			text += "left out: " + s + "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	if err := r.writeRequests(w); err != nil {
		return err
	}
	if err := r.writePlans(w); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	// Errors of a tabwriter come back from Flush.
	if len(pairs) > 0 {
		fmt.Fprint(t, "\nwhat\tmeasure\tnorion\tpeer\tratio\tnorion/norion\tpeer/peer\trounds\n")
	}
	for _, p := range pairs {
		if p.Ratio.N == 0 {
			continue
		}
		what := p.Subject
		switch p.b {
		case SidePeer:
		case SidePeerDefault:
			what += " (peer's defaults)"
		default:
			what += " (" + string(p.b) + ")"
		}
		fmt.Fprintf(t, "%s\t%s, %s\t%.1f\t%.1f\t%s\t%s\t%s\t%d\n", what, p.Measure.Name,
			p.Measure.Unit, p.A.Median, p.B.Median, p.Ratio, p.SelfA, p.SelfB, p.Ratio.N)
	}
	if len(r.Claims) > 0 {
		fmt.Fprint(t, "\nclaim\tvalue\tbar\tholds\trounds\tnoise\n")
	}
	for _, c := range r.Claims {
		fmt.Fprintf(t, "%s\t%.3f\t%s\t%s\t%d\t%.3f\n", c.Name, c.Value, or(c.Bar, "-"), c.verdict(),
			c.Samples, c.Noise)
	}
	return t.Flush()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// verdict is Holds in words.
func (c Claim) verdict() string {
	switch {
	case c.Holds == nil:
		return "-"
	case c.WithinNoise && *c.Holds:
		return "yes, within noise"
	case c.WithinNoise:
		return "no, within noise"
	case *c.Holds:
		return "yes"
	}
	return "NO"
}
