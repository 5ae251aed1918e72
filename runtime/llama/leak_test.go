//go:build cgo

package llama_test

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// leakCycles are enough for a leak of a whole context or model to show in resident memory, which
// grows by a few megabytes anyway. The address sanitizer needs only one, and sees every byte.
const (
	leakCycles   = 1000
	leakBytesMax = 32 << 20
)

// TestLeakCycles loads, computes and frees over and over.
func TestLeakCycles(t *testing.T) {
	path, adapterPath := tinyFile(t), tinyLora(t)
	grammar := random(1)
	grammar.Grammar.Text = `root ::= [a-z]*`
	cycle := func() {
		m := load(t, llama.ModelParams{Paths: []string{path}})
		c, err := m.NewContext(small())
		require.NoError(t, err)
		s, err := m.NewSampler(grammar)
		require.NoError(t, err)
		l, err := m.LoadLora(adapterPath)
		require.NoError(t, err)
		require.NoError(t, c.SetLoras([]*llama.Lora{l}, []float32{1}))
		place := add(t, c, 0, 0, 5, 6)
		require.NoError(t, c.Step([]llama.Pick{{Sampler: s, Place: place}}))
		_, err = c.Logprobs(place, 5, make([]llama.TopLogprob, 4))
		require.NoError(t, err)
		_, err = m.NewSampler(withGrammar(`root ::= "a`))
		requireCode(t, llama.BadGrammar, err)
		requireCode(t, llama.State, c.StateSet(0, stateOf(t, c, 0)[1:], 0))
		for _, v := range []closable{c, s, l, m} {
			require.NoError(t, v.Close())
		}
	}
	for range leakCycles / 10 {
		cycle()
	}
	runtime.GC()
	before := resident(t)
	for range leakCycles {
		cycle()
	}
	runtime.GC()
	if before > 0 {
		require.Less(t, resident(t)-before, leakBytesMax, "bytes more after %d cycles", leakCycles)
	}
}

// resident is the memory of the process in bytes, 0 where the system does not say it this way.
func resident(t *testing.T) int {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	require.NoError(t, err)
	return pages * os.Getpagesize()
}
