package engine

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/norion/norion/runtime/gguf"
	"github.com/norion/norion/runtime/infer"
)

// loadPlan is what the file says about the load.
type loadPlan struct {
	contextTokens int
	tokenBytes    int // no token is of more bytes of text
	causal        bool
	template      bool // the file has a chat template
	need          need
	pooling       gguf.Pooling
	notes         []string
}

// tokenBytesMin is the least that loadPlan allows for one token: tokenizers that drop spaces, or
// take a whole word for unknown, make few tokens of long texts.
const tokenBytesMin = 256

// check refuses what cannot work before anything is allocated.
func (o *Options) check(file *gguf.File) (loadPlan, error) {
	if err := file.CheckModel(); err != nil {
		return loadPlan{}, err
	}
	shape, err := file.Shape()
	if err != nil {
		return loadPlan{}, err
	}
	vocabulary, err := file.Vocabulary()
	if err != nil {
		return loadPlan{}, err
	}
	if len(o.Paths) > 1 && !slices.Equal(o.Paths, file.Paths()) {
		return loadPlan{}, &infer.Error{
			Op: "open", Kind: infer.KindInvalid, Field: "model",
			Hint: "name the first shard only: the others are found beside it",
			Err: fmt.Errorf("the model is in %d files, not in these %d",
				len(file.Paths()), len(o.Paths)),
		}
	}
	var adapters int64
	for _, l := range slices.AppendSeq(slices.Clone(o.Loras), maps.Values(o.Adapters)) {
		size, err := checkLora(l.Path)
		if err != nil {
			return loadPlan{}, err
		}
		adapters = add(adapters, size)
	}
	p := loadPlan{
		template: file.Has("tokenizer.chat_template"), causal: shape.Causal, pooling: shape.Pooling,
		tokenBytes: max(vocabulary.Longest, tokenBytesMin),
	}
	_, table := file.Tensor("position_embd.weight")
	if err := p.setContext(o.ContextTokens, shape.ContextLength, table); err != nil {
		return loadPlan{}, err
	}
	p.need, err = o.checkMemory(shape, p.contextTokens, adapters)
	return p, err
}

// setContext chooses the length of the context. A model that looks positions up in a table has
// none beyond those it was trained with, and llama.cpp ends the process when asked for one.
func (p *loadPlan) setContext(asked, trained int, table bool) error {
	p.contextTokens = asked
	if asked == 0 {
		p.contextTokens = ContextTokensDefault
		if trained > 0 {
			p.contextTokens = min(trained, ContextTokensDefault)
		}
	}
	switch {
	case trained == 0 || p.contextTokens <= trained:
		return nil
	case table:
		return &infer.Error{
			Op: "open", Kind: infer.KindInvalid, Field: "context",
			Hint: fmt.Sprintf("use --ctx %d or less", trained),
			Err: fmt.Errorf("the model has positions for %d tokens, not for %d",
				trained, p.contextTokens),
		}
	}
	p.notes = append(p.notes, fmt.Sprintf("the context of %d tokens is larger than the %d "+
		"that the model was trained with: what lies beyond is unreliable",
		p.contextTokens, trained))
	return nil
}

// checkLora reads an adapter file in Go before C does, and returns its bytes: all of them are
// loaded.
func checkLora(path string) (int64, error) {
	file, err := gguf.Open(path)
	if err == nil {
		defer file.Close()
		if kind := file.Kind(); kind != gguf.KindAdapter {
			return 0, &infer.Error{
				Op: "open", Kind: infer.KindModel, Field: "adapter", Hint: "name a LoRA adapter file",
				Err: fmt.Errorf("%s is of kind %s", filepath.Base(path), kind),
			}
		}
		return file.Size(), nil
	}
	out := fail("open", err)
	if e, ok := errors.AsType[*infer.Error](out); ok {
		e.Field = "adapter"
	}
	return 0, out
}
