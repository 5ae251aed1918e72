//go:build cgo

package llama_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// greedyRecording is a file of testdata/greedy, written by testdata/record_greedy.go from what
// llama.cpp's own server answered.
type greedyRecording struct {
	Peer    string         `json:"peer"`
	System  string         `json:"system"`
	Tokens  int            `json:"context_tokens"`
	Answers []greedyAnswer `json:"answers"`
}

type greedyAnswer struct {
	Prompt string        `json:"prompt"`
	Input  []llama.Token `json:"input"`
	Output []llama.Token `json:"output"`
}

const (
	greedyPrompts = 20
	greedyTokens  = 128
	// greedyGap is the widest gap, in logits, that another order of rounding is allowed to close:
	// on both models it moves logits by 0.1 on average and by about 1 at most.
	greedyGap = 1.0
)

func readGreedy(t *testing.T, name string) greedyRecording {
	data, err := os.ReadFile(filepath.Join("testdata", "greedy", name+".json"))
	require.NoError(t, err)
	var r greedyRecording
	require.NoError(t, json.Unmarshal(data, &r))
	require.Len(t, r.Answers, greedyPrompts)
	return r
}

// greedyContext has what the recording script gave the server.
func greedyContext(r greedyRecording) llama.ContextParams {
	return llama.ContextParams{Tokens: r.Tokens, Batch: 2048, MicroBatch: 512, Threads: 1}
}

// TestGreedyParity compares with llama.cpp's own server, token by token. There is one criterion:
// tokens are equal, and where they differ the two candidates were as good as equal, closer than
// what another order of rounding can move. Where the recording was made with the same processor
// features as are used here, there is no other order of rounding, and every token must be equal.
func TestGreedyParity(t *testing.T) {
	_, commit, system, err := llama.Version()
	require.NoError(t, err)
	system = strings.TrimSpace(system)
	for file, name := range map[string]string{"smollm2": smol, "gemma3": gemma} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			r := readGreedy(t, file)
			require.Contains(t, r.Peer, commit, "record again: the pin has moved")
			same := 0
			for i, a := range r.Answers {
				if compareGreedy(t, model(t, name), greedyContext(r), a, r.System == system) {
					same++
				} else {
					t.Logf("prompt %d parts from the peer within rounding", i)
				}
			}
			t.Logf("%d of %d answers equal; recorded on %q, here %q", same, len(r.Answers), r.System,
				system)
		})
	}
}

// compareGreedy follows one answer and says whether all of it was equal.
func compareGreedy(t *testing.T, m *llama.Model, p llama.ContextParams, a greedyAnswer,
	exact bool,
) bool {
	t.Helper()
	input := tokenize(t, m, a.Prompt)
	require.Equal(t, a.Input, input, "%q is split differently", a.Prompt)
	require.Len(t, a.Output, greedyTokens)
	c, err := m.NewContext(p)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	sampling := llama.DefaultSampler()
	sampling.IgnoreEOS = true
	s, err := m.NewSampler(sampling)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	pos := llama.Pos(0)
	feedNext := input
	for i, want := range a.Output {
		place := add(t, c, 0, pos, feedNext...)
		pick := []llama.Pick{{Sampler: s, Place: place}}
		require.NoError(t, c.Step(pick))
		if got := pick[0].Token; got != want {
			logits, err := c.Logits(place)
			require.NoError(t, err)
			gap := logits[got] - logits[want]
			require.False(t, exact, "%q: token %d is %d, the peer has %d", a.Prompt, i, got, want)
			require.Less(t, gap, float32(greedyGap), "%q: token %d is %d, the peer has %d",
				a.Prompt, i, got, want)
			return false
		}
		pos += llama.Pos(len(feedNext))
		feedNext = []llama.Token{want}
	}
	return true
}

// TestGreedyGap holds the criterion for other processors against a real change of rounding: with
// flash attention off the same sums are made in another order.
func TestGreedyGap(t *testing.T) {
	r := readGreedy(t, "smollm2")
	p := greedyContext(r)
	p.Flash = llama.FlashOff
	parted := 0
	for _, a := range r.Answers[:6] {
		if !compareGreedy(t, model(t, smol), p, a, false) {
			parted++
		}
	}
	require.Positive(t, parted, "the change of rounding changed nothing: the test shows nothing")
}
