// Package house holds the tests that keep the house rules: which package may import which, one
// package with C, lengths, comments, and what may lie in the tree. Run it with
// `go test ./docs/house`.
//
// It owns the rules as tests over the text of the tree. It must not know what any package does, and
// nothing imports it.
//
// An exception is a comment that begins with house:allow, the rule's name and a reason: on the line
// before a function (function-lines), on the line or the one before (columns, machine-path), or
// anywhere in the file (file-lines).
package house
