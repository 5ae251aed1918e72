// Package httpapi is the network edge: the routes of OpenAI's and Anthropic's interfaces, who may
// call them, limits, streaming and the mapping of errors. It owns the translation between their
// JSON and package infer, and what a client may cost. It must not know how a model is found, loaded
// or run, nor where keys are kept: Models and Options.Keys are handed in.
//
// A request passes the guards of guard.go in order (drain, Host, Origin, key, budget, room), then
// its route's handler. Handlers return errors; serve writes them in the dialect of the route. What
// a request holds that this server cannot do is refused by name, never ignored.
//
// Text of prompts and answers is never logged, nor used as a label.
package httpapi
