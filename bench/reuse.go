package bench

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// Bars of the reuse benchmark.
var (
	barExcess     = Bar{Limit: 1, AtMost: true}
	barComputed   = Bar{Limit: 1, AtMost: true}
	barFanOut     = Bar{Limit: 1.0 / 3, AtMost: true} // of the peer's defaults, computed tokens
	barFanOutTTFT = Bar{Limit: 0.5, AtMost: true}     // of the peer's defaults
	barRestored   = Bar{Limit: 1, AtMost: true}       // per cent
	barParked     = Bar{Limit: 0.2, AtMost: true}     // per cent
)

// sequencesMost is how many requests an engine runs at once where more come.
const sequencesMost = 16

// PickPatterns keeps the named patterns; no names keep all. Errors: ErrFlag.
func PickPatterns(all []Pattern, names []string) ([]Pattern, error) {
	if len(names) == 0 {
		return all, nil
	}
	var out []Pattern
	for _, name := range names {
		i := slices.IndexFunc(all, func(p Pattern) bool { return p.Name == name })
		if i < 0 {
			var known []string
			for _, p := range all {
				known = append(known, p.Name)
			}
			return nil, badFlag("pattern", "use "+strings.Join(known, ", "), "unknown %q", clip(name))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// Reuse plays patterns and counts what is computed. It stops at the first failure.
func (s Scenario) Reuse(ctx context.Context, sizes Sizes, names []string) (Report, []Pair, error) {
	sizes = sizes.Fill(s.Quick)
	if err := sizes.Validate(); err != nil {
		return Report{}, nil, err
	}
	patterns, err := PickPatterns(sizes.Patterns(), names)
	if err != nil {
		return Report{}, nil, err
	}
	g, err := s.begin(ctx, "reuse")
	if err != nil {
		return Report{}, nil, err
	}
	var subjects []subject
	for _, p := range patterns {
		subjects = append(subjects, g.reuse(p, sizes))
	}
	return g.measure(ctx, subjects)
}

// room rounds a number of tokens up to what llama.cpp makes of it.
func room(tokens int) int { return (tokens + contextBlock - 1) / contextBlock * contextBlock }

// reuse is one pattern: its sides, and what is claimed.
func (g *game) reuse(p Pattern, sizes Sizes) subject {
	longest, cells := room(p.Longest()), room(p.distinct())
	if !p.Crowded {
		// Text that comes back in another order is another conversation to a prefix cache.
		cells = max(cells, 2*longest)
	}
	s := scene{
		subject: g.label(p.Name),
		wish: EngineWish{
			Longest: longest, Sequences: min(p.AtOnce(), sequencesMost), Cells: cells,
		},
		best: p.bestFlags(longest, cells), keep: p.Outlives,
		args: append(sizes.Args(), "--pattern", p.Name),
		act:  func(ctx context.Context, rt runtimeUnderTest) (Run, error) { return play(ctx, rt, p) },
	}
	out := subject{name: s.subject, turns: g.turns(s)}
	if p.Chunks == 0 {
		out.alone = append(out.alone, held{MeasureExcess, SideNorion, barExcess})
	}
	switch p.Name {
	case "restart":
		out.alone = append(out.alone, held{MeasureRestored, SideNorion, barRestored})
	case "parked":
		out.alone = append(out.alone, held{MeasureParked, SideNorion, barParked})
	}
	if g.Server.Path == "" {
		return out
	}
	fan := strings.HasPrefix(p.Name, "fan-out")
	for _, side := range []Side{SidePeer, SidePeerDefault} {
		computed, ttft := barComputed, Bar{}
		if fan && side == SidePeerDefault {
			computed, ttft = barFanOut, barFanOutTTFT
		}
		out.claims = append(out.claims,
			wanted{MeasureComputed, side, computed}, wanted{MeasureFirst50, side, ttft},
			wanted{MeasureFirst95, side, Bar{}}, wanted{MeasurePlay, side, Bar{}},
			wanted{MeasureRSS, side, Bar{}})
	}
	return out
}

// bestFlags are the documented flags of llama-server that did best on this pattern: a slot for each
// conversation that goes on at the same time and no more, since a slot's prefix is not shared with
// another; the moved chunks of --cache-reuse where text moves.
func (p *Pattern) bestFlags(longest, cells int) []string {
	slots, context := min(p.AtOnce(), 4), max(cells, room(p.most(min(p.AtOnce(), 4))))
	if strings.HasPrefix(p.Name, "fan-out") {
		slots, context = 1, longest
	}
	flags := []string{
		"-lm", "none", "-fit", "off", "-kvu", "-np", strconv.Itoa(slots), "-c", strconv.Itoa(context),
	}
	if p.Chunks > 0 {
		flags = append(flags, "--cache-reuse", strconv.Itoa(p.Chunks))
	}
	return flags
}
