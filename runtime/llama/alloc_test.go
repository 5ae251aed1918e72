//go:build cgo

package llama_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/norion/norion/runtime/llama"
)

// TestC4FailedAllocation lets each allocation of C++ fail in turn, in every call that makes a
// value and in every one that uses it. Each is a typed error; the sanitizer sees what is left.
func TestC4FailedAllocation(t *testing.T) {
	path := tinyFile(t)
	suppressions, err := filepath.Abs(filepath.Join("testdata", "lsan.supp"))
	require.NoError(t, err)
	t.Setenv("LSAN_OPTIONS", "print_suppressions=0:suppressions="+suppressions)
	for call := range len(allocating) {
		child(t, "failed allocations", path, tinyLora(t), strconv.Itoa(call))
	}
}

// allocating are the calls; each gets a model and a context that work.
var allocating = []func(m *llama.Model, c *llama.Context, args []string) error{
	func(_ *llama.Model, _ *llama.Context, args []string) error {
		m, err := llama.LoadModel(background, llama.ModelParams{Paths: args[:1], CPUOnly: true})
		return closing(m, err)
	},
	func(m *llama.Model, _ *llama.Context, _ []string) error {
		c, err := m.NewContext(small())
		return closing(c, err)
	},
	func(m *llama.Model, _ *llama.Context, _ []string) error {
		p := random(1)
		p.Grammar.Text = `root ::= [a-z]{2,5}`
		s, err := m.NewSampler(p)
		return closing(s, err)
	},
	func(m *llama.Model, _ *llama.Context, _ []string) error {
		p := random(1)
		p.TopK, p.PenaltyPresence = 5, 1
		p.Grammar.Text = `root ::= "a" [a-z]*`
		s, err := m.NewSampler(p)
		return closing(s, err)
	},
	func(m *llama.Model, _ *llama.Context, _ []string) error {
		p := random(1)
		p.TopK = 5
		p.Grammar = llama.Grammar{Text: `root ::= [a-z]*`, Lazy: true, Triggers: []llama.Trigger{
			{Type: llama.TriggerWord, Value: "a"}, {Type: llama.TriggerToken, Token: 5},
		}}
		s, err := m.NewSampler(p)
		return closing(s, err)
	},
	func(*llama.Model, *llama.Context, []string) error {
		d, err := llama.NewDrafter(llama.DrafterParams{})
		return closing(d, err)
	},
	func(m *llama.Model, _ *llama.Context, args []string) error {
		l, err := m.LoadLora(args[1])
		return closing(l, err)
	},
	func(_ *llama.Model, _ *llama.Context, _ []string) error {
		t, err := llama.NewThreads(llama.ThreadsParams{N: 1})
		return closing(t, err)
	},
	func(_ *llama.Model, c *llama.Context, _ []string) error {
		c.Batch().Reset()
		if _, err := c.Batch().Add(5, c.PosMax(0)+1, 0, true); err != nil {
			return err
		}
		return c.Decode()
	},
	func(m *llama.Model, _ *llama.Context, _ []string) error {
		_, err := m.Tokenize("</s><s>", true, true)
		return err
	},
	func(_ *llama.Model, c *llama.Context, _ []string) error {
		size, err := c.StateSize(0, 0)
		if err != nil {
			return err
		}
		state := make([]byte, size)
		if _, err = c.StateGet(0, state, 0); err == nil {
			err = c.StateSet(0, state, 0)
		}
		return err
	},
}

func closing[T closable](v T, err error) error {
	llama.FailAllocation(-1)
	if err != nil {
		return err
	}
	return v.Close()
}

func failedAllocations(args []string) error {
	runtime.LockOSThread()
	m, err := llama.LoadModel(background, llama.ModelParams{Paths: args[:1], CPUOnly: true})
	if err != nil {
		return err
	}
	defer m.Close()
	c, err := m.NewContext(small())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := compute(c, 0, 0, 5, 6); err != nil {
		return err
	}
	which, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	const most = 20_000
	for n := range most {
		llama.FailAllocation(n)
		err := allocating[which](m, c, args)
		llama.FailAllocation(-1)
		if err == nil && n > 0 {
			fmt.Println("succeeded after", n)
			return nil
		}
		for _, code := range []llama.Code{llama.Invalid, llama.Closed, llama.InUse} {
			if isCode(err, code) {
				return fmt.Errorf("allocation %d: %w", n, err)
			}
		}
		if err := compute(c, 0, c.PosMax(0)+1, 5); err != nil {
			if !isCode(err, llama.Full) {
				return fmt.Errorf("after allocation %d: %w", n, err)
			}
			if err := c.Clear(); err != nil {
				return err
			}
			if err := compute(c, 0, 0, 5, 6); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("never succeeded in %d tries", most)
}
