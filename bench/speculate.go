package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/norion/norion/runtime/infer"
)

// Bars of the speculate benchmark: adaptive speculation to none, tokens per second of decode.
var (
	barRepetitive = Bar{Limit: 1.5}
	barFree       = Bar{Limit: 0.98}
)

// Drafts is what the speculate benchmark asks.
type Drafts struct {
	Lines int // sentences, records or lines of code that a prompt shows
	Gen   int // tokens of an answer
}

// DefaultDrafts and QuickDrafts are what Drafts is when nobody says.
var (
	DefaultDrafts = Drafts{Lines: 16, Gen: 256}
	QuickDrafts   = Drafts{Lines: 8, Gen: 64}
)

// linesMax bounds the lines of a prompt.
const linesMax = 4096

// Fill puts defaults in place of zeros.
func (d Drafts) Fill(quick bool) Drafts {
	def := DefaultDrafts
	if quick {
		def = QuickDrafts
	}
	if d.Lines == 0 {
		d.Lines = def.Lines
	}
	if d.Gen == 0 {
		d.Gen = def.Gen
	}
	return d
}

// Validate refuses what cannot be measured. Errors: ErrFlag.
func (d *Drafts) Validate() error {
	if d.Lines < 2 || d.Lines > linesMax {
		return badFlag("lines", "", "%d is outside 2..%d", d.Lines, linesMax)
	}
	if d.Gen < 2 || d.Gen > SizeTokensMax {
		return badFlag("gen", "", "%d is outside 2..%d", d.Gen, SizeTokensMax)
	}
	return nil
}

// Sampling of free text.
const (
	freeTemperature = 0.8
	freeSeed        = 1
)

// workload is one kind of answer.
type workload struct {
	name   string
	prompt string
	free   bool // sampled, and repeats nothing; else greedy
}

// workloads are made by seed: the same text on every machine.
func (d *Drafts) workloads() []workload {
	r := rand.New(rand.NewPCG(seedTurn, 2)) //nolint:gosec // text, no secret
	pick := func(of string) string {
		all := strings.Split(of, "|")
		return all[r.IntN(len(all))]
	}
	var text, records, code []string
	for i := range d.Lines {
		text = append(text, pick("The doctor|An old sailor|My sister|The teacher|A young farmer")+
			pick(" carried| found| sold| painted| forgot")+
			pick(" a wooden chair| the blue letter| three lamps| her best coat| some bread")+
			pick(" behind the station.| at the market.| near the harbour.| before the winter."))
		records = append(records, fmt.Sprintf(
			`{"id": %d, "name": "%s", "city": "%s", "role": "%s", "active": %t}`, i+1,
			pick("Anna|Boris|Clara|David|Elena"), pick("Oslo|Porto|Graz|Turin|Bergen"),
			pick("driver|cook|nurse|clerk|baker"), r.IntN(2) == 0))
		code = append(code, fmt.Sprintf("\ttotal = %s(total, %s, %d)",
			pick("add|scale|round|limit"), pick("price|weight|count|rate"), r.IntN(100)))
	}
	before := strings.Join(code, "\n")
	after := "\ttotal = start(price)\n" + code[1]
	return []workload{
		{name: "quote", prompt: "The text:\n\n" + strings.Join(text, " ") +
			"\n\nThe same text again:\n\n" + text[0]},
		{name: "json", prompt: strings.Join(records, "\n") + "\n"},
		{name: "edit", prompt: "func before() {\n" + before + "\n}\n\n" +
			"// The same with another first line.\nfunc after() {\n" + after + "\n"},
		{name: "free", free: true, prompt: "It was late in the evening when the doctor heard a knock " +
			"at the door. She put down her book and"},
	}
}

// Speculate measures n-gram speculation: how fast answers come with it and without, for those that
// repeat what stood before and for one that does not. names picks workloads; none takes all. It
// stops at the first failure.
func (s Scenario) Speculate(ctx context.Context, d Drafts, names []string) (
	Report, []Pair, error,
) {
	d = d.Fill(s.Quick)
	if err := d.Validate(); err != nil {
		return Report{}, nil, err
	}
	byName, all := map[string]workload{}, []Pattern{}
	for _, w := range d.workloads() {
		byName[w.name] = w
		all = append(all, Pattern{Name: w.name})
	}
	picked, err := PickPatterns(all, names)
	if err != nil {
		return Report{}, nil, err
	}
	if s.Rounds == 0 && s.Server.Path == "" { // norion is compared with itself
		s.Rounds = RoundsMin
		if s.Quick {
			s.Rounds = quickRounds
		}
	}
	g, err := s.begin(ctx, "speculate")
	if err != nil {
		return Report{}, nil, err
	}
	var subjects []subject
	for _, p := range picked {
		subjects = append(subjects, g.speculate(byName[p.Name], d))
	}
	return g.measure(ctx, subjects)
}

// speculate is one workload: its sides, and what is claimed. norion's sides run in this process.
func (g *game) speculate(w workload, d Drafts) subject {
	most := room(len(w.prompt) + d.Gen) // a token is a byte at least
	var plain reply                     // without speculation: the first turn of the first round
	with := func(mode infer.Speculation) scene {
		return scene{
			subject: g.label(w.name),
			wish: EngineWish{
				Path: g.paths[g.Scenario.Model], Threads: g.Threads,
				Longest: most, Sequences: 1, Cells: most,
			},
			best: []string{
				"-lm", "none", "-fit", "off", "-np", "1", "-c", strconv.Itoa(most),
				"--spec-type", "ngram-simple",
			},
			act: func(ctx context.Context, rt runtimeUnderTest) (Run, error) {
				run, r, err := w.answer(ctx, rt, d.Gen, mode)
				if mode == infer.SpeculateOff && plain.Text == "" {
					plain = r
				}
				if mode != "" && !w.free {
					run.Values = map[string]float64{valueSame: float64(plain.same(r))}
				}
				return run, err
			},
		}
	}
	norion := func(side Side, mode infer.Speculation) turn {
		return turn{side, func(ctx context.Context) (Run, error) {
			run, err := g.inProcess(ctx, with(mode))
			if err == nil {
				err = g.sameWork(g.label(w.name), run)
			}
			return run, err
		}}
	}
	bar := barRepetitive
	if w.free {
		bar = barFree
	}
	out := subject{
		name: g.label(w.name),
		turns: []turn{
			norion(SideOff, infer.SpeculateOff), norion(SideNorion, infer.SpeculateAdaptive),
			norion(SideOn, infer.SpeculateOn),
		},
		claims: []wanted{{MeasureRate, SideOff, bar}, {MeasureRate, SideOn, Bar{}}},
		alone: []held{
			{MeasureDrafted, SideNorion, Bar{}}, {MeasureAccepted, SideNorion, Bar{}},
		},
	}
	if !w.free {
		out.alone = append(out.alone, held{MeasureSame, SideNorion, Bar{}})
	}
	if g.Server.Path != "" {
		out.turns = append(out.turns, g.turns(with(""))[1:]...)
		out.claims = append(out.claims, wanted{MeasureRate, SidePeer, Bar{}},
			wanted{MeasureRate, SidePeerDefault, Bar{}})
		out.alone = append(out.alone, held{MeasureDrafted, SidePeer, Bar{}},
			held{MeasureAccepted, SidePeer, Bar{}})
	}
	return out
}

// answer asks for one answer. The run's rate is that of decode: the tokens after the first, over
// the time since it.
func (w *workload) answer(ctx context.Context, rt runtimeUnderTest, n int,
	mode infer.Speculation,
) (Run, reply, error) {
	tokens, err := rt.Tokenize(ctx, w.prompt)
	if err != nil {
		return Run{}, reply{}, err
	}
	q := question{Tokens: tokens, Answer: n, Text: !w.free, Speculate: mode}
	if w.free {
		q.Temperature, q.Seed = freeTemperature, freeSeed
	}
	zero := time.Now()
	sample, r, err := ask(ctx, rt, zero, w.name, q)
	run := Run{Samples: []Sample{sample}, PlayNs: sample.TotalNs, Work: digestOf(packed(tokens))}
	var decode time.Duration
	for _, gap := range sample.GapsNs {
		decode += time.Duration(gap)
	}
	run.Rate = float64(len(sample.GapsNs)) / max(1, decode).Seconds()
	return run, r, err
}

// same is how many tokens of an answer come before the first that another answer lacks.
func (r *reply) same(other reply) int {
	n := 0
	for n < min(len(r.Text), len(other.Text)) && r.Text[n] == other.Text[n] {
		n++
	}
	tokens := 0
	for tokens < len(r.Ends) && r.Ends[tokens] <= n {
		tokens++
	}
	return tokens
}

// valueSame is the name of a figure of a run.
const valueSame = "tokens as without speculation"

// The measures of speculation.
var (
	MeasureDrafted = Measure{"drafted", "tokens", func(r Run) float64 {
		return float64(r.sum(func(s Sample) int { return s.Drafted }))
	}}
	MeasureAccepted = Measure{"accepted", "tokens", func(r Run) float64 {
		return float64(r.sum(func(s Sample) int { return s.Accepted }))
	}}
	// MeasureSame counts the tokens before the first that differs from greedy decoding in single
	// steps: several tokens in one step are rounded in another order.
	MeasureSame = Measure{valueSame, "tokens", func(r Run) float64 { return r.Values[valueSame] }}
)
