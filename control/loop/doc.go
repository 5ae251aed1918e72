// Package loop owns the path of a request through the control layer. It has one stage so far, the
// record: nothing is generated before the record has its request on stable storage, and each
// request ends there too.
//
// It records who asked which model and what it cost, never a prompt or an answer. It must not know
// any engine, protocol or file: a backend, a record and a clock are handed in.
package loop
