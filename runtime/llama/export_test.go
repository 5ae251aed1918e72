//go:build cgo

package llama

// FailAllocation lets an allocation of C++ on this thread fail, once, after n others.
var FailAllocation = failAllocation

// Whole is p with upstream's own chain on the whole vocabulary.
func (p SamplerParams) Whole() SamplerParams {
	p.whole = true
	return p
}

// Brief says whether a sampler never makes a candidate of every token.
func Brief(s *Sampler) bool { return samplerBrief(s.h) }
