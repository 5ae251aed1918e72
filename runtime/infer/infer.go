// Package infer is the vocabulary of inference that every room shares: requests, answers, usage,
// error kinds and the Backend interface. It owns words and their validation; it must not know any
// engine, file, network or device, and it imports nothing of norion.
package infer

import (
	"context"
	"iter"
)

// Backend runs requests on one loaded model. It is safe for concurrent use by many goroutines.
// Every error that a method returns is an *Error.
type Backend interface {
	// Info describes the model and the limits of this backend. It never blocks.
	Info() Info

	// Generate runs one request. Chunks arrive as tokens are decoded and the last chunk carries
	// Final; an error ends the sequence and is its last element. Leaving the loop stops the
	// generation before the next step, and so does ctx. A loop that takes no chunks may hold up
	// other requests until its deadline, the end of ctx or Close. Each run of the sequence is a
	// request of its own.
	Generate(ctx context.Context, r Request) iter.Seq2[Chunk, error]

	// Score returns the log-probabilities that the model gives to a text.
	Score(ctx context.Context, r ScoreRequest) (Scores, error)

	// Embed returns one vector per text, [len(texts)][Info.EmbeddingSize], L2-normalised.
	Embed(ctx context.Context, texts []string) ([][]float32, error)

	// Tokenize splits a text as the model sees it.
	Tokenize(ctx context.Context, text string, o TokenizeOptions) ([]Token, error)

	// Close stops running requests with KindClosed and frees the model. A second call returns nil.
	Close() error
}

// TokenID is an index into a model's vocabulary.
type TokenID int32

// Token is one token of a text. Text holds the exact bytes it stands for, which need not be
// valid UTF-8 on their own.
type Token struct {
	ID   TokenID `json:"id"`
	Text []byte  `json:"text"`
}

// TokenizeOptions chooses how a text is split. The zero value splits plain text: no
// beginning-of-sequence token, and the spelling of a control token stays text.
type TokenizeOptions struct {
	AddSpecial   bool // add the tokens that the model expects around a text, such as BOS
	ParseSpecial bool // let the spelling of a control token become that token
}

// Info describes a loaded model and the backend that runs it.
type Info struct {
	Model         string    `json:"model"`          // the name it was loaded by
	Digest        string    `json:"digest"`         // "sha256:..." of the model file, or ""
	Architecture  string    `json:"architecture"`   // as in the file: llama, gemma3, ...
	Description   string    `json:"description"`    // such as "llama 135M Q4_1"
	Engine        string    `json:"engine"`         // such as "llama.cpp 0.5.0-dev"
	Parameters    int64     `json:"parameters"`     // number of weights
	Bytes         int64     `json:"bytes"`          // bytes of all tensors
	Vocabulary    int       `json:"vocabulary"`     // tokens
	EmbeddingSize int       `json:"embedding_size"` // values of one vector
	ContextTokens int       `json:"context_tokens"` // prompt and answer of one request together
	TrainedTokens int       `json:"trained_tokens"` // context that the model was trained with
	Sequences     int       `json:"sequences"`      // requests that can run at once
	Threads       int       `json:"threads"`        // threads of a decode step
	Abilities     Abilities `json:"abilities"`
	Adapters      []string  `json:"adapters,omitempty"` // that requests can name, sorted
	Notes         []string  `json:"notes,omitempty"`    // degraded paths, each named in one line
}

// Abilities says what a backend can do with its model, so that a caller can refuse early.
type Abilities struct {
	Generate  bool `json:"generate"`
	Chat      bool `json:"chat"`      // a chat template is known
	Tools     bool `json:"tools"`     // the template can state tools
	Reasoning bool `json:"reasoning"` // the template separates reasoning from the answer
	Grammar   bool `json:"grammar"`   // constrained output: grammar and schema
	Score     bool `json:"score"`
	Embed     bool `json:"embed"`
	Shift     bool `json:"shift"` // positions of cached tokens can be moved
}
