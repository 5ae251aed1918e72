package engine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/gguf/gguftest"
	"github.com/norion/norion/runtime/infer"
)

// endless is a request whose every token is a chunk, for longer than a reader is waited for.
func endless() infer.Request {
	return infer.Request{Prompt: "on and on", MaxTokens: 200, IgnoreEOS: true, Logprobs: true}
}

// stuck starts a reader that takes one chunk and no more until it is released; the result is the
// last error that it saw.
func stuck(ctx context.Context, e infer.Backend, r infer.Request) (
	release func(), result <-chan error,
) {
	begun, hold, out := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		var last error
		first := true
		for c, err := range e.Generate(ctx, r) {
			last = err
			if first {
				first = false
				close(begun)
				<-hold
			}
			if c.Final != nil {
				last = errFinal
			}
		}
		out <- last
	}()
	<-begun
	return sync.OnceFunc(func() { close(hold) }), out
}

// errFinal stands for an answer that came to its end.
var errFinal = errors.New("the answer is complete")

// TestE6SlowReader: who does not read holds up the others no longer than its deadline, ctx or
// the engine's life.
func TestE6SlowReader(t *testing.T) {
	t.Run("deadline", func(t *testing.T) {
		e := openTiny(t, nil)
		r := endless()
		r.Deadline = time.Now().Add(50 * time.Millisecond)
		release, result := stuck(t.Context(), e, r)
		defer release()
		answer(t, e, infer.Request{Prompt: "next", MaxTokens: 3})
		release()
		require.Equal(t, infer.KindDeadline, infer.KindOf(wait(t, result)))
	})
	t.Run("context", func(t *testing.T) {
		e := openTiny(t, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		release, result := stuck(ctx, e, endless())
		defer release()
		cancel(errors.New("the client went away"))
		answer(t, e, infer.Request{Prompt: "next", MaxTokens: 3})
		release()
		require.Equal(t, infer.KindCanceled, infer.KindOf(wait(t, result)))
	})
	t.Run("close", func(t *testing.T) {
		e := openTiny(t, nil)
		release, result := stuck(t.Context(), e, endless())
		defer release()
		require.NoError(t, e.Close(), "nobody waits for the reader, and nothing is left open")
		release()
		require.Equal(t, infer.KindClosed, infer.KindOf(wait(t, result)))
	})
	t.Run("close by the reader", func(t *testing.T) {
		e := openTiny(t, nil)
		var last error
		for _, err := range e.Generate(t.Context(), endless()) {
			require.NoError(t, e.Close())
			last = err
		}
		require.Equal(t, infer.KindClosed, infer.KindOf(last))
	})
	t.Run("leaving the loop by a panic", func(t *testing.T) {
		e := openTiny(t, nil)
		require.Panics(t, func() {
			for range e.Generate(t.Context(), endless()) {
				panic("of the reader")
			}
		})
		require.NoError(t, e.Close())
	})
}

// TestSequenceEnds: whenever ctx ends, the last element is an error or has the whole answer.
func TestSequenceEnds(t *testing.T) {
	e := openTiny(t, nil)
	for n := 30; n < 36; n++ { // around the number of chunks that the owner is ahead
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			r := endless()
			r.MaxTokens = n
			release, result := stuck(ctx, e, r)
			cancel()
			release()
			err := wait(t, result)
			require.Error(t, err, "neither an error nor the answer's end")
			if !errors.Is(err, errFinal) {
				require.Equal(t, infer.KindCanceled, infer.KindOf(err))
			}
		}
	}
}

// TestE8PlaceOfCanceled: a request that gave up in the queue leaves its place at once.
func TestE8PlaceOfCanceled(t *testing.T) {
	e := openTiny(t, func(o *engine.Options) { o.QueueMax = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	release, result := stuck(ctx, e, endless())
	defer release()
	for range 20 {
		held, giveUp := context.WithTimeout(t.Context(), time.Millisecond)
		_, _, err := collect(held, e, endless())
		require.Equal(t, infer.KindDeadline, infer.KindOf(err), "%v", err)
		giveUp()
	}
	cancel()
	release()
	_ = wait(t, result)
}

// TestPriority: who waits is served by priority.
func TestPriority(t *testing.T) {
	e := openTiny(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	release, result := stuck(ctx, e, endless())
	defer release()
	served := make(chan int, 3)
	var wg sync.WaitGroup
	for _, p := range []int{0, -3, 7} {
		wg.Go(func() {
			r := endless() // longer than the owner runs ahead: the next one begins after the break
			r.Priority = p
			for _, err := range e.Generate(t.Context(), r) {
				assert.NoError(t, err)
				served <- p
				break
			}
		})
	}
	for e.Waiting() < 3 {
		runtime.Gosched()
	}
	cancel()
	release()
	_ = wait(t, result)
	wg.Wait()
	require.Equal(t, []int{7, 0, -3}, []int{<-served, <-served, <-served})
}

// TestR1Schedule: every method at random from many goroutines, while the engine is closed. Every
// error is of a kind that fits, the model is freed, and no goroutine stays.
func TestR1Schedule(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	path := writeModel(t, gguftest.TinyModel(1))
	before := runtime.NumGoroutine()
	for round := range rounds {
		seed := uint64(round)
		e, err := engine.Open(t.Context(), engine.Options{
			Paths: []string{path}, Threads: 1, ContextTokens: 256, QueueMax: 1 + round%5,
			Template: chatML,
		})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for i := range uint64(8) {
			wg.Go(func() {
				d := rand.New(rand.NewPCG(seed, i))
				for n := 0; n < 12; n++ {
					if err := anything(t.Context(), e, d); err != nil {
						assert.Contains(t, []infer.Kind{
							infer.KindClosed, infer.KindBusy, infer.KindCanceled, infer.KindDeadline,
						}, infer.KindOf(err), "round %d: %v", round, err)
					}
				}
			})
		}
		for range round % 4 * 20 {
			_, _ = e.Tokenize(t.Context(), "some delay", infer.TokenizeOptions{})
		}
		require.NoError(t, e.Close(), "round %d", round)
		wg.Wait()
	}
	noneLeft(t, before)
}

// noneLeft waits until there are no more goroutines than before.
func noneLeft(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("a goroutine is left:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

const chatML = `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

// anything calls one method with random arguments, and perhaps gives up on it.
func anything(ctx context.Context, e infer.Backend, d *rand.Rand) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := infer.Request{
		Prompt: "abcdefgh"[:1+d.IntN(8)], MaxTokens: 1 + d.IntN(60), IgnoreEOS: true,
		Sampling: infer.Sampling{Temperature: float32(d.IntN(2)), RepeatPenalty: 1.1},
	}
	switch d.IntN(8) {
	case 0:
		_, err := e.Tokenize(ctx, "hello", infer.TokenizeOptions{})
		return err
	case 1:
		_, err := e.Embed(ctx, []string{"hello", "you"})
		return err
	case 2:
		_, err := e.Score(ctx, infer.ScoreRequest{Context: "abc", Text: "def"})
		return err
	case 3:
		r.Deadline = time.Now().Add(time.Duration(d.IntN(3000)) * time.Microsecond)
	case 4:
		r.Prompt, r.Messages = "", []infer.Message{{Role: infer.RoleUser, Content: "hello"}}
	case 5:
		go cancel()
	}
	stopAt, n := d.IntN(80), 0
	for _, err := range e.Generate(ctx, r) {
		if err != nil {
			return err
		}
		if n++; n == stopAt {
			break
		}
	}
	return nil
}
