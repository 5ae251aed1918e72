// Package bench measures norion and says what was found. It owns the scenarios, the paired
// method (norion and a peer program take turns in one run, and a claim is a ratio with its
// spread), the report's JSON form, and the reading of llama-bench's own forms. docs/bench.md
// explains how to read a report.
//
// It must not know flags of a command line, colours or terminals: cmd wires those. Nothing here
// changes how a model runs; a benchmark uses the doors that everybody uses.
package bench
