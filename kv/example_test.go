package kv_test

import (
	"fmt"
	"slices"

	"github.com/norion/norion/kv"
)

// Two requests with one system prompt: the second one computes only its own tokens.
func Example() {
	cache, err := kv.New(kv.Config{Sequences: 4, Cells: 4096})
	if err != nil {
		fmt.Println(err)
		return
	}
	system := []kv.Token{1, 2, 3, 4}
	for _, user := range [][]kv.Token{{10, 11}, {20, 21, 22}} {
		prompt := slices.Concat(system, user)
		a, err := cache.Begin(kv.Request{Tokens: prompt, Limit: 100, System: len(system)})
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, op := range a.Ops { // here an engine calls llama.cpp
			fmt.Println(op.Kind, "from", op.From, "to", op.Seq, "below", op.P1)
		}
		fresh := prompt[a.Reused:] // and here it computes
		if err := cache.Append(a.Seq, fresh); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("sequence", a.Seq, "computed", len(fresh), "of", len(prompt))
	}
	fmt.Println("cells", cache.Stats().Cells)
	// Output:
	// sequence 0 computed 6 of 6
	// SeqCopy from 0 to 1 below 4
	// sequence 1 computed 3 of 7
	// cells 9
}

// keepPrompt gives up the oldest half of the answer and never a token of the prompt.
type keepPrompt struct{}

func (keepPrompt) Evict(v kv.View) ([]kv.Span, error) {
	half := max(v.Over(), (v.Length-v.Prompt)/2)
	return []kv.Span{{P0: kv.Pos(v.Prompt), P1: kv.Pos(v.Prompt + half)}}, nil
}

// A policy of one's own decides what a full sequence gives up.
func Example_evictor() {
	cache, err := kv.New(kv.Config{Sequences: 1, Cells: 12, CanShift: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := cache.Begin(kv.Request{
		Tokens: []kv.Token{1, 2, 3, 4}, Limit: 12, Policy: kv.Policy{Evict: keepPrompt{}},
	})
	if err == nil {
		err = cache.Append(a.Seq, []kv.Token{1, 2, 3, 4, 50, 51, 52, 53, 54, 55, 56, 57})
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, err := cache.Reserve(a.Seq, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, op := range plan.Ops {
		fmt.Println(op.Kind, op.P0, op.P1, op.Delta)
	}
	fmt.Println(cache.Tokens(a.Seq))
	// Output:
	// SeqRemove 4 8 0
	// Shift 8 12 -4
	// [1 2 3 4 54 55 56 57]
}
