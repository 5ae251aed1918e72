//go:build cgo

package llama

// FailAllocation lets an allocation of C++ on this thread fail, once, after n others.
var FailAllocation = failAllocation
