//go:build cgo

package llama_test

import (
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/llama"
)

// tiny writes the smallest model that computes and returns its parameters.
func tiny(t testing.TB) llama.ModelParams {
	return llama.ModelParams{Paths: []string{tinyFile(t)}, CPUOnly: true}
}

func tinyFile(t testing.TB) string { return write(t, "tiny.gguf", gguftest.Model().Bytes()) }

// closable is what every value over C offers.
type closable interface{ Close() error }

// made holds one of each value, made from each other.
type made struct {
	model   *llama.Model
	context *llama.Context
	sampler *llama.Sampler
	lora    *llama.Lora
	threads *llama.Threads
	drafter *llama.Drafter
}

func makeAll(t *testing.T) made {
	var all made
	var err error
	all.model = load(t, tiny(t))
	all.context, err = all.model.NewContext(small())
	require.NoError(t, err)
	all.sampler, err = all.model.NewSampler(llama.DefaultSampler())
	require.NoError(t, err)
	all.lora, err = all.model.LoadLora(tinyLora(t))
	require.NoError(t, err)
	all.threads, err = llama.NewThreads(llama.ThreadsParams{N: 1})
	require.NoError(t, err)
	all.drafter = newDrafter(t, llama.DrafterParams{})
	t.Cleanup(func() { require.NoError(t, all.drafter.Close()) }) // nothing that is closed needs it
	return all
}

// children first, the model last.
func (m made) inOrder() []closable {
	return []closable{m.context, m.sampler, m.lora, m.threads, m.drafter, m.model}
}

func TestR2CloseTwice(t *testing.T) {
	all := makeAll(t)
	for range 2 {
		for _, v := range all.inOrder() {
			require.NoError(t, v.Close(), "%T", v)
		}
	}
}

func TestR2ParentBeforeChild(t *testing.T) {
	all := makeAll(t)
	require.NoError(t, all.context.SetLoras([]*llama.Lora{all.lora}, []float32{1}))
	require.NoError(t, all.context.Attach(all.threads, nil))
	requireCode(t, llama.InUse, all.lora.Close())
	requireCode(t, llama.InUse, all.threads.Close())
	for _, child := range []closable{all.context, all.sampler, all.lora} {
		requireCode(t, llama.InUse, all.model.Close())
		require.NoError(t, child.Close(), "%T", child)
	}
	require.NoError(t, all.model.Close())
	require.NoError(t, all.threads.Close())
}

func TestR2ReplacedChildrenAreFree(t *testing.T) {
	all := makeAll(t)
	require.NoError(t, all.context.SetLoras([]*llama.Lora{all.lora, all.lora}, []float32{1, 2}))
	require.NoError(t, all.context.SetLoras([]*llama.Lora{all.lora}, []float32{1}))
	require.NoError(t, all.context.SetLoras(nil, nil))
	require.NoError(t, all.lora.Close())
	require.NoError(t, all.context.Attach(all.threads, all.threads))
	require.NoError(t, all.context.Attach(nil, all.threads))
	require.NoError(t, all.context.Attach(nil, nil))
	require.NoError(t, all.threads.Close())
	for _, v := range all.inOrder() {
		require.NoError(t, v.Close(), "%T", v)
	}
}

// usesAfterClose has one line for each exported method: what it answers after Close. A method
// that returns no error is in harmless.
func usesAfterClose(m made) map[string]func() error {
	one := []float32{0}
	c, b := m.context, m.context.Batch()
	return map[string]func() error{
		"Model.AppendPiece": func() error { _, err := m.model.AppendPiece(nil, 1, true); return err },
		"Model.Detokenize": func() error {
			_, err := m.model.Detokenize([]llama.Token{4}, false, false)
			return err
		},
		"Model.LoadLora":   func() error { _, err := m.model.LoadLora("x"); return err },
		"Model.NewContext": func() error { _, err := m.model.NewContext(small()); return err },
		"Model.NewSampler": func() error {
			_, err := m.model.NewSampler(llama.DefaultSampler())
			return err
		},
		"Model.Tokenize":    func() error { _, err := m.model.Tokenize("a", true, true); return err },
		"Context.Attach":    func() error { return c.Attach(nil, nil) },
		"Context.Clear":     c.Clear,
		"Context.Copy":      func() error { return c.Copy(0, 0, 0, 1) },
		"Context.Decode":    c.Decode,
		"Context.Divide":    func() error { return c.Divide(0, 0, 1, 2) },
		"Context.Drop":      func() error { return c.Drop(0) },
		"Context.Embedding": func() error { return c.Embedding(0, one) },
		"Context.EmbeddingAt": func() error {
			return c.EmbeddingAt(0, one)
		},
		"Context.Encode": c.Encode,
		"Context.Keep":   func() error { return c.Keep(0) },
		"Context.Logits": func() error { _, err := c.Logits(0); return err },
		"Context.Logprobs": func() error {
			_, err := c.Logprobs(0, 1, nil)
			return err
		},
		"Context.MemoryUse":     func() error { _, err := c.MemoryUse(); return err },
		"Context.Remove":        func() error { return c.Remove(0, 0, 1) },
		"Context.Sample":        func() error { _, err := c.Sample(m.sampler, 0); return err },
		"Context.SetEmbeddings": func() error { return c.SetEmbeddings(true) },
		"Context.SetLoras":      func() error { return c.SetLoras(nil, nil) },
		"Context.SetThreads":    func() error { return c.SetThreads(1, 1) },
		"Context.Shift":         func() error { return c.Shift(0, 0, 1, 1) },
		"Context.StateGet": func() error {
			_, err := c.StateGet(0, make([]byte, 8), 0)
			return err
		},
		"Context.StateSet":  func() error { return c.StateSet(0, []byte{1}, 0) },
		"Context.StateSize": func() error { _, err := c.StateSize(0, 0); return err },
		"Context.Step":      func() error { return c.Step(nil) },
		"Context.Sync":      c.Sync,
		"Context.Truncate":  func() error { return c.Truncate(0, 1) },
		"Batch.Add":         func() error { _, err := b.Add(1, 0, 0, true); return err },
		"Sampler.Accept":    func() error { return m.sampler.Accept(1, true) },
		"Drafter.Accepted":  func() error { return m.drafter.Accepted(0) },
		"Drafter.Draft":     func() error { _, err := m.drafter.Draft(nil); return err },
		"Drafter.Feed":      func() error { return m.drafter.Feed(nil) },
		"Drafter.Reset":     m.drafter.Reset,
	}
}

// harmless are the methods that answer a zero value, or facts that outlive the C side.
func harmless(t *testing.T, m made) map[string]func() {
	c, b := m.context, m.context.Batch()
	return map[string]func(){
		"Model.Attr": func() { require.Zero(t, m.model.Attr(1)) },
		"Model.EOG":  func() { require.False(t, m.model.EOG(2)) },
		"Model.Info": func() { require.Equal(t, 16, m.model.Info().Vocabulary) },
		"Model.Meta": func() {
			_, ok := m.model.Meta("general.name")
			require.False(t, ok)
		},
		"Context.Abort":  c.Abort,
		"Context.Resume": c.Resume,
		"Context.Batch":  func() { require.NotNil(t, c.Batch()) },
		"Context.Info":   func() { require.Equal(t, 256, c.Info().Tokens) },
		"Context.Model":  func() { require.Same(t, m.model, c.Model()) },
		"Context.CutMin": func() { require.EqualValues(t, 1, c.CutMin(0)) },
		"Context.PosMax": func() { require.EqualValues(t, -1, c.PosMax(0)) },
		"Context.PosMin": func() { require.EqualValues(t, -1, c.PosMin(0)) },
		"Batch.Len":      func() { require.Zero(t, b.Len()) },
		"Batch.Reset":    b.Reset,
		"Batch.Room":     func() { require.Zero(t, b.Room()) },
		"Sampler.Seed":   func() { require.Zero(t, m.sampler.Seed()) },
	}
}

// TestR2UseAfterClose fails for a method that is in neither table, so a new one needs a line.
func TestR2UseAfterClose(t *testing.T) {
	all := makeAll(t)
	for _, v := range all.inOrder() {
		require.NoError(t, v.Close())
	}
	uses, quietly := usesAfterClose(all), harmless(t, all)
	seen := 0
	for _, v := range []any{
		all.model, all.context, all.context.Batch(), all.sampler, all.lora, all.threads,
		all.drafter,
	} {
		kind := reflect.TypeOf(v)
		for i := range kind.NumMethod() {
			name := kind.Elem().Name() + "." + kind.Method(i).Name
			if kind.Method(i).Name == "Close" {
				continue
			}
			seen++
			if call := quietly[name]; call != nil {
				call()
				continue
			}
			require.Contains(t, uses, name, "a method without a line")
			requireCode(t, llama.Closed, uses[name](), name)
		}
	}
	require.Equal(t, len(uses)+len(quietly), seen, "a line without a method")
}

func TestR2UseOfClosedParts(t *testing.T) {
	all := makeAll(t)
	require.NoError(t, all.sampler.Close())
	require.NoError(t, all.lora.Close())
	require.NoError(t, all.threads.Close())
	place := add(t, all.context, 0, 0, 4)
	requireCode(t, llama.Closed,
		all.context.Step([]llama.Pick{{Sampler: all.sampler, Place: place}}))
	_, err := all.context.Sample(all.sampler, place)
	requireCode(t, llama.Closed, err)
	requireCode(t, llama.Closed,
		all.context.SetLoras([]*llama.Lora{all.lora}, []float32{1}))
	requireCode(t, llama.Closed, all.context.Attach(all.threads, nil))
	for _, v := range all.inOrder() {
		require.NoError(t, v.Close())
	}
}

func TestR2NilAndForeignParts(t *testing.T) {
	all, other := makeAll(t), makeAll(t)
	place := add(t, all.context, 0, 0, 4)
	requireCode(t, llama.Invalid, all.context.Step([]llama.Pick{{Place: place}}))
	requireCode(t, llama.Invalid,
		all.context.Step([]llama.Pick{{Sampler: other.sampler, Place: place}}))
	_, err := all.context.Sample(nil, place)
	requireCode(t, llama.Invalid, err)
	require.NoError(t, all.context.Decode())
	_, err = all.context.Sample(other.sampler, place)
	requireCode(t, llama.Invalid, err)
	requireCode(t, llama.Invalid, all.context.SetLoras([]*llama.Lora{nil}, []float32{1}))
	requireCode(t, llama.Invalid,
		all.context.SetLoras([]*llama.Lora{other.lora}, []float32{1}))
	requireCode(t, llama.Invalid, all.context.SetLoras([]*llama.Lora{all.lora}, nil))
	for _, m := range []made{all, other} {
		for _, v := range m.inOrder() {
			require.NoError(t, v.Close())
		}
	}
}

// TestR2Race closes while other goroutines use what they may use. Run it with -race.
func TestR2Race(t *testing.T) {
	for range 20 {
		m := load(t, tiny(t))
		c, err := m.NewContext(small())
		require.NoError(t, err)
		start := make(chan struct{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				<-start
				for range 50 {
					c.Abort()
					c.Resume()
				}
			})
			group.Go(func() {
				<-start
				for range 50 {
					if _, err := m.Tokenize("</s>", true, true); err != nil {
						if !errors.Is(err, llama.Closed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		close(start)
		// Abort may come from anywhere at any time: it never keeps a context from closing.
		require.NoError(t, c.Close())
		for err = m.Close(); errors.Is(err, llama.InUse); err = m.Close() {
		}
		require.NoError(t, err)
		group.Wait()
	}
}

func TestAbortStopsADecode(t *testing.T) {
	m := model(t, smol)
	p := small()
	p.MicroBatch = 32
	c := newContext(t, m, p)
	feed(t, c, 0, 0, tokenize(t, m, "Before the abort")...)
	before := c.PosMax(0)
	c.Abort()
	add(t, c, 0, before+1, 1, 2, 3)
	requireCode(t, llama.Canceled, c.Decode())
	require.Equal(t, before, c.PosMax(0), "nothing of the aborted micro-batch stays")
	add(t, c, 0, before+1, 1, 2, 3)
	requireCode(t, llama.Canceled, c.Decode(), "until Resume")
	c.Resume()
	feed(t, c, 0, before+1, 1, 2, 3)
	require.Equal(t, before+3, c.PosMax(0))
}

// TestAbortFromAnotherGoroutine stops a long prefill between two micro-batches.
func TestAbortFromAnotherGoroutine(t *testing.T) {
	m := model(t, smol)
	p := llama.ContextParams{Tokens: 2048, Batch: 2048, MicroBatch: 32, Threads: 1}
	c := newContext(t, m, p)
	for i := range 2048 {
		_, err := c.Batch().Add(llama.Token(i%1000+1), llama.Pos(i), 0, i == 2047)
		require.NoError(t, err)
	}
	done := make(chan error)
	go func() { done <- c.Decode() }()
	c.Abort()
	requireCode(t, llama.Canceled, <-done)
	require.Less(t, c.PosMax(0), llama.Pos(2047))
	require.Zero(t, (c.PosMax(0)+1)%32, "whole micro-batches stay")
}
