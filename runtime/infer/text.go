package infer

import "context"

// Counter is what a Backend implements besides when it can count a request's prompt without
// computing it.
type Counter interface {
	// CountTokens gives the tokens of the prompt as the request would be run, chat template and tools
	// included. It is safe for concurrent use. It refuses what Generate would refuse.
	CountTokens(ctx context.Context, r Request) (int, error)
}

// Detokenizer is what a Backend implements besides when it can spell tokens.
type Detokenizer interface {
	// Detokenize gives the bytes that tokens stand for, control tokens spelled out. They need not be
	// valid UTF-8. It is safe for concurrent use. Kinds: KindInvalid for a token outside the
	// vocabulary, KindClosed, and those of ctx.
	Detokenize(ctx context.Context, tokens []TokenID) ([]byte, error)
}
