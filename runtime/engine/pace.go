package engine

import "time"

// Bounds of a chunk of a prompt that is computed while answers stream.
const (
	chunkTry = 4 // a few tokens, to know what they take
	// chunkTile is how many tokens of one sequence the processor's flash attention takes together,
	// if there are so many: read as one block, the cells cost a few times less for each token than
	// read for one after the other, and the more so the more cells there are.
	chunkTile    = 64
	chunkShare   = 4   // a prompt advances at most so many times slower than in whole tiles
	chunksMost   = 32  // steps with chunks, before one without is measured again
	stallDefault = 2.0 // a step with a chunk takes so many times as long as one without
)

// pace measures steps, so that prompts hold up the answers that stream by no more than stall says,
// as long as they advance.
type pace struct {
	stall  float64
	decode float64  // seconds of a step with answers only
	chunks int      // steps with answers and prompts since then
	token  float64  // seconds that one token of a prompt adds
	draft  float64  // seconds that one guessed token adds
	few    estimate // of x tokens of prompts, fewer than a tile, that attend to y in all
	tiles  estimate // of a tile or more
}

// weight is that of the latest measurement.
const weight = 0.2

// note takes in that a step with so many answers, tokens of prompts and guesses took d. Before is
// how many tokens those of the prompts attend to, summed over them.
func (p *pace) note(d time.Duration, streams, prefill, drafted int, before float64) {
	s := d.Seconds()
	mix := func(old *float64, now float64) {
		if *old == 0 {
			*old = now
		}
		*old += weight * (now - *old)
	}
	switch {
	case drafted > 0 && prefill > 0: // of two causes neither is known
	case drafted > 0 && p.decode == 0:
		p.decode = s // too much, until there is a step without guesses
	case drafted > 0:
		mix(&p.draft, max(0, s-p.decode)/float64(drafted))
		p.chunks = 0
	case prefill == 0:
		mix(&p.decode, s)
		p.chunks = 0
	case streams == 0:
		if p.token == 0 {
			p.token = s / float64(prefill) // the least it can be: alone, tokens share the weights
		}
		p.chunked(s, prefill, before)
	default:
		p.chunks++
		mix(&p.token, max(0, s-p.decode)/float64(prefill))
		p.chunked(max(0, s-p.decode), prefill, before)
	}
}

// chunked takes in what the tokens of prompts added to a step.
func (p *pace) chunked(s float64, prefill int, before float64) {
	if prefill < chunkTile {
		p.few.add(float64(prefill), before, s)
	} else {
		p.tiles.add(float64(prefill), before, s)
	}
}

// chunk is how many tokens of prompts may come with a step of answers, where so many tokens lie
// before them: as many whole tiles as stall allows, or else a few tokens. Where not even one token
// is within stall, or the prompt would hardly advance, it is one tile: the answers wait longer than
// stall says, and not for long. It is none where a step of answers alone has to be measured first.
func (p *pace) chunk(depth int) int {
	tile := p.tiles.at(chunkTile, chunkTile*float64(depth))
	switch {
	case p.decode == 0 || p.chunks >= chunksMost:
		return 0
	case tile == 0:
		return chunkTile // to know what it takes
	}
	budget := (p.stall - 1) * p.decode
	if n := int(budget / tile); n > 0 {
		return n * chunkTile
	}
	few := p.few.at(1, float64(depth))
	if few == 0 {
		return chunkTry // likewise
	}
	n := float64(min(int(budget/few), chunkTile-1))
	if n == 0 || chunkShare*n/(p.decode+n*few) < chunkTile/(p.decode+tile) {
		return chunkTile
	}
	return int(n)
}

// Bounds of what a guessed token costs, in steps of one token.
const (
	draftCostMin     = 0.01
	draftCostMax     = 4
	draftCostDefault = 0.5
)

// draftCost is what one guessed token costs, in steps of one token, while so many answers share a
// step: then the token that it may save is worth less.
func (p *pace) draftCost(streams int) float64 {
	cost := p.draft
	if cost == 0 {
		cost = p.token
	}
	if cost == 0 || p.decode == 0 {
		return draftCostDefault
	}
	return min(max(cost*float64(streams)/p.decode, draftCostMin), draftCostMax)
}
