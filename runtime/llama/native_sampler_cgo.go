//go:build cgo

package llama

/*
#include <stdlib.h>
#include "norion.h"
*/
import "C"

import (
	"unsafe"
)

func newSampler(h modelHandle, p *SamplerParams) (samplerHandle, error) {
	var a arena
	defer a.free()
	params := (*C.nr_sampler_params)(a.alloc(1, C.sizeof_nr_sampler_params))
	params.seed, params.temperature = C.uint32_t(p.Seed), C.float(p.Temperature)
	params.dynatemp_range = C.float(p.DynatempRange)
	params.dynatemp_exponent = C.float(p.DynatempExponent)
	params.top_k, params.top_p = C.int32_t(p.TopK), C.float(p.TopP)
	params.min_p, params.typical_p = C.float(p.MinP), C.float(p.TypicalP)
	params.top_n_sigma = C.float(p.TopNSigma)
	params.xtc_probability = C.float(p.XTCProbability)
	params.xtc_threshold = C.float(p.XTCThreshold)
	params.penalty_last_n = C.int32_t(p.PenaltyLastN)
	params.penalty_repeat = C.float(p.PenaltyRepeat)
	params.penalty_frequency = C.float(p.PenaltyFrequency)
	params.penalty_presence = C.float(p.PenaltyPresence)
	params.dry_multiplier, params.dry_base = C.float(p.DRYMultiplier), C.float(p.DRYBase)
	params.dry_allowed_length = C.int32_t(p.DRYAllowedLength)
	params.dry_last_n = C.int32_t(p.DRYLastN)
	params.dry_breakers = a.texts(p.DRYBreakers)
	params.n_dry_breakers = C.int32_t(len(p.DRYBreakers))
	params.mirostat = C.int32_t(p.Mirostat)
	params.mirostat_tau, params.mirostat_eta = C.float(p.MirostatTau), C.float(p.MirostatEta)
	params.ignore_eos, params.whole = C.bool(p.IgnoreEOS), C.bool(p.whole)
	setBias(&a, params, p.Bias)
	setGrammar(&a, params, &p.Grammar)
	var e C.nr_error
	s := samplerHandle{p: C.nr_sampler_new(h.p, params, &e)}
	if s.p == nil {
		return s, lastError("sampler", &e)
	}
	s.err = newError()
	return s, nil
}

func setBias(a *arena, params *C.nr_sampler_params, bias map[Token]float32) {
	n := len(bias)
	list := (*C.nr_bias)(a.alloc(n, C.sizeof_nr_bias))
	i := 0
	for t, b := range bias {
		unsafe.Slice(list, n)[i] = C.nr_bias{token: C.int32_t(t), bias: C.float(b)}
		i++
	}
	params.bias, params.n_bias = list, C.int32_t(n)
}

func setGrammar(a *arena, params *C.nr_sampler_params, g *Grammar) {
	if g.GenerationPrompt != "" {
		params.generation_prompt = a.text(g.GenerationPrompt)
	}
	if g.Text == "" {
		return
	}
	params.grammar = a.text(g.Text)
	params.grammar_lazy, params.grammar_prefill = C.bool(g.Lazy), C.bool(g.Prefill)
	n := len(g.Triggers)
	types := (*C.int32_t)(a.alloc(n, C.sizeof_int32_t))
	tokens := (*C.int32_t)(a.alloc(n, C.sizeof_int32_t))
	values := make([]string, n)
	for i, t := range g.Triggers {
		unsafe.Slice(types, n)[i] = C.int32_t(t.Type)
		unsafe.Slice(tokens, n)[i] = C.int32_t(t.Token)
		values[i] = t.Value
	}
	params.trigger_types, params.trigger_tokens = types, tokens
	params.trigger_values, params.n_triggers = a.texts(values), C.int32_t(n)
	kept := g.Preserved
	preserved := (*C.int32_t)(a.alloc(len(kept), C.sizeof_int32_t))
	for i, t := range kept {
		unsafe.Slice(preserved, len(kept))[i] = C.int32_t(t)
	}
	params.preserved, params.n_preserved = preserved, C.int32_t(len(kept))
}

func freeSampler(h samplerHandle) {
	C.nr_sampler_free(h.p)
	C.free(unsafe.Pointer(h.err))
}

func samplerSeed(h samplerHandle) uint32 { return uint32(C.nr_sampler_seed(h.p)) }

func samplerBrief(h samplerHandle) bool { return bool(C.nr_sampler_brief(h.p)) }

func acceptToken(h samplerHandle, token Token, generated bool) error {
	if C.nr_sampler_accept(h.p, C.int32_t(token), C.bool(generated), h.err) == C.NR_OK {
		return nil
	}
	return lastError("accept", h.err)
}

func sample(c contextHandle, s samplerHandle, place int) (Token, error) {
	t := C.nr_sampler_sample(s.p, c.p, C.int32_t(place), s.err)
	if t < 0 {
		return 0, lastError("sample", s.err)
	}
	return Token(t), nil
}
