//go:build cgo

package llama_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
	"github.com/norion/norion/runtime/store/storetest"
)

const (
	smol  = "smollm2:135m"
	gemma = "gemma3:270m"
)

// childVar names the function that a test process runs in place of the tests.
const childVar = "NORION_LLAMA_TEST_CHILD"

// children are the functions that a test runs in a process of its own, because a defect there
// would end the process or because it looks at the process's own standard error.
var children = map[string]func(args []string) error{
	"forged states":      forgedStates,
	"bad memory calls":   badMemoryCalls,
	"bad grammars":       badGrammarErrors,
	"left grammars":      leftGrammars,
	"load refusals":      loadRefusals,
	"odd contexts":       oddContexts,
	"failed allocations": failedAllocations,
	"foreign plug-ins":   foreignPlugins,
}

// TestMain closes what the tests share and collects twice, so that the address sanitizer sees as
// leaked only what nobody can reach.
func TestMain(m *testing.M) {
	if name := os.Getenv(childVar); name != "" {
		os.Exit(runChild(name, os.Args[1:]))
	}
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, "close the shared models:", err)
		code = 1
	}
	runtime.GC()
	runtime.GC()
	os.Exit(code)
}

func runChild(name string, args []string) int {
	fn, ok := children[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no child function", name)
		return 2
	}
	if err := fn(args); err != nil {
		fmt.Println("child:", err)
		return 1
	}
	runtime.GC()
	runtime.GC()
	return 0
}

// child runs a function of children in a process of its own and returns what it wrote to its
// standard error. The test fails when the process does.
func child(t *testing.T, name string, args ...string) (stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVar+"="+name)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	require.NoError(t, err, "%s\n%s", tail(out.String()), tail(errs.String()))
	return errs.String()
}

func tail(s string) string {
	const most = 4000
	return s[max(0, len(s)-most):]
}

// loaded is the models that the tests share.
type loaded struct {
	mu     sync.Mutex
	models map[string]*llama.Model
}

var shared = loaded{models: map[string]*llama.Model{}}

func (l *loaded) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []error
	for name, m := range l.models {
		if err := m.Close(); err != nil {
			all = append(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(all...)
}

// storedPath is the file of a model of the catalogue.
func storedPath(t testing.TB, name string) string { return storetest.Model(t, name) }

// model returns a model of the catalogue, loaded once for the whole package.
func model(t testing.TB, name string) *llama.Model {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if m := shared.models[name]; m != nil {
		return m
	}
	m := load(t, llama.ModelParams{Paths: []string{storetest.Model(t, name)}})
	shared.models[name] = m
	return m
}

// load loads a model on the processor, with NORION_TEST_GPU=1 on GPUs. The caller closes it.
func load(t testing.TB, p llama.ModelParams) *llama.Model {
	t.Helper()
	p.CPUOnly = os.Getenv("NORION_TEST_GPU") != "1"
	m, err := llama.LoadModel(t.Context(), p)
	require.NoError(t, err)
	return m
}

// small is a context of a few hundred tokens on one thread.
func small() llama.ContextParams {
	return llama.ContextParams{Tokens: 256, Batch: 256, MicroBatch: 256, Threads: 1}
}

// newContext makes a context that ends with the test.
func newContext(t testing.TB, m *llama.Model, p llama.ContextParams) *llama.Context {
	t.Helper()
	c, err := m.NewContext(p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// newSampler makes a sampler that ends with the test.
func newSampler(t testing.TB, m *llama.Model, p llama.SamplerParams) *llama.Sampler {
	t.Helper()
	s, err := m.NewSampler(p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// feed decodes tokens of one sequence from a position on, with an output at the last, and returns
// the place of that output.
func feed(t testing.TB, c *llama.Context, seq llama.Seq, from llama.Pos,
	tokens ...llama.Token,
) int {
	t.Helper()
	place := add(t, c, seq, from, tokens...)
	require.NoError(t, c.Decode())
	return place
}

func add(t testing.TB, c *llama.Context, seq llama.Seq, from llama.Pos,
	tokens ...llama.Token,
) int {
	t.Helper()
	place := -1
	for i, token := range tokens {
		var err error
		place, err = c.Batch().Add(token, from+llama.Pos(i), seq, i == len(tokens)-1)
		require.NoError(t, err)
	}
	return place
}

// logitsOf is a copy of the logits of a place.
func logitsOf(t testing.TB, c *llama.Context, place int) []float32 {
	t.Helper()
	all, err := c.Logits(place)
	require.NoError(t, err)
	return append([]float32(nil), all...)
}

func tokenize(t testing.TB, m *llama.Model, text string) []llama.Token {
	t.Helper()
	tokens, err := m.Tokenize(text, true, false)
	require.NoError(t, err)
	return tokens
}

// requireCode fails unless err is a typed error of the code, with its operation.
func requireCode(t require.TestingT, code llama.Code, err error, about ...any) {
	require.True(t, isCode(err, code), "want %v, got %v %v", code, err, about)
}

func isCode(err error, code llama.Code) bool {
	var typed *llama.Error
	return errors.As(err, &typed) && typed.Code == code && typed.Op != "" && errors.Is(err, code)
}

var background = context.Background()
