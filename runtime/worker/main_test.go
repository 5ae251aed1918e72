//go:build unix

package worker_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/engine"
	"github.com/norion/norion/runtime/infer"
	"github.com/norion/norion/runtime/worker"
)

// TestMain is also the child of the tests: a made-up model, or a real one where the name says so.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "worker" {
		os.Exit(m.Run())
	}
	err := worker.Main(func(ctx context.Context, o engine.Options) (infer.Backend, error) {
		if o.Model == "real" {
			e, err := engine.Open(ctx, o)
			if err != nil {
				return nil, err
			}
			return e, nil
		}
		return openFake(ctx, o)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fake is a made-up model of the child. What it shall do, requests say.
type fake struct {
	o    engine.Options
	life context.Context
	end  context.CancelFunc
}

// openFake opens a made-up model: its path says what happens.
func openFake(ctx context.Context, o engine.Options) (infer.Backend, error) {
	switch verb, arg, _ := strings.Cut(o.Paths[0], " "); verb {
	case "refuse":
		return nil, refusal()
	case "die":
		die(arg)
	case "die-if": // the file exists
		if _, err := os.Stat(arg); err == nil {
			die("exit")
		}
	case "progress":
		for i := range 4 {
			if !o.Progress(float32(i) / 4) {
				return nil, &infer.Error{Op: "open", Kind: infer.KindCanceled}
			}
		}
	case "wait":
		<-ctx.Done()
		return nil, &infer.Error{Op: "open", Kind: infer.KindCanceled, Err: ctx.Err()}
	}
	f := &fake{o: o}
	f.life, f.end = context.WithCancel(context.Background())
	return f, nil
}

// refusal is an error with all that one can have.
func refusal() *infer.Error {
	return &infer.Error{
		Op: "open", Kind: infer.KindModel, Field: "tensor", Hint: "take another file",
		Err: errors.New("it is broken"),
	}
}

func (f *fake) Info() infer.Info {
	info := infer.Info{
		Model: f.o.Model, ContextTokens: 4096, Adapters: []string{"one"},
		Abilities: infer.Abilities{Generate: true},
	}
	if path, ok := strings.CutPrefix(f.o.Paths[0], "size "); ok { // as of a file
		fi, err := os.Stat(path)
		if err != nil {
			panic(err)
		}
		info.Bytes = fi.Size()
	}
	return info
}

// Generate answers with as many tokens as it is asked for, or does what the prompt says.
func (f *fake) Generate(ctx context.Context, r infer.Request) iter.Seq2[infer.Chunk, error] {
	return func(yield func(infer.Chunk, error) bool) {
		verb, arg, _ := strings.Cut(r.Prompt, " ")
		for i := range r.MaxTokens {
			switch {
			case f.life.Err() != nil:
				yield(infer.Chunk{}, &infer.Error{Op: "generate", Kind: infer.KindClosed})
				return
			case ctx.Err() != nil:
				note(arg)
				yield(infer.Chunk{}, &infer.Error{Op: "generate", Kind: infer.KindCanceled})
				return
			case verb == "refuse" && i == 2:
				yield(infer.Chunk{}, refusal())
				return
			case verb == "die" && i == 2:
				die(arg)
			case verb == "hang" && i == 2:
				select {}
			}
			if !yield(infer.Chunk{Text: fmt.Sprint(i, " "), Tokens: 1}, nil) {
				note(arg)
				return
			}
		}
		if verb == "endless" {
			return
		}
		final := &infer.Final{Reason: infer.FinishLength, Seed: r.Sampling.Seed}
		if !r.Deadline.IsZero() {
			final.Usage.Timings.Queue = time.Until(r.Deadline)
		}
		yield(infer.Chunk{Final: final}, nil)
	}
}

// note writes into a file that a request ended early, if there is one.
func note(path string) {
	if path != "" {
		if err := os.WriteFile(path, []byte("ended"), 0o600); err != nil {
			panic(err)
		}
	}
}

func (f *fake) Score(context.Context, infer.ScoreRequest) (infer.Scores, error) {
	return infer.Scores{Sum: -1.5, Tokens: []infer.Logprob{{Logprob: -1.5}}}, nil
}

func (f *fake) Embed(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i := range texts {
		out[i] = []float32{0.6, float32(len(texts[i]))}
	}
	return out, nil
}

// Tokenize tries what a text says, and answers with how it went.
func (f *fake) Tokenize(ctx context.Context, text string, _ infer.TokenizeOptions) (
	[]infer.Token, error,
) {
	var err error
	switch verb, arg, _ := strings.Cut(text, " "); verb {
	case "write":
		err = os.WriteFile(arg, []byte("x"), 0o600)
	case "shorten":
		err = os.Truncate(arg, 0)
	case "read":
		_, err = os.ReadFile(arg)
	case "dial":
		var conn net.Conn
		network, address, _ := strings.Cut(arg, " ")
		if conn, err = (&net.Dialer{}).DialContext(ctx, network, address); err == nil {
			err = conn.Close()
		}
	case "run":
		_, err = os.StartProcess(arg, []string{arg}, &os.ProcAttr{})
	case "signal":
		pid, bad := strconv.Atoi(arg)
		if bad != nil {
			return nil, bad
		}
		err = signalZero(pid)
	case "die":
		die(arg)
	case "big":
		return []infer.Token{{Text: make([]byte, 300<<20)}}, nil
	default:
		return nil, fmt.Errorf("no verb %q", verb)
	}
	if err != nil {
		return []infer.Token{{Text: []byte(err.Error())}}, nil //nolint:nilerr // it is the answer
	}
	return []infer.Token{{Text: []byte("done")}}, nil
}

// Stats waits for ever where the model hangs.
func (f *fake) Stats(context.Context) (infer.Stats, error) {
	if f.o.Paths[0] == "stuck" {
		select {}
	}
	return infer.Stats{Totals: infer.Totals{Steps: 7}}, nil
}

func (f *fake) Close() error {
	f.end()
	if f.o.Paths[0] == "unwilling" {
		select {}
	}
	return nil
}

// open starts a worker with a made-up model; its path says what it does.
func open(t testing.TB, path string, change func(*worker.Options)) *worker.Worker {
	t.Helper()
	w, err := tryOpen(t, path, change)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

func tryOpen(t testing.TB, path string, change func(*worker.Options)) (*worker.Worker, error) {
	t.Helper()
	o := worker.Options{
		Engine:     engine.Options{Paths: []string{path}, Model: "fake"},
		BackoffMin: time.Millisecond, BackoffMax: 4 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	return worker.Open(t.Context(), o)
}

// collect runs a request to its end.
func collect(ctx context.Context, b infer.Backend, r infer.Request) (
	text string, chunks []infer.Chunk, err error,
) {
	for c, err := range b.Generate(ctx, r) {
		if err != nil {
			return text, chunks, err
		}
		text += c.Text
		chunks = append(chunks, c)
	}
	return text, chunks, nil
}
